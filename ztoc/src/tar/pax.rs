//! PAX records: a key and a value each, by which an extended header says more than a header block has room for.

use std::collections::BTreeMap;

use super::header::Header;
use crate::model::Timestamp;

/// The records of one entry. Of equal keys the last counts.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const SPARSE_MAP: &[u8] = b"GNU.sparse.map";
const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_LEN: &[u8] = b"GNU.sparse.numbytes";

/// Reads the body of an extended header.
pub(super) fn parse(mut body: &[u8]) -> Result<Records, String> {
    let mut records = Records::new();
    // Sparse files of version 0.0 repeat two keys; to be one record each, as Go has it, they are joined.
    let mut map: Vec<&[u8]> = Vec::new();
    while !body.is_empty() {
        let (key, value, rest) = record(body).ok_or("a PAX record is malformed")?;
        body = rest;
        let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || (if text { value } else { key }).contains(&0) {
            return Err(format!("a PAX record's {} has a NUL", if text { "value" } else { "key" }));
        }
        match key {
            SPARSE_OFFSET | SPARSE_LEN => {
                let wanted = if map.len().is_multiple_of(2) { SPARSE_OFFSET } else { SPARSE_LEN };
                if key != wanted || value.contains(&b',') {
                    return Err("the map of a sparse file is malformed".to_owned());
                }
                map.push(value);
            }
            _ => {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    if !map.is_empty() {
        records.insert(SPARSE_MAP.to_vec(), map.join(&b','));
    }
    Ok(records)
}

/// One record, `LENGTH KEY=VALUE\n`: key, value and what follows it.
fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = body.iter().position(|&byte| byte == b' ')?;
    let len = usize::try_from(decimal(&body[..blank])?).ok()?;
    let (record, rest) = body.split_at_checked(len)?;
    let content = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|&byte| byte == b'=')?;
    Some((&content[..equals], &content[equals + 1..], rest))
}

/// Puts the records that mean something in place of the header's own fields. Empty values mean nothing.
pub(super) fn merge(header: &mut Header, records: &Records) -> Result<(), String> {
    for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
        let no_number = || format!("the PAX record {} is no number", String::from_utf8_lossy(key));
        let number = || decimal(value).ok_or_else(no_number);
        match key.as_slice() {
            b"path" => header.name.clone_from(value),
            b"linkpath" => header.linkname.clone_from(value),
            b"uname" => header.uname.clone_from(value),
            b"gname" => header.gname.clone_from(value),
            b"uid" => header.uid = number()?,
            b"gid" => header.gid = number()?,
            b"size" => header.size = number()?,
            b"mtime" => header.mtime = time(value).ok_or_else(no_number)?,
            b"atime" | b"ctime" => {
                time(value).ok_or_else(no_number)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The record by which an entry is a sparse file: its size is that of the file and not of its data, so what lies at its offset
/// is neither all of the file nor in its place.
pub(super) fn sparse_key(records: &Records) -> Option<&'static str> {
    crate::model::sparse_key(|key| records.get(key.as_bytes()).map(Vec::as_slice))
}

/// A decimal number with or without a sign.
fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time in seconds with any number of decimals, of which nine count; the inner `None` is one that no zTOC can say.
fn time(text: &[u8]) -> Option<Option<Timestamp>> {
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = point.map_or((text, &b""[..]), |at| (&text[..at], &text[at + 1..]));
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = padded.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    // What is before the epoch is so by its fraction, too; a timestamp counts from the whole second before.
    Some(if whole.starts_with(b"-") && nanoseconds != 0 {
        seconds.checked_sub(1).and_then(|seconds| Timestamp::of_text(seconds, 1_000_000_000 - nanoseconds))
    } else {
        Timestamp::of_text(seconds, nanoseconds)
    })
}

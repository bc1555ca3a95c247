//! The maps of sparse files, in the four ways that GNU tar has written them. Parsing only: no I/O.

use super::header::{Records, number};

/// Most pieces of one sparse file: GNU tar makes one for each run of data; a million of them are 4 GB at least.
pub(super) const MAX_PIECES: usize = 1 << 20;

/// Longest line of a map, in bytes: a number of 64 bits.
const MAX_LINE: usize = 20;

/// A run of a file's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it lies in the file.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// The fields of the old format in a header or extension block: `count` pairs from `at`.
pub(super) fn old_pairs(block: &[u8], at: usize, count: usize) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    for pair in block[at..at + count * 24].chunks_exact(24) {
        if pair[0] == 0 {
            break; // an unused one
        }
        let field = |field: &[u8]| number(field).ok_or("a sparse map has what is no number");
        pieces.push(Piece { offset: field(&pair[..12])?, len: field(&pair[12..])? });
    }
    Ok(pieces)
}

/// The map of format 0.0 or 0.1, which is in the PAX records; `None` when it isn't.
pub(super) fn in_records(records: &Records) -> Result<Option<Vec<Piece>>, String> {
    let decimal = |text: &[u8]| parse_decimal(text).ok_or_else(bad_map);
    let mut numbers = Vec::new();
    if let Some(map) = records.last("GNU.sparse.map") {
        for text in map.split(|byte| *byte == b',').filter(|text| !text.is_empty()) {
            numbers.push(decimal(text)?);
        }
    } else {
        for (key, value) in records.all() {
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                if (numbers.len() % 2 == 0) != (key == b"GNU.sparse.offset") {
                    return Err(bad_map());
                }
                numbers.push(decimal(value)?);
            }
        }
        if numbers.is_empty() && records.last("GNU.sparse.numblocks").is_none() {
            return Ok(None);
        }
    }
    pairs(&numbers).map(Some)
}

/// How many lines a map of format 1.0 has which begins with `bytes`: its first line says how many pieces there are. `None`
/// when there is no first line yet.
pub(super) fn lines(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.iter().take(MAX_LINE + 1).position(|byte| *byte == b'\n') else {
        return if bytes.len() > MAX_LINE { Err(bad_map()) } else { Ok(None) };
    };
    let count = parse_decimal(&bytes[..end]).and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count <= MAX_PIECES).map(|count| Some(1 + count * 2)).ok_or_else(bad_map)
}

/// The map of format 1.0, which comes before the data and is there with all its lines; and how long it is, in bytes
/// without padding.
pub(super) fn before_data(bytes: &[u8]) -> Result<(Vec<Piece>, usize), String> {
    let wanted = lines(bytes)?.ok_or_else(bad_map)?;
    let (mut numbers, mut used) = (Vec::with_capacity(wanted), 0);
    for line in bytes.split(|byte| *byte == b'\n').take(wanted) {
        numbers.push(parse_decimal(line).ok_or_else(bad_map)?);
        used += line.len() + 1;
    }
    Ok((pairs(&numbers[1..])?, used))
}

fn bad_map() -> String {
    "a sparse map that can't be read".to_owned()
}

/// Checks that `pieces` lie in order within a file of `size` bytes and have `stored` bytes of data.
pub(super) fn check(pieces: &[Piece], size: u64, stored: u64) -> Result<(), String> {
    if pieces.len() > MAX_PIECES {
        return Err(format!("a sparse map of over {MAX_PIECES} pieces"));
    }
    let (mut end, mut sum) = (0, 0_u64);
    for piece in pieces {
        let next = piece.offset.checked_add(piece.len).filter(|next| piece.offset >= end && *next <= size);
        end = next.ok_or("a sparse map whose pieces don't lie in order within the file")?;
        sum += piece.len; // no more than `size` in all
    }
    if sum == stored {
        Ok(())
    } else {
        Err(format!("a sparse map of {sum} bytes for {stored} bytes of data"))
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Piece>, String> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_PIECES {
        return Err("a sparse map that ends early or is too long".to_owned());
    }
    Ok(numbers.chunks_exact(2).map(|pair| Piece { offset: pair[0], len: pair[1] }).collect())
}

pub(super) fn parse_decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

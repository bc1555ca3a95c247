//! Reads the entries of a tar one after the other, sparse files too.
//!
//! `ztoc` has a tar walk of its own, which is what tables are made from; it refuses what a table can't hold. This one is
//! for those layers only.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::sparse::{self, Piece};
use crate::Error;

const BLOCK: usize = 512;

/// Longest PAX or GNU extension, in bytes: as for tables.
const MAX_EXTENSION: u64 = spandrel_ztoc::limits::MAX_EXTENSION_LEN;

/// Most entries, as for tables: the directories among them are kept in memory.
const MAX_ENTRIES: u64 = spandrel_ztoc::limits::MAX_ENTRIES;

/// Most bytes that the names of all entries have, as for tables.
const MAX_NAMES: u64 = spandrel_ztoc::limits::MAX_TOC_LEN;

/// Longest map of a sparse file of format 1.0, in bytes: two numbers of up to 20 digits for each piece.
const MAX_MAP: usize = sparse::MAX_PIECES * 42;

/// Types that a layer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Hardlink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// What a tar says of a file.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Length of the file in bytes, with its holes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The time of the last access where the tar has it.
    pub atime: Option<(i64, u32)>,
    pub linkname: Vec<u8>,
    pub major: u32,
    pub minor: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a file's times are set to, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub accessed: (i64, u32),
    pub modified: (i64, u32),
}

impl Header {
    pub(super) fn times(&self) -> Times {
        Times { accessed: self.atime.unwrap_or(self.mtime).max(self.mtime), modified: self.mtime }
    }
}

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub header: Header,
    /// Where its data begins in the tar.
    pub data: u64,
    /// Which parts of the file that data is: one that is all of it, but for sparse files.
    pub pieces: Vec<Piece>,
}

/// PAX records in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The last record of this key; an empty value is as good as none.
    pub(super) fn last(&self, key: &str) -> Option<&[u8]> {
        let found = self.all().filter(|(have, _)| *have == key.as_bytes()).last();
        found.map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let bad = || "a malformed PAX record".to_owned();
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let len = sparse::parse_decimal(&bytes[..blank]).and_then(|len| usize::try_from(len).ok());
            let len = len.filter(|len| *len <= bytes.len() && *len > blank + 2).ok_or_else(bad)?;
            let (record, rest) = bytes.split_at(len);
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = rest;
        }
        Ok(Self(records))
    }
}

/// Octal digits with blanks or NULs around them, or base 256; nothing at all is 0.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // Two's complement; what is below 0 makes no sense where this is used, but for times before 1970.
        let first = u64::from(field[0] & 0x7f);
        return field[1..]
            .iter()
            .try_fold(first, |value, byte| value.checked_mul(256).map(|value| value | u64::from(*byte)));
    }
    let text: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(byte - b'0')),
        _ => None,
    })
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Seconds with a fraction, as PAX has them.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

fn check_sum(block: &[u8; BLOCK]) -> bool {
    let bytes = || block[..148].iter().chain([b' '; 8].iter()).chain(&block[156..]);
    let unsigned: u64 = bytes().map(|byte| u64::from(*byte)).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    let wanted = number(&block[148..156]);
    wanted == Some(unsigned) || wanted.is_some_and(|wanted| i64::try_from(wanted) == Ok(signed))
}

/// Reads entries.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    tar: &'a File,
    len: u64,
    at: u64,
    entries: u64,
    names: u64,
}

/// What comes before an entry's own header.
#[derive(Default)]
struct Before {
    records: Records,
    name: Option<Vec<u8>>,
    linkname: Option<Vec<u8>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tar: &'a File, len: u64) -> Self {
        Self { tar, len, at: 0, entries: 0, names: 0 }
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt(format!("tar, before byte {}: {what}", self.at))
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(self.corrupt("it ends early"));
        }
        self.tar.read_exact_at(buf, at).map_err(|e| Error::Internal(format!("read the stream: {e}")))
    }

    /// The next block, or `None` at the archive's end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        if self.at >= self.len {
            return Ok(None);
        }
        self.read(self.at, &mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.len);
        self.at = end.ok_or_else(|| self.corrupt("it ends early"))?;
        // The last entry may lack its padding.
        self.at = self.at.next_multiple_of(BLOCK as u64);
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(self.corrupt("an extension header that is too long"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(self.at, &mut bytes)?;
        self.skip(size)?;
        Ok(bytes)
    }

    /// The next entry, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut before = Before::default();
        loop {
            let Some(block) = self.block()? else { return Ok(None) };
            if !check_sum(&block) {
                return Err(self.corrupt("a header with a wrong checksum"));
            }
            let size = number(&block[124..136]).ok_or_else(|| self.corrupt("the size is no number"))?;
            match block[156] {
                b'x' => {
                    let bytes = self.extension(size)?;
                    before.records = Records::parse(&bytes).map_err(|what| self.corrupt(&what))?;
                }
                // Go passes over them too.
                b'g' => drop(self.extension(size)?),
                b'L' => before.name = Some(text(&self.extension(size)?).to_vec()),
                b'K' => before.linkname = Some(text(&self.extension(size)?).to_vec()),
                _ => return self.entry(&block, size, before).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], size: u64, before: Before) -> Result<Entry, Error> {
        let records = &before.records;
        let field = |range: std::ops::Range<usize>, what: &str| {
            number(&block[range]).ok_or_else(|| Error::Corrupt(format!("tar: the {what} is no number")))
        };
        let decimal = |key: &str, other: u64| match records.last(key) {
            None => Ok(other),
            Some(value) => sparse::parse_decimal(value)
                .ok_or_else(|| Error::Corrupt(format!("tar: the PAX record {key} is no number"))),
        };
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(self.corrupt(&format!("over {MAX_ENTRIES} entries")));
        }
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut name = text(&block[..100]).to_vec();
        let prefix = text(&block[345..500]);
        if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let name = before.name.unwrap_or(name);
        let name = records.last("path").map_or(name, <[u8]>::to_vec);
        let name = records.last("GNU.sparse.name").map_or(name, <[u8]>::to_vec);
        self.names += name.len() as u64;
        if self.names > MAX_NAMES {
            return Err(self.corrupt(&format!("names of over {MAX_NAMES} bytes")));
        }
        let linkname = before.linkname.unwrap_or_else(|| text(&block[157..257]).to_vec());
        let linkname = records.last("linkpath").map_or(linkname, <[u8]>::to_vec);
        let kind = match block[156] {
            b'0' | 0 if block[156] == 0 && name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'S' => Kind::Regular,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(self.corrupt(&format!("entry type {:?} can't be unpacked", char::from(other))));
            }
        };
        let stored = match kind {
            Kind::Regular => decimal("size", size)?,
            _ => 0,
        };
        let mtime = match records.last("mtime") {
            None => (i64::try_from(field(136..148, "mtime")?).unwrap_or_default(), 0),
            Some(value) => time(value).ok_or_else(|| self.corrupt("the PAX record mtime is no time"))?,
        };
        let xattrs = records
            .all()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.to_vec())));
        let mut header = Header {
            name,
            kind,
            mode: narrow(field(100..108, "mode")? & 0o7777),
            uid: narrow(decimal("uid", field(108..116, "uid")?)?),
            gid: narrow(decimal("gid", field(116..124, "gid")?)?),
            size: stored,
            mtime,
            atime: records.last("atime").and_then(time),
            linkname,
            major: narrow(number(&block[329..337]).unwrap_or_default()),
            minor: narrow(number(&block[337..345]).unwrap_or_default()),
            xattrs: xattrs.collect(),
        };
        let mut pieces = vec![Piece { offset: 0, len: stored }];
        let mut map_len = 0;
        let sparse = if block[156] == b'S' {
            header.size = field(483..495, "real size")?;
            Some(self.old_map(block)?)
        } else if records.last("GNU.sparse.major") == Some(b"1") {
            header.size = decimal("GNU.sparse.realsize", stored)?;
            let (map, len) = self.map_before_data(stored)?;
            map_len = len;
            Some(map)
        } else {
            let found = sparse::in_records(records).map_err(|what| self.corrupt(&what))?;
            if found.is_some() {
                header.size = decimal("GNU.sparse.size", stored)?;
            }
            found
        };
        let data = self.at + map_len;
        if let Some(map) = sparse {
            sparse::check(&map, header.size, stored - map_len).map_err(|what| self.corrupt(&what))?;
            pieces = map;
        }
        self.skip(stored)?;
        Ok(Entry { header, data, pieces })
    }

    /// The map of the old format, in the header and the blocks behind it.
    fn old_map(&mut self, block: &[u8; BLOCK]) -> Result<Vec<Piece>, Error> {
        let corrupt = |what: String| Error::Corrupt(format!("tar: {what}"));
        let mut map = sparse::old_pairs(block, 386, 4).map_err(corrupt)?;
        let mut more = block[482] != 0;
        while more {
            let mut next = [0; BLOCK];
            self.read(self.at, &mut next)?;
            self.at += BLOCK as u64;
            map.extend(sparse::old_pairs(&next, 0, 21).map_err(corrupt)?);
            if map.len() > sparse::MAX_PIECES {
                return Err(self.corrupt("a sparse map that is too long"));
            }
            more = next[504] != 0;
        }
        Ok(map)
    }

    /// The map of format 1.0 at the beginning of `stored` bytes of data, and its length with padding.
    fn map_before_data(&self, stored: u64) -> Result<(Vec<Piece>, u64), Error> {
        let mut bytes = Vec::new();
        let mut lines = 0;
        loop {
            let at = bytes.len();
            if at as u64 + BLOCK as u64 > stored || at > MAX_MAP {
                return Err(self.corrupt("a sparse map that ends early or is too long"));
            }
            bytes.resize(at + BLOCK, 0);
            self.read(self.at + at as u64, &mut bytes[at..])?;
            lines += bytes[at..].iter().filter(|byte| **byte == b'\n').count();
            // The whole is looked at once, when it is there.
            let corrupt = |what: String| self.corrupt(&what);
            if sparse::lines(&bytes).map_err(corrupt)?.is_none_or(|wanted| lines < wanted) {
                continue;
            }
            let (map, used) = sparse::before_data(&bytes).map_err(corrupt)?;
            return Ok((map, (used as u64).next_multiple_of(BLOCK as u64)));
        }
    }
}

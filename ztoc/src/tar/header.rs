//! One header block of a tar: pre-POSIX, ustar, STAR or GNU, told apart as Go does.

use std::ops::Range;

use crate::model::Timestamp;

/// Length of a block in bytes.
pub(super) const BLOCK_LEN: usize = 512;

// Where the fields are.
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINKNAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const VERSION: Range<usize> = 263..265;
const UNAME: Range<usize> = 265..297;
const GNAME: Range<usize> = 297..329;
const DEVMAJOR: Range<usize> = 329..337;
const DEVMINOR: Range<usize> = 337..345;
const USTAR_PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_ATIME: Range<usize> = 476..488;
const STAR_CTIME: Range<usize> = 488..500;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_ATIME: Range<usize> = 345..357;
const GNU_CTIME: Range<usize> = 357..369;

/// What a header block says; PAX records are merged into it.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) linkname: Vec<u8>,
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    /// `None` where no zTOC can say it.
    pub(super) mtime: Option<Timestamp>,
    pub(super) uname: Vec<u8>,
    pub(super) gname: Vec<u8>,
    pub(super) devmajor: i64,
    pub(super) devminor: i64,
}

impl Header {
    /// Reads a block that isn't all zeros.
    pub(super) fn parse(block: &[u8; BLOCK_LEN]) -> Result<Self, String> {
        check_sum(block)?;
        let field = |range: &Range<usize>| &block[range.clone()];
        let number = |range: &Range<usize>, name: &str| {
            number(field(range)).ok_or_else(|| format!("the {name} is no number"))
        };
        let seconds = number(&MTIME, "mtime")?;
        let mut header = Self {
            kind: block[KIND],
            name: text(field(&NAME)).to_vec(),
            linkname: text(field(&LINKNAME)).to_vec(),
            size: number(&SIZE, "size")?,
            mode: number(&MODE, "mode")?,
            uid: number(&UID, "uid")?,
            gid: number(&GID, "gid")?,
            mtime: Timestamp::of_text(seconds, 0),
            uname: Vec::new(),
            gname: Vec::new(),
            devmajor: 0,
            devminor: 0,
        };
        let ustar = field(&MAGIC) == b"ustar\0";
        let star = ustar && field(&STAR_TRAILER) == b"tar\0";
        let gnu = field(&MAGIC) == b"ustar " && field(&VERSION) == b" \0";
        if !ustar && !gnu {
            return Ok(header); // from before there was more
        }
        header.uname = text(field(&UNAME)).to_vec();
        header.gname = text(field(&GNAME)).to_vec();
        header.devmajor = number(&DEVMAJOR, "devmajor")?;
        header.devminor = number(&DEVMINOR, "devminor")?;
        let prefix = if star {
            number(&STAR_ATIME, "atime")?;
            number(&STAR_CTIME, "ctime")?;
            text(field(&STAR_PREFIX))
        } else if ustar {
            text(field(&USTAR_PREFIX))
        } else {
            gnu_prefix(block)
        };
        if !prefix.is_empty() {
            header.name = [prefix, b"/", &header.name].concat();
        }
        Ok(header)
    }
}

/// GNU's header has times where ustar has the prefix. Old versions of Go put a prefix there all the same: it is taken for one
/// where the times are none and it is ASCII.
fn gnu_prefix(block: &[u8; BLOCK_LEN]) -> &[u8] {
    let is_time = |range: Range<usize>| block[range.start] == 0 || number(&block[range]).is_some();
    if is_time(GNU_ATIME) && is_time(GNU_CTIME) {
        return b"";
    }
    let prefix = text(&block[USTAR_PREFIX]);
    if prefix.is_ascii() { prefix } else { b"" }
}

/// The sum of all bytes, with blanks for the sum itself; some old tars took the bytes for signed.
fn check_sum(block: &[u8; BLOCK_LEN]) -> Result<(), String> {
    let wanted = octal(&block[CHECKSUM]);
    let bytes = || block[..CHECKSUM.start].iter().chain([b' '; 8].iter()).chain(&block[CHECKSUM.end..]);
    let unsigned: i64 = bytes().map(|&byte| i64::from(byte)).sum();
    let high = i64::try_from(bytes().filter(|byte| **byte >= 0x80).count()).expect("counts a block's bytes");
    if wanted == Some(unsigned) || wanted == Some(unsigned - 256 * high) {
        Ok(())
    } else {
        Err("wrong checksum".to_owned())
    }
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal digits, or in base 256 when its first bit is set. `None` when it is none, or has more than 64 bits.
fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Octal digits with blanks and NULs around them; nothing at all is 0.
fn octal(field: &[u8]) -> Option<i64> {
    let filler = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !filler(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !filler(byte))?;
    // The longest field has twelve digits: 36 bits.
    text(&field[start..=end])
        .iter()
        .try_fold(0, |value, byte| matches!(byte, b'0'..=b'7').then(|| value << 3 | i64::from(byte - b'0')))
}

/// Two's complement, highest byte first, but for the first bit, which only says that this is one.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    let mask = if negative { 0xff } else { 0 };
    let mut value = 0_u64;
    for (index, byte) in field.iter().enumerate() {
        let byte = (byte ^ mask) & if index == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

//! Gzip's member header, read byte by byte as it comes in: what follows it is deflate, and not this module's.

/// Bytes of CRC and length after each member's deflate stream.
pub(crate) const TRAILER_LEN: usize = 8;

const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// What the next byte of the header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Byte of this number of the ten that every header has.
    Fixed(u8),
    /// Low byte of the extra field's length.
    ExtraLow,
    /// High byte of it; the low one is this.
    ExtraHigh(u8),
    /// The extra field, with so many bytes left.
    Extra(u16),
    /// The file's name, up to a zero byte.
    Name,
    /// The comment, up to a zero byte.
    Comment,
    /// Low byte of the header's own CRC.
    CrcLow,
    /// High byte of it; the low one is this.
    CrcHigh(u8),
    /// Nothing: the deflate stream begins.
    Deflate,
}

/// A member header on its way in. Names and comments of any length are passed over, never kept.
#[derive(Debug)]
pub(crate) struct Header {
    next: Next,
    flags: u8,
    crc: crc32fast::Hasher,
}

impl Header {
    pub(crate) fn new() -> Self {
        Self { next: Next::Fixed(0), flags: 0, crc: crc32fast::Hasher::new() }
    }

    /// Whether no byte has come in yet: where a blob may end.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == Next::Fixed(0)
    }

    /// Takes the header's part of `input`: how many bytes that was, and whether the header is complete.
    pub(crate) fn push(&mut self, input: &[u8]) -> Result<(usize, bool), &'static str> {
        for (index, &byte) in input.iter().enumerate() {
            self.byte(byte)?;
            if self.next == Next::Deflate {
                return Ok((index + 1, true));
            }
        }
        Ok((input.len(), false))
    }

    fn byte(&mut self, byte: u8) -> Result<(), &'static str> {
        if !matches!(self.next, Next::CrcLow | Next::CrcHigh(_)) {
            self.crc.update(&[byte]);
        }
        self.next = match self.next {
            Next::Fixed(0) if byte != 0x1f => return Err("not a gzip member"),
            Next::Fixed(1) if byte != 0x8b => return Err("not a gzip member"),
            Next::Fixed(2) if byte != 8 => return Err("a gzip member that isn't deflated"),
            Next::Fixed(3) => {
                if byte & RESERVED != 0 {
                    return Err("unknown flags in a gzip header");
                }
                self.flags = byte;
                Next::Fixed(4)
            }
            Next::Fixed(9) => self.option(FEXTRA | FNAME | FCOMMENT | FHCRC),
            Next::Fixed(number) => Next::Fixed(number + 1),
            Next::ExtraLow => Next::ExtraHigh(byte),
            Next::ExtraHigh(low) => match u16::from_le_bytes([low, byte]) {
                0 => self.option(FNAME | FCOMMENT | FHCRC),
                len => Next::Extra(len),
            },
            Next::Extra(1) => self.option(FNAME | FCOMMENT | FHCRC),
            Next::Extra(left) => Next::Extra(left - 1),
            Next::Name if byte == 0 => self.option(FCOMMENT | FHCRC),
            Next::Comment if byte == 0 => self.option(FHCRC),
            Next::CrcLow => Next::CrcHigh(byte),
            Next::CrcHigh(low) => {
                let [c0, c1, ..] = self.crc.clone().finalize().to_le_bytes();
                if [low, byte] != [c0, c1] {
                    return Err("wrong CRC of a gzip header");
                }
                Next::Deflate
            }
            same @ (Next::Name | Next::Comment | Next::Deflate) => same,
        };
        Ok(())
    }

    /// The first part that this header has of those in `parts`, which come in this order.
    fn option(&self, parts: u8) -> Next {
        let has = self.flags & parts;
        if has & FEXTRA != 0 {
            Next::ExtraLow
        } else if has & FNAME != 0 {
            Next::Name
        } else if has & FCOMMENT != 0 {
            Next::Comment
        } else if has & FHCRC != 0 {
            Next::CrcLow
        } else {
            Next::Deflate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3], rest].concat()
    }

    #[test]
    fn a_header_ends_where_its_options_do() {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header(FHCRC, b""));
        let [c0, c1, ..] = crc.finalize().to_le_bytes();
        for (flags, rest) in [
            (0, &b""[..]),
            (1, b""), // FTEXT says nothing about the header
            (FEXTRA, b"\0\0"),
            (FEXTRA, b"\x03\0abc"),
            (FNAME, b"name\0"),
            (FCOMMENT, b"\0"),
            (FEXTRA | FNAME | FCOMMENT, b"\x01\0xn\0c\0"),
            (FHCRC, &[c0, c1]),
        ] {
            let bytes = header(flags, rest);
            let mut whole = Header::new();
            assert_eq!(whole.push(&[&bytes[..], b"deflate"].concat()), Ok((bytes.len(), true)), "{rest:?}");
            let mut single = Header::new();
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(single.push(&[*byte]), Ok((1, index + 1 == bytes.len())), "{rest:?} byte {index}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            vec![0x1e],
            vec![0x1f, 0x8c],
            vec![0x1f, 0x8b, 7],
            header(0x20, b""),
            header(FHCRC, b"\0\0"), // the CRC of this header isn't 0
        ] {
            assert!(Header::new().push(&bytes).is_err(), "{bytes:?}");
        }
    }
}

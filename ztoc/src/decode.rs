//! Decoding one span from its checkpoint.
//!
//! A span begins anywhere in a byte. zlib has a call that puts the odd bits into the decoder's bit buffer; here they are
//! put there by decoding: a prefix of empty deflate blocks, as many bits long as are missing to a whole byte.

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use crate::gzip::{Header, TRAILER_LEN};
use crate::limits::{MAX_RATIO, RATIO_SLACK};
use crate::model::Compression;
use crate::{Error, WINDOW_LEN};

/// Logarithm of [`WINDOW_LEN`], as zlib wants it.
const WINDOW_BITS: u8 = 15;

/// Decodes one span: `compressed` are all its bytes in the blob, `bits` and `window` come from its checkpoint (an empty
/// window when it has none), and exactly `uncompressed_len` bytes come out. Plain tar is copied.
///
/// Gzip members that end and begin within the span are passed over; their CRC isn't looked at, since the caller has
/// checked the digest of `compressed`.
///
/// # Errors
/// When the bytes are no deflate stream, end early, or give fewer bytes than `uncompressed_len`.
pub fn decode_span(
    compression: Compression,
    bits: u8,
    window: &[u8],
    compressed: &[u8],
    uncompressed_len: usize,
) -> Result<Vec<u8>, Error> {
    if compression == Compression::Uncompressed {
        return compressed.get(..uncompressed_len).map(<[u8]>::to_vec).ok_or_else(|| {
            corrupt(compressed.len(), format!("ends before byte {uncompressed_len} of the span"))
        });
    }
    let most = (compressed.len() as u64).saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK);
    if uncompressed_len as u64 > most {
        return Err(Error::Limit { what: "length of the span", value: uncompressed_len as u64, limit: most });
    }
    let mut out = vec![0; uncompressed_len];
    if uncompressed_len != 0 {
        inflate(bits, window, compressed, &mut out)?;
    }
    Ok(out)
}

fn corrupt(offset: usize, what: impl Into<String>) -> Error {
    Error::Corrupt { format: "gzip", offset: offset as u64, what: what.into() }
}

/// Fills `out`, which isn't empty.
fn inflate(bits: u8, window: &[u8], compressed: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let mut inflater = Inflate::new(false, WINDOW_BITS);
    let recent = &window[window.len().saturating_sub(WINDOW_LEN)..];
    if !recent.is_empty() {
        inflater.set_dictionary(recent).map_err(|error| corrupt(0, error.as_str()))?;
    }
    let mut input = compressed;
    if bits != 0 {
        let (&first, rest) = compressed.split_first().ok_or_else(|| corrupt(0, "the span has no bytes"))?;
        // Seven bits are less than a block's head and one byte of content: nothing comes out yet.
        feed(&mut inflater, &mut &*prefix(bits, first)?, out).map_err(|error| corrupt(0, error.as_str()))?;
        input = rest;
    }
    let mut filled = 0;
    loop {
        let at = compressed.len() - input.len();
        let before = (input.len(), filled);
        let (made, ended) = feed(&mut inflater, &mut input, &mut out[filled..])
            .map_err(|error| corrupt(at, inflater.error_message().unwrap_or(error.as_str())))?;
        filled += made;
        if filled == out.len() {
            return Ok(());
        }
        if ended {
            let rest = input.get(TRAILER_LEN..).unwrap_or_default();
            let (len, complete) = Header::new().push(rest).map_err(|what| corrupt(at, what))?;
            if !complete {
                return Err(corrupt(compressed.len(), ends_early(filled, out.len())));
            }
            input = &rest[len..];
            inflater.reset(false); // a new member refers to nothing before it
        } else if (input.len(), filled) == before {
            return Err(corrupt(compressed.len(), ends_early(filled, out.len())));
        }
    }
}

fn ends_early(filled: usize, wanted: usize) -> String {
    format!("ends after {filled} of the span's {wanted} bytes")
}

/// Inflates as much of `input` as fits `out`: how many bytes that made, and whether the deflate stream has ended.
fn feed(inflater: &mut Inflate, input: &mut &[u8], out: &mut [u8]) -> Result<(usize, bool), InflateError> {
    let (taken, made) = (inflater.total_in(), inflater.total_out());
    let status = inflater.decompress(input, out, InflateFlush::NoFlush)?;
    *input = &input[count(inflater.total_in() - taken)..];
    Ok((count(inflater.total_out() - made), status == Status::StreamEnd))
}

/// A count of bytes in memory.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("counts bytes of a slice")
}

/// Empty blocks that end `bits` bits before a byte does, and the `bits` high-order bits of `first` after them.
fn prefix(bits: u8, first: u8) -> Result<Vec<u8>, Error> {
    if bits > 7 {
        return Err(Error::Invalid { field: "checkpoint.bits", what: format!("is {bits}, above 7") });
    }
    let mut prefix = Bits::default();
    // A block with fixed codes and nothing in it has ten bits: to an odd number of bits it takes another one.
    if bits % 2 == 1 {
        prefix.push_odd_block();
    }
    while !(prefix.used + bits).is_multiple_of(8) {
        prefix.push(0b010, 3); // not the last block, fixed codes
        prefix.push(0, 7); // end of block
    }
    prefix.push(u16::from(first >> (8 - bits)), bits);
    Ok(prefix.bytes)
}

/// Bits in the order of deflate: the first is the lowest of the first byte.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are used: 0 to 7, 0 when it is full.
    used: u8,
}

impl Bits {
    /// Appends the `count` low-order bits of `value`, lowest first.
    fn push(&mut self, value: u16, count: u8) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> bit & 1 == 1) << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// Appends a block with codes of its own and nothing in it: 93 bits. Its only literal code is the end of the block,
    /// of one bit, and it has one distance code, as the format asks for.
    fn push_odd_block(&mut self) {
        self.push(0b100, 3); // not the last block, dynamic codes
        self.push(0, 5); // 257 literal codes
        self.push(0, 5); // 1 distance code
        self.push(15, 4); // 19 code length codes, in deflate's own order:
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] {
            self.push(u16::from(symbol == 1 || symbol == 18), 3); // two of one bit each: `1` is 0, `18` is 1
        }
        for zeros in [138, 118] {
            self.push(1, 1); // `18`: a run of zeros, of 11 and these many more; 256 in all
            self.push(zeros - 11, 7);
        }
        self.push(0, 1); // literal code 256, the end of the block: length 1
        self.push(0, 1); // distance code 0: length 1
        self.push(0, 1); // the end of the block
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

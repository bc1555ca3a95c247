//! Decoding one span from its checkpoint, at once or while its bytes arrive.
//!
//! A span needs its window and the odd bits of its first byte, and nothing of the spans before it. That its bytes are the
//! right ones is the caller's to check, by the span's digest, before it uses what came out.

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use crate::gzip::{Header, TRAILER_LEN};
use crate::limits::{MAX_RATIO, RATIO_SLACK};
use crate::model::Compression;
use crate::prefix::prefix;
use crate::{Error, WINDOW_LEN};

/// Logarithm of [`WINDOW_LEN`], as zlib wants it.
const WINDOW_BITS: u8 = 15;

/// By how much the output grows where its length isn't known, in bytes: padding behind a tar is mostly a few KiB.
const GROWTH: usize = 64 * 1024;

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
    let most = (compressed.len() as u64).saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK);
    if uncompressed_len as u64 > most {
        return Err(Error::Limit { what: "length of the span", value: uncompressed_len as u64, limit: most });
    }
    let mut decoder = SpanDecoder::new(compression, bits, window, uncompressed_len)?;
    decoder.push(compressed)?;
    decoder.finish()
}

/// Decodes a span while its bytes arrive.
pub struct SpanDecoder {
    state: State,
    out: Vec<u8>,
    /// How much of `out` has been decoded.
    filled: usize,
    goal: Goal,
    /// How many bytes of the span were taken.
    taken: u64,
}

/// How much is to come out.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// This many bytes; what follows in the input isn't looked at.
    Exactly(usize),
    /// All there is, and no more than this.
    AtMost(usize),
}

/// What the next byte of the input is.
enum State {
    /// Of a plain tar.
    Copied,
    /// The span's first, of which so many high-order bits count.
    FirstByte(Box<Inflate>, u8),
    /// Of a deflate stream.
    Deflate(Box<Inflate>),
    /// Of a member's trailer, of which so many bytes are left.
    Trailer(Box<Inflate>, usize),
    /// Of the next member's header.
    Header(Box<Inflate>, Header),
    /// Not to be looked at: an error was found before it.
    Broken,
}

impl std::fmt::Debug for SpanDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanDecoder")
            .field("goal", &self.goal)
            .field("taken", &self.taken)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl SpanDecoder {
    /// A decoder for a span that has `uncompressed_len` bytes of stream, which are allocated here: the caller has them
    /// from a [`crate::Span`], whose length was checked.
    ///
    /// # Errors
    /// When `bits` is above 7.
    pub fn new(
        compression: Compression,
        bits: u8,
        window: &[u8],
        uncompressed_len: usize,
    ) -> Result<Self, Error> {
        let state = State::new(compression, bits, window)?;
        let out = vec![0; uncompressed_len];
        Ok(Self { state, out, filled: 0, goal: Goal::Exactly(uncompressed_len), taken: 0 })
    }

    /// A decoder for a layer's *last* span up to the end of the blob, also behind the tar's end, where a stream has
    /// padding that no span's length counts and that a digest of the whole stream (the diff ID) needs.
    ///
    /// # Errors
    /// When `bits` is above 7.
    pub fn to_end(compression: Compression, bits: u8, window: &[u8], max_len: usize) -> Result<Self, Error> {
        let state = State::new(compression, bits, window)?;
        Ok(Self { state, out: Vec::new(), filled: 0, goal: Goal::AtMost(max_len), taken: 0 })
    }

    /// What came out so far.
    pub fn decoded(&self) -> &[u8] {
        &self.out[..self.filled]
    }

    /// Takes the span's next bytes.
    ///
    /// # Errors
    /// When the bytes are no deflate stream, or more comes out than was said to.
    pub fn push(&mut self, mut input: &[u8]) -> Result<(), Error> {
        while !self.is_full() {
            let before = input.len();
            let made = self.step(&mut input)?;
            let taken = before - input.len();
            self.taken += taken as u64;
            if taken == 0 && made == 0 {
                break;
            }
        }
        Ok(())
    }

    /// All of the span has been pushed: what came out.
    ///
    /// # Errors
    /// When that is less than was said to.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        let whole = match (self.goal, &self.state) {
            (Goal::Exactly(len), _) => self.filled == len,
            (Goal::AtMost(_), State::Copied) => true,
            (Goal::AtMost(_), State::Header(_, header)) => header.is_empty(),
            (Goal::AtMost(_), _) => false,
        };
        if !whole {
            let wanted = match self.goal {
                Goal::Exactly(len) => format!("of the span's {len} bytes"),
                Goal::AtMost(_) => "within a member".to_owned(),
            };
            return Err(self.corrupt(format!("ends after {} {wanted}", bytes(self.filled))));
        }
        self.out.truncate(self.filled);
        Ok(self.out)
    }

    fn is_full(&self) -> bool {
        matches!(self.goal, Goal::Exactly(len) if self.filled == len)
    }

    fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::Corrupt { format: "gzip", offset: self.taken, what: what.into() }
    }

    /// Makes room for more to come out, where there is no fixed length.
    fn grow(&mut self) -> Result<(), Error> {
        let Goal::AtMost(max) = self.goal else { return Ok(()) };
        if self.filled > max {
            let (value, limit) = (self.filled as u64, max as u64);
            return Err(Error::Limit { what: "length of the last span", value, limit });
        }
        if self.filled == self.out.len() {
            // One more than the limit, to see that it is passed.
            self.out.resize(self.out.len().saturating_add(GROWTH).min(max.saturating_add(1)), 0);
        }
        Ok(())
    }

    /// Takes some of `input`, and says how many steps forward came of it besides (bytes, or a change of state).
    fn step(&mut self, input: &mut &[u8]) -> Result<usize, Error> {
        self.grow()?;
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Copied => {
                let len = input.len().min(self.out.len() - self.filled);
                let (now, later) = input.split_at(len);
                self.out[self.filled..self.filled + len].copy_from_slice(now);
                *input = later;
                self.filled += len;
                self.state = State::Copied;
                Ok(0)
            }
            State::FirstByte(mut inflater, bits) => {
                let Some((&first, rest)) = input.split_first() else {
                    self.state = State::FirstByte(inflater, bits);
                    return Ok(0);
                };
                // Seven bits are less than a block's head and one byte of content: nothing comes out yet.
                feed(&mut inflater, &mut &*prefix(bits, first), &mut self.out[self.filled..])
                    .map_err(|error| self.corrupt(error.as_str()))?;
                *input = rest;
                self.state = State::Deflate(inflater);
                Ok(0)
            }
            State::Deflate(mut inflater) => {
                let (made, ended) = feed(&mut inflater, input, &mut self.out[self.filled..])
                    .map_err(|error| self.corrupt(inflater.error_message().unwrap_or(error.as_str())))?;
                self.filled += made;
                self.state =
                    if ended { State::Trailer(inflater, TRAILER_LEN) } else { State::Deflate(inflater) };
                Ok(made + usize::from(ended))
            }
            State::Trailer(inflater, left) => {
                let (_, later) = input.split_at(input.len().min(left));
                let left = left - (input.len() - later.len());
                *input = later;
                self.state = match left {
                    0 => State::Header(inflater, Header::new()),
                    left => State::Trailer(inflater, left),
                };
                Ok(0)
            }
            State::Header(mut inflater, mut header) => {
                let (len, complete) = header.push(input).map_err(|what| self.corrupt(what))?;
                *input = &input[len..];
                self.state = if complete {
                    inflater.reset(false); // a new member refers to nothing before it
                    State::Deflate(inflater)
                } else {
                    State::Header(inflater, header)
                };
                Ok(0)
            }
            State::Broken => Err(self.corrupt("was broken before")),
        }
    }
}

impl State {
    fn new(compression: Compression, bits: u8, window: &[u8]) -> Result<Self, Error> {
        if bits > 7 {
            return Err(Error::Invalid { field: "checkpoint.bits", what: format!("is {bits}, above 7") });
        }
        if compression == Compression::Uncompressed {
            return Ok(Self::Copied);
        }
        let mut inflater = Box::new(Inflate::new(false, WINDOW_BITS));
        let recent = &window[window.len().saturating_sub(WINDOW_LEN)..];
        if !recent.is_empty() {
            inflater.set_dictionary(recent).map_err(|error| Error::Corrupt {
                format: "gzip",
                offset: 0,
                what: error.as_str().to_owned(),
            })?;
        }
        Ok(if bits == 0 { Self::Deflate(inflater) } else { Self::FirstByte(inflater, bits) })
    }
}

fn bytes(count: usize) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

/// Inflates as much of `input` as fits `out`: how many bytes that made, and whether the deflate stream has ended.
///
/// The decoder looks a symbol ahead: an error behind the last byte that fits `out` is none.
fn feed(inflater: &mut Inflate, input: &mut &[u8], out: &mut [u8]) -> Result<(usize, bool), InflateError> {
    let (taken, made) = (inflater.total_in(), inflater.total_out());
    let status = inflater.decompress(input, out, InflateFlush::NoFlush);
    *input = &input[count(inflater.total_in() - taken)..];
    let made = count(inflater.total_out() - made);
    match status {
        Err(_) if made == out.len() && made != 0 => Ok((made, false)),
        status => Ok((made, status? == Status::StreamEnd)),
    }
}

/// A count of bytes in memory.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("counts bytes of a slice")
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

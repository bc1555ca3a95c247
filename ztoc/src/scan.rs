//! Inflates a gzip blob from its start to its end and finds the checkpoints on the way.
//!
//! Where a checkpoint is taken is to the byte and bit what the Go tool does (with zlib), since the checkpoints decide the
//! zTOC's digest: after the first member's header, and then at every end of a block that isn't its member's last, or of
//! a later member's header, when more than the span size came out since the last checkpoint. Only in one thing we differ:
//! there is one checkpoint at byte 0 of the stream, however many blocks or members are empty at its start.
//!
//! What happens with checkpoints, windows and stream is `build`'s.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::gzip::{Header, TRAILER_LEN};
use crate::model::Checkpoint;
use crate::{Error, WINDOW_LEN};

/// Output between two moves of the window to the buffer's front, in bytes: long enough that the moves cost little.
const ROOM: usize = 256 * 1024;

/// A blob that is being inflated.
pub(crate) struct Scan {
    phase: Phase,
    inflater: Box<DecompressorOxide>,
    /// The last 32 KiB of the stream (zeros where there is none yet) and room for more.
    buf: Vec<u8>,
    /// Where the next byte of the stream goes in `buf`; at least [`WINDOW_LEN`].
    pos: usize,
    /// Where the member's own output begins in `buf`: it can't refer to anything before.
    member: usize,
    /// CRC and length of the member's output so far.
    crc: crc32fast::Hasher,
    member_len: u32,
    total_in: u64,
    total_out: u64,
    span_size: u64,
    /// Where the last checkpoint lies in the stream; `None` before the first.
    last: Option<u64>,
}

enum Phase {
    Header(Header),
    Deflate,
    Trailer([u8; TRAILER_LEN], usize),
}

/// What one call of [`Scan::step`] has done.
#[derive(Debug)]
pub(crate) struct Step<'s> {
    /// How many bytes of the input it took.
    pub(crate) taken: usize,
    /// What came out.
    pub(crate) output: &'s [u8],
    /// A checkpoint that lies right behind the taken input and the output.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Whether there may be more output without more input.
    pub(crate) more: bool,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("total_in", &self.total_in).field("total_out", &self.total_out).finish()
    }
}

impl Scan {
    pub(crate) fn new(span_size: u64) -> Self {
        Self {
            phase: Phase::Header(Header::new()),
            inflater: Box::default(),
            buf: vec![0; WINDOW_LEN + ROOM],
            pos: WINDOW_LEN,
            member: WINDOW_LEN,
            crc: crc32fast::Hasher::new(),
            member_len: 0,
            total_in: 0,
            total_out: 0,
            span_size,
            last: None,
        }
    }

    /// The 32 KiB of stream before its end as it is now, oldest byte first: the window of a checkpoint just reported.
    pub(crate) fn window(&self) -> &[u8] {
        &self.buf[self.pos - WINDOW_LEN..self.pos]
    }

    fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::Corrupt { format: "gzip", offset: self.total_in, what: what.into() }
    }

    /// Takes some of `input`: up to the next checkpoint, or as much as there is room for.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step<'_>, Error> {
        let from = self.pos;
        match &mut self.phase {
            Phase::Header(header) => {
                let (taken, complete) = header.push(input).map_err(|what| Error::Corrupt {
                    format: "gzip",
                    offset: self.total_in,
                    what: what.to_owned(),
                })?;
                self.total_in += taken as u64;
                if complete {
                    *self.inflater = DecompressorOxide::new();
                    self.member = self.pos;
                    self.crc = crc32fast::Hasher::new();
                    self.member_len = 0;
                    self.phase = Phase::Deflate;
                }
                let checkpoint = complete.then(|| self.checkpoint(0)).flatten();
                Ok(Step { taken, output: &[], checkpoint, more: false })
            }
            Phase::Deflate => self.inflate(input),
            Phase::Trailer(bytes, filled) => {
                let taken = input.len().min(TRAILER_LEN - *filled);
                bytes[*filled..*filled + taken].copy_from_slice(&input[..taken]);
                *filled += taken;
                self.total_in += taken as u64;
                if *filled == TRAILER_LEN {
                    let [c0, c1, c2, c3, l0, l1, l2, l3] = *bytes;
                    if u32::from_le_bytes([c0, c1, c2, c3]) != self.crc.clone().finalize() {
                        return Err(self.corrupt("wrong CRC of a member"));
                    }
                    if u32::from_le_bytes([l0, l1, l2, l3]) != self.member_len {
                        return Err(self.corrupt("wrong length of a member"));
                    }
                    self.phase = Phase::Header(Header::new());
                }
                Ok(Step { taken, output: &self.buf[from..from], checkpoint: None, more: false })
            }
        }
    }

    fn inflate(&mut self, input: &[u8]) -> Result<Step<'_>, Error> {
        if self.pos == self.buf.len() {
            self.buf.copy_within(self.pos - WINDOW_LEN.., 0);
            self.member = self.member.saturating_sub(self.pos - WINDOW_LEN);
            self.pos = WINDOW_LEN;
        }
        let from = self.pos;
        let room = (self.buf.len() - from) as u64;
        // Stopping costs a little: no need to where no checkpoint can be due before the room is used up.
        let stop = self.last.is_none_or(|last| self.total_out + room - last > self.span_size);
        let flags = TINFL_FLAG_HAS_MORE_INPUT
            | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
            | if stop { TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY } else { 0 };
        let out = &mut self.buf[self.member..];
        let (status, taken, made) = decompress(&mut self.inflater, input, out, from - self.member, flags);
        self.total_in += taken as u64;
        self.total_out += made as u64;
        self.pos += made;
        let output = &self.buf[from..self.pos];
        self.crc.update(output);
        // The trailer has the length modulo 2^32; `made` is at most ROOM.
        self.member_len = self.member_len.wrapping_add(u32::try_from(made).unwrap_or_default());
        let mut checkpoint = None;
        let more = match status {
            TINFLStatus::Done => {
                self.phase = Phase::Trailer([0; TRAILER_LEN], 0);
                false
            }
            TINFLStatus::NeedsMoreInput => false,
            TINFLStatus::HasMoreOutput => true,
            TINFLStatus::BlockBoundary => {
                let bits = self.inflater.block_boundary_state().map_or(0, |state| state.num_bits);
                checkpoint = self.checkpoint(bits);
                true
            }
            _ => return Err(self.corrupt("not a deflate stream")),
        };
        Ok(Step { taken, output: &self.buf[from..self.pos], checkpoint, more })
    }

    /// The checkpoint at this boundary, if one is due.
    fn checkpoint(&mut self, bits: u8) -> Option<Checkpoint> {
        if self.last.is_some_and(|last| self.total_out - last <= self.span_size) {
            return None;
        }
        self.last = Some(self.total_out);
        Some(Checkpoint { compressed_offset: self.total_in, uncompressed_offset: self.total_out, bits })
    }

    /// The blob has ended.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Header(header) if header.is_empty() && self.last.is_some() => Ok(()),
            _ => Err(self.corrupt("ends within a member")),
        }
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;

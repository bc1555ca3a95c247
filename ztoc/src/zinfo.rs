//! The blob in a zTOC's field `checkpoints`: for gzip a packed list of checkpoints with their windows, for plain tar a
//! small flatbuffer that says how long a span is.
//!
//! Only its own layout is checked here; whether the checkpoints make spans is `span`'s to say.

use crate::codec::{Builder, Table};
use crate::limits::MAX_SPANS;
use crate::model::{Checkpoint, Compression, Ztoc};
use crate::{Error, WINDOW_LEN};

/// Length of the head: the number of checkpoints (32 bits) and the span size (64 bits).
pub(crate) const HEAD_LEN: usize = 12;
/// Length of a checkpoint before its window: two offsets of 64 bits, and the odd bits.
pub(crate) const PLACE_LEN: usize = 17;
/// Length of a checkpoint with its window.
pub(crate) const CHECKPOINT_LEN: usize = PLACE_LEN + WINDOW_LEN;
/// Where the deflate stream begins when the first checkpoint is left out: after a gzip header without options.
const IMPLIED_OFFSET: u64 = 10;

/// What a zInfo blob says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zinfo {
    /// The span size that was asked for, in bytes of stream.
    pub span_size: u64,
    /// The checkpoints, the implied one too.
    pub checkpoints: Vec<Checkpoint>,
    /// Whether the first checkpoint isn't in the blob.
    pub first_implied: bool,
    /// Whether checkpoints have windows at all.
    pub has_windows: bool,
}

impl Zinfo {
    /// The windows in `blob`, one after the other; that of an implied checkpoint is zero.
    pub(crate) fn windows(&self, blob: &[u8]) -> Vec<u8> {
        if !self.has_windows {
            return Vec::new();
        }
        let mut windows = Vec::with_capacity(self.checkpoints.len() * WINDOW_LEN);
        if self.first_implied {
            windows.resize(WINDOW_LEN, 0);
        }
        for checkpoint in blob[HEAD_LEN..].chunks_exact(CHECKPOINT_LEN) {
            windows.extend_from_slice(&checkpoint[PLACE_LEN..]);
        }
        windows
    }
}

fn invalid(field: &'static str, what: String) -> Error {
    Error::Invalid { field, what }
}

/// Reads the zInfo of a layer whose blob has `compressed_size` bytes.
///
/// # Errors
/// [`Error::Invalid`] naming the field, or [`Error::Limit`].
pub fn decode(compression: Compression, blob: &[u8], compressed_size: u64) -> Result<Zinfo, Error> {
    match compression {
        Compression::Gzip => gzip(blob),
        Compression::Uncompressed => tar(blob, compressed_size),
    }
}

fn gzip(blob: &[u8]) -> Result<Zinfo, Error> {
    let Some((head, places)) = blob.split_first_chunk::<HEAD_LEN>() else {
        return Err(invalid("checkpoints", format!("has {} bytes, and its head alone is 12", blob.len())));
    };
    let [c0, c1, c2, c3, size @ ..] = *head;
    let count = i32::from_le_bytes([c0, c1, c2, c3]);
    let have = usize::try_from(count).ok().filter(|&have| have > 0).ok_or_else(|| {
        invalid("checkpoints.have", format!("is {count}: a gzip layer has at least one span"))
    })?;
    if have as u64 > MAX_SPANS {
        return Err(Error::Limit { what: "checkpoints.have", value: have as u64, limit: MAX_SPANS });
    }
    // MAX_SPANS checkpoints are 2^35 bytes: no overflow in 64 bits.
    let first_implied = match places.len() {
        len if len == have * CHECKPOINT_LEN => false,
        len if len == (have - 1) * CHECKPOINT_LEN => true,
        len => {
            return Err(invalid(
                "checkpoints",
                format!("has {len} bytes for {have} checkpoints of {CHECKPOINT_LEN}"),
            ));
        }
    };
    let mut checkpoints = Vec::with_capacity(have);
    if first_implied {
        checkpoints.push(Checkpoint { compressed_offset: IMPLIED_OFFSET, uncompressed_offset: 0, bits: 0 });
    }
    for place in places.chunks_exact(CHECKPOINT_LEN) {
        checkpoints.push(Checkpoint {
            compressed_offset: offset(&place[..8], "checkpoint.in", checkpoints.len())?,
            uncompressed_offset: offset(&place[8..16], "checkpoint.out", checkpoints.len())?,
            bits: place[16],
        });
    }
    let span_size = i64::from_le_bytes(size);
    let span_size = u64::try_from(span_size)
        .map_err(|_| invalid("checkpoints.span_size", format!("is {span_size}, below 0")))?;
    Ok(Zinfo { span_size, checkpoints, first_implied, has_windows: true })
}

/// The offset in these eight bytes.
fn offset(bytes: &[u8], field: &'static str, span: usize) -> Result<u64, Error> {
    let value = bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    if value > i64::MAX.cast_unsigned() {
        return Err(invalid(field, format!("that of span {span} is below 0")));
    }
    Ok(value)
}

/// Field numbers of the flatbuffer `TarZinfo`.
mod tar_ids {
    pub(super) const VERSION: usize = 0;
    pub(super) const SPAN_SIZE: usize = 1;
    pub(super) const SIZE: usize = 2;
    pub(super) const COUNT: usize = 3;
}

/// The version that tar zInfo is written with; never looked at.
const TAR_VERSION: i32 = 2;

fn tar(blob: &[u8], compressed_size: u64) -> Result<Zinfo, Error> {
    let table = Table::root(blob, "checkpoints")?;
    let span_size = table.size(tar_ids::SPAN_SIZE, "checkpoints.span_size")?;
    let size = table.size(tar_ids::SIZE, "checkpoints.size")?;
    if span_size == 0 {
        return Err(invalid("checkpoints.span_size", "is 0".to_owned()));
    }
    if size != compressed_size {
        return Err(invalid(
            "checkpoints.size",
            format!("is {size}, and compressed_archive_size is {compressed_size}"),
        ));
    }
    Ok(Zinfo {
        span_size,
        checkpoints: tar_checkpoints(span_size, size)?,
        first_implied: false,
        has_windows: false,
    })
}

/// The checkpoints that a plain tar of `size` bytes has by its `span_size`, which isn't 0: one each `span_size` bytes.
pub(crate) fn tar_checkpoints(span_size: u64, size: u64) -> Result<Vec<Checkpoint>, Error> {
    let spans = size.div_ceil(span_size);
    if spans > MAX_SPANS {
        return Err(Error::Limit { what: "number of spans", value: spans, limit: MAX_SPANS });
    }
    Ok((0..spans)
        .map(|span| Checkpoint {
            compressed_offset: span * span_size, // below `size`
            uncompressed_offset: span * span_size,
            bits: 0,
        })
        .collect())
}

/// The blob that says what `ztoc` does.
pub(crate) fn encode(ztoc: &Ztoc) -> Vec<u8> {
    if ztoc.compression == Compression::Uncompressed {
        let mut out = Builder::new();
        let root = out
            .table(tar_ids::COUNT)
            .i32(tar_ids::VERSION, TAR_VERSION)
            .size(tar_ids::SPAN_SIZE, ztoc.span_size)
            .size(tar_ids::SIZE, ztoc.compressed_size)
            .end();
        return out.finish(root);
    }
    let have = ztoc.checkpoints.len();
    assert_eq!(ztoc.windows.len(), have * WINDOW_LEN, "a zTOC can be written only with its windows");
    let mut blob = Vec::with_capacity(HEAD_LEN + have * CHECKPOINT_LEN);
    blob.extend(u32::try_from(have).unwrap_or(u32::MAX).to_le_bytes());
    blob.extend(ztoc.span_size.to_le_bytes());
    let places = ztoc.checkpoints.iter().zip(ztoc.windows.chunks_exact(WINDOW_LEN));
    for (checkpoint, window) in places.skip(usize::from(ztoc.first_checkpoint_implied)) {
        blob.extend(checkpoint.compressed_offset.to_le_bytes());
        blob.extend(checkpoint.uncompressed_offset.to_le_bytes());
        blob.push(checkpoint.bits);
        blob.extend_from_slice(window);
    }
    blob
}

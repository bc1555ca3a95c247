//! Which spans a layer has, where they lie in blob and stream, and which of them hold a range of the stream.
//!
//! Everything here is arithmetic on offsets that were checked once, by [`Ztoc::decode`] or in [`SpanTable::new`].
//! Decoding a span is `decode`'s; fetching it and checking its digest is for whoever has a network.

use std::ops::Range;

use crate::digest::Sha256Digest;
use crate::limits::{MAX_RATIO, MAX_SPAN_LEN, MAX_SPANS, RATIO_SLACK};
use crate::model::{Checkpoint, Compression, Entry, Ztoc};
use crate::zinfo::{CHECKPOINT_LEN, HEAD_LEN, PLACE_LEN, Zinfo};
use crate::{Error, WINDOW_LEN};

/// Number of a span within its layer, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

/// One span: all that is needed to fetch, check and decode it, but for its window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its number.
    pub id: SpanId,
    /// Its bytes in the blob; the first is shared with the span before when `bits` isn't 0.
    pub compressed: Range<u64>,
    /// Its bytes in the stream. Empty for what lies behind the tar's end: padding that nobody reads.
    pub uncompressed: Range<u64>,
    /// How many high-order bits of the first compressed byte belong to this span; 0 means all eight of the next.
    pub bits: u8,
    /// SHA-256 of the compressed bytes.
    pub digest: Sha256Digest,
}

/// The part of a range of the stream that one span holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The span.
    pub span: Span,
    /// Which of the bytes that it decodes to are in the range.
    pub within: Range<usize>,
}

impl Piece {
    /// The part of the range in what the span decodes to, or `None` when that is too short: not this span.
    pub fn cut<'a>(&self, decoded: &'a [u8]) -> Option<&'a [u8]> {
        decoded.get(self.within.clone())
    }
}

/// The spans of one layer, in order; they tile the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTable {
    compression: Compression,
    /// Length of the blob in bytes: where the last span ends in it.
    blob_len: u64,
    stream_len: u64,
    /// Strictly increasing in the stream, and increasing in the blob; the first is at 0 of the stream.
    checkpoints: Vec<Checkpoint>,
    /// One for each checkpoint.
    digests: Vec<Sha256Digest>,
}

impl SpanTable {
    /// The spans of `ztoc`.
    ///
    /// # Errors
    /// When the checkpoints don't tile the stream; the error names the field.
    pub fn new(ztoc: &Ztoc) -> Result<Self, Error> {
        check(ztoc)?;
        Ok(Self {
            compression: ztoc.compression,
            blob_len: ztoc.compressed_size,
            stream_len: ztoc.uncompressed_size,
            checkpoints: ztoc.checkpoints.clone(),
            digests: ztoc.span_digests.clone(),
        })
    }

    /// How many spans there are.
    pub fn len(&self) -> usize {
        self.checkpoints.len()
    }

    /// Whether there is no span (a layer of 0 bytes).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the stream in bytes: where the last span ends.
    pub fn stream_len(&self) -> u64 {
        self.stream_len
    }

    /// Length of the layer's blob in bytes.
    pub fn blob_len(&self) -> u64 {
        self.blob_len
    }

    /// How the layer is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Span `id`, or `None` when the layer has no such span.
    pub fn get(&self, id: SpanId) -> Option<Span> {
        let index = usize::try_from(id.0).ok()?;
        let at = self.checkpoints.get(index)?;
        let next = self.checkpoints.get(index + 1);
        let stream_end = next.map_or(self.stream_len, |next| next.uncompressed_offset.min(self.stream_len));
        Some(Span {
            id,
            compressed: start(at)..next.map_or(self.blob_len, |next| next.compressed_offset),
            uncompressed: at.uncompressed_offset.min(stream_end)..stream_end,
            bits: at.bits,
            digest: *self.digests.get(index)?,
        })
    }

    /// How many bytes span `id` decodes to, with what lies behind the tar's end; `None` for the last span, which goes on
    /// to the blob's end, and for one that isn't there. With [`crate::SpanDecoder::to_end`] for the last, this is how
    /// the whole stream comes out, as a diff ID counts it.
    pub fn decoded_len(&self, id: SpanId) -> Option<u64> {
        let index = usize::try_from(id.0).ok()?;
        let next = self.checkpoints.get(index.checked_add(1)?)?;
        Some(next.uncompressed_offset - self.checkpoints[index].uncompressed_offset) // `check` has seen that they increase
    }

    /// All spans in order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        (0..=u32::MAX).map_while(|id| self.get(SpanId(id)))
    }

    /// The spans that hold `range` of the stream, in order; half-open; what lies past the stream's end is cut.
    ///
    /// A range that ends where a span begins doesn't need that span. (Soci-snapshotter fetches it.)
    pub fn covering(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.stream_len);
        match (self.span_of_offset(range.start), self.span_of_offset(end.saturating_sub(1))) {
            (Some(first), Some(last)) if range.start < end => first.0..last.0 + 1,
            _ => 0..0,
        }
    }

    /// What of `range` of the stream lies in which span, in order; half-open; what lies past the stream's end is cut. The
    /// pieces of [`Entry::data`] are a file's content.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> + '_ {
        self.covering(range.clone()).filter_map(move |id| {
            let span = self.get(SpanId(id))?;
            let at = |offset: u64| usize::try_from(offset - span.uncompressed.start).ok(); // MAX_SPAN_LEN fits 32 bits
            let start = at(range.start.max(span.uncompressed.start))?;
            let end = at(range.end.min(span.uncompressed.end))?;
            Some(Piece { span, within: start..end })
        })
    }

    /// The bytes of the blob that hold `range` of the stream, all of its spans in one: what one request can fetch. `None`
    /// when nothing of the range lies within the stream.
    pub fn compressed(&self, range: Range<u64>) -> Option<Range<u64>> {
        let ids = self.covering(range);
        let (first, last) = (self.get(SpanId(ids.start))?, self.get(SpanId(ids.end.checked_sub(1)?))?);
        (!ids.is_empty()).then_some(first.compressed.start..last.compressed.end)
    }

    /// The last span that begins at or before `offset` of the stream; `None` when there is no span at all.
    pub fn span_of_offset(&self, offset: u64) -> Option<SpanId> {
        // The first checkpoint is at 0; MAX_SPANS fits 32 bits.
        let after = self.checkpoints.partition_point(|checkpoint| checkpoint.uncompressed_offset <= offset);
        u32::try_from(after.checked_sub(1)?).ok().map(SpanId)
    }

    /// First and last span of an entry's data as `soci ztoc info` prints them: its last is the span of the byte *after*
    /// the data, so one more for a file that ends where a span does. For reading use [`SpanTable::covering`].
    pub fn soci_file_spans(&self, entry: &Entry) -> Option<(SpanId, SpanId)> {
        let end = entry.offset.checked_add(entry.size)?;
        Some((self.span_of_offset(entry.offset)?, self.span_of_offset(end)?))
    }
}

/// Where the bytes of the span at `checkpoint` begin in the blob: it needs the byte that its odd bits are in.
fn start(checkpoint: &Checkpoint) -> u64 {
    checkpoint.compressed_offset - u64::from(checkpoint.bits != 0) // `check` has seen that this is 0 or more
}

/// Whether the checkpoints of `ztoc` tile its stream.
pub(crate) fn check(ztoc: &Ztoc) -> Result<(), Error> {
    let refuse = |field, what| Err(Error::Invalid { field, what });
    let checkpoints = &ztoc.checkpoints;
    let count = checkpoints.len() as u64;
    if count > MAX_SPANS {
        return Err(Error::Limit { what: "number of spans", value: count, limit: MAX_SPANS });
    }
    if ztoc.span_digests.len() != checkpoints.len() {
        return refuse(
            "span_digests",
            format!("there are {}, and {count} checkpoints", ztoc.span_digests.len()),
        );
    }
    if checkpoints.is_empty() && (ztoc.uncompressed_size != 0 || ztoc.compression == Compression::Gzip) {
        return refuse("checkpoints", format!("none, for a stream of {} bytes", ztoc.uncompressed_size));
    }
    for (index, at) in checkpoints.iter().enumerate() {
        if at.bits > 7 {
            return refuse("checkpoint.bits", format!("that of span {index} is {}, above 7", at.bits));
        }
        if at.bits != 0 && at.compressed_offset == 0 {
            return refuse("checkpoint.in", format!("span {index} has odd bits in the byte before the blob"));
        }
        if at.compressed_offset > ztoc.compressed_size {
            let what = format!("span {index} begins at byte {} of the blob", at.compressed_offset);
            return refuse("checkpoint.in", format!("{what}, which has {}", ztoc.compressed_size));
        }
        if index == 0 && at.uncompressed_offset != 0 {
            return refuse(
                "checkpoint.out",
                format!("the first span begins at byte {}", at.uncompressed_offset),
            );
        }
        let next = checkpoints.get(index + 1);
        let compressed_end = next.map_or(ztoc.compressed_size, |next| next.compressed_offset);
        let uncompressed_end = next.map_or(ztoc.uncompressed_size, |next| next.uncompressed_offset);
        if next.is_some() && uncompressed_end <= at.uncompressed_offset {
            let begins = format!("span {index} begins at byte {} of the stream", at.uncompressed_offset);
            return refuse(
                "checkpoint.out",
                format!("{begins} and ends at {uncompressed_end}: an empty span"),
            );
        }
        if compressed_end < at.compressed_offset || (next.is_some() && compressed_end <= start(at)) {
            let begins = format!("span {index} begins at byte {} of the blob", at.compressed_offset);
            return refuse("checkpoint.in", format!("{begins} and ends at {compressed_end}"));
        }
        let len = uncompressed_end.saturating_sub(at.uncompressed_offset);
        let most = (compressed_end - start(at)).saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK);
        if len > most {
            let what =
                format!("span {index} has {len} bytes of stream, more than its bytes in the blob can hold");
            return refuse("checkpoint.out", what);
        }
        if len > MAX_SPAN_LEN {
            return Err(Error::Limit { what: "length of a span", value: len, limit: MAX_SPAN_LEN });
        }
    }
    Ok(())
}

/// Which bytes of an encoded zTOC are the windows of its spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMap {
    /// Where the first stored checkpoint begins in the zTOC, in bytes; `None` when spans have no windows.
    first: Option<u64>,
    /// How many checkpoints there are, the implied one too.
    count: u32,
    implied: bool,
}

impl WindowMap {
    /// The map of a zInfo blob that begins at byte `at` of the zTOC.
    pub(crate) fn new(at: usize, zinfo: &Zinfo) -> Self {
        Self {
            first: zinfo.has_windows.then_some((at + HEAD_LEN) as u64),
            count: u32::try_from(zinfo.checkpoints.len()).unwrap_or(0), // MAX_SPANS fits 32 bits
            implied: zinfo.first_implied,
        }
    }

    /// The bytes of the encoded zTOC that are the window of span `id`, [`WINDOW_LEN`] of them. `None` when the span has
    /// no window: it is decoded with an empty one (plain tar; the first span of old zTOCs).
    pub fn get(&self, id: SpanId) -> Option<Range<u64>> {
        if id.0 >= self.count {
            return None;
        }
        let stored = id.0.checked_sub(u32::from(self.implied))?;
        let start = self.first? + u64::from(stored) * CHECKPOINT_LEN as u64 + PLACE_LEN as u64;
        Some(start..start + WINDOW_LEN as u64)
    }
}

#[cfg(test)]
#[path = "span_tests.rs"]
mod tests;

//! Which spans a layer has, where they lie in blob and stream, and which of them hold a range of the stream.
//!
//! Everything here is arithmetic on offsets that were checked once, in [`SpanTable::new`].

use std::ops::Range;

use crate::Error;
use crate::digest::Sha256Digest;
use crate::model::{Compression, Ztoc};

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
    /// Its bytes in the stream.
    pub uncompressed: Range<u64>,
    /// How many high-order bits of the first compressed byte belong to this span; 0 means all eight of the next.
    pub bits: u8,
    /// SHA-256 of the compressed bytes.
    pub digest: Sha256Digest,
}

/// The spans of one layer, in order; they tile the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTable {}

impl SpanTable {
    /// The spans of `ztoc`.
    ///
    /// # Errors
    /// When the checkpoints don't tile the stream; the error names the field.
    pub fn new(_ztoc: &Ztoc) -> Result<Self, Error> {
        todo!()
    }

    /// How many spans there are.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no span (a layer of 0 bytes).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the stream in bytes: where the last span ends.
    pub fn stream_len(&self) -> u64 {
        todo!()
    }

    /// How the layer is compressed.
    pub fn compression(&self) -> Compression {
        todo!()
    }

    /// Span `id`, or `None` when the layer has no such span.
    pub fn get(&self, _id: SpanId) -> Option<Span> {
        todo!()
    }

    /// The spans that hold `range` of the stream, in order; half-open; what lies past the stream's end is cut.
    pub fn covering(&self, _range: Range<u64>) -> Range<u32> {
        todo!()
    }
}

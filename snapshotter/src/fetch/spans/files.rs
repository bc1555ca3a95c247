//! A lazy layer's files: how its stream is read, and what becomes of the page cache when spans were written.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use spandrel_ztoc::WindowMap;

use super::Spans;
use crate::cache::Due;
use crate::layer::bitmap::Bitmap;
use crate::layer::stream::Stream;
use crate::open_files::LazyFile;

/// What a lazy layer has on the disk; open only while it is used.
#[derive(Debug)]
pub(crate) struct Files {
    /// The stream.
    pub stream: Stream,
    /// Which spans are in it.
    pub bitmap: Bitmap,
    /// The zTOC, whose windows are read when they are needed.
    pub ztoc: LazyFile,
    /// Where they lie in it.
    pub windows: WindowMap,
}

impl Files {
    /// Reads from `offset` of the stream, where spans `ids` lie: from the page cache what was written lately, and past it what
    /// the kernel keeps for the mount anyway.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub(super) fn read(&self, mut ids: Range<u32>, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if ids.all(|id| self.bitmap.is_fresh(id)) {
            self.stream.read(offset, bytes)
        } else {
            self.stream.read_past_cache(offset, bytes)
        }
    }
}

impl Spans {
    /// Span `id`, of `len` bytes, was written: the disk begins with older writes, and what has had time leaves the page cache.
    pub(super) fn wrote(self: &Arc<Self>, id: u32, len: u64) {
        for ((spans, id), due) in self.engine.fresh.wrote((Arc::downgrade(self), id), len) {
            // Else its layer was closed: the page cache has forgotten it, or will when it needs room.
            let Some(spans) = spans.upgrade() else { continue };
            let Ok(span) = spans.span(id) else { continue };
            if due == Due::Drop {
                spans.files.bitmap.set_fresh(id, false);
            }
            spans.files.stream.not_needed(span.uncompressed);
        }
    }
}

//! A layer as its stream: the decompressing reader that fills a layer in full.

use std::io::{self, Read};

/// How a layer blob is packed, by its media type or its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerFormat {
    /// Plain tar.
    Tar,
    /// Gzip, of one member or many.
    Gzip,
    /// Zstandard, of one frame or many.
    Zstd,
}

impl LayerFormat {
    /// The format that a layer's media type names, or `None` when it is no layer that can be read.
    pub fn of_media_type(_media_type: &str) -> Option<Self> {
        todo!()
    }
}

/// Reads a layer's stream from its blob; memory is bounded whatever the blob claims.
pub struct StreamReader<R> {
    _inner: R,
}

impl<R> std::fmt::Debug for StreamReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").finish_non_exhaustive()
    }
}

impl<R: Read> StreamReader<R> {
    /// The stream of `blob`.
    ///
    /// # Errors
    /// When the decoder can't be set up.
    pub fn new(_blob: R, _format: LayerFormat) -> io::Result<Self> {
        todo!()
    }
}

impl<R: Read> Read for StreamReader<R> {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

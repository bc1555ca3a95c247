//! A layer as its stream: the decompressing reader that fills a layer in full.
//!
//! It decodes and checks what the format itself can check (CRC, lengths). Whether the bytes are the layer that was asked
//! for is the caller's to say, by the blob's digest and the diff ID.

use std::io::{self, BufRead, BufReader, Read};

use zlib_rs::{Inflate, InflateFlush, Status};

use crate::Error;
use crate::limits::MAX_ZSTD_WINDOW_LOG;

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
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(Self::Tar),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The format that a blob's first bytes (four are enough) show; what shows none is taken for a tar. Docker's media
    /// type for plain tar is also put on compressed layers, so readers look.
    pub fn of_first_bytes(bytes: &[u8]) -> Self {
        // A zstd blob may begin with a frame to be skipped: 16 magic numbers that differ in their first byte's low half.
        let skippable = bytes.len() >= 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..4] == [0x2a, 0x4d, 0x18];
        if bytes.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if skippable || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Tar
        }
    }
}

/// Reads a layer's stream from its blob; memory is bounded whatever the blob claims.
///
/// It ends where the blob does, and reads the whole blob: trailing padding too, so that a digest taken of the blob on the
/// way is whole when the stream has ended. An error of kind `InvalidData` or `UnexpectedEof` is the blob's fault, any
/// other comes from the reader behind it.
pub struct StreamReader<R> {
    inner: Inner<R>,
}

enum Inner<R> {
    Tar(R),
    Gzip(Box<GzipReader<R>>),
    Zstd(zstd::Decoder<'static, BufReader<R>>),
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
    pub fn new(blob: R, format: LayerFormat) -> io::Result<Self> {
        let inner = match format {
            LayerFormat::Tar => Inner::Tar(blob),
            LayerFormat::Gzip => Inner::Gzip(Box::new(GzipReader::new(blob))),
            LayerFormat::Zstd => {
                let mut decoder = zstd::Decoder::new(blob)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Inner::Zstd(decoder)
            }
        };
        Ok(Self { inner })
    }
}

impl<R: Read> Read for StreamReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Tar(blob) => blob.read(buf),
            Inner::Gzip(gzip) => gzip.read(buf),
            // libzstd's errors about the data come as `Other`.
            Inner::Zstd(zstd) => zstd.read(buf).map_err(|error| match error.kind() {
                io::ErrorKind::Other if error.raw_os_error().is_none() => {
                    io::Error::new(io::ErrorKind::InvalidData, error)
                }
                _ => error,
            }),
        }
    }
}

/// How much of a gzip blob is read at once, in bytes.
const CHUNK_LEN: usize = 64 * 1024;
/// What zlib wants to be told for a gzip header and trailer around a window of 32 KiB.
const GZIP_WINDOW_BITS: u8 = 16 + 15;

/// Gzip members, one after the other, each with its CRC and length checked, and nothing behind the last.
struct GzipReader<R> {
    blob: BufReader<R>,
    inflater: Inflate,
    /// Bytes of the blob before the member that is being read.
    member_start: u64,
    /// Whether a member has ended and no byte of the next was seen.
    between: bool,
}

impl<R: Read> GzipReader<R> {
    fn new(blob: R) -> Self {
        Self {
            blob: BufReader::with_capacity(CHUNK_LEN, blob),
            inflater: Inflate::new(true, GZIP_WINDOW_BITS),
            member_start: 0,
            between: false,
        }
    }

    fn error(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        let offset = self.member_start + self.inflater.total_in();
        io::Error::new(kind, Error::Corrupt { format: "gzip", offset, what: what.to_owned() })
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let input = self.blob.fill_buf()?;
            if input.is_empty() && self.between {
                return Ok(0);
            }
            if self.between {
                self.member_start += self.inflater.total_in();
                self.inflater = Inflate::new(true, GZIP_WINDOW_BITS);
                self.between = false;
            }
            let at_end = input.is_empty();
            let (taken, made) = (self.inflater.total_in(), self.inflater.total_out());
            let status = self.inflater.decompress(input, buf, InflateFlush::NoFlush);
            let taken = self.inflater.total_in() - taken;
            let made = self.inflater.total_out() - made;
            self.blob.consume(usize::try_from(taken).expect("part of a slice"));
            let status = status.map_err(|error| {
                let what = self.inflater.error_message().unwrap_or(error.as_str());
                self.error(io::ErrorKind::InvalidData, what)
            })?;
            self.between = status == Status::StreamEnd;
            if made != 0 {
                return Ok(usize::try_from(made).expect("part of a slice"));
            }
            if at_end && !self.between {
                return Err(self.error(io::ErrorKind::UnexpectedEof, "ends within a member"));
            }
        }
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;

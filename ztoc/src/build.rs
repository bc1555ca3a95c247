//! The one-pass index builder: compressed layer in, zTOC out.
//!
//! The bytes pass once: hashed as blob and as spans, inflated by `scan`, walked by `tar`. What is kept is the zTOC.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::digest::Sha256Digest;
use crate::limits::{MAX_SPAN_LEN, MAX_SPANS, MAX_STREAM_LEN, MAX_ZTOC_LEN};
use crate::model::{Checkpoint, Compression, Ztoc};
use crate::scan::Scan;
use crate::span;
use crate::tar::{TarRules, TarWalk};
use crate::zinfo::{CHECKPOINT_LEN, tar_checkpoints};

/// Version of the format that is written.
const VERSION: &[u8] = b"0.9";
/// How much of the layer is read at once, in bytes.
const CHUNK_LEN: usize = 128 * 1024;

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Bytes of stream after which the next block boundary becomes a checkpoint; not 0.
    pub span_size: u64,
    /// The build tool identifier that is written into the zTOC.
    pub build_tool: String,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { span_size: crate::DEFAULT_SPAN_SIZE, build_tool: crate::BUILD_TOOL.to_owned() }
    }
}

/// A built index and what was learnt of the layer in passing.
#[derive(Debug, Clone)]
pub struct Built {
    /// The zTOC.
    pub ztoc: Ztoc,
    /// SHA-256 of the whole blob, to be compared with the layer's digest.
    pub blob_digest: Sha256Digest,
}

/// Builds the zTOC of `layer` in one pass: no temporary file, memory bounded besides the zTOC itself.
///
/// # Errors
/// When the layer can't be read, isn't what `compression` says, or has what a zTOC can't say (sparse files, ...).
pub fn build(layer: impl Read, compression: Compression, options: &BuildOptions) -> Result<Built, Error> {
    if options.span_size == 0 {
        return Err(Error::Invalid { field: "span_size", what: "is 0: spans need a length".to_owned() });
    }
    limit("span_size", options.span_size, MAX_SPAN_LEN)?;
    let mut pass = Pass {
        layer,
        chunk: vec![0; CHUNK_LEN],
        blob: Sha256::new(),
        blob_len: 0,
        spans: SpanHasher::default(),
        walk: TarWalk::new(TarRules::Index),
        stream_len: 0,
    };
    let (checkpoints, windows) = match compression {
        Compression::Gzip => pass.gzip(options.span_size)?,
        Compression::Uncompressed => (pass.tar(options.span_size)?, Vec::new()),
    };
    let toc = pass.walk.finish()?;
    let ztoc = Ztoc {
        version: VERSION.to_vec(),
        build_tool: options.build_tool.clone().into_bytes(),
        compressed_size: pass.blob_len,
        uncompressed_size: toc.archive_end,
        entries: toc.entries,
        compression,
        span_size: options.span_size,
        checkpoints,
        windows,
        span_digests: pass.spans.finish(),
        first_checkpoint_implied: false,
    };
    // What a reader would refuse isn't built: a deflate block may be longer than a span can be.
    span::check(&ztoc)?;
    Ok(Built { ztoc, blob_digest: Sha256Digest(pass.blob.finalize().into()) })
}

fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), Error> {
    if value > limit { Err(Error::Limit { what, value, limit }) } else { Ok(()) }
}

/// The layer on its way through.
struct Pass<R> {
    layer: R,
    chunk: Vec<u8>,
    blob: Sha256,
    blob_len: u64,
    spans: SpanHasher,
    walk: TarWalk,
    stream_len: u64,
}

impl<R: Read> Pass<R> {
    /// The next bytes of the blob; 0 at its end.
    fn read(&mut self) -> Result<usize, Error> {
        let len = loop {
            match self.layer.read(&mut self.chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.blob.update(&self.chunk[..len]);
        self.blob_len += len as u64;
        limit("length of the blob", self.blob_len, MAX_STREAM_LEN)?;
        Ok(len)
    }

    fn gzip(&mut self, span_size: u64) -> Result<(Vec<Checkpoint>, Vec<u8>), Error> {
        let mut scan = Scan::new(span_size);
        let (mut checkpoints, mut windows) = (Vec::new(), Vec::new());
        loop {
            let len = self.read()?;
            if len == 0 {
                scan.finish()?;
                return Ok((checkpoints, windows));
            }
            let mut at = 0;
            let mut more = true;
            while more || at < len {
                let step = scan.step(&self.chunk[at..len])?;
                self.spans.update(&self.chunk[at..at + step.taken]);
                at += step.taken;
                self.stream_len += step.output.len() as u64;
                limit("length of the stream", self.stream_len, MAX_STREAM_LEN)?;
                self.walk.push(step.output)?;
                more = step.more;
                if let Some(checkpoint) = step.checkpoint {
                    self.spans.begin(checkpoint.bits);
                    checkpoints.push(checkpoint);
                    windows.extend_from_slice(scan.window());
                    limit("number of spans", checkpoints.len() as u64, MAX_SPANS)?;
                    let zinfo_len = checkpoints.len() as u64 * CHECKPOINT_LEN as u64;
                    limit("length of the zTOC", zinfo_len, MAX_ZTOC_LEN)?;
                }
            }
        }
    }

    fn tar(&mut self, span_size: u64) -> Result<Vec<Checkpoint>, Error> {
        let mut left = 0; // of the span, in bytes
        loop {
            let len = self.read()?;
            if len == 0 {
                return tar_checkpoints(span_size, self.blob_len);
            }
            limit("number of spans", self.blob_len / span_size, MAX_SPANS)?;
            self.walk.push(&self.chunk[..len])?;
            let mut rest = &self.chunk[..len];
            while !rest.is_empty() {
                if left == 0 {
                    self.spans.begin(0);
                    left = span_size;
                }
                let (now, later) = rest.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
                self.spans.update(now);
                left -= now.len() as u64;
                rest = later;
            }
        }
    }
}

/// Hashes the compressed bytes of one span after the other.
#[derive(Default)]
struct SpanHasher {
    /// The span that is being read; `None` before the first.
    current: Option<Sha256>,
    last_byte: u8,
    digests: Vec<Sha256Digest>,
}

impl SpanHasher {
    fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.current {
            hasher.update(bytes);
        }
        self.last_byte = bytes.last().copied().unwrap_or(self.last_byte);
    }

    /// Here a span begins, which shares the last byte with the one before when it has odd bits in it.
    fn begin(&mut self, bits: u8) {
        let mut hasher = Sha256::new();
        if bits != 0 {
            hasher.update([self.last_byte]);
        }
        self.end(Some(hasher));
    }

    fn end(&mut self, next: Option<Sha256>) {
        if let Some(hasher) = std::mem::replace(&mut self.current, next) {
            self.digests.push(Sha256Digest(hasher.finalize().into()));
        }
    }

    fn finish(mut self) -> Vec<Sha256Digest> {
        self.end(None);
        self.digests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_size_that_makes_no_spans_is_refused() {
        for compression in [Compression::Gzip, Compression::Uncompressed] {
            for span_size in [0, MAX_SPAN_LEN + 1, u64::MAX] {
                let options = BuildOptions { span_size, ..BuildOptions::default() };
                let error = build(&b""[..], compression, &options).expect_err("no such spans");
                assert!(error.to_string().contains("span_size"), "{error}");
            }
        }
    }

    #[test]
    fn an_error_of_the_reader_comes_as_it_is() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other side is gone"))
            }
        }
        for compression in [Compression::Gzip, Compression::Uncompressed] {
            let error = build(Broken, compression, &BuildOptions::default()).expect_err("no blob");
            assert!(
                matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::ConnectionReset),
                "{error}"
            );
        }
    }
}

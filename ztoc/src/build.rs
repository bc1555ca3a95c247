//! The one-pass index builder: compressed layer in, zTOC out.

use std::io::Read;

use crate::Error;
use crate::digest::Sha256Digest;
use crate::model::{Compression, Ztoc};

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
pub fn build(_layer: impl Read, _compression: Compression, _options: &BuildOptions) -> Result<Built, Error> {
    todo!()
}

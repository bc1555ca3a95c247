//! What became of a layer, in words: soci's where it says the same.

use std::fmt;

use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;

/// What became of one layer. Its text is the line that soci prints.
#[derive(Debug, Clone)]
pub struct LayerReport {
    /// Its digest.
    pub layer: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a layer.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was indexed.
    Built {
        /// Digest of the zTOC.
        ztoc: Digest,
        /// Length of the zTOC in bytes.
        len: u64,
    },
    /// It had been indexed before in the same way.
    Known {
        /// Digest of the zTOC.
        ztoc: Digest,
        /// Length of the zTOC in bytes.
        len: u64,
    },
    /// It gets no zTOC.
    Skipped(Skip),
}

/// Why a layer gets no zTOC.
#[derive(Debug, Clone)]
pub enum Skip {
    /// It is smaller than asked for.
    Small {
        /// Smallest size that gets one, in bytes.
        min: u64,
    },
    /// It is in a format that a zTOC can't describe.
    Format(&'static str),
    /// Its media type is none of a layer's.
    NotALayer,
    /// What is in it can't be in a zTOC, or isn't what its media type says.
    Unindexable(String),
}

impl LayerReport {
    /// Of a layer about which nothing is known yet.
    pub(super) fn new(layer: &Descriptor) -> Self {
        Self {
            layer: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            size: layer.size,
            outcome: Outcome::Skipped(Skip::NotALayer),
        }
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, media_type, size, outcome } = self;
        match outcome {
            Outcome::Built { ztoc, .. } => write!(f, "layer {layer} -> ztoc {ztoc}"),
            Outcome::Known { ztoc, .. } => write!(f, "layer {layer} -> ztoc {ztoc} (already exists)"),
            Outcome::Skipped(skip) => {
                write!(f, "ztoc skipped - layer {layer} ({media_type}) ")?;
                match skip {
                    Skip::Small { min } => write!(f, "size {size} is less than min-layer-size {min}"),
                    Skip::Format(format) => write!(
                        f,
                        "is compressed in an unsupported format. expect: [tar, gzip, unknown] but got {format:?}"
                    ),
                    Skip::NotALayer => f.write_str("is not a layer that can be read"),
                    Skip::Unindexable(why) => write!(f, "can't be indexed: {why}"),
                }
            }
        }
    }
}

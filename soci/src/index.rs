//! The index manifest, version 1 and 2.

use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;

/// Which of the two kinds of index manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A referrer of the image manifest.
    V1,
    /// Named by an annotation of the image manifest.
    V2,
}

/// One layer's zTOC, as an index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerZtoc {
    /// Digest of the layer blob that the zTOC is of.
    pub layer: Digest,
    /// Media type of the layer.
    pub layer_media_type: String,
    /// The zTOC blob.
    pub ztoc: Descriptor,
    /// The span size, when the index says it.
    pub span_size: Option<u64>,
    /// Whether the layer has neither xattrs nor opaque directories.
    pub disable_xattrs: bool,
}

/// An index manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexManifest {
    /// Its version.
    pub version: Version,
    /// Who built it.
    pub build_tool: String,
    /// The layers that have a zTOC, in image order.
    pub layers: Vec<LayerZtoc>,
    /// Prefetch artifacts.
    pub prefetch: Vec<Descriptor>,
    /// The image manifest (version 1).
    pub subject: Option<Descriptor>,
}

impl IndexManifest {
    /// Reads an index manifest.
    ///
    /// # Errors
    /// When it isn't one; the text says what is wrong.
    pub fn parse(_bytes: &[u8]) -> Result<Self, crate::Error> {
        todo!()
    }

    /// Writes it, byte for byte as the Go tool does.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
}

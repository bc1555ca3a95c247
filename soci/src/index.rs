//! The index manifest, version 1 and 2: bytes to model and back.
//!
//! An index is an OCI image manifest whose configuration's media type says that it is one. Getting its bytes is `find`'s.

use std::collections::BTreeMap;

use serde_json::Map;
use spandrel_registry::manifest::{Annotations, Descriptor, Manifest};
use spandrel_registry::{Digest, media_type};

use crate::limits::{MAX_LAYERS, MAX_MANIFEST_LEN, MAX_PREFETCH_LEN};
use crate::{Error, gojson};

/// Media type of a version 1 index's configuration, and its artifact type.
pub const INDEX_V1: &str = "application/vnd.amazon.soci.index.v1+json";
/// Media type of a version 2 index's configuration, and its artifact type.
pub const INDEX_V2: &str = "application/vnd.amazon.soci.index.v2+json";
/// Media type of a zTOC blob.
pub const ZTOC: &str = "application/octet-stream";
/// Media type of a prefetch artifact.
pub const PREFETCH: &str = "application/vnd.amazon.soci.prefetch.v1+json";
/// The configuration of every index: an empty object.
pub const CONFIG: &[u8] = b"{}";

/// Names of annotations.
pub mod annotation {
    /// On a zTOC or prefetch artifact in an index: the layer that it is of.
    pub const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";
    /// On a zTOC in an index: media type of that layer.
    pub const LAYER_MEDIA_TYPE: &str = "com.amazon.soci.image-layer-mediaType";
    /// On a zTOC in an index: the span size that it was built with, in bytes, decimal.
    pub const SPAN_SIZE: &str = "com.amazon.soci.span-size";
    /// On a zTOC in an index: `true` when the layer has neither xattrs nor opaque directories.
    pub const DISABLE_XATTRS: &str = "com.amazon.soci.disable-xattrs";
    /// On an index: who built it.
    pub const BUILD_TOOL: &str = "com.amazon.soci.build-tool-identifier";
    /// On an image manifest: digest of its index (version 2).
    pub const INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
    /// On an index's entry in an image index: digest of the image manifest that names it (version 2).
    pub const IMAGE_MANIFEST_DIGEST: &str = "com.amazon.soci.image-manifest-digest";
}

/// Which of the two kinds of index manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A referrer of the image manifest.
    V1,
    /// Named by an annotation of the image manifest.
    V2,
}

impl Version {
    /// The artifact type, which is the media type of the configuration.
    pub fn artifact_type(self) -> &'static str {
        match self {
            Self::V1 => INDEX_V1,
            Self::V2 => INDEX_V2,
        }
    }

    /// `v1` or `v2`, as soci's tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// One layer's zTOC, as an index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerZtoc {
    /// Digest of the layer blob that the zTOC is of.
    pub layer: Digest,
    /// Media type of the layer.
    pub layer_media_type: String,
    /// The zTOC blob. Annotations that the other fields say are written from those.
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
    /// Reads an index manifest. Its version is what the media type of the configuration says; entries that are neither
    /// zTOCs nor prefetch artifacts are passed over, for what later tools may add.
    ///
    /// # Errors
    /// When it isn't one; the text says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        limit("length of the index manifest", bytes.len() as u64, MAX_MANIFEST_LEN)?;
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| Error::Invalid(format!("it is no image manifest: {error}")))?;
        let version = match manifest.config.media_type.as_str() {
            INDEX_V1 => Version::V1,
            INDEX_V2 => Version::V2,
            other => {
                return Err(Error::Invalid(format!(
                    "config.mediaType is {other:?}, neither {INDEX_V1:?} nor {INDEX_V2:?}"
                )));
            }
        };
        limit("number of layers in the index", manifest.layers.len() as u64, MAX_LAYERS as u64)?;
        let (mut layers, mut prefetch) = (Vec::new(), Vec::new());
        for (at, entry) in manifest.layers.into_iter().enumerate() {
            match entry.media_type.as_str() {
                PREFETCH => {
                    limit(&format!("layers[{at}].size"), entry.size, MAX_PREFETCH_LEN)?;
                    prefetch.push(entry);
                }
                ZTOC => layers.extend(layer(at, entry)?),
                _ => {}
            }
        }
        let build_tool = manifest.annotations.get(annotation::BUILD_TOOL).cloned().unwrap_or_default();
        Ok(Self { version, build_tool, layers, prefetch, subject: manifest.subject })
    }

    /// Writes it, byte for byte as the Go tool does.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut annotations = Annotations::new();
        if !self.build_tool.is_empty() {
            annotations.insert(annotation::BUILD_TOOL.to_owned(), self.build_tool.clone());
        }
        gojson::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: descriptor(self.version.artifact_type(), Digest::sha256(CONFIG), CONFIG.len() as u64),
            layers: self.layers.iter().map(LayerZtoc::descriptor).chain(self.prefetch.clone()).collect(),
            subject: self.subject.clone(),
            annotations,
            extra: Map::new(),
        })
    }

    /// The zTOC of a layer, when the index has one.
    pub fn ztoc_of(&self, layer: &Digest) -> Option<&LayerZtoc> {
        self.layers.iter().find(|entry| entry.layer == *layer)
    }
}

impl LayerZtoc {
    /// The zTOC's descriptor with the annotations that the fields say.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = self.ztoc.clone();
        let annotations = &mut descriptor.annotations;
        annotations.insert(annotation::LAYER_DIGEST.to_owned(), self.layer.to_string());
        annotations.insert(annotation::LAYER_MEDIA_TYPE.to_owned(), self.layer_media_type.clone());
        if let Some(span_size) = self.span_size {
            annotations.insert(annotation::SPAN_SIZE.to_owned(), span_size.to_string());
        }
        if self.disable_xattrs {
            annotations.insert(annotation::DISABLE_XATTRS.to_owned(), "true".to_owned());
        }
        descriptor
    }
}

/// A descriptor with nothing but what every one has; `size` in bytes.
pub fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        data: None,
        platform: None,
        artifact_type: None,
        extra: Map::new(),
    }
}

/// The zTOC entry at `layers[at]`, or `None` when it says no layer (no reader could use it).
fn layer(at: usize, entry: Descriptor) -> Result<Option<LayerZtoc>, Error> {
    let Some(digest) = entry.annotations.get(annotation::LAYER_DIGEST) else { return Ok(None) };
    let layer = digest.parse().map_err(|error| {
        Error::Invalid(format!("layers[{at}].annotations[{:?}]: {error}", annotation::LAYER_DIGEST))
    })?;
    limit(&format!("layers[{at}].size"), entry.size, spandrel_ztoc::limits::MAX_ZTOC_LEN)?;
    let text = |name: &str| entry.annotations.get(name);
    Ok(Some(LayerZtoc {
        layer,
        layer_media_type: text(annotation::LAYER_MEDIA_TYPE).cloned().unwrap_or_default(),
        // Nobody needs it (the zTOC says it too), so a strange one does no harm.
        span_size: text(annotation::SPAN_SIZE).and_then(|size| size.parse().ok()),
        disable_xattrs: text(annotation::DISABLE_XATTRS).is_some_and(|value| value == "true"),
        ztoc: entry,
    }))
}

pub(crate) fn limit(what: &str, value: u64, limit: u64) -> Result<(), Error> {
    if value > limit { Err(Error::Limit { what: what.to_owned(), value, limit }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;

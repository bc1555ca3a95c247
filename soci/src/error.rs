//! The one error of this crate.

use std::path::PathBuf;

/// Why an index can't be found, built, kept or pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] spandrel_registry::Error),
    /// A layer or zTOC.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Digest of the layer.
        layer: String,
        /// What is wrong.
        source: spandrel_ztoc::Error,
    },
    /// What should be an index manifest is none.
    #[error("invalid SOCI index: {0}")]
    Invalid(String),
    /// A size or count is above its named limit.
    #[error("{what} is {value}, above the limit of {limit}")]
    Limit {
        /// What is counted.
        what: String,
        /// How much there is.
        value: u64,
        /// How much there may be (see `limits`).
        limit: u64,
    },
    /// The reference names something that isn't an image, or an image that can't be read.
    #[error("image {image}: {what}")]
    Image {
        /// The image as it was asked for.
        image: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The image isn't there for a platform.
    #[error("image {image} isn't there for {wanted}; it has: {present}")]
    NoPlatform {
        /// The image as it was asked for.
        image: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that there are.
        present: String,
    },
    /// What was asked for isn't in a source of images that is no registry.
    #[error("not found: {0}")]
    NotThere(String),
    /// What should be a prefetch artifact is none.
    #[error("invalid prefetch artifact: {0}")]
    Prefetch(String),
    /// containerd can't be reached.
    #[error("{0}; is containerd running, and is --address its socket?")]
    NoContainerd(String),
    /// A call to containerd failed.
    #[error("containerd: {what}: {message}{hint}")]
    Containerd {
        /// What was asked for.
        what: String,
        /// What it answered.
        message: String,
        /// What to do, with punctuation before it; may be empty.
        hint: &'static str,
    },
    /// An index of version 1 has no place there.
    #[error("{0} has no place for indexes of version 1, which only refer to an image: leave out --both")]
    NoReferrers(String),
    /// No layer of the image got a zTOC, so there is no index. The text is soci's.
    #[error("no ztocs created, all layers either skipped or produced errors")]
    EmptyIndex,
    /// The bytes of a layer aren't those that its digest names.
    #[error(
        "layer {layer}: the bytes that came have the digest {got}: the registry or something before it changes them"
    )]
    LayerDigest {
        /// Digest of the layer.
        layer: String,
        /// Digest of what came.
        got: String,
    },
    /// The bytes of a span aren't those that the zTOC was made of.
    #[error(
        "span {span} of layer {layer} from {name}: its bytes have the digest {got}, the zTOC says {want}; \
         either the zTOC is of another layer, or the bytes were changed"
    )]
    Span {
        /// Digest of the layer.
        layer: String,
        /// Where it came from.
        name: String,
        /// Number of the span.
        span: u32,
        /// Digest of what came.
        got: String,
        /// Digest that the zTOC has.
        want: String,
    },
    /// What was read can't be written where it should go.
    #[error("writing the output: {0}")]
    Output(#[source] std::io::Error),
    /// A file of a store or a layer.
    #[error("{what} {path}: {source}", path = .path.display())]
    File {
        /// What was tried: `writing`, `reading`, ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A store holds what it shouldn't.
    #[error("store {path}: {what}", path = .path.display())]
    Store {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A task ended that should not have: a bug, or the process is ending.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

impl Error {
    /// Whether what was asked for isn't there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Registry(error) => error.kind == spandrel_registry::ErrorKind::NotFound,
            Self::NoPlatform { .. } | Self::NotThere(_) => true,
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

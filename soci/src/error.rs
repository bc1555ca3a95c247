//! The one error of this crate.

/// Why an index can't be found, built or pushed.
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
}

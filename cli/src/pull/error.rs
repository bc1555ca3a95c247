//! Why an image can't be pulled into containerd.

/// What failed, with what was tried and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// containerd, or the registry while a layer came.
    #[error(transparent)]
    Soci(#[from] spandrel_soci::Error),
    /// The registry.
    #[error(transparent)]
    Registry(spandrel_registry::Error),
    /// The image makes no sense.
    #[error("{0}")]
    Image(String),
}

impl PullError {
    /// containerd answered `status` when asked for `what`.
    pub(super) fn call(what: impl Into<String>, status: &tonic::Status) -> Self {
        Self::Soci(spandrel_soci::containerd::failed(what, status))
    }
}

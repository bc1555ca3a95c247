//! Why an image can't be pulled into containerd.

/// What failed, with what was tried and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// containerd can't be reached.
    #[error("{0}; is containerd running, and is --address its socket?")]
    Connect(String),
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
    /// The registry.
    #[error(transparent)]
    Registry(spandrel_registry::Error),
    /// The image makes no sense.
    #[error("{0}")]
    Image(String),
}

impl PullError {
    pub(super) fn connect(error: &spandrel_proto::ConnectError) -> Self {
        Self::Connect(error.to_string())
    }

    /// containerd answered `status` when asked for `what`.
    pub(super) fn call(what: impl Into<String>, status: &tonic::Status) -> Self {
        let hint = match status.code() {
            tonic::Code::Unimplemented | tonic::Code::InvalidArgument
                if status.message().contains("snapshotter") =>
            {
                "; name the snapshotter in containerd's configuration as a proxy plugin (docs/containerd.md)"
            }
            tonic::Code::Unavailable if status.message().contains("connect") => {
                "; is the snapshotter's daemon running?"
            }
            tonic::Code::PermissionDenied => "; containerd's socket wants root",
            _ => "",
        };
        let message = format!("{} ({})", status.message(), name(status.code()));
        Self::Containerd { what: what.into(), message, hint }
    }
}

/// A gRPC code in words.
fn name(code: tonic::Code) -> String {
    code.description().trim_end_matches('.').to_lowercase()
}

//! The one error of the daemon. It has two mappings only: to a gRPC status (`service/status.rs`) and to an errno
//! (`device/errno.rs`).

/// What went wrong, by the class that callers branch on. Each text names the image, layer or snapshot, what was tried,
/// and what to do next; never a credential or the query of a signed URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such snapshot or layer.
    #[error("{0}: not found")]
    NotFound(String),
    /// It is there already.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// The request makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not in this state: a parent that isn't committed, a snapshot that others are built on.
    #[error("{0}")]
    FailedPrecondition(String),
    /// Not now: the registry, the network; worth trying again.
    #[error("{0}")]
    Unavailable(String),
    /// Bytes that aren't what their digest says, or an index that doesn't fit its layer.
    #[error("{0}")]
    Corrupt(String),
    /// The disk is full.
    #[error("{0}")]
    NoSpace(String),
    /// Something on this machine failed: a mount, a file, the database.
    #[error("{0}")]
    Internal(String),
}

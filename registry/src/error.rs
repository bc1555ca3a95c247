//! The one error of this crate, with the classes that callers branch on.

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The registry says there is no such thing.
    NotFound,
    /// No permission, or no (or wrong) credentials.
    Unauthorized,
    /// The registry asks for patience and it was exhausted.
    RateLimited,
    /// The registry can't be reached, answers 5xx, or broke off, after all retries.
    Unavailable,
    /// The bytes aren't what was asked for: digest, length or range is wrong.
    Corrupt,
    /// The request makes no sense: a malformed reference, a refused upload, something unsupported.
    Invalid,
}

/// What a registry request failed with. Its text names host, repository and what was tried, and never a credential or
/// a query string.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {message}")]
pub struct Error {
    /// The class.
    pub kind: ErrorKind,
    /// What was tried, e.g. `GET manifest 1.0 of registry.example/app`.
    pub what: String,
    /// What went wrong.
    pub message: String,
}

impl Error {
    /// A request that isn't made, since it can't be right.
    pub(crate) fn invalid(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, what: what.into(), message: message.into() }
    }
}

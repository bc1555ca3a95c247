//! Where compressed bytes come from: one trait at the edge, so that everything behind it is tested without a network.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Body, Client, Digest, ErrorKind, Repository};

use crate::Error;

/// Why bytes can't be had, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The registry says that there is no such thing.
    Absent,
    /// No permission, or no credentials.
    Refused,
    /// The registry doesn't answer.
    Unreachable,
    /// The registry asks for patience.
    Busy,
    /// The registry doesn't do such a thing.
    Unsupported,
    /// What came isn't what was asked for.
    Corrupt,
}

impl Cause {
    /// Its name in the metric `errors`.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Absent => "not-found",
            Self::Refused => "unauthorized",
            Self::Unreachable | Self::Unsupported => "unavailable",
            Self::Busy => "busy",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Bytes can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct SourceError {
    /// What kind of failure it is.
    pub cause: Cause,
    /// What was tried and what went wrong; no secrets.
    pub text: String,
}

impl From<spandrel_registry::Error> for SourceError {
    fn from(error: spandrel_registry::Error) -> Self {
        let cause = match error.kind {
            ErrorKind::NotFound => Cause::Absent,
            ErrorKind::Unauthorized => Cause::Refused,
            ErrorKind::Corrupt => Cause::Corrupt,
            ErrorKind::RateLimited => Cause::Busy,
            ErrorKind::Invalid => Cause::Unsupported,
            _ => Cause::Unreachable,
        };
        Self { cause, text: error.to_string() }
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        match error.cause {
            Cause::Corrupt => Self::Corrupt(error.text),
            _ => Self::Unavailable(error.text),
        }
    }
}

/// One blob of a registry.
#[async_trait]
pub(crate) trait BlobSource: fmt::Debug + Send + Sync + 'static {
    /// Asks for the bytes in `range`, which isn't empty.
    async fn open(&self, range: Range<u64>) -> Result<Box<dyn Chunks>, SourceError>;

    /// The host that is asked: what one host may take of the node is bounded.
    fn host(&self) -> &str {
        ""
    }
}

/// An answer in progress.
#[async_trait]
pub(crate) trait Chunks: Send {
    /// The next piece, never empty; `None` when all that was asked for has come.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError>;
}

/// A blob in a registry.
#[derive(Debug)]
pub(crate) struct RegistrySource {
    client: Client,
    repository: Repository,
    digest: Digest,
}

impl RegistrySource {
    pub(crate) fn new(client: Client, repository: Repository, digest: Digest) -> Self {
        Self { client, repository, digest }
    }
}

#[async_trait]
impl BlobSource for RegistrySource {
    async fn open(&self, range: Range<u64>) -> Result<Box<dyn Chunks>, SourceError> {
        Ok(Box::new(RegistryBody(self.client.blob_range(&self.repository, &self.digest, range).await?)))
    }

    fn host(&self) -> &str {
        &self.repository.host
    }
}

struct RegistryBody(Body);

#[async_trait]
impl Chunks for RegistryBody {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            match self.0.chunk().await? {
                Some(bytes) if bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }
}

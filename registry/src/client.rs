//! The client: one for a process, shared by all images, so that tokens and connections are shared too.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::manifest::Descriptor;
use crate::{Body, CredentialSource, Digest, Error, Repository};

/// What is special about a host.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// `host[:port]` as references write it.
    pub host: String,
    /// Speak HTTP, not HTTPS. (Loopback addresses are spoken to so without being configured, when HTTPS fails or isn't there.)
    pub plain_http: bool,
    /// Don't check the server's certificate.
    pub skip_verify: bool,
    /// Further certificate authorities, PEM files.
    pub ca_files: Vec<PathBuf>,
    /// Other hosts to try first, in order: `scheme://host[:port][/path]`.
    pub mirrors: Vec<String>,
}

/// How a client behaves; `Default` is what the daemon uses.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Hosts that need something special.
    pub hosts: Vec<HostConfig>,
    /// Longest time to set up a connection.
    pub connect_timeout: Duration,
    /// Longest silence while a response is awaited or read.
    pub read_timeout: Duration,
    /// How many times a request is tried again.
    pub max_retries: u32,
    /// Wait before the first retry; doubles with each, with jitter.
    pub min_backoff: Duration,
    /// Longest wait between two tries.
    pub max_backoff: Duration,
    /// Longest time for one operation with all its retries.
    pub deadline: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("spandrel/", env!("CARGO_PKG_VERSION")).to_owned(),
            hosts: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            max_retries: 5,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
        }
    }
}

/// A manifest as it came: the bytes are what the digest was checked against.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A registry client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// A client with these options.
    ///
    /// # Errors
    /// When a CA file can't be read or TLS can't be set up.
    pub fn new(_options: ClientOptions, _credentials: Arc<dyn CredentialSource>) -> Result<Self, Error> {
        todo!()
    }

    /// The manifest or index that `part` (a tag or a digest) names; checked against the digest when `part` is one.
    pub async fn manifest(&self, _repository: &Repository, _part: &str) -> Result<FetchedManifest, Error> {
        todo!()
    }

    /// A descriptor (media type, digest, size) of what `part` names, or `None` when there is nothing.
    pub async fn manifest_head(
        &self,
        _repository: &Repository,
        _part: &str,
    ) -> Result<Option<Descriptor>, Error> {
        todo!()
    }

    /// A whole small blob, checked against its digest and length.
    pub async fn blob(&self, _repository: &Repository, _digest: &Digest, _size: u64) -> Result<Bytes, Error> {
        todo!()
    }

    /// Bytes `range` of a blob; a body that breaks off is continued where it broke.
    pub async fn blob_range(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _range: Range<u64>,
    ) -> Result<Body, Error> {
        todo!()
    }

    /// Whether the blob is there, and how long it is.
    pub async fn blob_size(&self, _repository: &Repository, _digest: &Digest) -> Result<Option<u64>, Error> {
        todo!()
    }

    /// What refers to `subject`, with the given artifact type (config media type for old ones): referrers API, else
    /// the fallback tag.
    pub async fn referrers(
        &self,
        _repository: &Repository,
        _subject: &Digest,
        _artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        todo!()
    }

    /// Uploads a blob unless it is there; `from` names another repository of the host that has it (mounted if allowed).
    pub async fn push_blob(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _bytes: Bytes,
        _from: Option<&Repository>,
    ) -> Result<(), Error> {
        todo!()
    }

    /// Uploads a manifest under `part`, a tag or its digest. With a subject, and where the registry lacks the
    /// referrers API, the fallback tag's index is brought up to date.
    pub async fn push_manifest(
        &self,
        _repository: &Repository,
        _part: &str,
        _media_type: &str,
        _bytes: Bytes,
    ) -> Result<Digest, Error> {
        todo!()
    }
}

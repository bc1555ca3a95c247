//! The client: one for a process, shared by all images, so that tokens and connections are shared too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::auth::Scope;
use crate::endpoint::Servers;
use crate::failure::Failure;
use crate::inner::{Answer, Call, Inner};
use crate::limits::{MAX_BLOB_LEN, MAX_MANIFEST_LEN};
use crate::manifest::Descriptor;
use crate::reference::check_part;
use crate::transport::Pool;
use crate::{
    Body, Clock, CredentialSource, Digest, Error, ErrorKind, Repository, SystemClock, media_type, range,
};

/// What is special about a host. Token services and the storage that registries redirect to are hosts of their own: where
/// they have a private certificate authority, too, they need an entry.
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

/// A registry client. Cheap to clone: clones share connections, tokens and what they learned of hosts.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

impl Client {
    /// A client with these options.
    ///
    /// # Errors
    /// When a CA file can't be read or TLS can't be set up.
    pub fn new(options: ClientOptions, credentials: Arc<dyn CredentialSource>) -> Result<Self, Error> {
        Self::with_clock(options, credentials, Arc::new(SystemClock::default()))
    }

    /// As [`Client::new`], with a clock for tests.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_clock(
        options: ClientOptions,
        credentials: Arc<dyn CredentialSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(Inner::new(options, credentials, clock)?) })
    }

    /// The manifest or index that `part` (a tag or a digest) names; checked against the digest when `part` is one, and
    /// against the registry's own word for it otherwise.
    ///
    /// # Errors
    /// All kinds; [`ErrorKind::Corrupt`] when the digest is wrong or the manifest longer than 4 MiB.
    pub async fn manifest(&self, repository: &Repository, part: &str) -> Result<FetchedManifest, Error> {
        let call = manifest_call(Method::GET, repository, part)?;
        let check = |answer: &Answer| manifest_digest(answer, part).map(|_| ());
        let answer = self.inner.fetch(&call, &[], MAX_MANIFEST_LEN, Servers::All, &check).await?;
        let digest = manifest_digest(&answer, part).map_err(|failure| Error {
            kind: failure.kind,
            what: call.what.clone(),
            message: failure.message,
        })?;
        Ok(FetchedManifest { media_type: media_type_of(&answer), digest, bytes: answer.bytes })
    }

    /// A descriptor (media type, digest, size) of what `part` names, or `None` when there is nothing.
    ///
    /// # Errors
    /// All kinds but [`ErrorKind::NotFound`].
    pub async fn manifest_head(
        &self,
        repository: &Repository,
        part: &str,
    ) -> Result<Option<Descriptor>, Error> {
        let call = manifest_call(Method::HEAD, repository, part)?;
        let answer = match self.inner.fetch(&call, &[], 0, Servers::All, &|_| Ok(())).await {
            Ok(answer) => answer,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = answer.header("content-length").and_then(|len| len.parse().ok());
        let digest = match part.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => answer.header("docker-content-digest").and_then(|digest| digest.parse().ok()),
        };
        let media_type = answer.header("content-type").map(bare_type).unwrap_or_default();
        if let (Some(size), Some(digest), false) = (size, digest, media_type.is_empty()) {
            return Ok(Some(descriptor(media_type, digest, size)));
        }
        // The registry's answer to HEAD lacks what its answer to GET tells.
        match self.manifest(repository, part).await {
            Ok(got) => {
                let size = u64::try_from(got.bytes.len()).unwrap_or(u64::MAX);
                Ok(Some(descriptor(got.media_type, got.digest, size)))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole small blob, checked against its digest and length.
    ///
    /// # Errors
    /// All kinds; [`ErrorKind::Corrupt`] when length or digest is wrong, [`ErrorKind::Invalid`] when `size` is more than
    /// is held in memory (1 GiB).
    pub async fn blob(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        if size > MAX_BLOB_LEN {
            let message =
                format!("{size} bytes are more than the {MAX_BLOB_LEN} that are read into memory at once");
            return Err(Error::invalid(format!("GET blob {digest} of {repository}"), message));
        }
        self.inner.whole_blob(repository, digest, size).await
    }

    /// Bytes `range` of a blob; a body that breaks off is continued where it broke.
    ///
    /// # Errors
    /// All kinds, for what shows before the first byte; the body's own errors are in [`Body::chunk`].
    pub async fn blob_range(
        &self,
        repository: &Repository,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Body, Error> {
        Body::open(Arc::clone(&self.inner), repository, digest, range, false).await
    }

    /// Whether the blob is there, and how long it is.
    ///
    /// # Errors
    /// All kinds but [`ErrorKind::NotFound`].
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<Option<u64>, Error> {
        let mut call = blob_call(Method::HEAD, repository, digest);
        let failed = match self.inner.fetch(&call, &[], 0, Servers::All, &|_| Ok(())).await {
            Ok(answer) => {
                let size = answer.header("content-length").and_then(|len| len.parse().ok());
                if size.is_some() {
                    return Ok(size);
                }
                None
            }
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            // Storage that the registry redirects to may be signed for GET only.
            Err(error) if error.kind == ErrorKind::Unauthorized => Some(error),
            Err(error) => return Err(error),
        };
        call.method = Method::GET;
        call.headers.insert(http::header::RANGE, HeaderValue::from_static("bytes=0-0"));
        match self.inner.fetch(&call, &[], 1, Servers::All, &|_| Ok(())).await {
            Ok(answer) => {
                Ok(answer.header("content-range").and_then(range::parse).and_then(|said| said.total))
            }
            Err(error) => Err(failed.unwrap_or(error)),
        }
    }
}

fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type,
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        data: None,
        platform: None,
        artifact_type: None,
        extra: serde_json::Map::new(),
    }
}

/// A request for a manifest. Registries hide what isn't in `Accept` (docker-registry answers 404).
pub(crate) fn manifest_call<'a>(
    method: Method,
    repository: &'a Repository,
    part: &str,
) -> Result<Call<'a>, Error> {
    let what = format!("{method} manifest {part} of {repository}");
    check_part(part).map_err(|message| Error::invalid(what.clone(), message))?;
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, HeaderValue::from_static(media_type::ACCEPT_MANIFESTS));
    Ok(Call {
        repository,
        what,
        method,
        path: format!("manifests/{part}"),
        query: Vec::new(),
        raw_query: None,
        headers,
        body: None,
        scope: Scope::Pull,
        pool: Pool::Api,
    })
}

pub(crate) fn blob_call<'a>(method: Method, repository: &'a Repository, digest: &Digest) -> Call<'a> {
    Call {
        repository,
        what: format!("{method} blob {digest} of {repository}"),
        method,
        path: format!("blobs/{digest}"),
        query: Vec::new(),
        raw_query: None,
        headers: HeaderMap::new(),
        body: None,
        scope: Scope::Pull,
        pool: Pool::Blob,
    }
}

/// The digest of a manifest that came, checked against what was asked for, else against what the registry says it is.
fn manifest_digest(answer: &Answer, part: &str) -> Result<Digest, Failure> {
    let wanted = match part.parse::<Digest>() {
        Ok(digest) => Some(digest),
        Err(_) => answer.header("docker-content-digest").and_then(|digest| digest.parse().ok()),
    };
    match wanted {
        Some(digest) if digest.matches(&answer.bytes) => Ok(digest),
        Some(digest) => Err(Failure::corrupt(format!(
            "sent a manifest whose digest is {}, not {digest}",
            Digest::sha256(&answer.bytes)
        ))),
        None => Ok(Digest::sha256(&answer.bytes)),
    }
}

/// The media type of a manifest: the header's, or what the manifest itself says where a proxy made the header useless.
fn media_type_of(answer: &Answer) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let said = answer.header("content-type").map(bare_type).unwrap_or_default();
    if media_type::ACCEPT_MANIFESTS.split(", ").any(|known| known == said) {
        return said;
    }
    let typed = serde_json::from_slice::<Typed>(&answer.bytes).ok().and_then(|typed| typed.media_type);
    typed.unwrap_or(said)
}

/// A media type without its parameters.
pub(crate) fn bare_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

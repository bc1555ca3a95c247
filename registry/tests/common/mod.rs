//! What the tests of this crate share: clients, a clock, content to push, and a server that lies byte by byte.
#![allow(dead_code)]

pub mod scripted;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use spandrel_registry::manifest::{Annotations, Descriptor, Manifest};
use spandrel_registry::{
    Anonymous, Client, ClientOptions, Clock, Credential, CredentialError, CredentialSource, Digest,
    HostConfig, Repository, media_type,
};

/// A clock that stands still until somebody sleeps, and then is at once where the sleeper wants it.
#[derive(Debug, Default)]
pub struct TestClock {
    elapsed: Mutex<Duration>,
    /// What was slept, in order.
    pub slept: Mutex<Vec<Duration>>,
}

impl TestClock {
    pub fn advance(&self, time: Duration) {
        *self.elapsed.lock().expect("whole") += time;
    }

    pub fn slept(&self) -> Vec<Duration> {
        self.slept.lock().expect("whole").clone()
    }
}

#[async_trait::async_trait]
impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().expect("whole")
    }

    async fn sleep(&self, wait: Duration) {
        self.slept.lock().expect("whole").push(wait);
        self.advance(wait);
        tokio::task::yield_now().await;
    }
}

/// Options for tests: short timeouts, so that a broken test fails soon.
pub fn options(hosts: Vec<HostConfig>) -> ClientOptions {
    ClientOptions { hosts, read_timeout: Duration::from_secs(5), ..ClientOptions::default() }
}

pub fn anonymous(hosts: Vec<HostConfig>) -> Client {
    Client::new(options(hosts), Arc::new(Anonymous)).expect("a client")
}

pub fn client(hosts: Vec<HostConfig>, credentials: Arc<dyn CredentialSource>) -> Client {
    Client::new(options(hosts), credentials).expect("a client")
}

/// A client whose clock a test moves.
pub fn clocked(options: ClientOptions) -> (Client, Arc<TestClock>) {
    clocked_with(options, Arc::new(Anonymous))
}

pub fn clocked_with(
    options: ClientOptions,
    credentials: Arc<dyn CredentialSource>,
) -> (Client, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let client = Client::with_clock(options, credentials, Arc::clone(&clock) as _).expect("a client");
    (client, clock)
}

pub fn plain(host: &str) -> HostConfig {
    HostConfig { host: host.to_owned(), plain_http: true, ..HostConfig::default() }
}

pub fn repository(host: &str, name: &str) -> Repository {
    Repository::new(host, name).expect("a repository")
}

/// Bytes that don't repeat, so that a wrong offset can't go unnoticed.
pub fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    serde_json::from_value(serde_json::json!({
        "mediaType": media_type,
        "digest": Digest::sha256(bytes).as_str(),
        "size": bytes.len(),
    }))
    .expect("a descriptor")
}

/// A manifest of one layer.
pub fn manifest(config: &[u8], layer: &[u8]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: descriptor(media_type::OCI_CONFIG, config),
        layers: vec![descriptor(media_type::OCI_LAYER_GZIP, layer)],
        subject: None,
        annotations: Annotations::new(),
        extra: serde_json::Map::new(),
    }
}

/// Pushes an image of one layer under a tag; yields its manifest.
pub async fn push_image(client: &Client, repository: &Repository, tag: &str, layer: &Bytes) -> Bytes {
    let config = Bytes::from_static(b"{}");
    for blob in [&config, layer] {
        client
            .push_blob(repository, &Digest::sha256(blob), blob.clone(), None)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }
    let bytes = Bytes::from(serde_json::to_vec(&manifest(&config, layer)).expect("JSON"));
    let digest = client
        .push_manifest(repository, tag, media_type::OCI_MANIFEST, bytes.clone())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(digest, Digest::sha256(&bytes));
    bytes
}

/// Reads a range to its end.
pub async fn read(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    range: std::ops::Range<u64>,
) -> Result<Bytes, spandrel_registry::Error> {
    client.blob_range(repository, digest, range).await?.collect(u64::MAX).await
}

/// A source that always answers the same, and counts how often it was asked.
#[derive(Debug)]
pub struct Fixed {
    pub answer: Result<Option<Credential>, CredentialError>,
    pub asked: std::sync::atomic::AtomicUsize,
}

impl Fixed {
    pub fn new(answer: Result<Option<Credential>, CredentialError>) -> Arc<Self> {
        Arc::new(Self { answer, asked: std::sync::atomic::AtomicUsize::new(0) })
    }

    pub fn login(login: (&str, &str)) -> Arc<Self> {
        let (username, password) = (login.0.to_owned(), login.1.to_owned());
        Self::new(Ok(Some(Credential::Basic { username, password })))
    }

    pub fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl CredentialSource for Fixed {
    async fn credential(&self, _: &Repository) -> Result<Option<Credential>, CredentialError> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.answer.clone()
    }
}

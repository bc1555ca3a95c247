//! HTTP: connection pools with the right TLS for each host, and which scheme a loopback host speaks.
//!
//! Redirects are switched off here: `redirect` follows them, since it must remember where they led and must not send
//! `Authorization` along.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Request, Response, Url};

use crate::endpoint::{Endpoint, authority, is_loopback};
use crate::failure::Failure;
use crate::limits::{DRAIN_PATIENCE, IDLE_LIFE, MAX_ERROR_BODY, MAX_IDLE_PER_HOST};
use crate::{ClientOptions, Error, ErrorKind};

/// What a request is for: the three want different connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pool {
    /// Manifests, tokens: small, many at once. HTTP/2 where the server has it.
    Api,
    /// Blobs: HTTP/1.1, since one HTTP/2 connection carries all ranges through one TCP window (and S3 has no HTTP/2).
    Blob,
    /// Uploads: no answer is expected while the body goes out, so silence is no fault.
    Upload,
}

/// What TLS needs to know about one host.
#[derive(Clone, Default)]
struct Trust {
    skip_verify: bool,
    authorities: Vec<Certificate>,
}

/// What decides over which connections a request goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PoolKey {
    /// Host with trust of its own.
    special: Option<String>,
    /// This machine is never reached through a proxy (as Go's HTTP client has it).
    loopback: bool,
    pool: Pool,
}

/// All connections of a client.
pub(crate) struct Transport {
    options: ClientOptions,
    trust: HashMap<String, Trust>,
    clients: Mutex<BTreeMap<PoolKey, reqwest::Client>>,
    /// Whether a loopback host speaks plain HTTP, by its name; only what was seen.
    plain: Mutex<HashMap<String, bool>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// A poisoned lock only means that some other thread panicked between two map operations: the map is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transport {
    /// Reads the CA files and sets up TLS.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let mut trust = HashMap::new();
        for config in &options.hosts {
            if !config.skip_verify && config.ca_files.is_empty() {
                continue;
            }
            let what = || format!("TLS set-up for {}", config.host);
            let mut authorities = Vec::new();
            for path in &config.ca_files {
                let refuse = |message: String| {
                    Error::invalid(what(), format!("CA file {}: {message}", path.display()))
                };
                let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
                let found =
                    Certificate::from_pem_bundle(&pem).map_err(|_| refuse("it is no PEM file".into()))?;
                if found.is_empty() {
                    return Err(refuse("it holds no certificate".into()));
                }
                authorities.extend(found);
            }
            let server =
                Endpoint::origin(&config.host, None).map_err(|message| Error::invalid(what(), message))?;
            trust.insert(authority(&server.root()), Trust { skip_verify: config.skip_verify, authorities });
        }
        let new =
            Self { options: options.clone(), trust, clients: Mutex::default(), plain: Mutex::default() };
        // Makes what every process needs at once, so that broken TLS shows at start and not at the first pull.
        new.client(&PoolKey { special: None, loopback: false, pool: Pool::Api })
            .map_err(|failure| Error::invalid("TLS set-up", failure.message))?;
        for special in new.trust.keys() {
            new.client(&PoolKey { special: Some(special.clone()), loopback: false, pool: Pool::Api })
                .map_err(|failure| Error::invalid(format!("TLS set-up for {special}"), failure.message))?;
        }
        Ok(new)
    }

    fn client(&self, key: &PoolKey) -> Result<reqwest::Client, Failure> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(key) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.options.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Every retry is ours: it knows deadline, mirrors and what is idempotent.
            .retry(reqwest::retry::never())
            .connect_timeout(self.options.connect_timeout)
            .pool_idle_timeout(IDLE_LIFE)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .tcp_nodelay(true);
        if key.pool != Pool::Upload {
            builder = builder.read_timeout(self.options.read_timeout);
        }
        if key.pool != Pool::Api {
            builder = builder.http1_only();
        }
        if key.loopback {
            builder = builder.no_proxy();
        }
        if let Some(trust) = key.special.as_ref().and_then(|special| self.trust.get(special)) {
            builder = builder.tls_danger_accept_invalid_certs(trust.skip_verify);
            if !trust.authorities.is_empty() {
                builder = builder.tls_certs_merge(trust.authorities.iter().cloned());
            }
        }
        let client = builder.build().map_err(Failure::of_reqwest)?;
        clients.insert(key.clone(), client.clone());
        Ok(client)
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    pub(crate) async fn send(&self, pool: Pool, request: Request) -> Result<Response, Failure> {
        let url = request.url();
        let authority = authority(url);
        let special = self.trust.contains_key(&authority).then_some(authority);
        let client = self.client(&PoolKey { special, loopback: is_loopback(url), pool })?;
        client.execute(request).await.map_err(Failure::of_reqwest)
    }

    /// Whether `endpoint` is spoken to by plain HTTP although its configuration doesn't say so: a loopback host where
    /// HTTPS isn't spoken. Found out by a request of its own, without credentials, until one of the two has answered.
    pub(crate) async fn is_plain(&self, endpoint: &Endpoint) -> Result<bool, Failure> {
        if !endpoint.guess {
            return Ok(false);
        }
        if let Some(&plain) = lock(&self.plain).get(&endpoint.name) {
            return Ok(plain);
        }
        let secure = self.send(Pool::Api, Request::new(http::Method::GET, endpoint.root())).await;
        let plain = match secure {
            Ok(_) => false,
            // It does speak TLS, so its certificate is the problem and a plain request would only hide it.
            Err(failure) if failure.message.contains("certificate") => return Err(failure),
            Err(_) => true,
        };
        if !plain {
            lock(&self.plain).insert(endpoint.name.clone(), false);
        }
        Ok(plain)
    }

    /// Remembers that a loopback host answered by plain HTTP (that HTTPS failed alone could mean that it was down).
    pub(crate) fn saw_answer(&self, endpoint: &Endpoint, url: &Url) {
        if endpoint.guess && url.scheme() == "http" {
            lock(&self.plain).insert(endpoint.name.clone(), true);
        }
    }

    /// Whether credentials may go to this URL: HTTPS, this machine, or a host for which plain HTTP was configured.
    pub(crate) fn may_carry_secrets(&self, url: &Url) -> bool {
        let configured = || {
            let authority = authority(url);
            self.options
                .hosts
                .iter()
                .any(|config| config.plain_http && config.host.eq_ignore_ascii_case(&authority))
        };
        url.scheme() == "https" || is_loopback(url) || configured()
    }
}

/// Reads what nobody wants of an answer, if that is short: a connection whose answer wasn't read to its end is closed, and
/// the next request needs a new one.
pub(crate) async fn drain(response: Response) {
    let read = read_small(response, MAX_ERROR_BODY);
    let _ = tokio::time::timeout(DRAIN_PATIENCE, read).await; // then it is closed
}

/// Reads a small body. More than `limit` bytes are an error.
pub(crate) async fn read_small(mut response: Response, limit: u64) -> Result<Bytes, Failure> {
    let too_long = || {
        let message = format!("sent an answer of more than the {limit} bytes that are allowed for it");
        Failure::lasting(ErrorKind::Corrupt, message)
    };
    if response.content_length().is_some_and(|len| len > limit) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::of_reqwest)? {
        let len = u64::try_from(body.len() + chunk.len()).unwrap_or(u64::MAX);
        if len > limit {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

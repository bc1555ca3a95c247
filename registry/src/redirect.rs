//! Redirects: followed by hand, without `Authorization` for strangers, and for blobs remembered.
//!
//! A registry answers a blob's GET with a redirect to storage, signed for some minutes. Asking it anew for every range
//! would double each read's latency and, on ECR, its API calls; so the target is kept per server, repository and blob
//! until it ends or is refused. Of many readers of a new blob, one asks the registry and the others wait for the outcome.
//! `places` asks before there is a reader.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::{StatusCode, header};
use reqwest::{Response, Url};

use crate::endpoint::Endpoint;
use crate::expiry::{self, Expiry};
use crate::failure::{Failure, shown};
use crate::inner::{Call, Inner};
use crate::limits::{MAX_REDIRECTS, MAX_RESOLVED};
use crate::transport::{Pool, drain, lock};
use crate::{Digest, ErrorKind, Repository};

/// An answer, and where it came from if that wasn't the server asked.
pub(crate) struct Followed {
    pub(crate) response: Response,
    target: Option<Target>,
}

/// Where a blob's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) ends: SystemTime,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("at", &shown(&self.url)).field("ends", &self.ends).finish()
    }
}

/// What is known of one blob's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing yet: the first reader finds out.
    #[default]
    Unknown,
    /// The registry itself sends it, or it failed: everybody asks for himself.
    Open,
    /// Elsewhere, as the registry says; nobody has been there yet, and it may lead on.
    Named(Target),
    /// Elsewhere.
    At(Target),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    server: String,
    repository: String,
    digest: Digest,
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) place: Mutex<Place>,
    /// Held by whoever asks the registry.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// Where blobs were found.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
    /// Whether a server answers GETs of blobs by redirects, by its name; only what was seen.
    redirecting: Mutex<HashMap<String, bool>>,
    /// Something was seen of a server.
    seen: tokio::sync::Notify,
}

impl Resolved {
    /// What is known of one blob's place.
    pub(crate) fn entry(&self, endpoint: &Endpoint, repository: &Repository, digest: &Digest) -> Arc<Entry> {
        let key = Key {
            server: endpoint.name.clone(),
            repository: repository.name.clone(),
            digest: digest.clone(),
        };
        let mut entries = lock(&self.entries);
        if entries.len() >= MAX_RESOLVED && !entries.contains_key(&key) {
            entries.clear(); // they are found again when needed
        }
        Arc::clone(entries.entry(key).or_default())
    }

    /// A server has redirected the GET of a blob, or hasn't.
    pub(crate) fn saw(&self, endpoint: &Endpoint, redirects: bool) {
        let before = lock(&self.redirecting).insert(endpoint.name.clone(), redirects);
        if before.is_none() {
            self.seen.notify_waiters();
        }
    }

    /// A server has sent a blob itself. It may redirect others: some send short ones only. So this says nothing where
    /// a redirect was seen.
    fn saw_bytes(&self, endpoint: &Endpoint) {
        if !lock(&self.redirecting).contains_key(&endpoint.name) {
            self.saw(endpoint, false);
        }
    }

    /// Waits until it is known whether a server redirects, and says so.
    pub(crate) async fn redirects(&self, endpoint: &Endpoint) -> bool {
        loop {
            let mut seen = pin!(self.seen.notified());
            seen.as_mut().enable(); // before looking, so that nothing is missed
            if let Some(&redirects) = lock(&self.redirecting).get(&endpoint.name) {
                return redirects;
            }
            seen.await;
        }
    }
}

impl Inner {
    /// Sends a call and follows where it leads.
    pub(crate) async fn follow(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        call: &Call<'_>,
    ) -> Result<Followed, Failure> {
        self.follow_from(endpoint, url, url.clone(), None, call).await
    }

    /// As `follow`, of a call whose URL at the registry is `registry` and that has been led to `at`, until `ends`.
    async fn follow_from(
        &self,
        endpoint: &Endpoint,
        registry: &Url,
        mut at: Url,
        mut ends: Option<Expiry>,
        call: &Call<'_>,
    ) -> Result<Followed, Failure> {
        let is_blob = call.pool == Pool::Blob;
        for _ in 0..=MAX_REDIRECTS {
            let own = at.origin() == registry.origin();
            // Whoever else is redirected to gets no credentials: the URL itself is what lets us in.
            let response = if own {
                self.exchange(endpoint, &at, call).await?
            } else {
                self.send(&at, call, None).await?
            };
            if !is_redirect(response.status()) {
                if is_blob && own && response.status().is_success() {
                    self.resolved.saw_bytes(endpoint);
                }
                let ends = expiry::useful_until(ends, self.clock.now());
                let target = (!own).then_some(Target { url: at, ends });
                return Ok(Followed { response, target });
            }
            at = location(&at, &response)?;
            if is_blob && own && at.origin() != registry.origin() {
                self.resolved.saw(endpoint, true);
            }
            let said = expiry::of_query(at.query_pairs());
            ends = match (ends, said) {
                (Some(before), Some(said)) if before.ends < said.ends => Some(before),
                (before, said) => said.or(before),
            };
            drain(response).await;
        }
        Err(Failure::lasting(ErrorKind::Invalid, format!("redirected more than {MAX_REDIRECTS} times")))
    }

    /// A GET of a blob (or a part), from where its bytes are known to be, else from where the registry says.
    pub(crate) async fn blob_response(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        digest: &Digest,
    ) -> Result<Response, Failure> {
        let entry = self.resolved.entry(endpoint, call.repository, digest);
        if let Some(response) = self.ask_known(endpoint, &entry, call).await? {
            return Ok(response);
        }
        let unknown = *lock(&entry.place) == Place::Unknown;
        let turn = if unknown { Some(entry.turn.lock().await) } else { None };
        // Whoever had the turn before us may have found it.
        if turn.is_some()
            && let Some(response) = self.ask_known(endpoint, &entry, call).await?
        {
            return Ok(response);
        }
        let _turn = turn.filter(|_| *lock(&entry.place) == Place::Unknown);
        let found = async {
            let url = self.url(endpoint, call).await?;
            self.follow(endpoint, &url, call).await
        }
        .await;
        let place = match &found {
            Ok(Followed { response, target: Some(target) }) if response.status().is_success() => {
                Place::At(target.clone())
            }
            _ => Place::Open,
        };
        *lock(&entry.place) = place;
        found.map(|followed| followed.response)
    }

    /// Asks the known place; `None` where there is none, or it has ended or refuses us.
    async fn ask_known(
        &self,
        endpoint: &Endpoint,
        entry: &Entry,
        call: &Call<'_>,
    ) -> Result<Option<Response>, Failure> {
        let place = lock(&entry.place).clone();
        let (target, is_new) = match place {
            Place::At(target) => (target, false),
            Place::Named(target) => (target, true),
            Place::Unknown | Place::Open => return Ok(None),
        };
        if target.ends <= self.clock.now() {
            entry.forget(&target);
            return Ok(None);
        }
        let response = self.send(&target.url, call, None).await;
        let status = response.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status);
        if is_new && is_redirect(status) {
            return self.lead_on(endpoint, entry, &target, response?, call).await;
        }
        // S3 answers 400 where the signer's own session has ended, 403 where the signature has.
        if matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410) || is_redirect(status) {
            entry.forget(&target);
            return Ok(None);
        }
        if is_new && status.is_success() {
            entry.replace(&target, Place::At(target.clone()));
        }
        // A server that is broken or gone: the registry may name another one at the next try. (503 is S3's "slow down".)
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            entry.forget(&target);
        }
        response.map(Some)
    }

    /// Follows on from the place that the registry named, `target`, whose answer is `response`; `None` where that ends
    /// in a refusal.
    async fn lead_on(
        &self,
        endpoint: &Endpoint,
        entry: &Entry,
        target: &Target,
        response: Response,
        call: &Call<'_>,
    ) -> Result<Option<Response>, Failure> {
        let found = async {
            let at = location(&target.url, &response)?;
            drain(response).await;
            let registry = self.url(endpoint, call).await?;
            let ends = Some(Expiry { ends: target.ends, life: None });
            self.follow_from(endpoint, &registry, at, ends, call).await
        }
        .await;
        match found {
            Ok(Followed { response, target: Some(last) }) if response.status().is_success() => {
                entry.replace(target, Place::At(last));
                Ok(Some(response))
            }
            other => {
                entry.forget(target);
                other.map(|_| None)
            }
        }
    }

    /// Finds a blob's place anew next time: what came from there was wrong.
    pub(crate) fn forget_place(&self, endpoint: &Endpoint, repository: &Repository, digest: &Digest) {
        *lock(&self.resolved.entry(endpoint, repository, digest).place) = Place::Unknown;
    }
}

impl Entry {
    fn forget(&self, target: &Target) {
        self.replace(target, Place::Unknown);
    }

    /// Whoever came before may have found another place: that one stays.
    fn replace(&self, target: &Target, by: Place) {
        let mut place = lock(&self.place);
        if matches!(&*place, Place::At(known) | Place::Named(known) if known == target) {
            *place = by;
        }
    }
}

/// Whether a status says to ask elsewhere.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer's `Location` leads, relative to the URL that was asked.
pub(crate) fn location(at: &Url, response: &Response) -> Result<Url, Failure> {
    let refuse = |message: &str| {
        Failure::lasting(ErrorKind::Invalid, format!("({}) sent a Location that {message}", shown(at)))
    };
    let value = response.headers().get(header::LOCATION).ok_or_else(|| refuse("is missing"))?;
    let text = value.to_str().map_err(|_| refuse("is no text"))?;
    let url = at.join(text).map_err(|_| refuse("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("isn't HTTP"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("has a user name in it"));
    }
    Ok(url)
}

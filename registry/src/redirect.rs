//! Redirects: followed by hand, without `Authorization` for strangers, and for blobs remembered.
//!
//! A registry answers a blob's GET with a redirect to storage, signed for some minutes. Asking it anew for every range
//! would double each read's latency and, on ECR, its API calls; so the target is kept per server, repository and blob
//! until it ends or is refused. Of many readers of a new blob, one asks the registry and the others wait for the outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::{StatusCode, header};
use reqwest::{Response, Url};

use crate::endpoint::Endpoint;
use crate::expiry::{self, Expiry};
use crate::failure::{Failure, shown};
use crate::inner::{Call, Inner};
use crate::limits::{MAX_REDIRECTS, MAX_RESOLVED};
use crate::transport::lock;
use crate::{Digest, ErrorKind, Repository};

/// An answer, and where it came from if that wasn't the server asked.
pub(crate) struct Followed {
    pub(crate) response: Response,
    target: Option<Target>,
}

/// Where a blob's bytes are.
#[derive(Clone, PartialEq, Eq)]
struct Target {
    url: Url,
    ends: SystemTime,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("at", &shown(&self.url)).field("ends", &self.ends).finish()
    }
}

/// What is known of one blob's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Place {
    /// Nothing yet: the first reader finds out.
    #[default]
    Unknown,
    /// The registry itself sends it, or it failed: everybody asks for himself.
    Open,
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
struct Entry {
    place: Mutex<Place>,
    turn: tokio::sync::Mutex<()>,
}

/// Where blobs were found.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

impl Resolved {
    fn entry(&self, endpoint: &Endpoint, repository: &Repository, digest: &Digest) -> Arc<Entry> {
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
}

impl Inner {
    /// Sends a call and follows where it leads.
    pub(crate) async fn follow(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        call: &Call<'_>,
    ) -> Result<Followed, Failure> {
        let mut at = url.clone();
        let mut ends: Option<Expiry> = None;
        for _ in 0..=MAX_REDIRECTS {
            let own = at.origin() == url.origin();
            // Whoever else is redirected to gets no credentials: the URL itself is what lets us in.
            let response = if own {
                self.exchange(endpoint, &at, call).await?
            } else {
                self.send(&at, call, None).await?
            };
            if !is_redirect(response.status()) {
                let ends = expiry::useful_until(ends, self.clock.now());
                let target = (!own).then_some(Target { url: at, ends });
                return Ok(Followed { response, target });
            }
            at = location(&at, &response)?;
            let said = expiry::of_query(at.query_pairs());
            ends = match (ends, said) {
                (Some(before), Some(said)) if before.ends < said.ends => Some(before),
                (before, said) => said.or(before),
            };
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
        if let Some(response) = self.ask_known(&entry, call).await? {
            return Ok(response);
        }
        let unknown = *lock(&entry.place) == Place::Unknown;
        let turn = if unknown { Some(entry.turn.lock().await) } else { None };
        // Whoever had the turn before us may have found it.
        if turn.is_some()
            && let Some(response) = self.ask_known(&entry, call).await?
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
    async fn ask_known(&self, entry: &Entry, call: &Call<'_>) -> Result<Option<Response>, Failure> {
        let place = lock(&entry.place).clone();
        let Place::At(target) = place else { return Ok(None) };
        if target.ends <= self.clock.now() {
            entry.forget(&target);
            return Ok(None);
        }
        let response = self.send(&target.url, call, None).await;
        let status = response.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status);
        // S3 answers 400 where the signer's own session has ended, 403 where the signature has.
        if matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410) || is_redirect(status) {
            entry.forget(&target);
            return Ok(None);
        }
        // A server that is broken or gone: the registry may name another one at the next try. (503 is S3's "slow down".)
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            entry.forget(&target);
        }
        response.map(Some)
    }

    /// Finds a blob's place anew next time: what came from there was wrong.
    pub(crate) fn forget_place(&self, endpoint: &Endpoint, repository: &Repository, digest: &Digest) {
        *lock(&self.resolved.entry(endpoint, repository, digest).place) = Place::Unknown;
    }
}

impl Entry {
    fn forget(&self, target: &Target) {
        let mut place = lock(&self.place);
        if matches!(&*place, Place::At(known) if known == target) {
            *place = Place::Unknown;
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

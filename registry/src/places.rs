//! Where blobs lie, found out before anybody reads them: at registries that redirect, a read's first round trip.
//!
//! The registry is asked by the very request that the first reader would make, a GET of a range, and its redirect is
//! remembered (`redirect` keeps it) and not followed: so no byte comes that nobody wants. A registry that sends blobs itself
//! would answer with bytes, so it isn't asked. Which kind it is shows at the first blob that anybody gets from it.

use std::sync::Arc;

use http::{HeaderValue, Method, header};
use tokio::task::JoinSet;

use crate::client::blob_call;
use crate::endpoint::{Endpoint, Servers};
use crate::expiry;
use crate::inner::Inner;
use crate::limits::{HABIT_PATIENCE, MAX_PLACES_AT_ONCE};
use crate::range;
use crate::redirect::{Entry, Place, Target, is_redirect, location};
use crate::transport::{Pool, drain, lock};
use crate::{Client, Digest, Repository};

impl Client {
    /// Finds out where blobs lie that will be read, at a registry that redirects to storage: then the first read of each goes
    /// there at once. A read that comes meanwhile waits for the outcome, and asks nothing itself. While it isn't known
    /// whether the registry redirects, this waits (some seconds at most) until another request has shown it.
    ///
    /// Returns when all have been asked for. What goes wrong is no error: whoever reads the blob finds out. A registry that
    /// fails or refuses is asked for no more of them.
    pub async fn find_places(&self, repository: &Repository, blobs: &[Digest]) {
        let Ok(endpoints) = self.inner.endpoints(repository, &Servers::All) else { return };
        // The one that reads begin with; where it fails, they find the others.
        let Some(endpoint) = endpoints.first() else { return };
        let redirects = self.inner.resolved.redirects(endpoint);
        if !tokio::time::timeout(HABIT_PATIENCE, redirects).await.unwrap_or(false) {
            return;
        }
        let mut asked = JoinSet::new();
        for digest in blobs {
            if asked.len() >= MAX_PLACES_AT_ONCE && !matches!(asked.join_next().await, Some(Ok(true))) {
                break;
            }
            let (inner, endpoint) = (Arc::clone(&self.inner), Arc::clone(endpoint));
            let (repository, digest) = (repository.clone(), digest.clone());
            asked.spawn(async move { inner.find_place(&endpoint, &repository, &digest).await });
        }
        while asked.join_next().await.is_some() {}
    }
}

impl Inner {
    /// Asks for one blob's place, unless it is known. Whether the server is to be asked for others.
    async fn find_place(&self, endpoint: &Endpoint, repository: &Repository, digest: &Digest) -> bool {
        let entry = self.resolved.entry(endpoint, repository, digest);
        if self.is_known(&entry) {
            return true;
        }
        let _turn = entry.turn.lock().await;
        // Whoever had the turn before us may have found it.
        if self.is_known(&entry) {
            return true;
        }
        let mut call = blob_call(Method::GET, repository, digest);
        call.what = format!("GET place of blob {digest} of {repository}");
        // No body is expected: all of them fit one connection, where the server has HTTP/2.
        call.pool = Pool::Api;
        let Ok(range) = HeaderValue::from_str(&range::header(&(0..1))) else { return false };
        call.headers.insert(header::RANGE, range);
        let asked = async {
            let url = self.url(endpoint, &call).await?;
            let response = self.exchange(endpoint, &url, &call).await?;
            Ok::<_, crate::failure::Failure>((url, response))
        };
        let Ok((url, response)) = asked.await else { return false };
        let status = response.status();
        if status.is_success() {
            // It has changed its ways. What comes is the one byte that was asked for.
            *lock(&entry.place) = Place::Open;
            self.resolved.saw(endpoint, false);
            return false;
        }
        if !is_redirect(status) {
            return false;
        }
        // One that leads to the registry itself isn't followed: who has the credentials finds out.
        if let Ok(to) = location(&url, &response)
            && to.origin() != url.origin()
        {
            let ends = expiry::useful_until(expiry::of_query(to.query_pairs()), self.clock.now());
            *lock(&entry.place) = Place::Named(Target { url: to, ends });
        }
        drain(response).await;
        true
    }

    fn is_known(&self, entry: &Entry) -> bool {
        match &*lock(&entry.place) {
            Place::Unknown => false,
            Place::Open => true,
            Place::Named(target) | Place::At(target) => target.ends > self.clock.now(),
        }
    }
}

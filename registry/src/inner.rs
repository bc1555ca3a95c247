//! What all clones of a client share, and the exchange of one request with one server: authorization, redirects, status.
//!
//! A try is made here; `retry` decides about the next one, `client`, `body`, `referrers` and `push` say what to ask for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{Request, Response, Url};

use crate::auth::{Auth, Grant, Scope};
use crate::endpoint::{self, Endpoint, Servers};
use crate::failure::{Failure, registry_message, shown};
use crate::limits::{MAX_ERROR_BODY, MAX_PATIENCE, MIRROR_REST};
use crate::redirect::Resolved;
use crate::retry::Pursuit;
use crate::transport::{Pool, Transport, drain, lock, read_small};
use crate::{ClientOptions, Clock, CredentialSource, Error, ErrorKind, Repository};

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) credentials: Arc<dyn CredentialSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) transport: Transport,
    pub(crate) auth: Auth,
    pub(crate) resolved: Resolved,
    /// Until when a mirror is passed over, by name, on [`Clock::elapsed`].
    rests: Mutex<HashMap<String, Duration>>,
    /// Until when a server has asked for patience, by name, on [`Clock::elapsed`].
    patience: Mutex<HashMap<String, Duration>>,
    /// Hosts that were seen to have the referrers API.
    pub(crate) with_referrers: Mutex<HashSet<String>>,
    /// One writer of fallback indexes at a time within this process.
    pub(crate) index_writer: tokio::sync::Mutex<()>,
}

/// A request, whichever server of the host it goes to.
pub(crate) struct Call<'a> {
    pub(crate) repository: &'a Repository,
    /// For errors: `GET manifest 1.0 of registry.example/app`.
    pub(crate) what: String,
    pub(crate) method: Method,
    /// Below `/v2/<name>/`.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// A query that a server gave, sent back as it is, instead of `query`.
    pub(crate) raw_query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) scope: Scope,
    pub(crate) pool: Pool,
}

/// A small answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    /// The URL that was asked, before redirects.
    pub(crate) url: Url,
    /// Who answered.
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Inner {
    pub(crate) fn new(
        options: ClientOptions,
        credentials: Arc<dyn CredentialSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        for config in &options.hosts {
            for url in &config.mirrors {
                Endpoint::mirror(url, &config.host).map_err(|message| {
                    Error::invalid(
                        format!("mirrors of {}", config.host),
                        format!("its mirror's URL: {message}"),
                    )
                })?;
            }
        }
        Ok(Self {
            transport: Transport::new(&options)?,
            options,
            credentials,
            clock,
            auth: Auth::default(),
            resolved: Resolved::default(),
            rests: Mutex::default(),
            patience: Mutex::default(),
            with_referrers: Mutex::default(),
            index_writer: tokio::sync::Mutex::default(),
        })
    }

    /// The servers to ask now: mirrors that didn't fail a moment ago, then the host itself.
    pub(crate) fn endpoints(
        &self,
        repository: &Repository,
        servers: &Servers,
    ) -> Result<Vec<Arc<Endpoint>>, Error> {
        if let Servers::Only(endpoint) = servers {
            return Ok(vec![Arc::clone(endpoint)]);
        }
        let now = self.clock.elapsed();
        let rests = lock(&self.rests);
        let awake = |endpoint: &Endpoint| {
            !endpoint.mirror || rests.get(&endpoint.name).is_none_or(|until| *until <= now)
        };
        let all = endpoint::of_repository(&self.options.hosts, repository, *servers == Servers::All)?;
        Ok(all.into_iter().filter(awake).map(Arc::new).collect())
    }

    /// Passes over a mirror for a while.
    pub(crate) fn rest(&self, endpoint: &Endpoint) {
        lock(&self.rests).insert(endpoint.name.clone(), self.clock.elapsed() + MIRROR_REST);
    }

    /// A server has asked everybody for patience.
    pub(crate) fn heed(&self, endpoint: &Endpoint, wait: Duration) {
        let now = self.clock.elapsed();
        let mut patience = lock(&self.patience);
        patience.retain(|_, until| *until > now);
        let until = patience.entry(endpoint.name.clone()).or_default();
        *until = (*until).max(now + wait.min(MAX_PATIENCE));
    }

    /// How long a server is still to be left alone.
    pub(crate) fn patience(&self, endpoint: &Endpoint) -> Duration {
        let until = lock(&self.patience).get(&endpoint.name).copied().unwrap_or_default();
        until.saturating_sub(self.clock.elapsed())
    }

    /// The URL of a call at a server.
    pub(crate) async fn url(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Url, Failure> {
        let plain = self.transport.is_plain(endpoint).await?;
        let query: Vec<(&str, &str)> = call.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut url = endpoint.url(call.repository, &call.path, &query, plain);
        if let Some(raw) = &call.raw_query {
            url.set_query(Some(raw));
        }
        Ok(url)
    }

    /// Sends a call to `url`, which is the endpoint's own, with the authorization it wants; any status is an answer.
    pub(crate) async fn exchange(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        call: &Call<'_>,
    ) -> Result<Response, Failure> {
        let first = self.ready_grant(endpoint, call.repository, &call.scope).await?;
        let (mut grant, mut at_hand) = first.map_or((None, false), |(grant, at_hand)| (Some(grant), at_hand));
        // The first may be none, or one that was at hand and is stale; the next a password from a source that keeps an
        // old one, and the one after it from a source that has a good one.
        let mut tries = 0;
        loop {
            let mut response = self.send(url, call, grant.as_ref()).await?;
            self.transport.saw_answer(endpoint, url);
            // ECR answers 403 where the token is too old; for a new one, 403 means what it says, unless it says that.
            let mut refused = response.status() == StatusCode::UNAUTHORIZED;
            if response.status() == StatusCode::FORBIDDEN && grant.is_some() {
                refused = at_hand;
                if !refused {
                    (response, refused) = says_expired(response).await;
                }
            }
            if !refused {
                return Ok(response);
            }
            // A token that was given for a good password a moment ago is refused for what it is.
            let again = tries == 0 || (tries == 1 && grant.as_ref().is_some_and(|grant| grant.is_literal()));
            let next = if again {
                let headers = response.headers();
                self.next_grant(endpoint, call.repository, &call.scope, headers, grant.as_ref()).await?
            } else {
                None
            };
            let Some(next) = next else {
                if let Some(grant) = &grant {
                    self.drop_grant(endpoint, call.repository, &call.scope, grant);
                }
                return Ok(response);
            };
            drain(response).await;
            (grant, at_hand) = (Some(next), false);
            tries += 1;
        }
    }

    /// Sends a call to any URL, with just this authorization.
    pub(crate) async fn send(
        &self,
        url: &Url,
        call: &Call<'_>,
        grant: Option<&Arc<Grant>>,
    ) -> Result<Response, Failure> {
        let mut request = Request::new(call.method.clone(), url.clone());
        *request.headers_mut() = call.headers.clone();
        if let Some(body) = &call.body {
            request.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
            *request.body_mut() = Some(body.clone().into());
        }
        if let Some(grant) = grant {
            request.headers_mut().insert(header::AUTHORIZATION, grant.header.clone());
        }
        tracing::debug!(what = call.what, host = shown(url), "request");
        let mut response = self.transport.send(call.pool, request).await?;
        tracing::debug!(what = call.what, host = shown(url), status = response.status().as_u16(), "response");
        if let Some(grant) = grant {
            response.extensions_mut().insert(Arc::clone(grant));
        }
        Ok(response)
    }

    /// Makes a failure of an answer whose status isn't the one that was hoped for.
    pub(crate) async fn refuse(&self, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let grant = response.extensions().get::<Arc<Grant>>().cloned();
        let secrets = grant.as_ref().map(|grant| grant.secrets.clone()).unwrap_or_default();
        let body = read_small(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let detail = registry_message(&body, &secrets);
        let mut failure = Failure::of_status(status, &headers, self.clock.now(), &detail);
        if failure.kind == ErrorKind::Unauthorized {
            let who = grant.as_ref().map_or("without credentials", |grant| grant.who.as_str());
            failure.message = format!("{} (asked {who})", failure.message);
        }
        failure
    }

    /// A small answer from whichever server gives one: status 2xx, or one of `accept` from the host itself. `check` may
    /// find it corrupt, and then the next server is asked.
    pub(crate) async fn fetch(
        &self,
        call: &Call<'_>,
        accept: &[StatusCode],
        limit: u64,
        servers: Servers,
        check: &(dyn Fn(&Answer) -> Result<(), Failure> + Sync),
    ) -> Result<Answer, Error> {
        let mut pursuit = Pursuit::new(self, call.what.clone(), call.repository, servers)?;
        if let Some(body) = &call.body {
            pursuit.allow(body.len());
        }
        loop {
            let endpoint = pursuit.endpoint();
            let attempt = async {
                let answer = self.fetch_once(&endpoint, call, accept, limit).await?;
                check(&answer)?;
                Ok(answer)
            };
            match pursuit.attempt(self, attempt).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => pursuit.failed(self, failure).await?,
            }
        }
    }

    async fn fetch_once(
        &self,
        endpoint: &Arc<Endpoint>,
        call: &Call<'_>,
        accept: &[StatusCode],
        limit: u64,
    ) -> Result<Answer, Failure> {
        let url = self.url(endpoint, call).await?;
        let response = self.follow(endpoint, &url, call).await?.response;
        let (status, headers) = (response.status(), response.headers().clone());
        let accepted = status.is_success() || (accept.contains(&status) && !endpoint.mirror);
        if !accepted {
            return Err(self.refuse(response).await);
        }
        let bytes =
            if call.method == Method::HEAD { Bytes::new() } else { read_small(response, limit).await? };
        Ok(Answer { status, headers, bytes, url, endpoint: Arc::clone(endpoint) })
    }
}

/// What ECR says of a token that is too old, in a 403 (any registry says 403 to who may not).
const EXPIRED: &str = "authorization token has expired";

/// Whether a refusal says that it is the token's age; and the same answer again, since that needs its body.
async fn says_expired(mut response: Response) -> (Response, bool) {
    let mut again = http::Response::new(Bytes::new());
    *again.status_mut() = response.status();
    again.headers_mut().clone_from(response.headers());
    *again.extensions_mut() = std::mem::take(response.extensions_mut());
    // What breaks off or is too long says nothing.
    *again.body_mut() = read_small(response, MAX_ERROR_BODY).await.unwrap_or_default();
    let expired = registry_message(again.body(), &[]).to_ascii_lowercase().contains(EXPIRED);
    (again.into(), expired)
}

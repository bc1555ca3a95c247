//! Proving who we are: which `Authorization` a request carries, got once and shared by everybody who needs the same.
//!
//! The protocol is that of the Docker/OCI token specification: a 401 names a token service (Bearer) or asks for user name
//! and password (Basic). Grants are kept per host and scope until shortly before they end. When one is missing or was
//! refused, one task gets the next and all others wait for it (single flight); a failure is shared the same way, so that
//! a hundred readers don't ask a broken token service a hundred times. `token` speaks to the token service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Url;

use crate::challenge::{self, Challenge};
use crate::endpoint::Endpoint;
use crate::failure::{Failure, shown};
use crate::inner::Inner;
use crate::limits::{BASIC_LIFE, MAX_GRANTS, TOKEN_LIFE, TOKEN_MARGIN};
use crate::token;
use crate::transport::lock;
use crate::{Credential, ErrorKind, Repository};

/// What a request wants to do, in the words of token scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Read the repository.
    Pull,
    /// Read and write the repository.
    Push,
    /// Write the repository and read another one, to mount a blob from it.
    Mount {
        /// The other repository's name.
        from: String,
    },
}

impl Scope {
    /// As `scope` parameters, one for each repository.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        match self {
            Self::Pull => vec![format!("repository:{name}:pull")],
            Self::Push => vec![format!("repository:{name}:pull,push")],
            Self::Mount { from } => {
                vec![format!("repository:{name}:pull,push"), format!("repository:{from}:pull")]
            }
        }
    }
}

/// A ready `Authorization`.
pub(crate) struct Grant {
    /// The header, marked as sensitive.
    pub(crate) header: HeaderValue,
    /// What must not be printed, in every form that a server could echo.
    pub(crate) secrets: Vec<String>,
    /// Who it speaks for, for messages: `anonymously`, `as user x`.
    pub(crate) who: String,
    /// What it says literally, where it does: then a refusal of the grant is one of the credential. (A token that a token
    /// service gave for it ends sooner.)
    credential: Option<Credential>,
    /// When it ends, on [`crate::Clock::elapsed`].
    ends: Duration,
    /// Which grant this is, to tell a refused one from its successor.
    serial: u64,
}

impl Grant {
    /// Whether it is a configured credential as such, and none that a token service gave for it.
    pub(crate) fn is_literal(&self) -> bool {
        self.credential.is_some()
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("who", &self.who).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// What a host wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ask {
    Basic,
    Bearer(BearerAsk),
}

/// Where a token is to be had.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BearerAsk {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    /// What the challenge itself named; added to our own.
    pub(crate) scopes: Vec<String>,
}

impl std::fmt::Debug for BearerAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BearerAsk").field("realm", &shown(&self.realm)).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    scopes: Vec<String>,
}

/// The grant of one key, and the turn to get the next.
#[derive(Debug, Default)]
struct Slot {
    grant: Mutex<Option<Arc<Grant>>>,
    /// Until when it is taken as known that the source has nothing, on [`crate::Clock::elapsed`].
    none_until: Mutex<Duration>,
    /// Number of grants tried so far.
    tries: AtomicU64,
    /// Held while one is got; holds how the last one failed.
    turn: tokio::sync::Mutex<Option<Failure>>,
}

/// All grants of a client.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    /// What each host was seen to ask for, so that further repositories don't need a refused request first.
    asks: Mutex<HashMap<String, Ask>>,
    serial: AtomicU64,
}

impl Auth {
    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if slots.len() >= MAX_GRANTS && !slots.contains_key(key) {
            slots.clear(); // they are got again when needed
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

fn key(endpoint: &Endpoint, repository: &Repository, scope: &Scope) -> Key {
    Key { host: endpoint.name.clone(), scopes: scope.values(&repository.name) }
}

impl Inner {
    /// The grant to send at first: the one at hand, else a new one where it is known what the host asks for, else none.
    /// Also says whether it is one that was at hand, and may thus be stale.
    pub(crate) async fn ready_grant(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        scope: &Scope,
    ) -> Result<Option<(Arc<Grant>, bool)>, Failure> {
        let key = key(endpoint, repository, scope);
        let slot = self.auth.slot(&key);
        let at_hand = lock(&slot.grant).clone();
        if let Some(grant) = at_hand.filter(|grant| grant.ends > self.clock.elapsed()) {
            return Ok(Some((grant, true)));
        }
        // Sources may run programs: not for each request of what anybody may read.
        if *lock(&slot.none_until) > self.clock.elapsed() {
            return Ok(None);
        }
        let Some(ask) = lock(&self.auth.asks).get(&endpoint.name).cloned() else { return Ok(None) };
        let grant = self.new_grant(&key, endpoint, repository, &ask, None).await?;
        Ok(grant.map(|grant| (grant, false)))
    }

    /// The grant to try after an answer that refused `refused`; `None` when there is nothing new to try.
    pub(crate) async fn next_grant(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        scope: &Scope,
        headers: &HeaderMap,
        refused: Option<&Arc<Grant>>,
    ) -> Result<Option<Arc<Grant>>, Failure> {
        let ask = match self.read_ask(endpoint, headers)? {
            Some(ask) => ask,
            // A 403 comes without a challenge: what the host asked for before still holds.
            None => match lock(&self.auth.asks).get(&endpoint.name).cloned() {
                Some(ask) => ask,
                None => return Ok(None),
            },
        };
        let remembered = match &ask {
            Ask::Bearer(ask) => Ask::Bearer(BearerAsk { scopes: Vec::new(), ..ask.clone() }),
            Ask::Basic => Ask::Basic,
        };
        lock(&self.auth.asks).insert(endpoint.name.clone(), remembered);
        let key = key(endpoint, repository, scope);
        let grant = self.new_grant(&key, endpoint, repository, &ask, refused).await?;
        // User name and password that were refused a moment ago aren't sent again.
        Ok(grant.filter(|grant| refused.is_none_or(|refused| refused.header != grant.header)))
    }

    /// Drops a grant that was refused although it was new.
    pub(crate) fn drop_grant(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        scope: &Scope,
        grant: &Grant,
    ) {
        let slot = self.auth.slot(&key(endpoint, repository, scope));
        let mut held = lock(&slot.grant);
        if held.as_ref().is_some_and(|held| held.serial == grant.serial) {
            *held = None;
        }
    }

    /// What the challenges ask for that we can do: Bearer before Basic.
    fn read_ask(&self, endpoint: &Endpoint, headers: &HeaderMap) -> Result<Option<Ask>, Failure> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(challenge::parse).collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            return self.bearer_ask(endpoint, bearer).map(|ask| Some(Ask::Bearer(ask)));
        }
        Ok(challenges.iter().any(|c| c.scheme == "basic").then_some(Ask::Basic))
    }

    fn bearer_ask(&self, endpoint: &Endpoint, challenge: &Challenge) -> Result<BearerAsk, Failure> {
        let refuse = |message: &str| Failure::lasting(ErrorKind::Unauthorized, message);
        let realm = challenge.param("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.filter(|realm| matches!(realm.scheme(), "http" | "https") && realm.has_host());
        let Some(realm) = realm else {
            return Err(refuse("asks for a token, but names no token service (realm) that is a URL"));
        };
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(refuse("names a token service with a user name in its URL"));
        }
        // A plain HTTP host was configured as such, or is a loopback one: its own token service is no worse.
        let own = realm.origin() == endpoint.root().origin();
        if !own && !self.transport.may_carry_secrets(&realm) {
            return Err(refuse(&format!(
                "names the token service {}, which would be spoken to without TLS; configure that host with plain_http if it is trusted",
                shown(&realm)
            )));
        }
        let scopes = challenge.param("scope").unwrap_or_default();
        Ok(BearerAsk {
            realm,
            service: challenge.param("service").map(str::to_owned),
            scopes: scopes.split_ascii_whitespace().map(str::to_owned).collect(),
        })
    }

    /// The next grant, got by whoever comes first.
    async fn new_grant(
        &self,
        key: &Key,
        endpoint: &Endpoint,
        repository: &Repository,
        ask: &Ask,
        refused: Option<&Arc<Grant>>,
    ) -> Result<Option<Arc<Grant>>, Failure> {
        let slot = self.auth.slot(key);
        let seen = slot.tries.load(Ordering::SeqCst);
        let mut turn = slot.turn.lock().await;
        // While we waited, somebody may have got one, or failed to.
        let held = lock(&slot.grant).clone();
        let is_new = |grant: &Arc<Grant>| {
            grant.ends > self.clock.elapsed() && refused.is_none_or(|refused| refused.serial != grant.serial)
        };
        if let Some(grant) = held.filter(is_new) {
            return Ok(Some(grant));
        }
        if slot.tries.load(Ordering::SeqCst) != seen
            && let Some(failure) = turn.clone()
        {
            return Err(failure);
        }
        let refused = refused.and_then(|refused| refused.credential.as_ref());
        let got = self.make_grant(key, endpoint, repository, ask, refused).await;
        slot.tries.fetch_add(1, Ordering::SeqCst);
        match got {
            Ok(grant) => {
                *turn = None;
                let grant = grant.map(Arc::new);
                let none = grant.is_none();
                *lock(&slot.none_until) =
                    if none { self.clock.elapsed() + BASIC_LIFE } else { Duration::ZERO };
                lock(&slot.grant).clone_from(&grant);
                Ok(grant)
            }
            Err(failure) => {
                *turn = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn make_grant(
        &self,
        key: &Key,
        endpoint: &Endpoint,
        repository: &Repository,
        ask: &Ask,
        refused: Option<&Credential>,
    ) -> Result<Option<Grant>, Failure> {
        let asked = Repository { host: endpoint.name.clone(), name: repository.name.clone() };
        let credential = match refused {
            Some(refused) => self.credentials.after_refusal(&asked, refused).await,
            None => self.credentials.credential(&asked).await,
        };
        let credential = credential.map_err(|error| {
            Failure::lasting(
                ErrorKind::Unauthorized,
                format!("its credentials couldn't be had: {}", error.message),
            )
        })?;
        let serial = self.auth.serial.fetch_add(1, Ordering::SeqCst);
        let now = self.clock.elapsed();
        match (ask, credential) {
            (Ask::Basic, None) => Ok(None),
            (Ask::Basic, Some(Credential::Basic { username, password })) => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
                Ok(Some(Grant {
                    header: sensitive(&format!("Basic {pair}"))?,
                    secrets: vec![pair, password.clone()],
                    who: format!("as user {username}"),
                    credential: Some(Credential::Basic { username, password }),
                    ends: now + BASIC_LIFE,
                    serial,
                }))
            }
            (Ask::Basic, Some(_)) => Err(Failure::lasting(
                ErrorKind::Unauthorized,
                "wants user name and password, but a token is what is configured for it",
            )),
            (Ask::Bearer(_), Some(Credential::RegistryToken(token))) => Ok(Some(Grant {
                header: sensitive(&format!("Bearer {token}"))?,
                secrets: vec![token.clone()],
                who: "with its configured registry token".to_owned(),
                credential: Some(Credential::RegistryToken(token)),
                ends: now + BASIC_LIFE,
                serial,
            })),
            (Ask::Bearer(ask), credential) => {
                let mut scopes = key.scopes.clone();
                scopes.extend(ask.scopes.iter().filter(|scope| !key.scopes.contains(scope)).cloned());
                let who = match &credential {
                    Some(Credential::Basic { username, .. }) => format!("as user {username}"),
                    Some(_) => "with its configured identity token".to_owned(),
                    None => "anonymously".to_owned(),
                };
                let got = token::get(&self.transport, self.clock.now(), ask, &scopes, credential).await?;
                let life = got.life.unwrap_or(TOKEN_LIFE);
                // Where tokens live very short, half of the life is the margin.
                let ends = now + life.saturating_sub(TOKEN_MARGIN).max(life / 2);
                Ok(Some(Grant {
                    header: sensitive(&format!("Bearer {}", got.token))?,
                    secrets: vec![got.token],
                    who,
                    credential: None,
                    ends,
                    serial,
                }))
            }
        }
    }
}

/// A header value that no library prints.
pub(crate) fn sensitive(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::lasting(
            ErrorKind::Unauthorized,
            "its credential has characters that no HTTP header can carry",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

//! All sources in their order, and what is told about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use spandrel_registry::{Clock, Credential, CredentialError, CredentialSource, Repository, SystemClock};

use crate::DockerConfig;
use crate::ecr::Ecr;
use crate::limits::MAX_HOSTS;

/// Where a credential came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A flag of the command line.
    CommandLine,
    /// What docker's config.json itself holds.
    DockerConfig,
    /// A credential helper that docker's config.json names.
    CredentialHelper,
    /// A token of Amazon ECR.
    Ecr,
}

impl Origin {
    /// Its name in logs, and as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::CommandLine => "command-line",
            Self::DockerConfig => "docker-config",
            Self::CredentialHelper => "credential-helper",
            Self::Ecr => "ecr",
        }
    }
}

/// What wants to know how credentials were come by: counters.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// A credential was asked for: `source` is the [`Origin::label`] of what answered (or failed, where nothing answered), or
    /// `none`; `outcome` is `found`, `none` or `failed`.
    fn asked(&self, source: &'static str, outcome: &'static str);

    /// ECR's API was asked for a token: `cause` is `first` (there was none), `ended`, `refused` (by the registry, before its
    /// time) or `renewal` (ahead of its end).
    fn token(&self, cause: &'static str, is_ok: bool);
}

/// A credential and where it came from; `Debug` never shows the secret.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) credential: Credential,
    pub(crate) origin: Origin,
    /// More about its origin, for people.
    pub(crate) detail: String,
}

/// One source.
#[async_trait]
pub(crate) trait Source: Send + Sync + std::fmt::Debug {
    /// What it is called when it has nothing or fails.
    fn origin(&self) -> Origin;

    /// Its credential for a repository; another one than `refused`, if it can.
    async fn find(
        &self,
        repository: &Repository,
        refused: Option<&Credential>,
    ) -> Result<Option<Found>, CredentialError>;
}

/// A credential from the command line, for the one host that it was meant for.
#[derive(Debug, Clone)]
pub struct Given {
    /// The host.
    pub host: String,
    /// The credential.
    pub credential: Credential,
}

#[async_trait]
impl Source for Given {
    fn origin(&self) -> Origin {
        Origin::CommandLine
    }

    async fn find(
        &self,
        repository: &Repository,
        _refused: Option<&Credential>,
    ) -> Result<Option<Found>, CredentialError> {
        let found = || Found {
            credential: self.credential.clone(),
            origin: Origin::CommandLine,
            detail: "a flag".to_owned(),
        };
        Ok((repository.host == self.host).then(found))
    }
}

/// Which sources there are.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What was given on the command line.
    pub given: Option<Given>,
    /// Docker's configuration.
    pub docker: Option<DockerConfig>,
    /// Who counts.
    pub observer: Option<Arc<dyn Observer>>,
}

/// What one source said, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The source.
    pub origin: Origin,
    /// Where exactly it found a credential, or that it has none, or why it can't say. No secrets.
    pub outcome: Result<Option<String>, CredentialError>,
}

/// What is remembered of a host.
#[derive(Debug, Default)]
struct Host {
    /// The source whose credential was handed out last, and what was said of it.
    last: Option<(usize, String)>,
    /// What each source had that the registry refused.
    refused: HashMap<usize, Credential>,
}

/// All sources in their order: the command line, docker's configuration, Amazon ECR. The first that has a credential decides.
///
/// A source that fails doesn't hide those behind it, but when none of them has one, its failure is the answer: "none"
/// would send an anonymous request and blame the registry. A credential that the registry has refused gives way to what
/// the sources behind it have: `docker login` leaves ECR's token of that day in config.json for ever.
#[derive(Debug)]
pub struct Credentials {
    sources: Vec<Arc<dyn Source>>,
    observer: Option<Arc<dyn Observer>>,
    hosts: Mutex<HashMap<String, Host>>,
}

impl Credentials {
    /// The sources that `options` name, and ECR. Asks nobody anything yet.
    pub fn new(options: Options) -> Arc<Self> {
        Self::with_clock(options, Arc::new(SystemClock::default()))
    }

    /// The same by another clock.
    pub fn with_clock(options: Options, clock: Arc<dyn Clock>) -> Arc<Self> {
        let Options { given, docker, observer } = options;
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        sources.extend(given.map(|given| Arc::new(given) as _));
        sources.extend(docker.map(|docker| Arc::new(docker) as _));
        sources.push(Arc::new(Ecr::new(clock, observer.clone())));
        Arc::new(Self::of(sources, observer))
    }

    pub(crate) fn of(sources: Vec<Arc<dyn Source>>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { sources, observer, hosts: Mutex::default() }
    }

    /// What each source says of a repository, in order. Asks all of them, also those behind the one that decides.
    pub async fn explain(&self, repository: &Repository) -> Vec<Step> {
        let mut steps = Vec::new();
        for source in &self.sources {
            let found = source.find(repository, None).await;
            let origin = match &found {
                Ok(Some(found)) => found.origin,
                _ => source.origin(),
            };
            steps.push(Step { origin, outcome: found.map(|found| found.map(|found| found.detail)) });
        }
        steps
    }

    async fn pick(
        &self,
        repository: &Repository,
        refused: Option<&Credential>,
    ) -> Result<Option<Credential>, CredentialError> {
        let mut failed = None;
        let mut second_best = None;
        for (number, source) in self.sources.iter().enumerate() {
            match source.find(repository, refused).await {
                Ok(Some(found)) => {
                    let known = self.host(repository, |host| {
                        // Whose it was is who gives it again: one host's repositories may have their own sources.
                        if refused == Some(&found.credential) {
                            host.refused.insert(number, found.credential.clone());
                        }
                        host.refused.get(&number) == Some(&found.credential)
                    });
                    if !known {
                        return Ok(Some(self.chosen(repository, number, found)));
                    }
                    second_best = second_best.or(Some((number, found)));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(
                        host = error.host,
                        source = source.origin().label(),
                        message = error.message,
                        "a source of credentials failed"
                    );
                    failed = failed.or(Some((source.origin(), error)));
                }
            }
        }
        // Where nobody has a better one, the refusal stands; and the registry's own words say more than ours.
        if let Some((number, found)) = second_best {
            return Ok(Some(self.chosen(repository, number, found)));
        }
        match failed {
            Some((origin, error)) => {
                self.count(origin.label(), "failed");
                Err(error)
            }
            None => {
                self.count("none", "none");
                Ok(None)
            }
        }
    }

    /// Takes note of what is handed out.
    fn chosen(&self, repository: &Repository, number: usize, found: Found) -> Credential {
        self.count(found.origin.label(), "found");
        let is_news = self.host(repository, |host| {
            let now = (number, found.detail.clone());
            let is_news = host.last.as_ref() != Some(&now);
            host.last = Some(now);
            is_news
        });
        if is_news {
            tracing::info!(
                host = repository.host,
                source = found.origin.label(),
                detail = found.detail,
                "credentials found"
            );
        }
        found.credential
    }

    fn host<T>(&self, repository: &Repository, what: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = lock(&self.hosts);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(&repository.host) {
            hosts.clear(); // it is only told anew then
        }
        what(hosts.entry(repository.host.clone()).or_default())
    }

    fn count(&self, source: &'static str, outcome: &'static str) {
        if let Some(observer) = &self.observer {
            observer.asked(source, outcome);
        }
    }
}

/// A lock is poisoned when another thread panicked between two assignments: what it guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl CredentialSource for Credentials {
    async fn credential(&self, repository: &Repository) -> Result<Option<Credential>, CredentialError> {
        self.pick(repository, None).await
    }

    async fn after_refusal(
        &self,
        repository: &Repository,
        refused: &Credential,
    ) -> Result<Option<Credential>, CredentialError> {
        self.pick(repository, Some(refused)).await
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;

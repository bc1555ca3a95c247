//! What `docker login` (or podman, or an operator) wrote: config.json, and the credential helpers that it names. `config`
//! reads the file's text, `helper` runs helpers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use spandrel_registry::{Credential, CredentialError, Repository};
use tokio::io::AsyncReadExt as _;

use crate::config::{self, Config};
use crate::sources::{Found, Source};
use crate::{Origin, helper, limits};

/// Docker's config.json with its credential helpers. The file is read at each question, so that a change counts at once.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The file. That it isn't there is no error: it means no credentials.
    pub path: PathBuf,
    /// Longest time a helper may take.
    pub helper_timeout: Duration,
}

impl DockerConfig {
    /// This file, with the usual time for helpers.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), helper_timeout: limits::HELPER_TIMEOUT }
    }

    /// `$DOCKER_CONFIG/config.json`, else `$HOME/.docker/config.json`; `None` where neither variable is set.
    pub fn from_environment() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::from_variables(
            set("DOCKER_CONFIG").as_deref().map(Path::new),
            set("HOME").as_deref().map(Path::new),
        )
    }

    fn from_variables(docker_config: Option<&Path>, home: Option<&Path>) -> Option<Self> {
        let folder = docker_config.map(Path::to_owned).or_else(|| home.map(|home| home.join(".docker")))?;
        Some(Self::new(folder.join("config.json")))
    }

    async fn read(&self) -> Result<Option<Vec<u8>>, String> {
        let say = |error: std::io::Error| format!("{} can't be read: {error}", self.path.display());
        let meta = match tokio::fs::metadata(&self.path).await {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(say(error)),
        };
        // Opening a pipe would wait for somebody to write it.
        if !meta.is_file() {
            return Err(format!("{} is no regular file", self.path.display()));
        }
        let file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(say(error)),
        };
        let mut bytes = Vec::new();
        file.take(limits::MAX_CONFIG_LEN + 1).read_to_end(&mut bytes).await.map_err(say)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limits::MAX_CONFIG_LEN {
            return Err(format!("{} has more than {} bytes", self.path.display(), limits::MAX_CONFIG_LEN));
        }
        Ok(Some(bytes))
    }

    async fn look(&self, repository: &Repository) -> Result<Option<Found>, String> {
        let Some(bytes) = self.read().await? else { return Ok(None) };
        let config = Config::parse(&bytes).map_err(|what| format!("{}: {what}", self.path.display()))?;
        if let Some(helper) = config.helper(repository) {
            let server = config::helper_server(&repository.host);
            if let Some(credential) = helper::get(helper, server, self.helper_timeout).await? {
                let detail = format!("docker-credential-{helper}, named in {}", self.path.display());
                return Ok(Some(Found { credential, origin: Origin::CredentialHelper, detail }));
            }
        }
        let stored = config.stored(repository).map_err(|what| format!("{}: {what}", self.path.display()))?;
        let found = |credential| Found {
            credential,
            origin: Origin::DockerConfig,
            detail: self.path.display().to_string(),
        };
        Ok(stored.map(found))
    }
}

#[async_trait]
impl Source for DockerConfig {
    fn origin(&self) -> Origin {
        Origin::DockerConfig
    }

    async fn find(
        &self,
        repository: &Repository,
        _refused: Option<&Credential>,
    ) -> Result<Option<Found>, CredentialError> {
        let failed = |message| CredentialError { host: repository.host.clone(), message };
        self.look(repository).await.map_err(failed)
    }
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;

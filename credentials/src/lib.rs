//! Where registry credentials come from.
#![forbid(unsafe_code)]
#![allow(clippy::todo)]

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use spandrel_registry::{Credential, CredentialError, CredentialSource, Repository};

/// Docker's config.json with its credential helpers; read anew when the file changes.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The file.
    pub path: PathBuf,
    /// Longest time a helper may take.
    pub helper_timeout: Duration,
}

impl DockerConfig {
    /// `$DOCKER_CONFIG/config.json`, else `$HOME/.docker/config.json`.
    pub fn from_environment() -> Option<Self> {
        todo!()
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    async fn credential(&self, _repository: &Repository) -> Result<Option<Credential>, CredentialError> {
        todo!()
    }
}

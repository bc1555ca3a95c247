//! Amazon ECR: tokens for private registries, by whatever AWS credentials this machine has.
//!
//! `host` reads a registry's name, `tokens` keeps one token for each, `aws` gets them by the AWS SDK. Nothing of the SDK is
//! touched, and no metadata service asked, before somebody wants a credential for a host that is a private ECR registry.

mod aws;
mod host;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use spandrel_registry::{Clock, Credential, CredentialError, Repository};

use crate::sources::{Found, Source};
use crate::{Observer, Origin};

pub use host::EcrHost;
use tokens::{Issuer, Tokens};

/// Private ECR registries.
#[derive(Debug)]
pub(crate) struct Ecr {
    tokens: Tokens,
}

impl Ecr {
    /// Tokens from AWS.
    pub(crate) fn new(clock: Arc<dyn Clock>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self::with(Arc::new(aws::Aws::default()), clock, observer)
    }

    fn with(issuer: Arc<dyn Issuer>, clock: Arc<dyn Clock>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { tokens: Tokens::new(issuer, clock, observer) }
    }
}

#[async_trait]
impl Source for Ecr {
    fn origin(&self) -> Origin {
        Origin::Ecr
    }

    async fn find(
        &self,
        repository: &Repository,
        refused: Option<&Credential>,
    ) -> Result<Option<Found>, CredentialError> {
        let Some(registry) = EcrHost::parse(&repository.host) else { return Ok(None) };
        let issued = self.tokens.get(&repository.host, &registry, refused).await;
        let issued = issued.map_err(|message| CredentialError { host: repository.host.clone(), message })?;
        Ok(Some(Found {
            credential: issued.credential,
            origin: Origin::Ecr,
            detail: format!("AWS credentials from {}", issued.by),
        }))
    }
}

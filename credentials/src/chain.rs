//! Several sources, asked in order.

use std::sync::Arc;

use async_trait::async_trait;
use spandrel_registry::{Credential, CredentialError, CredentialSource, Repository};

/// Sources in order; the first that has a credential decides. A source that fails doesn't hide those behind it, but when
/// none of them has one, its failure is the answer: "none" would send an anonymous request and blame the registry.
#[derive(Debug, Clone, Default)]
pub struct Chain(Vec<Arc<dyn CredentialSource>>);

impl Chain {
    /// A chain of these sources.
    pub fn new(sources: Vec<Arc<dyn CredentialSource>>) -> Self {
        Self(sources)
    }
}

#[async_trait]
impl CredentialSource for Chain {
    async fn credential(&self, repository: &Repository) -> Result<Option<Credential>, CredentialError> {
        let mut failed = None;
        for source in &self.0 {
            match source.credential(repository).await {
                Ok(Some(credential)) => return Ok(Some(credential)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(
                        host = error.host,
                        message = error.message,
                        "a source of credentials failed"
                    );
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

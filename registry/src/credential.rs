//! What proves who we are to a registry, and the interface through which it is asked for.

use async_trait::async_trait;

/// A credential; `Debug` never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token for the token service (docker's `identitytoken`).
    IdentityToken(String),
    /// A token that goes straight into `Authorization: Bearer` (docker's `registrytoken`).
    RegistryToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => {
                f.debug_struct("Basic").field("username", username).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// A source of credentials failed (which isn't the same as having none).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credentials for {host}: {message}")]
pub struct CredentialError {
    /// The registry host.
    pub host: String,
    /// What went wrong, and what to do; never a secret.
    pub message: String,
}

/// Where credentials come from.
#[async_trait]
pub trait CredentialSource: Send + Sync + std::fmt::Debug {
    /// The credential for `repository` (its host decides, the name may), or `None` when this source has none.
    async fn credential(&self, repository: &crate::Repository)
    -> Result<Option<Credential>, CredentialError>;

    /// The credential to try after the registry has refused `refused`: it has ended before its time, say. A source that
    /// keeps what it got gets another; what is answered may be the same again, and then the refusal stands.
    async fn after_refusal(
        &self,
        repository: &crate::Repository,
        _refused: &Credential,
    ) -> Result<Option<Credential>, CredentialError> {
        self.credential(repository).await
    }
}

/// No credentials for anybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl CredentialSource for Anonymous {
    async fn credential(&self, _: &crate::Repository) -> Result<Option<Credential>, CredentialError> {
        Ok(None)
    }
}

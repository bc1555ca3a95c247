//! The registry client as the flags want it.

use std::sync::Arc;

use async_trait::async_trait;
use spandrel_credentials::DockerConfig;
use spandrel_registry::{
    Anonymous, Client, ClientOptions, Credential, CredentialError, CredentialSource, HostConfig, Reference,
    Repository,
};
use spandrel_soci::source::RegistrySource;

use crate::args::RegistryArgs;
use crate::env;
use crate::error::Error;

/// A client for the host of `reference`.
///
/// # Errors
/// When the flags make no sense, a file with certificates can't be read, or TLS can't be set up.
pub fn client(args: &RegistryArgs, reference: &Reference) -> Result<Client, Error> {
    let host = HostConfig {
        host: reference.repository.host.clone(),
        plain_http: args.plain_http,
        skip_verify: args.skip_verify,
        ca_files: args.tlscacert.clone(),
        ..HostConfig::default()
    };
    // A host that needs nothing special is not configured: the client finds out whether a loopback one has TLS.
    let special = args.plain_http || args.skip_verify || !args.tlscacert.is_empty();
    let hosts = if special { vec![host] } else { Vec::new() };
    let credentials = credentials(args, &reference.repository.host)?;
    Ok(Client::new(ClientOptions { hosts, ..ClientOptions::default() }, credentials)?)
}

/// The repository of `reference` as a source of images.
///
/// # Errors
/// As [`client`].
pub fn source(args: &RegistryArgs, reference: &Reference) -> Result<RegistrySource, Error> {
    Ok(RegistrySource::new(client(args, reference)?, reference.repository.clone()))
}

fn credentials(args: &RegistryArgs, host: &str) -> Result<Arc<dyn CredentialSource>, Error> {
    let Some(user) = &args.user else {
        return Ok(match DockerConfig::from_environment() {
            Some(config) => Arc::new(config),
            None => Arc::new(Anonymous),
        });
    };
    let (username, password) = match user.split_once(':') {
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (user.clone(), std::env::var(env::PASSWORD).unwrap_or_default()),
    };
    if username.is_empty() || password.is_empty() {
        return Err(Error::Usage(format!(
            "--user wants a name, and a password behind a colon or in the environment variable {}",
            env::PASSWORD
        )));
    }
    Ok(Arc::new(Given { host: host.to_owned(), credential: Credential::Basic { username, password } }))
}

/// The credential from the command line, for the one host that it was meant for.
#[derive(Debug)]
struct Given {
    host: String,
    credential: Credential,
}

#[async_trait]
impl CredentialSource for Given {
    async fn credential(&self, repository: &Repository) -> Result<Option<Credential>, CredentialError> {
        Ok((repository.host == self.host).then(|| self.credential.clone()))
    }
}

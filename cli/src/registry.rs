//! The registry client as the flags want it.

use std::sync::Arc;

use spandrel_credentials::{Credentials, DockerConfig, Given, Options};
use spandrel_registry::{Client, ClientOptions, Credential, HostConfig, Reference};
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

/// The flags' own credential, then docker's configuration, then Amazon ECR.
fn credentials(args: &RegistryArgs, host: &str) -> Result<Arc<Credentials>, Error> {
    let given = args.user.as_deref().map(|user| given(user, host)).transpose()?;
    Ok(Credentials::new(Options { given, docker: DockerConfig::from_environment(), ..Options::default() }))
}

fn given(user: &str, host: &str) -> Result<Given, Error> {
    let (username, password) = match user.split_once(':') {
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (user.to_owned(), std::env::var(env::PASSWORD).unwrap_or_default()),
    };
    if username.is_empty() || password.is_empty() {
        return Err(Error::Usage(format!(
            "--user wants a name, and a password behind a colon or in the environment variable {}",
            env::PASSWORD
        )));
    }
    Ok(Given { host: host.to_owned(), credential: Credential::Basic { username, password } })
}

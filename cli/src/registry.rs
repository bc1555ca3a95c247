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

/// Clients for an image's way from one registry to another: one where both are on the same host. `--user` is for where the image
/// goes, `--src-user` for where it comes from.
///
/// # Errors
/// As [`client`].
pub fn clients(
    args: &RegistryArgs,
    src_user: Option<&String>,
    src: Option<&Reference>,
    dst: Option<&Reference>,
) -> Result<(Option<Client>, Option<Client>), Error> {
    let to = dst.map(|dst| client(args, dst)).transpose()?;
    let Some(src) = src else { return Ok((None, to)) };
    let one_host = dst.is_some_and(|dst| dst.repository.host == src.repository.host);
    if one_host && src_user.is_none() {
        return Ok((to.clone(), to));
    }
    // Credentials for one host are never sent to another.
    let user = if dst.is_none() { src_user.or(args.user.as_ref()) } else { src_user };
    let from = client(&RegistryArgs { user: user.cloned(), ..args.clone() }, src)?;
    Ok((Some(from), to))
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

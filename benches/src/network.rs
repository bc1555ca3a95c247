//! The network between node and registry: a shaping proxy that speaks TLS, as registries do.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::proxy::{Counts, Proxy, Shape};
use spandrel_fixtures::tls::{Authority, NAME};

use crate::depot::Depot;
use crate::results::start::Passed;

/// A network that is up.
#[derive(Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The certificate authority that clients must trust, PEM.
    pub ca_pem: String,
    proxy: Proxy,
}

impl Network {
    /// Names of networks.
    pub fn names() -> Vec<String> {
        Shape::NAMES.iter().map(|&name| name.to_owned()).collect()
    }

    /// The network of this name between nodes and the registry.
    ///
    /// # Errors
    /// When there is none of this name, or it can't listen.
    pub fn start(name: &str, depot: &Depot) -> Result<Self> {
        Self::between(name, depot.addr(), &depot.authority)
    }

    /// The same with a log of its requests in this file, where there is to be one: [`Logged`](spandrel_fixtures::proxy::Logged).
    ///
    /// # Errors
    /// As [`start`](Self::start), and when the file can't be made.
    pub fn logging(name: &str, depot: &Depot, log: Option<&Path>) -> Result<Self> {
        Self::made(name, depot.addr(), &depot.authority, log)
    }

    /// The network of this name between nodes and the registry at this address, with a certificate from `authority`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn between(name: &str, registry: SocketAddr, authority: &Authority) -> Result<Self> {
        Self::made(name, registry, authority, None)
    }

    fn made(name: &str, registry: SocketAddr, authority: &Authority, log: Option<&Path>) -> Result<Self> {
        let Some(shape) = Shape::named(name) else {
            bail!("there is no network {name:?}; there are: {}", Self::names().join(", "));
        };
        let mut proxy = Proxy::to(registry).shape(shape).tls(authority).mends_manifests();
        if let Some(file) = log {
            proxy = proxy.log(file);
        }
        let proxy = proxy.start().context("the shaping proxy can't listen, or make its log")?;
        Ok(Self { name: name.to_owned(), ca_pem: authority.ca_pem.clone(), proxy })
    }

    /// The registry behind it as an address.
    pub fn host(&self) -> String {
        self.proxy.addr().to_string()
    }

    /// The registry behind it by name, which only SOCI's hosts file knows.
    pub fn named_host(&self) -> String {
        format!("{NAME}:{}", self.proxy.addr().port())
    }

    /// Where blobs are fetched from when it redirects.
    pub fn redirect_host(&self) -> Option<String> {
        self.proxy.redirect_addr().map(|addr| addr.to_string())
    }

    /// Counts from here on.
    pub fn reset(&self) {
        self.proxy.reset_counts();
    }

    /// What passed since.
    pub fn passed(&self) -> Passed {
        passed(&self.proxy.counts())
    }
}

fn passed(counts: &Counts) -> Passed {
    Passed {
        requests: counts.requests.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
        bytes: counts.bytes_down,
        longest_chain: counts.longest_chain,
        highest_concurrency: counts.highest_concurrency,
    }
}

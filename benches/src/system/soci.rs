//! AWS's soci-snapshotter: Debian's 0.4.1, and any newer one whose folder is given, lazily or with its parallel pull.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use spandrel_fixtures::peers::{self, NOTHING_TO_INDEX, SOCI_PEER};

use super::{System, containerd, no_containerd, started};
use crate::depot::Depot;
use crate::network::Network;
use crate::node::{Node, Snapshotter};
use crate::results::machine::output;

/// The variable with the folder of another SOCI's programs.
const FOLDER: &str = "SPANDREL_SOCI";

/// What turns parallel pulling on in versions that have it (from 0.11).
const PARALLEL: &str =
    "[pull_modes.parallel_pull_unpack]\nenable = true\n[pull_modes.soci_v1]\nenable = false\n";

/// What makes newer versions use indexes of version 1, which 0.4.1 has no switch for.
const LAZY: &str = "[pull_modes.soci_v1]\nenable = true\n";

/// A soci-snapshotter.
#[derive(Debug, Clone)]
pub struct Soci {
    name: &'static str,
    programs: PathBuf,
    config: &'static str,
    is_lazy: bool,
}

impl Soci {
    /// Debian's.
    pub fn debian() -> Self {
        let programs = spandrel_fixtures::cache::peer(SOCI_PEER).join("usr/bin");
        Self { name: "soci", programs, config: "", is_lazy: true }
    }

    /// The one in the folder that the variable `SPANDREL_SOCI` names.
    pub fn given() -> Option<Self> {
        let programs = PathBuf::from(std::env::var_os(FOLDER).filter(|folder| !folder.is_empty())?);
        Some(Self { name: "soci-given", programs, config: LAZY, is_lazy: true })
    }

    /// The same pulling whole layers in parallel.
    #[must_use]
    pub fn parallel(self) -> Self {
        Self { name: "soci-parallel", config: PARALLEL, is_lazy: false, ..self }
    }

    /// Its tool, `soci`.
    pub fn tool(&self) -> PathBuf {
        self.programs.join("soci")
    }

    fn daemon(&self, network: &Network) -> Result<peers::Soci> {
        peers::Soci::start_from(&self.programs, self.config, &network.ca_pem).context("soci can't run here")
    }

    /// The daemon, and a containerd that uses it for pods.
    ///
    /// # Errors
    /// When they don't start.
    pub fn pair(&self, network: &Network) -> Result<(peers::Soci, peers::Containerd)> {
        let daemon = self.daemon(network)?;
        let builder = containerd("soci", network, &network.named_host()).soci(&daemon);
        Ok((daemon, started(builder)?))
    }
}

impl System for Soci {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn absent(&self) -> Option<String> {
        let there = self.programs.join("soci-snapshotter-grpc").exists();
        no_containerd().or_else(|| (!there).then(|| "soci-snapshotter-grpc isn't there".to_owned()))
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = output(Command::new(self.programs.join("soci-snapshotter-grpc")).arg("--version"));
        BTreeMap::from([(self.name.to_owned(), version)])
    }

    fn is_lazy(&self) -> bool {
        self.is_lazy
    }

    fn key(&self) -> String {
        if self.is_lazy { "v1".to_owned() } else { "plain".to_owned() }
    }

    fn prepare(&self, depot: &Depot, name: &str) -> Result<u64> {
        if !self.is_lazy {
            return Ok(0);
        }
        let network = Network::start("local", depot)?;
        let (soci, containerd) = self.pair(&network)?;
        let reference = format!("{}/{name}", network.named_host());
        let hosts = containerd.hosts_dir();
        let hosts = hosts.to_str().context("a temporary folder in UTF-8")?;
        let fail = |error: String| anyhow!(error);
        containerd.ctr(&["image", "pull", "--local", "--hosts-dir", hosts, &reference]).map_err(fail)?;
        match soci.soci(&containerd, &["create", &reference]) {
            Ok(_) => {}
            // Its layers are all small: it is pulled without an index.
            Err(error) if error.contains(NOTHING_TO_INDEX) => return Ok(0),
            Err(error) => return Err(anyhow!(error)),
        }
        soci.soci(&containerd, &["push", &reference]).map_err(fail)?;
        depot.index_size(name)
    }

    fn start(&self, network: &Network) -> Result<Node> {
        let (soci, containerd) = self.pair(network)?;
        Ok(Node::new(containerd, Snapshotter::Soci(soci), network.named_host()))
    }
}

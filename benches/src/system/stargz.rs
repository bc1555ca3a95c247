//! stargz-snapshotter with eStargz images, where its programs are given: Debian has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::peers;

use super::{System, containerd, no_containerd, started};
use crate::depot::Depot;
use crate::network::Network;
use crate::node::{Node, Snapshotter};
use crate::results::machine::output;
use crate::results::start::Image;

/// The variable with the folder of `containerd-stargz-grpc` and `ctr-remote`.
const FOLDER: &str = "SPANDREL_STARGZ";

/// A stargz-snapshotter, or the place where there is none.
#[derive(Debug, Clone)]
pub struct Stargz {
    programs: Option<PathBuf>,
}

impl Stargz {
    /// The one in the folder that the variable `SPANDREL_STARGZ` names.
    pub fn given() -> Self {
        Self { programs: std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from) }
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(self.programs()?.join(name))
    }

    fn programs(&self) -> Result<&Path> {
        self.programs.as_deref().context("stargz isn't given")
    }

    fn daemon(&self, network: &Network) -> Result<peers::Stargz> {
        peers::Stargz::start_from(self.programs()?, &network.ca_pem).context("stargz can't run here")
    }
}

impl System for Stargz {
    fn name(&self) -> String {
        "stargz".to_owned()
    }

    fn absent(&self) -> Option<String> {
        let Some(programs) = &self.programs else {
            return Some(format!("{FOLDER} names no folder with its programs"));
        };
        let missing =
            ["containerd-stargz-grpc", "ctr-remote"].into_iter().find(|name| !programs.join(name).exists());
        no_containerd()
            .or_else(|| missing.map(|name| format!("{} isn't there", programs.join(name).display())))
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let program = self.program("containerd-stargz-grpc");
        program.map_or_else(
            |_| BTreeMap::new(),
            |program| BTreeMap::from([("stargz".to_owned(), output(Command::new(program).arg("--version")))]),
        )
    }

    fn is_lazy(&self) -> bool {
        true
    }

    /// Its images have no index beside them; small ones are fetched in full by its prefetching.
    fn leaves_some(&self, image: &Image) -> bool {
        /// Bytes: twice what it fetches ahead unless told otherwise.
        const SMALL: u64 = 20 << 20;
        image.compressed > SMALL
    }

    fn key(&self) -> String {
        "estargz".to_owned()
    }

    /// Converts the image to eStargz and pushes it over the original: its layers are others, so there is no index.
    fn prepare(&self, depot: &Depot, name: &str) -> Result<u64> {
        let node = super::Overlayfs.start(&Network::start("local", depot)?)?;
        let plain = format!("{}/{name}", depot.addr());
        let converted = format!("{plain}-esgz");
        let run = |arguments: &[&str]| {
            let output = Command::new(self.program("ctr-remote")?)
                .arg("--address")
                .arg(node.containerd.socket())
                .args(arguments)
                .output()
                .context("can't run ctr-remote")?;
            if !output.status.success() {
                bail!("ctr-remote {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        };
        run(&["image", "pull", "--plain-http", &plain])?;
        run(&["image", "convert", "--oci", "--estargz", &plain, &converted])?;
        run(&["image", "push", "--plain-http", &plain, &converted])?;
        Ok(0)
    }

    fn start(&self, network: &Network) -> Result<Node> {
        let daemon = self.daemon(network)?;
        let builder = containerd("stargz", network, &network.named_host()).stargz(&daemon);
        Ok(Node::new(started(builder)?, Snapshotter::Stargz(daemon), network.named_host()))
    }
}

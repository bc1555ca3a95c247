//! stargz-snapshotter with eStargz images, where its programs are given: Debian has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::peers::unmount_below;
use spandrel_fixtures::process::{Process, Ready};
use spandrel_fixtures::require;
use tempfile::TempDir;

use super::{System, containerd, no_containerd, started};
use crate::depot::Depot;
use crate::network::Network;
use crate::node::{Node, Snapshotter};
use crate::results::machine::output;

/// The variable with the folder of `containerd-stargz-grpc` and `ctr-remote`.
const FOLDER: &str = "SPANDREL_STARGZ";

/// A stargz-snapshotter, or the place where there is none.
#[derive(Debug, Clone)]
pub struct Stargz {
    programs: Option<PathBuf>,
}

/// A running stargz-snapshotter and its folder.
#[derive(Debug)]
pub struct StargzDaemon {
    process: Process,
    dir: TempDir,
}

impl StargzDaemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it has its files.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

impl Drop for StargzDaemon {
    fn drop(&mut self) {
        self.process.stop();
        unmount_below(self.dir.path());
    }
}

impl Stargz {
    /// The one in the folder that the variable `SPANDREL_STARGZ` names.
    pub fn given() -> Self {
        Self { programs: std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from) }
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(self.programs.as_deref().context("stargz isn't given")?.join(name))
    }

    fn daemon(&self, network: &Network) -> Result<StargzDaemon> {
        let dir = require::plain_disk().context("no disk")?;
        let path = |name: &str| dir.path().join(name);
        write(&path("ca.pem"), &network.ca_pem)?;
        write(&path("config.toml"), "")?;
        let mut command = Command::new(self.program("containerd-stargz-grpc")?);
        command
            .arg("--address")
            .arg(path("stargz.sock"))
            .arg("--root")
            .arg(path("root"))
            .arg("--config")
            .arg(path("config.toml"))
            .env("SSL_CERT_FILE", path("ca.pem"));
        let ready = Ready::Socket(path("stargz.sock"));
        let process = Process::start_logging_to("stargz", &mut command, &path("stargz.log"), &ready);
        Ok(StargzDaemon { process, dir })
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
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
        let builder = containerd("stargz", network, &network.host()).snapshotter(
            "stargz",
            &daemon.dir.path().join("stargz.sock"),
            &daemon.root(),
        );
        Ok(Node::new(started(builder)?, Snapshotter::Stargz(daemon), network.host()))
    }
}

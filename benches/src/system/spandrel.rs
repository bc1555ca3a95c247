//! Spandrel as this source tree builds it: lazily, and with lazy loading off.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use spandrel_fixtures::peers::{self, NOTHING_TO_INDEX};
use spandrel_fixtures::process::Process;

use super::{System, containerd, no_containerd, started};
use crate::depot::Depot;
use crate::network::Network;
use crate::node::{Node, Snapshotter};
use crate::results::machine::output;

/// Whether layers with an index are lazy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are, as the configuration has it unless told otherwise.
    Lazy,
    /// They are, and their rest is fetched when nobody has waited for a while.
    Quiet,
    /// They are, and their rest is never fetched.
    Demand,
    /// All layers are filled in full before the pull returns.
    Eager,
    /// As [`Mode::Lazy`], with layers mounted from the FUSE tree.
    Fuse,
}

/// Spandrel in one of its modes.
#[derive(Debug, Clone, Copy)]
pub struct Spandrel(pub Mode);

/// A running daemon and its folder.
// Fields are dropped in this order: what the daemon leaves mounted goes after it.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub process: Process,
    place: peers::Spandrel,
}

/// A program of ours, built beside the one that runs.
///
/// # Errors
/// When it isn't there.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    // Tests run one folder further down.
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("{name} isn't built (cargo build --release --bins)"))
}

impl Daemon {
    /// Starts a daemon with nothing in its root, with these further tables of configuration, and layers mounted as
    /// `filesystem`, or as the daemon chooses.
    ///
    /// # Errors
    /// When it isn't built, or this machine can't run it.
    pub fn start(
        hosts: &[String],
        ca_pem: &str,
        config: &str,
        filesystem: Option<&'static str>,
    ) -> Result<Self> {
        let place = peers::Spandrel::new(&program("spandrel-snapshotter")?);
        let mut place =
            place.context("the daemon can't run here (root, FUSE, EROFS, a disk of ext4 or xfs)")?;
        let ca = place.dir.path().join("ca.pem");
        std::fs::write(&ca, ca_pem).with_context(|| format!("can't write {}", ca.display()))?;
        place.config += config;
        place.filesystem = filesystem;
        for host in hosts {
            place.config += &format!("[[registry.hosts]]\nhost = {host:?}\nca_files = [{ca:?}]\n");
        }
        Ok(Self { process: place.start(), place })
    }

    /// Ends it and starts it again with all it had; returns when it serves.
    pub fn restart(&mut self) {
        self.process.stop();
        self.process = self.place.start();
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// Where it has its files.
    pub fn root(&self) -> PathBuf {
        self.place.root()
    }

    /// Where it answers questions about itself.
    pub fn admin_socket(&self) -> PathBuf {
        self.place.admin_socket()
    }
}

/// The first 6 bytes of the SHA-256 of one of our programs, in hexadecimal digits.
fn hash(name: &str) -> Result<String> {
    let bytes = std::fs::read(program(name)?).with_context(|| format!("can't read {name}"))?;
    Ok(Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

impl System for Spandrel {
    fn name(&self) -> String {
        match self.0 {
            Mode::Lazy => "spandrel".to_owned(),
            Mode::Quiet => "spandrel-quiet".to_owned(),
            Mode::Demand => "spandrel-demand".to_owned(),
            Mode::Eager => "spandrel-eager".to_owned(),
            Mode::Fuse => "spandrel-fuse".to_owned(),
        }
    }

    fn absent(&self) -> Option<String> {
        no_containerd().or_else(|| program("spandrel-snapshotter").err().map(|error| error.to_string()))
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = program("spandrel-snapshotter")
            .map_or_else(|_| "unknown".to_owned(), |program| output(Command::new(program).arg("--version")));
        let mut git = Command::new("git");
        git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
        let mut source = output(&mut git);
        // Changes that have no name yet, and what was built of them: two builds are two versions.
        if source.ends_with("-dirty") || source == "unknown" {
            source += &format!("-{}", hash("spandrel-snapshotter").unwrap_or_default());
        }
        BTreeMap::from([("spandrel".to_owned(), format!("{version} ({source})"))])
    }

    fn is_lazy(&self) -> bool {
        self.0 != Mode::Eager
    }

    /// The tool itself: another one may make another index.
    fn key(&self) -> String {
        match (self.0, hash("spandrel")) {
            (Mode::Lazy | Mode::Quiet | Mode::Demand | Mode::Fuse, Ok(hash)) => hash,
            _ => "plain".to_owned(),
        }
    }

    fn prepare(&self, depot: &Depot, name: &str) -> Result<u64> {
        if self.0 == Mode::Eager {
            return Ok(0);
        }
        let store = tempfile::tempdir().context("a temporary folder")?;
        let output = Command::new(program("spandrel")?)
            .args(["create", "--push", "--quiet", "--cache-size", "0", "--store"])
            .arg(store.path())
            .arg(format!("{}/{name}", depot.addr()))
            .output()
            .context("can't run spandrel")?;
        let error = String::from_utf8_lossy(&output.stderr);
        // Its layers are all small: it is pulled without an index.
        if error.contains(NOTHING_TO_INDEX) {
            return Ok(0);
        }
        if !output.status.success() {
            bail!("spandrel create: {error}");
        }
        depot.index_size(name)
    }

    fn start(&self, network: &Network) -> Result<Node> {
        let config = match self.0 {
            Mode::Lazy | Mode::Fuse => "",
            Mode::Quiet => "[fetch]\nbackground = \"quiet\"\n",
            Mode::Demand => "[fetch]\nbackground = \"off\"\n",
            Mode::Eager => "[index]\nv1 = false\nv2 = false\n",
        };
        Self::start_as(network, config, (self.0 == Mode::Fuse).then_some("fuse"))
    }
}

impl Spandrel {
    /// A node whose daemon has these further tables of configuration.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start_with(network: &Network, config: &str) -> Result<Node> {
        Self::start_as(network, config, None)
    }

    fn start_as(network: &Network, config: &str, filesystem: Option<&'static str>) -> Result<Node> {
        let hosts: Vec<_> = [Some(network.host()), network.redirect_host()].into_iter().flatten().collect();
        let daemon = Daemon::start(&hosts, &network.ca_pem, config, filesystem)?;
        let builder = containerd("spandrel", network, &network.host()).snapshotter(
            "spandrel",
            &daemon.socket(),
            &daemon.root(),
        );
        Ok(Node::new(started(builder)?, Snapshotter::Spandrel(daemon), network.host()))
    }
}

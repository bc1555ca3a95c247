//! One measurement of `bench-index`: making an image's index with `spandrel create` or `soci create`.
//!
//! Spandrel's tool reads the image from the registry. soci's reads it from containerd, so a pull comes before it, as its
//! documentation has a user do it; that is timed apart. `child` runs a program and says what it took; `found` reads what
//! a tool left.

pub mod child;
mod found;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::peers::NOTHING_TO_INDEX;

use self::child::Ran;
use self::found::Found;
use crate::depot::{Depot, Prepared};
use crate::network::Network;
use crate::node::drop_caches;
use crate::results::index::Made;
use crate::system::{Soci, program};
use crate::usage;

/// A tool that makes indexes.
#[derive(Debug)]
pub enum Tool {
    /// `spandrel create`.
    Spandrel,
    /// `soci create`.
    Soci(Soci),
}

impl Tool {
    /// The tool of the system of this name.
    ///
    /// # Errors
    /// When that system makes none.
    pub fn of(system: &str) -> Result<Self> {
        match (system, Soci::given()) {
            ("spandrel", _) => Ok(Self::Spandrel),
            ("soci", _) => Ok(Self::Soci(Soci::debian())),
            ("soci-given", Some(soci)) => Ok(Self::Soci(soci)),
            _ => bail!("{system} makes no indexes; those that do: spandrel, soci, soci-given"),
        }
    }

    /// Makes the index of an image, with nothing of it known and the page cache dropped; `None` when interrupted.
    ///
    /// # Errors
    /// When it can't be made: with what the tool printed.
    pub fn measure(&self, network: &Network, depot: &Depot, prepared: &Prepared) -> Result<Option<Made>> {
        match self {
            Self::Spandrel => spandrel(network, depot, prepared),
            Self::Soci(soci) => self::soci(soci, network, depot, prepared),
        }
    }
}

fn spandrel(network: &Network, depot: &Depot, prepared: &Prepared) -> Result<Option<Made>> {
    let dir = tempfile::tempdir().context("a temporary folder")?;
    // An empty cache: it is written, as everybody's is, and knows nothing.
    let (store, ca, cache) = (dir.path().join("store"), dir.path().join("ca.pem"), dir.path().join("cache"));
    std::fs::write(&ca, &network.ca_pem).context("a file in a temporary folder")?;
    let tool = program("spandrel")?;
    let mut command = Command::new(&tool);
    command.args(["create", "--quiet", "--store"]).arg(&store).arg("--tlscacert").arg(&ca);
    command.arg("--cache").arg(&cache).arg(format!("{}/{}", network.host(), prepared.name));
    let mut warm = depot.files(prepared);
    warm.push(tool);
    drop_caches(&warm)?;
    network.reset();
    let Some(ran) = child::run(&mut command)? else { return Ok(None) };
    made("spandrel create", &ran, &store, Before::default(), network).map(Some)
}

fn soci(soci: &Soci, network: &Network, depot: &Depot, prepared: &Prepared) -> Result<Option<Made>> {
    let (daemon, containerd) = soci.pair(network)?;
    let reference = format!("{}/{}", network.named_host(), prepared.name);
    let hosts = containerd.hosts_dir();
    let hosts = hosts.to_str().context("a temporary folder in UTF-8")?;
    let pids: Vec<u32> = containerd.pid().into_iter().collect();
    let mut warm = depot.files(prepared);
    warm.push(soci.tool());
    warm.extend(pids.iter().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok()));
    drop_caches(&warm)?;
    network.reset();
    let before = usage::of(&pids).cpu;
    let begin = Instant::now();
    let pull = ["image", "pull", "--local", "--hosts-dir", hosts, &reference];
    let Some(pulled) = child::run(&mut containerd.ctr_command(&pull))? else { return Ok(None) };
    let seconds = begin.elapsed().as_secs_f64();
    if !pulled.status.success() {
        bail!("ctr image pull: {}\n{}", pulled.printed, containerd.tail());
    }
    let before = Before { seconds, cpu: pulled.cpu + usage::of(&pids).cpu - before };
    let mut command = daemon.command(&containerd, &["create", &reference]);
    let Some(ran) = child::run(&mut command)? else { return Ok(None) };
    made("soci create", &ran, &daemon.state().join("content"), before, network).map(Some)
}

/// What came before a tool.
#[derive(Debug, Default)]
struct Before {
    seconds: f64,
    cpu: f64,
}

/// What a tool made, in a store with blobs by digest.
fn made(what: &str, ran: &Ran, store: &Path, before: Before, network: &Network) -> Result<Made> {
    let found = if ran.status.success() {
        Found::read(store).with_context(|| format!("what {what} made"))?
    } else if ran.printed.contains(NOTHING_TO_INDEX) {
        // The image's layers are all small: that nothing is to be made took time too.
        Found::default()
    } else {
        bail!("{what}: {} ({})", ran.printed.trim(), ran.status);
    };
    Ok(Made {
        seconds: ran.seconds,
        pull_seconds: before.seconds,
        cpu: ran.cpu,
        pull_cpu: before.cpu,
        memory: ran.memory,
        network_bytes: network.passed().bytes,
        index_bytes: found.bytes,
        indexed_layers: found.layers,
    })
}

//! The systems that are compared, one file each: how an image is prepared, and how a node with it starts clean.
//!
//! A system that isn't on this machine says what is missing; it is reported as not there, never as a figure.

mod overlayfs;
mod soci;
mod spandrel;
mod stargz;

pub use overlayfs::Overlayfs;
pub use soci::Soci;
pub use spandrel::{Daemon, Mode, Spandrel, program};
pub use stargz::Stargz;

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::peers::{Containerd, ContainerdBuilder, Version};
use spandrel_fixtures::require;

use crate::depot::{Depot, PAUSE};
use crate::network::Network;
use crate::node::Node;
use crate::results::start::Image;

/// A way to get containers' files onto a node.
pub trait System: Debug {
    /// Its name in commands and results.
    fn name(&self) -> String;

    /// Why it can't run here; `None` when it can.
    fn absent(&self) -> Option<String>;

    /// Versions of its programs, by name.
    fn versions(&self) -> BTreeMap<String, String>;

    /// Whether bytes are fetched when they are read: then the network is looked at after the start too.
    fn is_lazy(&self) -> bool;

    /// Whether a pull of this image leaves a part of it in the registry: what it has with an index, where it is lazy.
    fn leaves_some(&self, image: &Image) -> bool {
        self.is_lazy() && image.index > 0
    }

    /// What a prepared image depends on besides the image: a version, as part of a repository's name.
    fn key(&self) -> String;

    /// Makes what the system wants beside the image `name`, which is in the depot; returns its bytes, 0 for nothing.
    ///
    /// # Errors
    /// When that can't be made.
    fn prepare(&self, depot: &Depot, name: &str) -> Result<u64>;

    /// A node that never saw an image (but the sandboxes'), with this network before its registry.
    ///
    /// # Errors
    /// When it doesn't start.
    fn start(&self, network: &Network) -> Result<Node>;
}

/// Some of them.
pub type Systems = Vec<Box<dyn System>>;

/// All that there are, in the order of tables.
pub fn all() -> Systems {
    let mut systems: Systems = vec![Box::new(Overlayfs), Box::new(Soci::debian())];
    if let Some(given) = Soci::given() {
        systems.push(Box::new(given.clone()));
        systems.push(Box::new(given.parallel()));
    }
    systems.push(Box::new(Stargz::given()));
    systems.push(Box::new(Spandrel(Mode::Lazy)));
    systems.extend(
        [Mode::Quiet, Mode::Demand, Mode::Eager, Mode::Fuse]
            .map(|mode| Box::new(Spandrel(mode)) as Box<dyn System>),
    );
    systems
}

/// The systems with these names, in this order.
///
/// # Errors
/// When there is none of a name.
pub fn named(names: &[String]) -> Result<Systems> {
    let mut found = Vec::new();
    for name in names {
        let mut all = all();
        let Some(at) = all.iter().position(|system| system.name() == *name) else {
            let names: Vec<_> = all.iter().map(|system| system.name()).collect();
            bail!("there is no system {name:?}; there are: {}", names.join(", "));
        };
        found.push(all.swap_remove(at));
    }
    Ok(found)
}

/// The containerd that every system runs on.
pub const CONTAINERD: Version = Version::V2_1;

/// Versions of what all systems share.
pub fn shared_versions() -> BTreeMap<String, String> {
    let version = |program: std::path::PathBuf| {
        crate::results::machine::output(std::process::Command::new(program).arg("--version"))
    };
    let mut versions = BTreeMap::new();
    if let Some(programs) = require::peer(CONTAINERD.peer()) {
        versions.insert("containerd".to_owned(), version(programs.join("containerd")));
    }
    if let Some(runc) = require::find_program("runc") {
        versions.insert("runc".to_owned(), version(runc));
    }
    versions.extend(Depot::versions());
    versions
}

/// Why nothing at all can run here.
fn no_containerd() -> Option<String> {
    let there = spandrel_fixtures::cache::peer(CONTAINERD.peer()).join("usr/bin/containerd").exists();
    (!there).then(|| format!("{} isn't unpacked (./dev does that)", CONTAINERD.peer()))
}

/// A containerd whose pods use `snapshotter`, before it starts: it knows the registry by this host.
fn containerd(snapshotter: &str, network: &Network, host: &str) -> ContainerdBuilder {
    Containerd::builder(CONTAINERD)
        .cri_snapshotter(snapshotter)
        .registry(host, &format!("https://{host}"), Some(&network.ca_pem))
        .sandbox_image(&format!("{host}/{PAUSE}"))
}

/// Starts it.
fn started(builder: ContainerdBuilder) -> Result<Containerd> {
    builder.start().context("containerd can't run here")
}

//! A double of the layers: a test says what becomes of each, and sees what was asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::sync::watch;

use crate::Error;
use crate::layer::{LayerKey, LayerRequest, Layers, Prepared, Ready, Usage};

/// What becomes of a layer. By default all are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It can be mounted.
    Ready,
    /// It is being filled, until a test says something else.
    Filling,
    /// Filling it fails.
    Fails(&'static str),
    /// Its state was lost: nobody knows it until it is prepared again.
    Lost,
    /// There is no room for it.
    Full,
    /// It is left to containerd.
    Ordinary(&'static str),
    /// Asking for it gives an error.
    Refused(Error),
    /// Asking for it takes for ever.
    Hangs,
    /// Mounting it takes until a test says something else.
    MountHangs,
}

#[derive(Default)]
pub struct State {
    fates: HashMap<String, Fate>,
    /// Layers asked for, in order.
    pub prepared: Vec<LayerRequest>,
    /// How often each was waited for.
    pub waits: BTreeMap<String, usize>,
    /// Waiting now.
    pub waiting: usize,
    /// Where what is mounted.
    pub mounted: BTreeMap<PathBuf, LayerKey>,
    /// Layers whose tables depend on what is below.
    pub dependent: HashSet<String>,
    /// How many tables were written.
    pub tables_written: usize,
    /// For each snapshot by its number the content of the table that was given at its last mount, if one was.
    pub by_table: BTreeMap<u64, Option<String>>,
    /// How many mounts were begun.
    pub mounting: usize,
    /// How many mounts were made.
    pub mounts: usize,
    /// Layers given up.
    pub removed: Vec<String>,
    /// What the last start found in use.
    pub restored: Vec<LayerKey>,
}

pub struct Fake {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    /// Whether something is really mounted; else it is only noted.
    pub real_mounts: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::channel(()).0, real_mounts: false }
    }
}

/// Counts somebody who waits, for as long as it does.
struct Waiting<'a>(&'a Fake);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        self.0.changes.send_replace(());
    }
}

impl Fake {
    /// One that really mounts something.
    pub fn mounting() -> Self {
        let mut fake = Self::default();
        fake.real_mounts = true;
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }

    /// From now on `layer` does this.
    pub fn decide(&self, layer: &str, fate: Fate) {
        self.state().fates.insert(layer.to_owned(), fate);
        self.changes.send_replace(());
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, condition: impl Fn(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        while !condition(&self.state()) {
            changes.changed().await.expect("the sender lives as long as self");
        }
    }

    fn fate(&self, layer: &str) -> Fate {
        self.state().fates.get(layer).cloned().unwrap_or(Fate::Ready)
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for target in self.state().mounted.keys().filter(|_| self.real_mounts) {
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
        }
    }
}

#[async_trait]
impl Layers for Fake {
    async fn prepare(&self, request: &LayerRequest) -> Result<Prepared, Error> {
        self.state().prepared.push(request.clone());
        self.changed();
        let digest = &request.labels["containerd.io/snapshot/cri.layer-digest"];
        let layer = digest.strip_prefix("sha256:").expect("a digest").to_owned();
        match self.fate(&layer) {
            Fate::Ordinary(reason) => Ok(Prepared::Ordinary(reason)),
            Fate::Refused(error) => Err(error),
            Fate::Hangs => std::future::pending().await,
            Fate::Lost => {
                self.decide(&layer, Fate::Ready);
                Ok(Prepared::Remote(LayerKey(layer)))
            }
            _ => Ok(Prepared::Remote(LayerKey(layer))),
        }
    }

    async fn ready(&self, layer: &LayerKey) -> Result<Ready, Error> {
        {
            let mut state = self.state();
            *state.waits.entry(layer.0.clone()).or_default() += 1;
            state.waiting += 1;
        }
        let _waiting = Waiting(self);
        self.changed();
        let mut changes = self.changes.subscribe();
        loop {
            match self.fate(&layer.0) {
                Fate::Filling => changes.changed().await.expect("the sender lives as long as self"),
                Fate::Full => return Err(Error::NoSpace("the disk is full".to_owned())),
                Fate::Fails(why) => return Err(Error::Unavailable(why.to_owned())),
                Fate::Lost => return Err(Error::NotFound(layer.0.clone())),
                _ => return Ok(Ready::Mountable),
            }
        }
    }

    fn depends_on_lowers(&self, layer: &LayerKey) -> Result<bool, Error> {
        if self.fate(&layer.0) == Fate::Lost {
            return Err(Error::NotFound(layer.0.clone()));
        }
        Ok(self.state().dependent.contains(&layer.0))
    }

    async fn write_table(&self, layer: &LayerKey, lowers: &[PathBuf], table: &Path) -> Result<(), Error> {
        let mut state = self.state();
        let below = lowers.iter().map(|lower| state.mounted.get(lower).map_or("", |layer| &layer.0));
        let below: Vec<&str> = below.collect();
        std::fs::write(table, format!("{} above {}", layer.0, below.join(" "))).expect("written");
        state.tables_written += 1;
        Ok(())
    }

    async fn mount(&self, layer: &LayerKey, table: Option<&Path>, target: &Path) -> Result<(), Error> {
        if self.fate(&layer.0) == Fate::Lost {
            return Err(Error::NotFound(layer.0.clone()));
        }
        self.state().mounting += 1;
        self.changed();
        let mut changes = self.changes.subscribe();
        while self.fate(&layer.0) == Fate::MountHangs {
            changes.changed().await.expect("the sender lives as long as self");
        }
        if self.real_mounts {
            rustix::mount::mount(
                "spandrel-test",
                target,
                "tmpfs",
                MountFlags::RDONLY,
                None::<&std::ffi::CStr>,
            )
            .map_err(|error| Error::Internal(format!("mount: {error}")))?;
        }
        let mut state = self.state();
        state.mounted.insert(target.to_path_buf(), layer.clone());
        let number = target.iter().rev().nth(1).and_then(|number| number.to_str()?.parse().ok());
        let table = table.map(|table| std::fs::read_to_string(table).expect("a table"));
        state.by_table.insert(number.expect("a snapshot's directory"), table);
        state.mounts += 1;
        drop(state);
        self.changed();
        Ok(())
    }

    async fn unmount(&self, _: &LayerKey, target: &Path) -> Result<(), Error> {
        if self.real_mounts {
            while rustix::mount::unmount(target, UnmountFlags::DETACH).is_ok() {}
        }
        self.state().mounted.remove(target);
        self.changed();
        Ok(())
    }

    async fn usage(&self, layer: &LayerKey) -> Result<Usage, Error> {
        match self.fate(&layer.0) {
            Fate::Lost => Err(Error::NotFound(layer.0.clone())),
            _ => Ok(Usage { size: 4096, inodes: 3 }),
        }
    }

    async fn remove(&self, layer: &LayerKey) -> Result<(), Error> {
        self.state().removed.push(layer.0.clone());
        self.changed();
        Ok(())
    }

    async fn restore(&self, layers: &[LayerKey]) -> Result<(), Error> {
        let unique: HashSet<&LayerKey> = layers.iter().collect();
        assert_eq!(unique.len(), layers.len(), "a layer is named twice");
        self.state().restored = layers.to_vec();
        Ok(())
    }

    async fn shutdown(&self) {}
}

//! What a snapshot is: the rules of Prepare, View, Commit and Remove, and what they mean for directories and mounts.
//!
//! [`Snapshots`] answers for [`Snapshotter`] by putting its parts together: records and rules in `store` (its file in `database`), directories in
//! `dirs`, the mounts that containerd is told in `mounts`, remote snapshots in `remote`, which of their layers are mounted
//! in `lowers`, start-up in `restore`. What a layer is, and everything about filling it, is behind
//! [`Layers`].

mod database;
mod dirs;
mod lowers;
mod mounts;
mod record;
mod remote;
mod restore;
mod store;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::layer::Layers;
use crate::metrics::Metrics;
use crate::service::filter::Filters;
use crate::service::{Info, Kind, Mount, Snapshotter, Usage};

use dirs::Dirs;
use lowers::Lowers;
use mounts::Overlay;
use store::{Chain, New, Store};

/// Longest that Cleanup waits for removals under way: containerd's garbage collector waits for it, and what is left is done
/// all the same.
const CLEANUP_WAIT: Duration = Duration::from_secs(10);

/// How the snapshots of a root behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything lies: an absolute path on ext4 or xfs.
    pub root: PathBuf,
    /// Layers that nothing uses and that stay mounted all the same.
    pub keep_mounted: usize,
    /// How long a container's start waits for a layer that is still being filled.
    pub pending_wait: Duration,
}

impl Options {
    /// The options for `root` with everything else as it is by default.
    pub fn new(root: &Path) -> Self {
        // Reasons: docs/configuration.md.
        Self { root: root.to_path_buf(), keep_mounted: 100, pending_wait: Duration::from_secs(10) }
    }
}

/// All snapshots below one root.
pub struct Snapshots {
    store: Arc<Store>,
    dirs: Arc<Dirs>,
    overlay: Overlay,
    layers: Arc<dyn Layers>,
    lowers: Arc<Lowers>,
    gates: remote::Gates,
    metrics: Arc<Metrics>,
    pending_wait: Duration,
    /// Calls are broken off: nothing will serve what they wait for.
    stop: CancellationToken,
    /// Unmounting and deleting that goes on after a call was answered.
    background: TaskTracker,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("dirs", &self.dirs).finish_non_exhaustive()
    }
}

/// Runs `work`, which waits for the disk, where waiting is allowed. Once begun it runs to its end, whatever becomes of the
/// caller.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(format!("a task failed: {error}"))))
}

/// Runs `work` to its end, also when the caller is cancelled meanwhile.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::Internal(format!("a task failed: {error}"))))
}

impl Snapshots {
    /// Opens the records and directories below the root. Layers are left alone until [`Snapshots::restore`].
    ///
    /// # Errors
    /// When another daemon has this root, or it can't be read.
    pub fn open(
        options: &Options,
        layers: Arc<dyn Layers>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, Error> {
        let dirs = Arc::new(Dirs::open(&options.root)?);
        // Needs no records, and may be what makes room for them.
        dirs.empty_trash();
        let store = Arc::new(Store::open(&options.root.join("snapshots.redb"), SystemTime::now)?);
        let lowers = Arc::new(Lowers::new(
            Arc::clone(&layers),
            Arc::clone(&dirs),
            Arc::clone(&metrics),
            options.keep_mounted,
        ));
        let background = TaskTracker::new();
        // A closed tracker still takes tasks; it can be waited for.
        background.close();
        Ok(Arc::new(Self {
            store,
            dirs,
            overlay: Overlay::probe(),
            layers,
            lowers,
            gates: remote::Gates::default(),
            metrics,
            pending_wait: options.pending_wait,
            stop: CancellationToken::new(),
            background,
        }))
    }

    /// Makes an ordinary snapshot.
    async fn create(
        self: &Arc<Self>,
        kind: Kind,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        let this = Arc::clone(self);
        let below = blocking({
            let (this, key, parent) = (Arc::clone(self), key.clone(), parent.clone());
            move || {
                let below = this.store.below(&parent)?;
                match this.store.get(&key) {
                    Err(Error::NotFound(_)) => Ok(below),
                    Ok(_) => Err(Error::AlreadyExists(format!("snapshot {key}"))),
                    Err(error) => Err(error),
                }
            }
        })
        .await?;
        let pins = self.lowers.pin(&below);
        self.ensure_mounted(&below).await?;
        blocking(move || {
            let draft = this.dirs.draft(kind == Kind::Active)?;
            let new = New { key, parent, kind, labels, remote: None };
            let chain = this.store.create(new, |number, ancestors| {
                // What was mounted and is held must be what it stands on.
                if !ancestors.iter().map(|lower| lower.number).eq(below.iter().map(|lower| lower.number)) {
                    return Err(Error::Unavailable(
                        "the parent was removed and made again meanwhile: try again".to_owned(),
                    ));
                }
                this.dirs.place(&draft, number, ancestors.first().map(|parent| parent.number))
            })?;
            pins.keep();
            Ok(this.overlay.mounts(&this.dirs, &chain))
        })
        .await
    }

    /// Deletes the directory of the ordinary snapshot `number`, whose record is gone.
    fn delete_later(self: &Arc<Self>, number: u64) {
        if let Err(error) = self.dirs.discard(number) {
            tracing::warn!(number, %error, "its directory stays until the next clean-up");
        }
        let this = Arc::clone(self);
        self.background.spawn_blocking(move || this.dirs.empty_trash());
    }

    fn sweep(&self) -> Result<(), Error> {
        self.store.exclusively(|numbers| self.dirs.discard_orphans(numbers))??;
        self.dirs.empty_trash();
        Ok(())
    }

    /// Breaks off calls that wait for a layer or a mount, and lets nobody mount anything any more.
    pub fn stop(&self) {
        self.lowers.close();
        self.stop.cancel();
    }

    /// `work`, unless it is broken off.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Err(Error::Unavailable("the daemon is stopping: try again when it has started".to_owned()))
            }
            result = work => result,
        }
    }

    /// `work`; again, if the disk was full and layers could give something back.
    async fn with_room<T, F: Future<Output = Result<T, Error>>>(
        &self,
        work: impl Fn() -> F,
    ) -> Result<T, Error> {
        match work().await {
            Err(Error::NoSpace(_)) if self.layers.make_room().await => work().await,
            other => other,
        }
    }

    /// Waits until what removals left to do is done, at most `limit`.
    pub async fn finish_background(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.background.wait()).await.is_err() {
            tracing::warn!(left = self.background.len(), "removals are still under way");
        }
    }

    /// Numbers of active snapshots that stand on remote ones: containers, most of them running.
    pub fn lazy_containers(&self) -> Result<usize, Error> {
        let mut actives = Vec::new();
        self.store.each(|key, record| {
            if record.kind == Kind::Active {
                actives.push(key.to_owned());
            }
        })?;
        let lazy = |key: &String| {
            self.store
                .chain(key)
                .is_ok_and(|chain| chain.ancestors.iter().any(|lower| lower.remote.is_some()))
        };
        Ok(actives.iter().filter(|key| lazy(key)).count())
    }

    async fn chain(self: &Arc<Self>, key: String) -> Result<Chain, Error> {
        let this = Arc::clone(self);
        blocking(move || this.store.chain(&key)).await
    }
}

#[async_trait]
impl Snapshotter for Arc<Snapshots> {
    async fn stat(&self, key: String) -> Result<Info, Error> {
        let this = Arc::clone(self);
        let record = blocking({
            let key = key.clone();
            move || this.store.get(&key)
        })
        .await?;
        if !record.remote.as_ref().is_some_and(|remote| remote.pending) {
            return Ok(record.info(&key));
        }
        self.with_room(|| self.unless_stopped(self.settle(&key, &record))).await?;
        Ok(record.info(&key))
    }

    async fn update(&self, info: Info, fieldpaths: Option<Vec<String>>) -> Result<Info, Error> {
        let this = Arc::clone(self);
        blocking(move || {
            let record = this.store.update(&info.name, info.labels, fieldpaths.as_deref())?;
            Ok(record.info(&info.name))
        })
        .await
    }

    async fn usage(&self, key: String) -> Result<Usage, Error> {
        let this = Arc::clone(self);
        let (record, counted) = blocking({
            let (this, key) = (Arc::clone(&this), key.clone());
            move || {
                let record = this.store.get(&key)?;
                let counted = match &record.remote {
                    Some(remote) => this.store.first_user(&remote.layer)? == Some(record.number),
                    None => true,
                };
                Ok((record, counted))
            }
        })
        .await?;
        if !counted {
            // The layer is on the disk once, and counted for another snapshot of it.
            return Ok(Usage::default());
        }
        if let Some(remote) = record.remote {
            return match self.layers.usage(&remote.layer).await {
                Ok(usage) => Ok(Usage { size: usage.size, inodes: usage.inodes }),
                // Its state was lost; it is asked for again when it is needed.
                Err(Error::NotFound(_)) => Ok(Usage::default()),
                Err(error) => Err(error),
            };
        }
        if record.kind != Kind::Active {
            return Ok(record.usage);
        }
        let path = self.dirs.fs(record.number);
        blocking(move || {
            measured(&key, &path).or_else(|error| {
                this.store.get(&key)?; // removed meanwhile, if it isn't there
                Err(error)
            })
        })
        .await
    }

    async fn mounts(&self, key: String) -> Result<Vec<Mount>, Error> {
        let chain = self.chain(key.clone()).await?;
        if chain.record.kind == Kind::Committed {
            return Err(Error::FailedPrecondition(format!("snapshot {key} is neither active nor a view")));
        }
        self.with_room(|| self.unless_stopped(self.ensure_mounted(&chain.ancestors))).await?;
        Ok(self.overlay.mounts(&self.dirs, &chain))
    }

    async fn prepare(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        let remote =
            self.with_room(|| self.unless_stopped(self.prepare_remote(&key, &parent, &labels))).await?;
        if let Some(name) = remote {
            return Err(Error::AlreadyExists(format!("target snapshot {name}")));
        }
        self.with_room(|| {
            self.unless_stopped(self.create(Kind::Active, key.clone(), parent.clone(), labels.clone()))
        })
        .await
    }

    async fn view(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        self.with_room(|| {
            self.unless_stopped(self.create(Kind::View, key.clone(), parent.clone(), labels.clone()))
        })
        .await
    }

    async fn commit(&self, name: String, key: String, labels: HashMap<String, String>) -> Result<(), Error> {
        self.with_room(|| {
            let (this, name, key, labels) = (Arc::clone(self), name.clone(), key.clone(), labels.clone());
            blocking(move || {
                let chain = this.store.chain(&key)?;
                let usage = if chain.record.kind == Kind::Active {
                    // Outside the transaction: other calls needn't wait for a large directory.
                    measured(&key, &this.dirs.fs(chain.record.number))?
                } else {
                    Usage::default() // refused below
                };
                this.store.commit(&name, &key, labels, usage)?;
                this.lowers.unpin(&chain.ancestors);
                Ok(())
            })
        })
        .await
    }

    async fn remove(&self, key: String) -> Result<(), Error> {
        let this = Arc::clone(self);
        blocking(move || {
            let removed = this.store.remove(&key)?;
            let record = removed.chain.record;
            if let Some(remote) = record.remote {
                this.forget_later(record.number, remote.layer, removed.unused.is_some());
                return Ok(());
            }
            if record.kind != Kind::Committed {
                this.lowers.unpin(&removed.chain.ancestors);
                this.evict_later();
            }
            this.delete_later(record.number);
            Ok(())
        })
        .await
    }

    async fn clear(&self) -> Result<(), Error> {
        self.finish_background(CLEANUP_WAIT).await;
        let this = Arc::clone(self);
        blocking(move || this.sweep()).await
    }

    async fn list(&self, filters: Vec<String>) -> Result<BoxStream<'static, Result<Info, Error>>, Error> {
        let filters = Filters::parse(&filters)?;
        let this = Arc::clone(self);
        let infos = blocking(move || this.store.list(|info| filters.matches(info))).await?;
        Ok(stream::iter(infos.into_iter().map(Ok)).boxed())
    }
}

fn measured(key: &str, path: &Path) -> Result<Usage, Error> {
    usage::disk_usage(path)
        .map_err(|error| Error::Internal(format!("snapshot {key}: its files can't be counted: {error}")))
}

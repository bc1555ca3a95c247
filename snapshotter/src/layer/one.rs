//! One layer: what state it is in, what is mounted of it, and the steps from one state to the next.
//!
//! `lazy` and `fill` know how files come to be, `opened` has them while they are open; `store` knows which layers there are;
//! `room` is what it takes on the disk, `mounted` by what it is mounted.

mod mounted;
mod room;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::lazy::TABLE;
use super::node::{Node, Place};
use super::opened::Opened;
use super::prefetch::List;
use super::record::{Record, Stage};
use super::{LayerKey, Ready, Report, Usage, files, fill, lazy, parents, table, unpack};
use crate::Error;
use crate::fetch::blocking;
use crate::filesystem::FileSystem;
use crate::mounter::is_mount_point;

/// How long an unmount is waited for before reads that are under way are failed to let it go on: longer than any unmount
/// that nothing holds up.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// How a fill ended, for those who wait for it.
type FillState = watch::Receiver<Option<Result<(), Error>>>;

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    key: LayerKey,
    pub(super) dir: Arc<Path>,
    pub(super) node: Arc<Node>,
    pub(super) record: Mutex<Record>,
    /// The last fill, if there was one.
    fill: Mutex<Option<FillState>>,
    /// Its files, while they are open.
    pub(super) opened: Mutex<Option<Opened>>,
    /// Held while the layer is opened, closed or mounted.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// Where it is mounted.
    pub(super) targets: Mutex<HashSet<PathBuf>>,
    pub(super) stop: CancellationToken,
    /// Whether containerd has asked for it.
    claimed: AtomicBool,
    /// What is to be prefetched of it.
    pub(super) list: List,
    /// Whether somebody looks whether it is ever claimed.
    watched: AtomicBool,
    unpacked_usage: OnceLock<Usage>,
    /// Whether it was ever mounted, now or before a restart.
    was_mounted: AtomicBool,
}

pub(in crate::layer) use room::holding;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while holding one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layer {
    /// A layer whose files are in `dir` as `record` says.
    pub(super) fn new(key: LayerKey, dir: PathBuf, record: Record, node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            key,
            dir: dir.into(),
            node,
            record: Mutex::new(record),
            fill: Mutex::default(),
            opened: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            targets: Mutex::default(),
            stop: CancellationToken::new(),
            claimed: AtomicBool::new(false),
            list: List::default(),
            watched: AtomicBool::new(false),
            unpacked_usage: OnceLock::new(),
            was_mounted: AtomicBool::new(false),
        })
    }

    /// What is known of it.
    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// What operators see of it.
    pub(super) fn report(&self) -> Report {
        let record = self.record();
        let progress = self.progress();
        let mut mounts: Vec<PathBuf> = lock(&self.targets).iter().cloned().collect();
        mounts.sort();
        Report {
            layer: self.key.clone(),
            digest: record.digest.to_string(),
            repository: format!("{}/{}", record.host, record.repository),
            stage: record.stage.name(),
            ztoc: record.ztoc.map(|digest| digest.to_string()),
            compressed_size: record.size,
            uncompressed_size: record.stream_len,
            spans: progress.map(|(_, all)| all),
            present_spans: progress.map(|(present, _)| present),
            mounts,
        }
    }

    /// Its name.
    pub(super) fn key(&self) -> &LayerKey {
        &self.key
    }

    /// Whether nobody looks yet whether it is ever claimed; from now on somebody does.
    pub(super) fn watch_once(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    /// Waits until it is stopped.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// containerd has asked for it.
    pub(super) fn claim(&self) {
        self.claimed.store(true, Ordering::Release);
    }

    /// Whether containerd has asked for it, or it is mounted.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire) || !lock(&self.targets).is_empty()
    }

    /// Begins to fill a layer that is to be filled in full, unless that is under way or done; at `place` in the queue, or at
    /// its end.
    pub(super) fn begin(self: &Arc<Self>, place: Option<Place>) -> Option<FillState> {
        let mut fill = lock(&self.fill);
        if lock(&self.record).stage != Stage::Filling {
            return None;
        }
        if let Some(state) =
            fill.as_ref().filter(|state| state.borrow().is_none() && state.has_changed().is_ok())
        {
            return Some(state.clone());
        }
        let (sender, state) = watch::channel(None);
        *fill = Some(state.clone());
        let this = Arc::clone(self);
        let place = place.unwrap_or_else(|| self.node.queue(&self.record().repository()));
        self.node.tasks.spawn(async move {
            let result = this.fill_with_room(place).await;
            if let Err(error) = &result {
                warn!(layer = this.key.0, %error, "the layer could not be filled");
            }
            // Under one lock: whoever comes sees a fill under way, or the stage that it led to.
            let _fill = lock(&this.fill);
            let result = result.map(|record| *lock(&this.record) = record);
            sender.send_replace(Some(result));
        });
        Some(state)
    }

    /// Fills it; again, where the disk was full and room could be made.
    async fn fill_with_room(&self, mut place: Place) -> Result<Record, Error> {
        let ledger = &self.node.fetch.ledger;
        for _ in 1..room::FILL_TRIES {
            let filled = self.fill(place).await;
            let Err(Error::NoSpace(_)) = &filled else { return filled };
            let record = self.record();
            if !ledger.make_room(record.size.saturating_mul(room::INFLATION)).await {
                return filled;
            }
            info!(layer = self.key.0, "room was made on the disk: its download begins anew");
            place = self.node.queue(&record.repository());
        }
        self.fill(place).await
    }

    async fn fill(&self, place: Place) -> Result<Record, Error> {
        let stopped = || Error::Unavailable(format!("layer {}: the download was stopped", self.key.0));
        let record = self.record();
        let turns = async {
            let repository = place.await?;
            let host = self.node.host_downloads.of(&record.host).acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>((repository, host, self.node.downloads.acquire().await?))
        };
        let _turns = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(stopped()),
            turns = turns => turns.expect("these semaphores are never closed"),
        };
        if record.stage != Stage::Filling {
            return Err(Error::Internal(format!("layer {} is filled", self.key.0)));
        }
        let source = (self.node.sources)(&record.repository(), &record.digest);
        let filled = fill::fill(source, record, &self.dir, self.stop.clone(), &self.node.fetch).await;
        match filled {
            Ok(record) => {
                info!(layer = self.key.0, len = record.stream_len, stage = ?record.stage, "filled");
                self.node.metrics.fill("eager");
                self.node.fetch.ledger.wrote(record.stream_len);
                Ok(record)
            }
            Err(_) if self.stop.is_cancelled() => Err(stopped()),
            Err(error) => {
                self.node.metrics.error(crate::service::status::class(&error));
                Err(error)
            }
        }
    }

    /// Waits until it can be mounted.
    ///
    /// # Errors
    /// Why it couldn't be filled; the next call tries again.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<Ready, Error> {
        if let Some(mut state) = self.begin(None) {
            match state.wait_for(Option::is_some).await {
                Ok(result) => result.clone().unwrap_or(Ok(()))?,
                Err(_) => return Err(Error::Internal(format!("layer {}: its fill vanished", self.key.0))),
            }
        }
        match self.record().stage {
            Stage::Unpacked => Ok(Ready::Unpacked),
            Stage::Indexed => {
                self.open().await?;
                Ok(Ready::Mountable)
            }
            Stage::Complete => Ok(Ready::Mountable),
            Stage::Filling => Err(Error::Unavailable(format!("layer {} isn't filled", self.key.0))),
        }
    }

    /// Whoever had to wait for the gate may find that the layer has gone meanwhile.
    pub(super) fn not_stopped(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::NotFound(format!("layer {} (it was removed meanwhile)", self.key.0)));
        }
        Ok(())
    }

    /// Changes the record, in memory and on the disk.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        // Under the gate, and not once it is stopped: the directory may be another layer's of this name by then.
        let _held = self.gate.lock().await;
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let record = {
            let mut record = lock(&self.record);
            change(&mut record);
            record.clone()
        };
        let dir = Arc::clone(&self.dir);
        blocking(move || record.save(&dir)).await
    }

    /// Whether new containers may have it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it has turned out not to be what its image says.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuted = self.spans().and_then(|spans| spans.refuted());
        let recorded =
            self.record().refuted.map(|what| Error::Corrupt(format!("layer {}: {what}", self.key.0)));
        refuted.or(recorded).map_or(Ok(()), Err)
    }

    /// Writes its table as it is above `lowers` to the file `path`.
    ///
    /// # Errors
    /// When its files are damaged, the layers below can't be looked into, or the disk is full.
    pub(super) async fn write_table(&self, lowers: &[PathBuf], path: &Path) -> Result<(), Error> {
        let (dir, record) = (Arc::clone(&self.dir), self.record());
        let (lowers, path) = (lowers.to_vec(), path.to_path_buf());
        let filesystem = self.node.filesystem.clone();
        self.check()?;
        blocking(move || {
            let mut tree = match record.stage {
                Stage::Indexed => lazy::tree(&dir, &record),
                Stage::Complete => fill::tree(&dir, &record),
                Stage::Filling | Stage::Unpacked => {
                    Err(Error::FailedPrecondition(format!("layer {} has no table", record.digest)))
                }
            }
            // A file of it that is missing is damage, too; where the table is to go, it isn't.
            .map_err(|error| if let Error::NotFound(what) = error { Error::Corrupt(what) } else { error })?;
            let mounted = match &filesystem {
                FileSystem::Fuse(tree) => Some(&**tree),
                FileSystem::Erofs(_) => None,
            };
            parents::describe(&mut tree, &lowers, mounted)?;
            files::replace(&path, &table::build(&tree, record.stream_len)?)
        })
        .await
    }

    /// Mounts the layer at `target`, by `table` or its own.
    ///
    /// # Errors
    /// When its files are damaged, it turned out not to be what its image says, or the kernel refuses.
    pub(super) async fn mount(self: &Arc<Self>, table: Option<&Path>, target: &Path) -> Result<(), Error> {
        let _held = self.gate.lock().await;
        self.not_stopped()?;
        self.check()?;
        let record = self.record();
        if lock(&self.targets).contains(target) && is_mount_point(target) {
            return Ok(());
        }
        if is_mount_point(target) {
            // Left by a former daemon: nothing answers behind it.
            self.take_down(target).await?;
        }
        match record.stage {
            Stage::Filling => {
                return Err(Error::FailedPrecondition(format!("layer {} isn't filled yet", self.key.0)));
            }
            Stage::Unpacked => self.node.mounter.bind(&self.dir.join(unpack::DIR), target).await?,
            Stage::Indexed | Stage::Complete => {
                let own = self.dir.join(TABLE);
                let table = table.unwrap_or(&own);
                let mounted = self.mount_table(&record, table, target).await;
                // It was opened in vain, unless it is mounted elsewhere.
                mounted.inspect_err(|_| self.close_later())?;
            }
        }
        lock(&self.targets).insert(target.to_path_buf());
        self.mark_mounted();
        if let Some(spans) = self.spans() {
            spans.complete_in_background();
        }
        self.prefetch();
        Ok(())
    }

    /// Takes the mount at `target` away.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn unmount(self: &Arc<Self>, target: &Path) -> Result<(), Error> {
        let unmount = self.take_down(target);
        tokio::pin!(unmount);
        // Pages that a killed reader waited for hold the unmount up until they are answered.
        let result = loop {
            if let Ok(result) = tokio::time::timeout(UNMOUNT_PATIENCE, &mut unmount).await {
                break result;
            }
            // Those of a container that has the layer elsewhere would fail too: then the reads' own time limit ends the wait.
            if lock(&self.targets).iter().any(|other| other != target) {
                debug!(layer = self.key.0, target = %target.display(), "its unmounting takes long");
            } else if let Some(spans) = self.spans() {
                warn!(layer = self.key.0, target = %target.display(), "reads hold up its unmounting: they fail now");
                spans.interrupt();
            }
        };
        if result.is_ok() {
            let last = {
                let mut targets = lock(&self.targets);
                targets.remove(target) && targets.is_empty()
            };
            if last {
                // So that it is known after a restart, too, when it was used last.
                let dir = self.dir.clone();
                blocking(move || Ok(files::touch(&dir).ok())).await.ok();
            }
            self.close_later();
        }
        result
    }

    /// Disk use.
    ///
    /// # Errors
    /// When the files can't be looked at.
    pub(super) async fn usage(&self) -> Result<Usage, Error> {
        if let Some(usage) = self.unpacked_usage.get() {
            return Ok(*usage);
        }
        let (dir, unpacked) = (Arc::clone(&self.dir), self.record().stage == Stage::Unpacked);
        let usage = blocking(move || {
            let (size, inodes) = files::allocated(&dir).map_err(|e| files::failed("look at", &dir, &e))?;
            Ok(Usage { size, inodes })
        })
        .await?;
        // Nothing changes in there, and walking it at each of containerd's questions is dear.
        if unpacked {
            self.unpacked_usage.set(usage).ok();
        }
        Ok(usage)
    }

    /// Stops downloads and fetches; what waits for them fails.
    pub(super) fn stop(&self) {
        self.stop.cancel();
        if let Some(spans) = self.spans() {
            spans.close();
        }
    }

    /// Stops everything, waits until nothing writes into the directory any more, and deletes it.
    ///
    /// # Errors
    /// When the files can't be deleted.
    pub(super) async fn dispose(&self) -> Result<(), Error> {
        self.shut().await;
        let dir = Arc::clone(&self.dir);
        blocking(move || files::delete(&dir)).await
    }
}

//! What a layer takes on the disk, and how it gets out of the way. Who has to go is `cache`'s to say.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use tracing::{info, warn};

use super::super::record::{Record, Stage};
use super::super::{files, lazy};
use super::{Layer, lock};
use crate::Error;
use crate::cache::{Hold, Holding};
use crate::fetch::blocking;
use crate::mounter::is_mount_point;

/// Times that a layer is begun anew for which there was no room, while room is being made.
pub(super) const FILL_TRIES: usize = 3;

/// How long a layer's tar is at most, as a rule, in lengths of its blob.
pub(super) const INFLATION: u64 = 4;

/// How the directory `dir` of a layer lies on the disk, held so; `bytes` is what it takes, where that is known. Waits for the
/// disk.
///
/// # Errors
/// When it can't be looked at.
pub(in crate::layer) fn holding(
    dir: &Path,
    record: &Record,
    hold: Hold,
    bytes: Option<u64>,
) -> Result<Holding, Error> {
    let failed = |e: io::Error| files::failed("look at", dir, &e);
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => files::allocated(dir).map_err(failed)?.0,
    };
    let used = dir.metadata().and_then(|found| found.modified()).map_err(failed)?;
    // Nanoseconds since 1970; the directory was touched when the layer was used last.
    let used = used
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let spans = match record.stage {
        Stage::Indexed => lazy::allocated(dir).map_err(failed)?,
        Stage::Complete | Stage::Filling | Stage::Unpacked => 0,
    };
    Ok(Holding { bytes, spans, used, hold })
}

impl Layer {
    /// How it lies on the disk, and who keeps it there. Waits for the disk.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub(in crate::layer) fn holding(&self) -> Result<Holding, Error> {
        let record = self.record();
        let mounted = !lock(&self.targets).is_empty();
        let hold = match record.stage {
            Stage::Filling => Hold::Fixed,
            // Bound, not mounted behind the device: what is missing would be missed by nobody but the container.
            // The same must hold for a stream that is mounted without the device, once there are such.
            Stage::Unpacked if mounted => Hold::Fixed,
            // Its check relies on all of it.
            Stage::Indexed if self.spans().is_some_and(|spans| spans.is_kept_whole()) => Hold::Fixed,
            _ if mounted => Hold::Mounted,
            // Whoever pulls it is about to mount it.
            _ if !self.was_mounted() => Hold::Fixed,
            _ => Hold::Unmounted,
        };
        // In an unpacked one nothing changes.
        let known = self.unpacked_usage.get().map(|usage| usage.size);
        let mut found = holding(&self.dir, &record, hold, known)?;
        if record.stage == Stage::Indexed && found.hold == Hold::Unmounted && found.spans == 0 {
            // Nothing but what it is mounted by.
            found.hold = Hold::Fixed;
        }
        Ok(found)
    }

    /// Whether it was mounted before.
    pub(in crate::layer) fn was_mounted(&self) -> bool {
        self.was_mounted.load(Ordering::Acquire)
    }

    /// It was mounted before: it isn't just being pulled.
    pub(in crate::layer) fn mark_mounted(&self) {
        self.was_mounted.store(true, Ordering::Release);
    }

    /// Whether a fill of it is under way.
    pub(in crate::layer) fn is_filling(&self) -> bool {
        lock(&self.record).stage == Stage::Filling
    }

    /// Gives all its spans back, if it is mounted nowhere and nobody is busy with it; says how many bytes that gave.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::layer) async fn empty(&self) -> Result<u64, Error> {
        let Ok(_held) = self.gate.try_lock() else { return Ok(0) };
        if !lock(&self.targets).is_empty() || self.stop.is_cancelled() {
            return Ok(0);
        }
        let (opened, dir, record) = (self.spans(), self.dir.clone(), self.record());
        blocking(move || match opened {
            Some(spans) => {
                let ids: Vec<u32> = spans.held().into_iter().map(|(held, _)| held.id).collect();
                spans.give_back(&ids).map_err(|e| files::failed("punch holes into a stream in", &dir, &e))
            }
            None => lazy::empty(&dir, &record),
        })
        .await
    }

    /// Takes the layer out of use for good, unless somebody has it mounted or is busy with it; says whether it has. Its files
    /// are the caller's then, to be deleted.
    pub(in crate::layer) async fn leave(&self) -> bool {
        {
            let Ok(_held) = self.gate.try_lock() else { return false };
            if !lock(&self.targets).is_empty() || lock(&self.record).stage == Stage::Filling {
                return false;
            }
            // Under the gate: who comes to mount it finds that it has gone.
            self.stop();
        }
        self.shut().await;
        true
    }

    /// Takes the layer out of use; says whether its files may be kept for the next pull: when it is as it should be, and nobody
    /// reads or writes them any more.
    pub(in crate::layer) async fn retire(&self) -> bool {
        let record = self.record();
        if record.stage == Stage::Filling || self.check().is_err() {
            return false;
        }
        self.shut().await
    }

    /// Stops everything, and waits until nothing writes into the directory any more. Says whether nothing reads from it
    /// either: an old mount, in another mount namespace, may.
    pub(super) async fn shut(&self) -> bool {
        self.stop();
        let fill = lock(&self.fill).clone();
        if let Some(mut fill) = fill {
            // An error means that it ended without a word.
            fill.wait_for(Option::is_some).await.ok();
        }
        let _held = self.gate.lock().await;
        let mut closed = true;
        let targets: Vec<PathBuf> = lock(&self.targets).drain().collect();
        for target in targets {
            // The snapshots' side has unmounted them already, as a rule.
            if is_mount_point(&target)
                && let Err(error) = self.take_down(&target).await
            {
                warn!(layer = self.key.0, target = %target.display(), %error, "a removed layer stays mounted");
                closed = false;
            }
        }
        if !self.node.filesystem.remove(&self.key.0, self.node.options.close_patience).await {
            info!(layer = self.key.0, "a removed layer is still mounted in another mount namespace");
            closed = false;
        }
        if let Some(spans) = self.spans() {
            spans.written().await;
        }
        let opened = lock(&self.opened).take();
        if let Some(opened) = opened {
            // What is mounted elsewhere is read on, whatever becomes of the files.
            let held = blocking(move || {
                opened.hold_files();
                Ok(())
            });
            held.await.ok();
        }
        closed
    }
}

//! Which remote snapshots have their layer mounted. A layer is mounted while an active or view snapshot stands on it; of
//! the others, those used last stay mounted too, for the next container. More would slow every container's start, since
//! `runc` copies the host's mount table. The mounting itself is the layers' own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Gate;

use super::dirs::{Dirs, is_mount_point};
use super::store::Ancestor;
use super::{blocking, to_the_end};
use crate::Error;
use crate::layer::{LayerKey, Layers};
use crate::metrics::Metrics;

/// Layers that one round passes over because they can't be unmounted; then something else is wrong.
const EVICTION_FAILURES: usize = 10;

/// The mounts of remote snapshots.
pub struct Lowers {
    layers: Arc<dyn Layers>,
    dirs: Arc<Dirs>,
    metrics: Arc<Metrics>,
    /// How many unused ones stay mounted.
    keep: usize,
    /// Nothing is mounted any more.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the snapshot's number.
    entries: HashMap<u64, Entry>,
    /// Counts uses, to know what was used last.
    uses: u64,
}

#[derive(Default)]
struct Entry {
    /// Active and view snapshots that stand on it.
    users: usize,
    /// The layer that is mounted, if one is.
    mounted: Option<LayerKey>,
    last_use: u64,
    /// Held while mounting or unmounting: one at a time for one directory.
    gate: Arc<Gate<()>>,
}

/// Holds layers mounted; lets go when dropped, unless it is kept.
pub struct Pins {
    lowers: Arc<Lowers>,
    numbers: Vec<u64>,
}

impl Pins {
    /// A snapshot was recorded: from now on [`Lowers::unpin`] lets go.
    pub fn keep(mut self) {
        self.numbers.clear();
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.lowers.unpin_numbers(&self.numbers);
    }
}

impl Lowers {
    /// Nothing is known to be mounted yet.
    pub fn new(layers: Arc<dyn Layers>, dirs: Arc<Dirs>, metrics: Arc<Metrics>, keep: usize) -> Self {
        Self { layers, dirs, metrics, keep, closed: AtomicBool::new(false), state: Mutex::default() }
    }

    /// From now on nothing is mounted.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it; were it so, counts are still usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the remote ones of `chain` mounted from the moment they are.
    pub fn pin(self: &Arc<Self>, chain: &[Ancestor]) -> Pins {
        let numbers: Vec<u64> = remote_numbers(chain).collect();
        let mut state = self.state();
        for &number in &numbers {
            state.entries.entry(number).or_default().users += 1;
        }
        Pins { lowers: Arc::clone(self), numbers }
    }

    /// A snapshot that stood on `chain` is gone, or was committed.
    pub fn unpin(&self, chain: &[Ancestor]) {
        self.unpin_numbers(&remote_numbers(chain).collect::<Vec<_>>());
    }

    fn unpin_numbers(&self, numbers: &[u64]) {
        let mut state = self.state();
        for number in numbers {
            if let Some(entry) = state.entries.get_mut(number) {
                entry.users = entry.users.saturating_sub(1);
                if entry.users == 0 && entry.mounted.is_none() && Arc::strong_count(&entry.gate) == 1 {
                    state.entries.remove(number);
                }
            }
        }
    }

    fn gate(&self, number: u64) -> Arc<Gate<()>> {
        Arc::clone(&self.state().entries.entry(number).or_default().gate)
    }

    /// Writes the table that `layer` has above `below`, which is mounted, as the snapshot `number`'s own, unless it is there.
    ///
    /// # Errors
    /// What writing says.
    pub async fn write_table(
        self: &Arc<Self>,
        number: u64,
        layer: &LayerKey,
        below: &[Ancestor],
    ) -> Result<(), Error> {
        let below: Vec<PathBuf> = below.iter().map(|lower| self.dirs.fs(lower.number)).collect();
        let (this, layer) = (Arc::clone(self), layer.clone());
        to_the_end(async move {
            let gate = this.gate(number);
            let _held = gate.lock().await;
            let table = this.dirs.table(number, &layer);
            if table.is_file() {
                return Ok(());
            }
            this.layers.write_table(&layer, &below, &table).await
        })
        .await
    }

    /// Mounts `layer` on the directory of snapshot `number`, unless it is mounted. Once begun it goes on to its end, whatever
    /// becomes of the caller: what is mounted is known to be.
    ///
    /// # Errors
    /// What mounting says.
    pub async fn ensure(self: &Arc<Self>, number: u64, layer: &LayerKey) -> Result<(), Error> {
        let (this, layer) = (Arc::clone(self), layer.clone());
        to_the_end(async move { this.mount(number, &layer).await }).await
    }

    async fn mount(&self, number: u64, layer: &LayerKey) -> Result<(), Error> {
        // It may have turned out since not to be what its image says; running containers keep it.
        self.layers.check(layer).await?;
        let gate = self.gate(number);
        let _held = gate.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Unavailable("the daemon is stopping: nothing is mounted any more".to_owned()));
        }
        let target = self.dirs.fs(number);
        if !target.is_dir() {
            // Removed while this waited.
            let mut state = self.state();
            if state.entries.get(&number).is_some_and(|entry| entry.users == 0 && entry.mounted.is_none()) {
                state.entries.remove(&number);
            }
            return Err(Error::NotFound(format!("the directory of snapshot number {number}")));
        }
        let known = self.state().entries.get(&number).and_then(|entry| entry.mounted.clone());
        // Somebody may have unmounted it behind our back: asking is cheap.
        if known.as_ref() != Some(layer) || !is_mount_point(&target) {
            if let Some(other) = known.filter(|known| known != layer) {
                self.layers.unmount(&other, &target).await?;
            }
            let table = self.dirs.table(number, layer);
            let table = table.is_file().then_some(table.as_path());
            self.layers.mount(layer, table, &target).await?;
        }
        let mut state = self.state();
        state.uses += 1;
        let now = state.uses;
        let entry = state.entries.entry(number).or_default();
        entry.last_use = now;
        if entry.mounted.replace(layer.clone()).is_none() {
            self.metrics.layer_mounts.inc();
        }
        Ok(())
    }

    /// Unmounts what is mounted for the removed snapshot `number` and renames its directory away, so that nobody mounts
    /// anything there in between.
    ///
    /// # Errors
    /// What unmounting says; it counts as mounted then.
    pub async fn release(&self, number: u64, layer: &LayerKey) -> Result<(), Error> {
        let gate = self.gate(number);
        let _held = gate.lock().await;
        self.layers.unmount(layer, &self.dirs.fs(number)).await?;
        let dirs = Arc::clone(&self.dirs);
        blocking(move || dirs.discard(number)).await?;
        if self.state().entries.remove(&number).is_some_and(|entry| entry.mounted.is_some()) {
            self.metrics.layer_mounts.dec();
        }
        Ok(())
    }

    /// Unmounts unused ones, those used longest ago first, until no more than the limit are left.
    pub async fn evict(&self) {
        let mut failed = 0;
        while let Some((number, layer, gate)) = self.oldest_beyond_limit() {
            let _held = gate.lock().await;
            if self.state().entries.get(&number).is_none_or(|entry| entry.users > 0) {
                continue; // used again meanwhile
            }
            if let Err(error) = self.layers.unmount(&layer, &self.dirs.fs(number)).await {
                tracing::warn!(number, layer = layer.0, %error, "an unused layer stays mounted for now");
                // The others' turn; this one is tried again when it is the oldest again.
                let mut state = self.state();
                state.uses += 1;
                let now = state.uses;
                if let Some(entry) = state.entries.get_mut(&number) {
                    entry.last_use = now;
                }
                failed += 1;
                if failed == EVICTION_FAILURES {
                    return;
                }
                continue;
            }
            if let Some(entry) = self.state().entries.get_mut(&number)
                && entry.mounted.take().is_some()
            {
                self.metrics.layer_mounts.dec();
            }
        }
    }

    fn oldest_beyond_limit(&self) -> Option<(u64, LayerKey, Arc<Gate<()>>)> {
        let state = self.state();
        let unused = || state.entries.iter().filter(|(_, entry)| entry.users == 0 && entry.mounted.is_some());
        if unused().count() <= self.keep {
            return None;
        }
        let (&number, entry) = unused().min_by_key(|(_, entry)| entry.last_use)?;
        Some((number, entry.mounted.clone()?, Arc::clone(&entry.gate)))
    }

    /// Numbers of the snapshots whose layers are mounted, in order.
    #[cfg(test)]
    pub fn mounted(&self) -> Vec<u64> {
        let state = self.state();
        let mut numbers: Vec<u64> =
            state.entries.iter().filter(|(_, entry)| entry.mounted.is_some()).map(|(&n, _)| n).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn remote_numbers(chain: &[Ancestor]) -> impl Iterator<Item = u64> + '_ {
    chain.iter().filter(|ancestor| ancestor.remote.is_some()).map(|ancestor| ancestor.number)
}

//! What the fetching of all layers of a node has in common: limits, memory, counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::limits::MEMORY_UNIT;
use crate::Error;
use crate::metrics::Metrics;

/// What operators choose.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Answers that are received at a time.
    pub max_fetches: usize,
    /// Bytes of decoded spans in memory at a time.
    pub memory_budget: u64,
    /// How long a read waits for its span.
    pub read_timeout: Duration,
    /// How long a failed span goes on failing.
    pub failure_memory: Duration,
}

/// The node's share of every fetch.
#[derive(Debug)]
pub(crate) struct Shared {
    bodies: Semaphore,
    memory: Arc<Semaphore>,
    memory_units: u32,
    pub(super) read_timeout: Duration,
    pub(super) failure_memory: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// Fetches and writes under way.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let units = units(settings.memory_budget).max(1);
        let tasks = TaskTracker::new();
        // A closed tracker still takes tasks; it can be waited for.
        tasks.close();
        Arc::new(Self {
            bodies: Semaphore::new(settings.max_fetches.clamp(1, Semaphore::MAX_PERMITS)),
            memory: Arc::new(Semaphore::new(units as usize)),
            memory_units: units,
            read_timeout: settings.read_timeout,
            failure_memory: settings.failure_memory,
            metrics,
            tasks,
        })
    }

    /// Waits for the turn to receive an answer.
    pub(super) async fn body(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.bodies.acquire().await.expect("this semaphore is never closed")
    }

    /// Waits until `len` bytes may be in memory; what is longer than the whole budget waits for all of it.
    pub(super) async fn memory(&self, len: u64) -> OwnedSemaphorePermit {
        let units = units(len).clamp(1, self.memory_units);
        Arc::clone(&self.memory).acquire_many_owned(units).await.expect("this semaphore is never closed")
    }

    /// Bytes of the memory budget that are free now.
    #[cfg(test)]
    pub(super) fn free_memory(&self) -> u64 {
        self.memory.available_permits() as u64 * MEMORY_UNIT
    }
}

fn units(len: u64) -> u32 {
    // Half of a semaphore's counter on 32-bit machines, and 8 TiB.
    u32::try_from(len.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3)
}

/// Runs `work`, which waits for the disk, where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(format!("a task failed: {error}"))))
}

//! What the fetching of all layers of a node has in common: limits, memory, counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use super::limits::MEMORY_UNIT;
use super::turns::Turns;
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

/// Which part of the node's turns and memory one host may take: a half. One that never answers, or one byte a minute, leaves
/// the rest to the layers of others; 32 connections still fill any link.
const HOST_SHARE: u32 = 2;

/// Memory that is counted against the budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    _host: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

/// The node's share of every fetch.
#[derive(Debug)]
pub(crate) struct Shared {
    bodies: Semaphore,
    host_bodies: Turns,
    host_memory: Turns,
    host_memory_units: u32,
    memory: Arc<Semaphore>,
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
        let host_units = (units / HOST_SHARE).max(1);
        Arc::new(Self {
            bodies: Semaphore::new(settings.max_fetches.clamp(1, Semaphore::MAX_PERMITS)),
            host_bodies: Turns::new(settings.max_fetches / HOST_SHARE as usize),
            host_memory: Turns::new(host_units as usize),
            host_memory_units: host_units,
            memory: Arc::new(Semaphore::new(units as usize)),
            read_timeout: settings.read_timeout,
            failure_memory: settings.failure_memory,
            metrics,
            tasks,
        })
    }

    /// Waits for the turn to receive an answer of `host`.
    pub(super) async fn body(&self, host: &str) -> (OwnedSemaphorePermit, SemaphorePermit<'_>) {
        let of_host =
            self.host_bodies.of(host).acquire_owned().await.expect("this semaphore is never closed");
        (of_host, self.bodies.acquire().await.expect("this semaphore is never closed"))
    }

    /// Waits until `len` bytes of a layer of `host` may be in memory; what is longer than a host's share waits for all of it.
    pub(super) async fn memory(&self, host: &str, len: u64) -> Memory {
        let of_host = self.host_memory.of(host);
        let wanted = units(len).clamp(1, self.host_memory_units);
        let host = of_host.acquire_many_owned(wanted).await.expect("this semaphore is never closed");
        let node = Arc::clone(&self.memory).acquire_many_owned(wanted).await;
        Memory { _host: host, _node: node.expect("this semaphore is never closed") }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn no_host_takes_what_all_need() {
        let settings =
            Settings { max_fetches: 4, memory_budget: 80_000, ..crate::fetch::testing::settings() };
        let shared = Shared::new(&settings, Metrics::new());
        let one = shared.body("one").now_or_never().expect("free");
        let two = shared.body("one").now_or_never().expect("free");
        assert!(shared.body("one").now_or_never().is_none(), "it has its half");
        assert!(shared.body("other").now_or_never().is_some());
        drop(one);
        assert!(shared.body("one").now_or_never().is_some());
        drop(two);

        // A span longer than all of the budget takes a half of it, too.
        let held = shared.memory("one", 1 << 30).now_or_never().expect("free");
        assert!(shared.memory("one", 1).now_or_never().is_none());
        assert!(shared.memory("other", 30_000).now_or_never().is_some());
        drop(held);
        assert!(shared.memory("one", 1).now_or_never().is_some());
    }
}

//! What all layers of the node share.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use spandrel_registry::{Digest, Repository};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use super::options::StoreOptions;
use super::verify;
use crate::fetch::{BlobSource, Engine, Settings, Turns};
use crate::filesystem::FileSystem;
use crate::metrics::Metrics;
use crate::mounter::Mounter;
use crate::open_files::{OPEN_FILES, OpenFiles};

/// Where a layer's blob is read from; tests put doubles in its place.
pub(crate) type Sources = Arc<dyn Fn(&Repository, &Digest) -> Arc<dyn BlobSource> + Send + Sync>;

/// A place in the queue for the downloads of a repository, which was taken when this was made; dropped, it is given up.
pub(super) type Place = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// Hosts that may have all their downloads under way at a time: a node's images are from fewer, and one that is slow then
/// holds up its own images only.
const HOSTS: usize = 4;

/// MiB of zTOCs that are decoded and made into tables at a time: a hostile one becomes some 30 times as long in memory.
const BUILD_UNITS: u32 = 16;

/// The shared parts.
pub(crate) struct Node {
    pub options: StoreOptions,
    pub filesystem: FileSystem,
    pub mounter: Arc<Mounter>,
    pub metrics: Arc<Metrics>,
    pub sources: Sources,
    /// Limits and counters of span fetching.
    pub fetch: Arc<Engine>,
    /// Turns of whole-layer downloads, on the whole node, for each host, and for each repository. Those who wait for a turn
    /// of the node are few of each host, those who wait for one of a host few of each repository: so none waits behind all
    /// layers of a slow registry or of one large image.
    pub downloads: Semaphore,
    pub host_downloads: Turns,
    pub repository_downloads: Turns,
    /// Turns of comparing complete layers with what their images say.
    pub checks: Semaphore,
    /// The files of open layers.
    pub files: Arc<OpenFiles>,
    /// Turns of decoding zTOCs, by their length in MiB.
    building: Semaphore,
    /// Work that goes on by itself.
    pub tasks: TaskTracker,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(
        options: StoreOptions,
        filesystem: impl Into<FileSystem>,
        mounter: Arc<Mounter>,
        metrics: Arc<Metrics>,
        sources: Sources,
    ) -> Arc<Self> {
        let settings = Settings {
            max_fetches: options.max_fetches,
            memory_budget: options.memory_budget,
            read_timeout: options.read_timeout,
            failure_memory: options.failure_memory,
            background: options.background,
            background_rate: options.background_rate,
        };
        let tasks = TaskTracker::new();
        // A closed tracker still takes tasks; it can be waited for.
        tasks.close();
        Arc::new(Self {
            fetch: Engine::new(&settings, Arc::clone(&metrics)),
            downloads: Semaphore::new(
                options.eager_downloads.saturating_mul(HOSTS).clamp(1, Semaphore::MAX_PERMITS),
            ),
            host_downloads: Turns::new(options.eager_downloads),
            repository_downloads: Turns::new((options.eager_downloads * 3).div_ceil(4)),
            checks: Semaphore::new(verify::AT_ONCE),
            files: OpenFiles::new(OPEN_FILES),
            building: Semaphore::new(BUILD_UNITS as usize),
            tasks,
            options,
            filesystem: filesystem.into(),
            mounter,
            metrics,
            sources,
        })
    }

    /// Queues for a download of `repository`: before all who come later, whoever of them is the first to be ready.
    pub(super) fn queue(&self, repository: &Repository) -> Place {
        let turns = self.repository_downloads.of(&repository.to_string());
        let mut place = turns.acquire_owned().boxed();
        // It queues when it is polled first.
        match (&mut place).now_or_never() {
            Some(turn) => ready(turn).boxed(),
            None => place,
        }
    }

    /// Waits for the turn to decode a zTOC of `len` bytes; a very long one has it alone.
    pub(crate) async fn building(&self, len: u64) -> SemaphorePermit<'_> {
        let units = u32::try_from(len >> 20).unwrap_or(u32::MAX).clamp(1, BUILD_UNITS);
        self.building.acquire_many(units).await.expect("this semaphore is never closed")
    }
}

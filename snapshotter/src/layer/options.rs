//! How the layer store behaves, and what it works with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Share;
use crate::fetch::Background;
use crate::filesystem::FileSystem;
use crate::metrics::Metrics;
use crate::mounter::Mounter;

/// Options of a layer store; [`StoreOptions::new`] has the defaults and their reasons.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The daemon's root: layers lie in `layers/` below it, on ext4 or xfs.
    pub root: PathBuf,
    /// Layers of fewer compressed bytes are downloaded at once, index or not.
    pub min_layer_size: u64,
    /// How long a read waits for its span before it fails with EIO.
    pub read_timeout: Duration,
    /// How long a span that failed goes on failing without being fetched again.
    pub failure_memory: Duration,
    /// Whether indexes of version 1 (referrers of the image manifest) are used.
    pub index_v1: bool,
    /// Whether indexes of version 2 (named by the image manifest) are used.
    pub index_v2: bool,
    /// Answers to range requests that are received at a time, on the whole node.
    pub max_fetches: usize,
    /// Whole layers that are downloaded at a time from one host.
    pub eager_downloads: usize,
    /// Bytes of decoded spans that may be in memory at a time, on the whole node.
    pub memory_budget: u64,
    /// When the rest of mounted layers is fetched that nobody has read.
    pub background: Background,
    /// Most bytes a second that this takes; `None` for as many as come.
    pub background_rate: Option<u64>,
    /// How long after it has become complete a lazy layer is compared with its digest as a whole.
    pub verify_delay: Duration,
    /// Whether layers are mounted with EROFS's option `directio` (kernels before 6.13, as the probe at start says).
    pub directio: bool,
    /// How long a removed layer's device file is waited for until the kernel has closed it.
    pub close_patience: Duration,
    /// How long a layer that was begun ahead of containerd's asking is kept when it never asks.
    pub unclaimed_patience: Duration,
    /// How often the store looks by itself how much room there is, besides when something was written.
    pub room_period: Duration,
    /// Longest that an image's manifest and index are looked for.
    pub resolve_timeout: Duration,
    /// How long what was learnt of an image's index is believed, counted from its last use.
    pub image_memory: Duration,
    /// What layers may take of the file system.
    pub quota: Share,
    /// How full the file system may be before layers go that no snapshot refers to.
    pub unused_mark: Share,
}

impl StoreOptions {
    /// The defaults for the daemon's root `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            // The tools index nothing smaller: a few seconds' worth of round trips are dearer than these bytes.
            min_layer_size: 10 << 20,
            // Longer than a registry's restart or a node's network hiccup; a program gets an error in the end.
            read_timeout: Duration::from_secs(300),
            // The kernel asks for a failed page several times in small pieces; a later access shall try again.
            failure_memory: Duration::from_secs(2),
            // Old indexes are everywhere, and their bytes are checked (docs/security.md).
            index_v1: true,
            index_v2: true,
            // Ten connections fill a 10 Gbit/s link from S3 (90 MB/s each); the rest hides their latency.
            max_fetches: 64,
            // A download is bound by one core's inflating: more would only wait for one another on small nodes.
            eager_downloads: 8,
            // 64 spans of 4 MiB: as many as are received at a time.
            memory_budget: 256 << 20,
            // What comes before it is read is never waited for, and a complete layer needs its registry no more.
            background: Background::Stream,
            background_rate: None,
            // Longer than programs take to start from then on; nobody waits for the verdict.
            verify_delay: Duration::from_secs(10),
            directio: false,
            // RELEASE follows an unmount within milliseconds; what takes longer is held by another mount namespace.
            close_patience: Duration::from_secs(2),
            // A pull asks for its layers in order, each after the one below: longer than the slowest layer takes.
            unclaimed_patience: Duration::from_secs(30 * 60),
            // Others may fill the file system, and a fast disk takes 10 GiB meanwhile at most.
            room_period: Duration::from_secs(10),
            // containerd's lock is held meanwhile: its other calls wait. Manifest, index and zTOCs take a second or two.
            resolve_timeout: Duration::from_secs(20),
            // Longer than a deployment's pods take to start. That something is missing or wrong is believed for a shorter time.
            image_memory: Duration::from_secs(10 * 60),
            // A quarter is left below the kubelet's mark, for what containers write, logs and containerd's own.
            quota: Share::Percent(60),
            // Five hundredths below the kubelet's mark: it would find no image to delete, and evict pods.
            unused_mark: Share::Percent(80),
        }
    }
}

/// What the layer store works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Asks registries.
    pub client: spandrel_registry::Client,
    /// containerd's socket, to read manifests from its content store; `None` asks the registry.
    pub containerd: Option<PathBuf>,
    /// What layers are mounted by.
    pub filesystem: FileSystem,
    /// Mounts and unmounts.
    pub mounter: Arc<Mounter>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

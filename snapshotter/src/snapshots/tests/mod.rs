//! What a snapshotter has to do, tried out against a double of the layers ([`fake`]): ordinary snapshots in `rules`, remote
//! ones in `remote`, restarts in `restart`, what is mounted in `mounted`, a
//! failing or full disk in `disk`.

mod disk;
mod fake;
mod mounted;
mod remote;
mod restart;
mod rules;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tempfile::TempDir;

use super::{Options, Snapshots};
use crate::Error;
use crate::metrics::Metrics;
use crate::service::{Info, Snapshotter};
use fake::Fake;

/// Longer than anything takes that doesn't wait for a layer, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A root with snapshots in it.
struct Bed {
    dir: TempDir,
    layers: Arc<Fake>,
    metrics: Arc<Metrics>,
    snapshots: Arc<Snapshots>,
}

fn options(root: &Path) -> Options {
    Options { pending_wait: Duration::from_millis(50), ..Options::new(root) }
}

impl Bed {
    fn new() -> Self {
        Self::with(Fake::default(), |_| {})
    }

    fn with(fake: Fake, change: impl FnOnce(&mut Options)) -> Self {
        // In memory: durable transactions cost milliseconds on a disk, and nothing here cuts the power.
        let dir = tempfile::Builder::new()
            .prefix("spandrel-snapshots-")
            .tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })
            .expect("a temp directory");
        let layers = Arc::new(fake);
        let metrics = Metrics::new();
        let mut options = options(dir.path());
        change(&mut options);
        let snapshots =
            Snapshots::open(&options, Arc::clone(&layers) as _, Arc::clone(&metrics)).expect("opened");
        Self { dir, layers, metrics, snapshots }
    }

    /// Ends the snapshots as a kill does, and opens them again.
    async fn restart(self) -> Self {
        let Self { dir, layers, metrics, snapshots } = self;
        // Removals hold the database open for a moment.
        snapshots.finish_background(AT_ONCE).await;
        drop(snapshots);
        let snapshots = Snapshots::open(&options(dir.path()), Arc::clone(&layers) as _, Arc::clone(&metrics))
            .expect("opened");
        snapshots.restore().await.expect("restored");
        Self { dir, layers, metrics, snapshots }
    }

    /// Prepare of layer `layer` as containerd's unpacker asks.
    async fn offer(&self, key: &str, parent: &str, layer: &str) -> Result<(), Error> {
        self.snapshots.prepare(key.into(), parent.into(), image_labels(layer)).await.map(|_| ())
    }

    /// Makes the remote snapshot of `layer` on `parent` and waits until it is ready.
    async fn remote(&self, layer: &str, parent: &str) {
        let answer = self.offer(&format!("k8s.io/1/extract {layer}"), parent, layer).await;
        assert_eq!(answer, Err(Error::AlreadyExists(format!("target snapshot chain-{layer}"))));
        self.snapshots.stat(format!("chain-{layer}")).await.expect("ready");
    }

    async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<String>, Error> {
        let mounts = self.snapshots.prepare(key.into(), parent.into(), HashMap::new()).await?;
        Ok(mounts.into_iter().flat_map(|mount| mount.options).collect())
    }

    async fn list(&self, filters: &[&str]) -> Vec<Info> {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        self.snapshots.list(filters).await.expect("a list").try_collect().await.expect("a list")
    }

    async fn names(&self) -> Vec<String> {
        self.list(&[]).await.into_iter().map(|info| info.name).collect()
    }

    async fn settle(&self) {
        self.snapshots.finish_background(AT_ONCE).await;
    }
}

/// The labels of a pull through CRI.
fn image_labels(layer: &str) -> HashMap<String, String> {
    [
        ("containerd.io/snapshot.ref", format!("chain-{layer}")),
        ("containerd.io/snapshot/cri.image-ref", "registry.example/app:1".to_owned()),
        ("containerd.io/snapshot/cri.manifest-digest", "sha256:manifest".to_owned()),
        ("containerd.io/snapshot/cri.layer-digest", format!("sha256:{layer}")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Names of errors, for comparing.
fn class<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(crate::service::status::class, |_| "ok")
}

//! Tests of layers with blobs and images in memory, and real mounts: FUSE and EROFS are the kernel's own.

mod eager;
mod lazy;
mod open;
mod prefetch;
mod restart;
mod room;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spandrel_fixtures::require;
use spandrel_registry::Digest;
use spandrel_soci::source::ImageSource;
use tempfile::TempDir;

use super::node::{Node, Sources};
use super::*;
use crate::cache::Share;
use crate::device::{Device, DeviceOptions};
use crate::fetch::testing::{Blob, TestLayer};
use crate::fetch::{Background, BlobSource};
use crate::filesystem::FileSystem;
use crate::image::testing::{GZIP, Listed, MemoryImage};
use crate::image::{ImageOptions, ImageSources, Images};
use crate::metrics::Metrics;
use crate::mounter::{Helper, Mounter};
use crate::tree::{Tree, TreeOptions};

/// Argument by which the mount helper of a test knows itself.
const HELPER_MARK: &str = "no-test-has-this-name";

/// Not a test of its own: other tests' mount helpers run in it.
#[test]
fn as_mount_helper() {
    if std::env::args().any(|arg| arg == HELPER_MARK) {
        crate::mounter::run().expect("helps until the line is closed");
    }
}

/// This test program, as a mount helper.
pub(crate) fn helper() -> Helper {
    let args = ["layer::tests::as_mount_helper", "--exact", "--nocapture", "--skip", HELPER_MARK];
    Helper {
        program: std::env::current_exe().expect("this program"),
        args: args.into_iter().map(Into::into).collect(),
    }
}

/// Whether the machine has what these tests need, and a directory on a plain disk.
pub(crate) fn disk() -> Option<TempDir> {
    (require::root() && require::fuse() && require::erofs()).then(require::plain_disk)?
}

type Blobs = Arc<Mutex<BTreeMap<String, Arc<Blob>>>>;

/// By what layers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Erofs,
    Fuse,
}

/// A node with everything but a network.
pub(crate) struct Bench {
    pub store: Arc<LayerStore>,
    pub filesystem: FileSystem,
    pub metrics: Arc<Metrics>,
    /// Blobs by digest.
    pub blobs: Blobs,
    root: PathBuf,
    targets: Mutex<Vec<PathBuf>>,
}

impl Bench {
    /// A node with its root in `dir`, for which `image` is all images. Layers of 1000 bytes aren't small.
    pub(crate) fn new(dir: &Path, image: Arc<MemoryImage>, blobs: &Blobs) -> Self {
        Self::with(dir, image, blobs, |_| {})
    }

    pub(crate) fn with(
        dir: &Path,
        image: Arc<MemoryImage>,
        blobs: &Blobs,
        change: impl FnOnce(&mut StoreOptions),
    ) -> Self {
        Self::by(By::Erofs, dir, image, blobs, change)
    }

    pub(crate) fn by(
        by: By,
        dir: &Path,
        image: Arc<MemoryImage>,
        blobs: &Blobs,
        change: impl FnOnce(&mut StoreOptions),
    ) -> Self {
        let metrics = Metrics::new();
        let filesystem: FileSystem = match by {
            By::Erofs => {
                let options = DeviceOptions { dir: dir.join("device"), threads: 2 };
                Arc::new(Device::mount(&options, Arc::clone(&metrics)).expect("FUSE mounts")).into()
            }
            By::Fuse => {
                let options = TreeOptions { dir: dir.join("tree"), threads: 2 };
                Arc::new(Tree::mount(&options, Arc::clone(&metrics)).expect("FUSE mounts")).into()
            }
        };
        let mut options = StoreOptions::new(dir);
        options.min_layer_size = 1000;
        options.close_patience = Duration::from_secs(10);
        options.verify_delay = Duration::ZERO;
        // What is missing stays missing until it is read.
        options.background = Background::Off;
        // What is removed is gone, however full this machine's disk is.
        options.unused_mark = Share::Percent(0);
        change(&mut options);
        let all = Arc::clone(blobs);
        let sources: Sources = Arc::new(move |_, digest| -> Arc<dyn BlobSource> {
            let blob = all.lock().expect("not poisoned").get(digest.as_str()).cloned();
            blob.expect("a blob of the test")
        });
        let images: ImageSources = Box::new(move |_| -> Arc<dyn ImageSource> { Arc::clone(&image) as _ });
        let image_options = ImageOptions {
            v1: true,
            v2: true,
            min_layer_size: options.min_layer_size,
            deadline: options.resolve_timeout,
            memory: options.image_memory,
        };
        let images = Images::new(images, None, image_options, Arc::clone(&metrics));
        let mounter = Arc::new(Mounter::new(helper()));
        let node = Node::new(options, filesystem.clone(), mounter, Arc::clone(&metrics), sources);
        let store = LayerStore::with(node, images).expect("opens");
        let root = dir.to_path_buf();
        Self { store, filesystem, metrics, blobs: Arc::clone(blobs), root, targets: Mutex::default() }
    }

    /// The device, where layers are mounted by EROFS.
    pub(crate) fn device(&self) -> &Device {
        match &self.filesystem {
            FileSystem::Erofs(device) => device,
            FileSystem::Fuse(_) => panic!("this test is about EROFS"),
        }
    }

    /// Takes up the layer at `position` of `image`.
    pub(crate) async fn prepare(&self, image: &MemoryImage, position: usize) -> LayerKey {
        match self.store.prepare(&image.request(position)).await.expect("prepares") {
            Prepared::Remote(key) => key,
            Prepared::Ordinary(reason) => panic!("ordinary: {reason}"),
        }
    }

    /// Mounts a layer on a fresh directory.
    pub(crate) async fn mount(&self, key: &LayerKey) -> PathBuf {
        self.mount_by(key, None).await
    }

    /// Mounts a layer by `table`, or its own, on a fresh directory.
    pub(crate) async fn mount_by(&self, key: &LayerKey, table: Option<&Path>) -> PathBuf {
        let target = {
            let mut targets = self.targets.lock().expect("not poisoned");
            let target = self.root.join(format!("mount-{}", targets.len()));
            targets.push(target.clone());
            target
        };
        std::fs::create_dir_all(&target).expect("a directory");
        self.store.mount(key, table, &target).await.expect("mounts");
        target
    }

    pub(crate) fn blob(&self, layer: &TestLayer) -> Arc<Blob> {
        Arc::clone(&self.blobs.lock().expect("not poisoned")[Digest::sha256(&layer.blob).as_str()])
    }

    /// What lies below `layers/`.
    pub(crate) fn on_disk(&self) -> Vec<String> {
        on_disk(&self.root)
    }

    pub(crate) fn node(&self) -> &Node {
        self.store.node()
    }

    /// Bytes that were given back so.
    pub(crate) fn given_back(&self, what: &'static str) -> u64 {
        self.metrics.given_back_bytes.get_or_create(&[("what", what)]).get()
    }

    pub(crate) fn errors(&self, class: &'static str) -> u64 {
        self.metrics.errors.get_or_create(&[("class", class)]).get()
    }
}

pub(crate) fn on_disk(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("layers")).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

impl Drop for Bench {
    fn drop(&mut self) {
        for target in self.targets.lock().expect("not poisoned").iter() {
            while rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
        self.filesystem.unmount();
    }
}

/// An image of `layers`, each with or without a zTOC, and their blobs.
pub(crate) fn image(
    layers: &[(&TestLayer, bool)],
    version: spandrel_soci::index::Version,
) -> (Arc<MemoryImage>, Blobs) {
    let mut blobs = BTreeMap::new();
    let listed = layers.iter().map(|(layer, indexed)| {
        let listed =
            Listed::new(GZIP, &layer.blob, &layer.tar, indexed.then_some(layer.ztoc_bytes.as_slice()));
        blobs.insert(listed.digest.to_string(), Blob::new(layer.blob.clone()));
        listed
    });
    let image = MemoryImage::new(listed.collect(), version);
    (image, Arc::new(Mutex::new(blobs)))
}

/// Runs `work`, which waits for the kernel (and so maybe for this process), on a thread of its own.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("doesn't panic")
}

pub(crate) async fn contents(path: PathBuf) -> std::io::Result<Vec<u8>> {
    apart(move || std::fs::read(path)).await
}

//! An image in a scripted registry, with an index, and a layer store that gets it from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use spandrel_fixtures::image::{Image, ImageBuilder};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;
use spandrel_fixtures::scripted::{ScriptedRegistry, Settings};
use spandrel_registry::{Anonymous, Client, ClientOptions};
use spandrel_snapshotter::cache::Share;
use spandrel_snapshotter::device::{Device, DeviceOptions};
use spandrel_snapshotter::fetch::Background;
use spandrel_snapshotter::filesystem::FileSystem;
use spandrel_snapshotter::layer::{
    LayerKey, LayerRequest, LayerStore, Layers as _, Parts, Prepared, StoreOptions,
};
use spandrel_snapshotter::metrics::Metrics;
use spandrel_snapshotter::mounter::{Helper, Mounter};
use spandrel_snapshotter::tree::{Tree, TreeOptions};
use spandrel_soci::index::{IndexManifest, LayerZtoc, Version};
use spandrel_ztoc::Compression;
use spandrel_ztoc::build::{BuildOptions, build};
use tempfile::TempDir;

pub const REPOSITORY: &str = "team/app";

/// Layers of fewer compressed bytes count as small.
pub const MIN_LAYER_SIZE: u64 = 100_000;

/// Longest for what should come soon.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What these tests need of the machine: root, FUSE, EROFS and a directory on a plain disk.
pub fn disk() -> Option<TempDir> {
    if !require::root() || !require::fuse() || !require::erofs() {
        return None;
    }
    require::plain_disk()
}

/// The bytes of file number `file`.
pub fn content(file: u64, len: usize) -> Vec<u8> {
    Random::new(file).content(len, 50)
}

/// A tar of one file.
fn tar(name: &str, file: u64, len: usize) -> Vec<u8> {
    TarBuilder::new()
        .with(Entry::dir("data"))
        .with(Entry::file(format!("data/{name}"), content(file, len)))
        .finish()
}

/// An image of three layers: `data/large` is in one with a zTOC, `data/small` in a small one, `data/zstd` in one that can't
/// have a zTOC. Its index, of `version`, is in the registry too.
pub fn image(registry: &ScriptedRegistry, version: Version) -> Image {
    let large = Layer::gzip(&tar("large", 1, 3_000_000));
    let options = BuildOptions { span_size: 256 << 10, ..BuildOptions::default() };
    let ztoc = build(&*large.blob, Compression::Gzip, &options).expect("a tar").ztoc.encode();
    let layers = [large, Layer::gzip(&tar("small", 2, 1000)), Layer::zstd(&tar("zstd", 3, 500_000))];
    let descriptor = |media_type: &str, digest: &str, size: usize| {
        let json = json!({ "mediaType": media_type, "digest": digest, "size": size });
        serde_json::from_value(json).expect("a descriptor")
    };
    let size = ztoc.len();
    let digest = registry.put_blob(REPOSITORY, ztoc);
    let mut index = IndexManifest {
        version,
        build_tool: "test".to_owned(),
        layers: vec![LayerZtoc {
            layer: layers[0].digest.parse().expect("a digest"),
            layer_media_type: layers[0].media_type.clone(),
            ztoc: descriptor("application/octet-stream", &digest, size),
            span_size: None,
            disable_xattrs: false,
        }],
        prefetch: Vec::new(),
        subject: None,
    };
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let mut builder = layers.into_iter().fold(ImageBuilder::new(), ImageBuilder::layer);
    if version == Version::V2 {
        let digest = registry.put_manifest(REPOSITORY, "", MANIFEST, index.to_bytes());
        builder = builder.annotation("com.amazon.soci.index-digest", &digest);
    }
    let image = builder.build();
    image.put(registry, REPOSITORY, "1");
    if version == Version::V1 {
        index.subject = Some(descriptor(MANIFEST, &image.digest(), image.manifest.len()));
        registry.put_manifest(REPOSITORY, "", MANIFEST, index.to_bytes());
    }
    image
}

/// A registry that sends blobs from a second place, as clouds do.
pub fn registry() -> ScriptedRegistry {
    ScriptedRegistry::start(Settings { redirect: true, ..Settings::default() })
}

/// By what layers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Erofs,
    Fuse,
}

impl By {
    pub const ALL: [Self; 2] = [Self::Erofs, Self::Fuse];
}

/// A layer store on the root `root`.
pub struct Bench {
    pub store: Arc<LayerStore>,
    pub filesystem: FileSystem,
    pub metrics: Arc<Metrics>,
    root: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Bench {
    pub fn new(by: By, root: &Path, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let metrics = Metrics::new();
        let filesystem: FileSystem = match by {
            By::Erofs => {
                let options = DeviceOptions { dir: root.join("device"), threads: 2 };
                Arc::new(Device::mount(&options, Arc::clone(&metrics)).expect("FUSE mounts")).into()
            }
            By::Fuse => {
                let options = TreeOptions { dir: root.join("tree"), threads: 2 };
                Arc::new(Tree::mount(&options, Arc::clone(&metrics)).expect("FUSE mounts")).into()
            }
        };
        let helper = Helper {
            program: env!("CARGO_BIN_EXE_spandrel-snapshotter").into(),
            args: vec!["mounter".into()],
        };
        let client = ClientOptions { max_retries: 1, ..ClientOptions::default() };
        let parts = Parts {
            client: Client::new(client, Arc::new(Anonymous)).expect("a client"),
            containerd: None,
            filesystem: filesystem.clone(),
            mounter: Arc::new(Mounter::new(helper)),
            metrics: Arc::clone(&metrics),
        };
        let mut options = StoreOptions::new(root);
        // What nobody has read is missing: tests see what a read brings.
        options.background = Background::Off;
        options.min_layer_size = MIN_LAYER_SIZE;
        // What is removed is gone.
        options.unused_mark = Share::Percent(0);
        change(&mut options);
        let store = LayerStore::open(options, parts).expect("opens");
        Self { store, filesystem, metrics, root: root.to_path_buf(), mounts: Vec::new() }
    }

    /// Waits until nothing of a removed layer is left of what answers the kernel.
    pub async fn nothing_is_served(&self) {
        let left = || match &self.filesystem {
            FileSystem::Erofs(device) => std::fs::read_dir(device.dir()).expect("lists").count(),
            FileSystem::Fuse(tree) => tree.len(),
        };
        // The kernel says in its own time what it has forgotten.
        let gone = async {
            while left() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("nothing is left");
    }

    /// Requests of the kernel so far.
    pub fn requests(&self) -> u64 {
        match &self.filesystem {
            FileSystem::Erofs(device) => device.requests(),
            FileSystem::Fuse(tree) => tree.requests(),
        }
    }

    /// Takes up the layer at `position`, as containerd asks for it, and mounts it when it is ready.
    pub async fn take_up(
        &mut self,
        registry: &ScriptedRegistry,
        image: &Image,
        position: usize,
    ) -> (LayerKey, PathBuf) {
        let chain_ids = image.chain_ids();
        let labels = [
            ("containerd.io/snapshot/cri.image-ref", format!("{}/{REPOSITORY}:1", registry.host())),
            ("containerd.io/snapshot/cri.manifest-digest", image.digest()),
            ("containerd.io/snapshot/cri.layer-digest", image.layers[position].digest.clone()),
        ];
        let request = LayerRequest {
            namespace: "default".to_owned(),
            chain_id: chain_ids[position].clone(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            parent: position.checked_sub(1).map(|below| chain_ids[below].clone()).unwrap_or_default(),
        };
        let key = match self.store.prepare(&request).await.expect("prepares") {
            Prepared::Remote(key) => key,
            Prepared::Ordinary(reason) => panic!("ordinary: {reason}"),
        };
        self.store.ready(&key).await.expect("is ready");
        let target = self.root.join(format!("mount-{}", self.mounts.len()));
        std::fs::create_dir_all(&target).expect("a directory");
        self.mounts.push(target.clone());
        self.store.mount(&key, None, &target).await.expect("mounts");
        (key, target)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for mount in &self.mounts {
            while rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
        self.filesystem.unmount();
    }
}

/// Reads a file on a thread of its own: the answer comes from this very process.
pub async fn read(path: PathBuf) -> std::io::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || std::fs::read(path)).await.expect("doesn't panic")
}

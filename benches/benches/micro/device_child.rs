//! A node of its own, in a process of its own as the daemon is: a layer from a scripted registry, filled, mounted through
//! the device. `device` starts it, reads below its mount, and ends it by closing its standard input; it then takes
//! everything away. In a process group of its own, it does so when somebody interrupts the benchmark too.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use spandrel_fixtures::image::{Image, ImageBuilder, MANIFEST};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder, gzip};
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;
use spandrel_fixtures::scripted::ScriptedRegistry;
use spandrel_registry::{Anonymous, Client, ClientOptions};
use spandrel_snapshotter::device::{Device, DeviceOptions};
use spandrel_snapshotter::layer::{
    LayerKey, LayerRequest, LayerStore, Layers as _, Parts, Prepared, Report, StoreOptions,
};
use spandrel_snapshotter::metrics::Metrics;
use spandrel_snapshotter::mounter::{self, Helper, Mounter};
use spandrel_snapshotter::probe;
use spandrel_soci::index::{IndexManifest, LayerZtoc, Version, ZTOC};
use spandrel_ztoc::Compression;
use spandrel_ztoc::build::{BuildOptions, build};

use crate::input;

/// The argument that makes this program the node.
pub const SERVE: &str = "--as-node";
/// The argument that makes this program the node's helper, which mounts.
pub const MOUNTER: &str = "--as-mounter";
/// The argument with which a node's probe starts this program, before a file's path.
pub const PROBE: &str = "probe-read";
/// This program.
const PROGRAM: &str = "/proc/self/exe";

/// Path of the file in the layer, and in the directory beside the mount.
pub const FILE: &str = "data/large";
/// Length of the file, in bytes: many times the kernel's largest read.
pub const FILE_LEN: usize = 32 << 20;
/// Where in the node's directory the layer is mounted.
pub const MOUNT: &str = "mount";
/// Where in the node's directory the same file lies plainly.
pub const PLAIN: &str = "plain";
/// Where in the node's directory the daemon's root is.
pub const ROOT: &str = "root";

const REPOSITORY: &str = "bench/app";
/// As the daemon has it.
const DEVICE_THREADS: usize = 4;
/// Longest that a layer which was read whole takes to be complete on the disk.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);

/// Reads `file` for the probe.
pub fn probe_read(file: &str) {
    probe::read_whole(Path::new(file), &mut std::io::stdout()).expect("the probe looks at what is said here");
}

/// Runs the helper.
pub fn mounter() {
    mounter::run().expect("the node holds the other end");
}

/// How this program is started as the node.
pub fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(SERVE);
    // The caller may be measuring or testing: which of them decides the file's length.
    if input::measuring() {
        command.env(MEASURING, "1");
    }
    command
}

/// Environment variable that tells the node that this is a measurement.
const MEASURING: &str = "SPANDREL_BENCH_MEASURING";

/// Runs the node: prints its directory when all is ready, and nothing when the machine can't do it (then it has said
/// why on standard error).
pub fn serve() {
    let Some(disk) = require::plain_disk() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let measuring = std::env::var_os(MEASURING).is_some();
    let len = if measuring { FILE_LEN } else { FILE_LEN / 8 };
    let Some(node) = runtime.block_on(Node::start(disk.path())) else { return };
    // Its last work, comparing the whole with the image, asks the registry.
    let registry = ScriptedRegistry::plain();
    runtime.block_on(node.fill(&registry, disk.path(), len));
    let mut out = std::io::stdout();
    writeln!(out, "{}", disk.path().display()).expect("the benchmark waits");
    out.flush().expect("the benchmark waits");
    // Until the benchmark has ended, in whatever way.
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    runtime.block_on(node.layers.shutdown());
}

struct Node {
    layers: Arc<LayerStore>,
    device: Arc<Device>,
    mount: PathBuf,
}

impl Node {
    async fn start(dir: &Path) -> Option<Self> {
        let root = dir.join(ROOT);
        std::fs::create_dir(&root).expect("a fresh directory");
        let metrics = Metrics::new();
        let options = DeviceOptions { dir: root.join("device"), threads: DEVICE_THREADS };
        let device = match Device::mount(&options, Arc::clone(&metrics)) {
            Ok(device) => Arc::new(device),
            Err(error) => {
                require::missing("a FUSE mount", &error.to_string());
                return None;
            }
        };
        let helper = Helper { program: PROGRAM.into(), args: vec![MOUNTER.into()] };
        let mounter = Arc::new(Mounter::new(helper));
        let able = match probe::run(&root, &device, &mounter, Path::new(PROGRAM)).await {
            Ok(able) => able,
            Err(error) => {
                device.unmount();
                require::missing("a kernel that mounts layers", &error.to_string());
                return None;
            }
        };
        let parts = Parts {
            client: Client::new(ClientOptions::default(), Arc::new(Anonymous)).expect("a client"),
            containerd: None,
            filesystem: Arc::clone(&device).into(),
            mounter,
            metrics,
        };
        let mut options = StoreOptions::new(&root);
        options.min_layer_size = 0; // in a test it is small
        options.directio = able.directio;
        let layers = LayerStore::open(options, parts).expect("a fresh directory");
        Some(Self { layers, device, mount: dir.join(MOUNT) })
    }

    /// Mounts a layer with the file, reads all of it, and waits until it is on the disk; writes the plain file too.
    async fn fill(&self, registry: &ScriptedRegistry, dir: &Path, len: usize) {
        let content = input::code(&mut Random::new(7), len);
        let mut plain = File::create_new(dir.join(PLAIN)).expect("a fresh directory");
        plain.write_all(&content).expect("room for the file");
        plain.sync_all().expect("a disk"); // only clean pages can be dropped
        let image = image(registry, &content);
        let labels = [
            ("containerd.io/snapshot/cri.image-ref", format!("{}/{REPOSITORY}:1", registry.host())),
            ("containerd.io/snapshot/cri.manifest-digest", image.digest()),
            ("containerd.io/snapshot/cri.layer-digest", image.layers[0].digest.clone()),
        ];
        let request = LayerRequest {
            namespace: "default".to_owned(),
            chain_id: image.chain_ids()[0].clone(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            parent: String::new(),
        };
        let key = match self.layers.prepare(&request).await.expect("the registry is here") {
            Prepared::Remote(key) => key,
            Prepared::Ordinary(reason) => panic!("the layer isn't mounted lazily: {reason}"),
        };
        self.layers.ready(&key).await.expect("a lazy layer is ready at once");
        std::fs::create_dir(&self.mount).expect("a fresh directory");
        self.layers.mount(&key, None, &self.mount).await.expect("the layer mounts");
        let file = self.mount.join(FILE);
        let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await.expect("doesn't panic");
        assert!(read.expect("the registry is here") == content, "a benchmark of wrong bytes");
        self.complete(&key).await;
    }

    /// Waits until every span is in the stream.
    async fn complete(&self, key: &LayerKey) {
        let start = Instant::now();
        loop {
            let report = self.layers.report().await;
            let complete = |layer: &&Report| layer.spans.is_some() && layer.spans == layer.present_spans;
            if report.iter().filter(complete).any(|layer| layer.layer == *key) {
                return;
            }
            assert!(start.elapsed() < COMPLETE_WITHIN, "the layer isn't complete: {report:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        self.device.unmount();
    }
}

/// An image of one layer, which has the file, and an index of it.
fn image(registry: &ScriptedRegistry, content: &[u8]) -> Image {
    let tar = TarBuilder::new().with(Entry::dir("data")).with(Entry::file(FILE, content)).finish();
    // Level 1: the file is read from the stream, whatever the blob is like.
    let layer = Layer::new(spandrel_fixtures::layer::TAR_GZIP, gzip(&tar, 1), &tar);
    let ztoc = build(&*layer.blob, Compression::Gzip, &BuildOptions::default()).expect("a tar").ztoc.encode();
    let size = ztoc.len();
    let digest = registry.put_blob(REPOSITORY, ztoc);
    let descriptor = json!({ "mediaType": ZTOC, "digest": digest, "size": size });
    let index = IndexManifest {
        version: Version::V2,
        build_tool: "benchmark".to_owned(),
        layers: vec![LayerZtoc {
            layer: layer.digest.parse().expect("a digest"),
            layer_media_type: layer.media_type.clone(),
            ztoc: serde_json::from_value(descriptor).expect("a descriptor"),
            span_size: None,
            disable_xattrs: false,
        }],
        prefetch: Vec::new(),
        subject: None,
    };
    let index = registry.put_manifest(REPOSITORY, "", MANIFEST, index.to_bytes());
    let image = ImageBuilder::new().layer(layer).annotation("com.amazon.soci.index-digest", &index).build();
    image.put(registry, REPOSITORY, "1");
    image
}

//! A node with one image on it: the registry, the daemon, and what containerd does with it from the first Prepare to the
//! container's mount.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use spandrel_fixtures::image::Image;
use spandrel_fixtures::process::Process;
use spandrel_fixtures::scripted::{ScriptedRegistry, Settings};
use spandrel_proto::containerd::services::snapshots::v1 as api;
use spandrel_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use spandrel_proto::containerd::types::Mount;
use spandrel_soci::index::Version;
use tonic::Code;
use tonic::transport::Channel;

use super::content::Store;
use super::daemon::{Place, get};
use super::image::{Indexed, MIN_LAYER_SIZE, REPOSITORY};

/// How long something that is bound to happen may take. Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often to look whether it has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How the image gets to the node.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Version of its index.
    pub version: Version,
    /// Whether blobs are answered by a redirect to another server, as clouds do.
    pub redirect: bool,
    /// Whether containerd has manifest and configuration, as it has at every pull, and can be asked for them.
    pub containerd: bool,
}

/// The plainest: an index of version 2, no redirects, behind containerd.
pub const PLAIN: Way = Way { version: Version::V2, redirect: false, containerd: true };

// Fields are dropped in this order: whoever uses the others goes first.
pub struct Node {
    client: SnapshotsClient<Channel>,
    daemon: Process,
    merged: Merged,
    place: Place,
    pub registry: ScriptedRegistry,
    pub image: Image,
    indexed: Indexed,
}

impl Node {
    /// A registry with the image, and a daemon that has seen nothing yet; `None` where this machine can't run it.
    pub async fn start(indexed: &Indexed, way: Way) -> Option<Self> {
        let mut place = Place::new()?;
        let settings = Settings { redirect: way.redirect, ..Settings::default() };
        let registry = ScriptedRegistry::start(settings);
        let image = indexed.clone().put(&registry, way.version);
        let containerd = place.dir.path().join("containerd.sock");
        let address = if way.containerd { containerd.to_str().expect("UTF-8") } else { "" };
        place.config = format!(
            "address = {address:?}\n[index]\nmin_layer_size = {MIN_LAYER_SIZE}\n[fetch]\nbackground = \"off\"\n"
        );
        if way.containerd {
            Store::of(&image).serve(&containerd);
        }
        let daemon = place.start();
        let client = place.client().await;
        let merged = Merged(place.dir.path().join("merged"));
        Some(Self { client, daemon, merged, place, registry, image, indexed: indexed.clone() })
    }

    /// What containerd does to start a container: Prepare and Stat for each layer, Prepare for the container, and its mount.
    /// Returns where it is.
    pub async fn start_container(&mut self) -> PathBuf {
        let chain_ids = self.image.chain_ids();
        for (position, chain_id) in chain_ids.iter().enumerate() {
            let layers: Vec<&str> =
                self.image.layers[position..].iter().map(|layer| layer.digest.as_str()).collect();
            let labels = [
                ("containerd.io/snapshot.ref", chain_id.clone()),
                ("containerd.io/snapshot/cri.image-ref", format!("{}/{REPOSITORY}:1", self.registry.host())),
                ("containerd.io/snapshot/cri.manifest-digest", self.image.digest()),
                ("containerd.io/snapshot/cri.layer-digest", layers[0].to_owned()),
                ("containerd.io/snapshot/cri.image-layers", layers.join(",")),
            ];
            let request = api::PrepareSnapshotRequest {
                key: format!("k8s.io/{position}/extract-1-abcd {chain_id}"),
                parent: position.checked_sub(1).map(|below| chain_ids[below].clone()).unwrap_or_default(),
                labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                ..Default::default()
            };
            let answer = self.client.prepare(request).await.map(drop).map_err(|status| status.code());
            assert_eq!(
                answer,
                Err(Code::AlreadyExists),
                "layer {position} isn't ours\n{}",
                self.daemon.tail()
            );
            let request = api::StatSnapshotRequest { key: chain_id.clone(), ..Default::default() };
            self.client.stat(request).await.expect("a layer that is there");
        }
        let parent = chain_ids.last().expect("a layer").clone();
        let request = api::PrepareSnapshotRequest {
            key: "k8s.io/99/container".to_owned(),
            parent,
            ..Default::default()
        };
        let mounts =
            self.client.prepare(request).await.expect("the container's snapshot").into_inner().mounts;
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        self.merged.mount(&mounts[0])
    }

    /// Requests of the kernel to the daemon until now, without those that nobody waits for: a file that was closed is
    /// released some time later.
    pub async fn fuse_requests(&self) -> u64 {
        let (_, text) = get(&self.place.admin_socket(), "/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with("spandrel_fuse_requests_total{"));
        let lines = lines.filter(|line| !line.contains("\"release\""));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")).sum()
    }

    /// Descriptors that the daemon has, and how many of them are of layers' files.
    pub fn descriptors(&self) -> (u64, u64) {
        let dir = format!("/proc/{}/fd", self.daemon.pid());
        let layers = self.place.root().join("layers");
        let all = std::fs::read_dir(dir).expect("it runs").map(|entry| entry.expect("an entry").path());
        let (mut count, mut of_layers) = (0, 0);
        for path in all {
            count += 1;
            // One that was closed just now leads nowhere.
            of_layers += u64::from(std::fs::read_link(path).is_ok_and(|target| target.starts_with(&layers)));
        }
        (count, of_layers)
    }

    /// How many descriptors the daemon may have, and how many it might allow itself.
    pub fn descriptor_limit(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.daemon.pid())).expect("it runs");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        let mut fields = line.split_whitespace().map(str::to_owned);
        (fields.next().expect("the soft one"), fields.next().expect("the hard one"))
    }

    /// Bytes of the only layer that were sent until now; waits until nothing is on its way any more.
    pub async fn sent(&self) -> u64 {
        self.registry.wait_until_idle().await;
        self.registry.sent(&self.image.layers[0].digest)
    }

    /// Waits until all that was fetched of the only layer is in its stream file: readers don't wait for the disk.
    pub async fn wait_until_written(&self) {
        self.registry.wait_until_idle().await;
        let fetched = self.fetched_spans();
        wait_until(&format!("{fetched} spans to be written"), async || {
            let (_, text) = get(&self.place.admin_socket(), "/layers").await;
            let layers: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
            if layers[0]["present_spans"].as_u64() == Some(fetched) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Waits until the only layer, all of which was read, has been compared with its digest as a whole.
    pub async fn wait_until_verified(&self) {
        let record = self.layer().join("layer.json");
        wait_until("the layer to be verified", async || {
            let text = std::fs::read_to_string(&record).expect("a record");
            let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            if found["verified"] == true { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// How many spans of the only layer were asked for.
    fn fetched_spans(&self) -> u64 {
        let digest = self.image.layers[0].digest.as_str();
        let log = self.registry.log();
        let ranges = log.iter().filter(|seen| seen.digest.as_deref() == Some(digest)).map(|seen| {
            let range = seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let (first, last) = range.expect("layers are asked for by range");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            number(first)..number(last) + 1
        });
        let ranges: Vec<_> = ranges.collect();
        let within = |span: &std::ops::Range<u64>| {
            ranges.iter().any(|range| range.start <= span.start && span.end <= range.end)
        };
        self.indexed.spans().iter().filter(|span| within(span)).count() as u64
    }

    /// The stream file of the only layer.
    pub fn stream(&self) -> File {
        File::open(self.layer().join("stream")).expect("a stream")
    }

    /// The only layer's file on the device.
    pub fn device(&self) -> PathBuf {
        self.place.root().join("device").join(self.layer().file_name().expect("a name"))
    }

    /// Where the only layer's files lie.
    fn layer(&self) -> PathBuf {
        let layers = std::fs::read_dir(self.place.root().join("layers")).expect("layers");
        let dirs: Vec<_> = layers.map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs[0].clone()
    }
}

/// Looks until it is `so`; otherwise that says how it is.
async fn wait_until(what: &str, so: impl AsyncFn() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(found) = so().await {
        assert!(Instant::now() < deadline, "waited for {what} in vain: {found}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The container's mount, which goes before the daemon's root.
struct Merged(PathBuf);

impl Merged {
    /// Mounts as containerd would, but for the way that options take: mount(2) has a page for all of them, in which the lower
    /// directories of a hundred layers have no room.
    fn mount(&self, what: &Mount) -> PathBuf {
        assert_eq!(what.r#type, "overlay", "{what:?}");
        std::fs::create_dir_all(&self.0).expect("a directory");
        let mounted = || -> rustix::io::Result<()> {
            let context = fsopen(&*what.r#type, FsOpenFlags::FSOPEN_CLOEXEC)?;
            for option in &what.options {
                match option.split_once('=') {
                    Some(("lowerdir", dirs)) => {
                        dirs.split(':')
                            .try_for_each(|dir| fsconfig_set_string(&context, "lowerdir+", dir))?;
                    }
                    Some((name, value)) => fsconfig_set_string(&context, name, value)?,
                    None => fsconfig_set_flag(&context, &**option)?,
                }
            }
            fsconfig_create(&context)?;
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
            move_mount(mount, "", CWD, &self.0, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        };
        mounted().unwrap_or_else(|error| panic!("mount {what:?}: {error}"));
        self.0.clone()
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH); // maybe it never was mounted
    }
}

/// Does something that waits for the daemon, which this runtime serves in part.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("doesn't panic")
}

/// Reads `len` bytes at the start of a file in one read.
pub async fn read_start(path: PathBuf, len: usize) -> Vec<u8> {
    blocking(move || {
        let mut bytes = vec![0; len];
        File::open(path).expect("opens").read_exact_at(&mut bytes, 0).expect("reads");
        bytes
    })
    .await
}

/// Reads a file from its start to its end by 128 KiB, as cp and cat do, compares it with what it should be, and says whether
/// it was that.
pub async fn reads_as(path: PathBuf, content: Vec<u8>) -> bool {
    blocking(move || {
        let mut file = File::open(path).expect("opens");
        let mut buffer = vec![0; 128 << 10];
        let mut at = 0;
        loop {
            let len = std::io::Read::read(&mut file, &mut buffer).expect("reads");
            if len == 0 {
                return at == content.len();
            }
            if content.get(at..at + len) != Some(&buffer[..len]) {
                return false;
            }
            at += len;
        }
    })
    .await
}

/// Drops a file from the page cache, this one only: other tests run beside this one.
pub async fn forget(path: PathBuf) {
    blocking(move || {
        let file = File::open(path).expect("opens");
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("drops its pages");
    })
    .await;
}

/// Looks at everything below a directory, as `find DIR -size …` does; how many names there are.
pub fn find(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let found = entries.map(|path| {
        let meta = std::fs::symlink_metadata(&path).expect("metadata");
        1 + if meta.is_dir() { find(&path) } else { 0 }
    });
    found.sum()
}

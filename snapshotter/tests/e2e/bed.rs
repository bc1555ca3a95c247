//! A registry, a daemon and a containerd, each with a root of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spandrel_fixtures::cri::Cri;
use spandrel_fixtures::image::{Image, pause};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::{Containerd, DockerRegistry, Version};
use spandrel_fixtures::process::Process;
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;

use super::daemon::{PROGRAM, Place, get};

/// Name of the snapshotter in containerd.
pub const SNAPSHOTTER: &str = "spandrel";

/// Layers from this size on, in bytes compressed, are lazy in these tests: real ones would take long to make.
pub const MIN_LAYER_SIZE: usize = 256 << 10;

/// The line of the configuration by which layers stay as they were read.
pub const NO_BACKGROUND: &str = "background = \"off\"";

/// How long reads wait for what can't be had, in seconds.
pub const READ_TIMEOUT: u64 = 4;

/// What a bed is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub containerd: Version,
    /// As what layers are mounted.
    pub filesystem: &'static str,
}

impl Setting {
    /// Every case runs with each of these. What a layer is mounted as is nothing that containerd sees: so the FUSE tree has one
    /// of its versions.
    pub const ALL: [Self; 3] = [
        Self { containerd: Version::V1_6, filesystem: "erofs" },
        Self { containerd: Version::V2_1, filesystem: "erofs" },
        Self { containerd: Version::V2_1, filesystem: "fuse" },
    ];
}

impl From<Version> for Setting {
    fn from(containerd: Version) -> Self {
        Self { containerd, filesystem: "erofs" }
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{}", self.containerd, self.filesystem)
    }
}

// Fields are dropped in this order: whoever uses the others goes first.
pub struct Bed {
    pub containerd: Containerd,
    pub daemon: Process,
    pub place: Place,
    pub registry: DockerRegistry,
    pub spandrel: PathBuf,
}

impl Bed {
    /// Starts all of it; `None` where this machine can't.
    pub fn start(setting: impl Into<Setting>) -> Option<Self> {
        Self::start_with(setting, DockerRegistry::plain()?)
    }

    /// The same with this registry.
    pub fn start_with(setting: impl Into<Setting>, registry: DockerRegistry) -> Option<Self> {
        let setting = setting.into();
        let spandrel = spandrel()?;
        let mut place = Place::new()?;
        place.filesystem = Some(setting.filesystem);
        pause()?.push(&registry.client(), "pause", "1");
        let containerd = Containerd::builder(setting.containerd)
            .snapshotter(SNAPSHOTTER, &place.socket(), &place.root())
            .cri_snapshotter(SNAPSHOTTER)
            .docker_registry(&registry)
            .sandbox_image(&format!("{}/pause:1", registry.host()));
        // containerd asks at its start for what snapshots there are: the daemon is there first.
        let daemon = place.start();
        let containerd = containerd.start()?;
        drop(daemon);
        // What nobody has read is missing: tests see what a read brings. What is removed is gone: they see what is left.
        place.config = format!(
            "address = {:?}\n[index]\nmin_layer_size = {MIN_LAYER_SIZE}\n\
             [fetch]\nread_timeout = \"{READ_TIMEOUT}s\"\n{NO_BACKGROUND}\n\
             [disk]\nunused_mark = \"0%\"\n",
            containerd.socket().to_str().expect("UTF-8"),
        );
        if let Some(ca) = registry.ca_pem() {
            let file = place.dir.path().join("ca.pem");
            std::fs::write(&file, ca).expect("written");
            place.config +=
                &format!("[[registry.hosts]]\nhost = {:?}\nca_files = [{file:?}]\n", registry.host());
        }
        let daemon = place.start();
        Some(Self { containerd, daemon, place, registry, spandrel })
    }

    /// Pushes `image` as `name`:1 and returns its reference.
    pub fn push(&self, image: &Image, name: &str) -> String {
        image.push(&self.registry.client(), name, "1");
        format!("{}/{name}:1", self.registry.host())
    }

    /// Pushes `image`, and an index of its large layers.
    pub fn push_indexed(&self, image: &Image, name: &str) -> String {
        let reference = self.push(image, name);
        self.create_index(&reference);
        reference
    }

    /// Makes and pushes an index of the large layers of an image that is in the registry.
    pub fn create_index(&self, reference: &str) {
        let min = MIN_LAYER_SIZE.to_string();
        let store = self.place.dir.path().join("store");
        let output = Command::new(&self.spandrel)
            .args([
                "create",
                "--push",
                "--span-size",
                "262144",
                "--cache-size",
                "0",
                "--min-layer-size",
                &min,
                "--store",
            ])
            .arg(store)
            .arg(reference)
            .output()
            .expect("spandrel runs");
        assert!(output.status.success(), "spandrel create: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs the tool against this containerd: `args` and what they are about.
    pub fn tool(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.spandrel);
        command.args(args).arg("--address").arg(self.containerd.socket());
        command.output().expect("spandrel runs")
    }

    /// Runs a shell command in a container of `ctr` on `snapshotter`, and returns what it printed.
    pub fn ctr_run(&self, snapshotter: &str, reference: &str, script: &str) -> String {
        let id = Containerd::unique_id("ctr");
        let run = ["run", "--rm", "--snapshotter", snapshotter, reference, &id, "/bin/sh", "-c", script];
        self.containerd.ctr(&run).unwrap_or_else(|error| panic!("{error}\n{}", self.daemon.tail()))
    }

    /// CRI of this containerd.
    pub async fn cri(&self) -> Cri {
        Cri::connect(&self.containerd.socket(), self.place.dir.path()).await
    }

    /// Ends the daemon as asked, and starts it anew.
    pub fn restart_daemon(&mut self) {
        self.daemon.stop();
        self.daemon = self.place.start();
    }

    /// Value of the metric that is written `line`, 0 when it isn't there yet.
    pub async fn metric(&self, line: &str) -> u64 {
        let (_, text) = get(&self.place.admin_socket(), "/metrics").await;
        let found = text.lines().find_map(|have| have.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().expect("a number"))
    }

    /// How many requests the kernel has sent to the device or the tree, but for those for extended attributes, which FUSE has
    /// no cache for: with the tree, each start of a program asks for its capabilities. The device never has such.
    pub async fn cacheable_requests(&self) -> u64 {
        let (_, text) = get(&self.place.admin_socket(), "/metrics").await;
        let begin = r#"spandrel_fuse_requests_total{operation=""#;
        let lines = text.lines().filter_map(|line| line.strip_prefix(begin)?.split_once(r#""} "#));
        let mut requests: BTreeMap<&str, u64> =
            lines.map(|(operation, count)| (operation, count.parse().expect("a number"))).collect();
        let attributes = requests.remove("getxattr").unwrap_or_default();
        assert!(attributes == 0 || self.place.filesystem == Some("fuse"), "the device has no attributes");
        requests.values().sum()
    }

    /// What the daemon says of its layers, by digest.
    pub async fn layers(&self) -> Vec<serde_json::Value> {
        let (_, text) = get(&self.place.admin_socket(), "/layers").await;
        serde_json::from_str(&text).expect("JSON")
    }

    /// Names in the daemon's folder `dir`.
    pub fn entries(&self, dir: &str) -> Vec<String> {
        names(&self.place.root().join(dir))
    }

    /// Mounts below the daemon's root but for its device.
    pub fn layer_mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let snapshots = self.place.root().join("snapshots");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| Path::new(point).starts_with(&snapshots)).map(str::to_owned).collect()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The tool, which is built beside the daemon.
fn spandrel() -> Option<PathBuf> {
    let path = Path::new(PROGRAM).with_file_name("spandrel");
    if !path.is_file() {
        require::missing(
            "the program spandrel",
            "cargo build -p spandrel-cli (or run the tests of the workspace)",
        );
        return None;
    }
    Some(path)
}

/// A layer that is large enough to be lazy: `count` files of `len` bytes below `dir`.
pub fn large_layer(dir: &str, seed: u64, count: usize, len: usize) -> Layer {
    Layer::gzip(&large_tar(dir, seed, count, len))
}

/// Its tar.
pub fn large_tar(dir: &str, seed: u64, count: usize, len: usize) -> Vec<u8> {
    let mut tar = TarBuilder::new().with(Entry::dir(dir));
    for number in 0..count {
        tar = tar.with(Entry::file(format!("{dir}/{number}"), content(seed, number, len)));
    }
    tar.finish()
}

/// What is in file `number` of [`large_layer`].
pub fn content(seed: u64, number: usize, len: usize) -> Vec<u8> {
    Random::new(seed.wrapping_mul(1000).wrapping_add(number as u64)).content(len, 30)
}

/// The SHA-256 of `bytes`, as `sha256sum` writes it.
pub fn sha256(bytes: &[u8]) -> String {
    spandrel_fixtures::digest::sha256(bytes).trim_start_matches("sha256:").to_owned()
}

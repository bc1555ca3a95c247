//! The parts of a daemon put together, in the order in which they need each other: root, device, mount helper, layers,
//! snapshots. `daemon` serves them to containerd, `embedded` mounts one image with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spandrel_credentials::DockerConfig;
use spandrel_registry::{Anonymous, Client, ClientOptions, CredentialSource, HostConfig};

use crate::Error;
use crate::config::{Config, LogFormat};
use crate::device::{Device, DeviceOptions};
use crate::layer::{LayerStore, Layers, Parts, StoreOptions};
use crate::metrics::Metrics;
use crate::mounter::{Helper, Mounter};
use crate::probe;
use crate::root::Root;
use crate::snapshots::{self, Snapshots};

/// Threads that take requests of the kernel. Reads of present bytes are answered on them, by a copy from the page cache or
/// the disk; all others only pass through.
const DEVICE_THREADS: usize = 4;

/// Longest time that a credential helper may take: those of clouds ask a metadata service and then an API.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest that removals under way are waited for when the node stops; the next start finishes what is left.
const REMOVALS_WAIT: Duration = Duration::from_secs(5);

/// Everything that a daemon consists of but its sockets.
#[derive(Debug)]
pub struct Node {
    /// The root; nobody else has it.
    pub root: Root,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The device that layers are read through.
    pub device: Arc<Device>,
    /// Mounts and unmounts.
    pub mounter: Arc<Mounter>,
    /// The layers.
    pub layers: Arc<LayerStore>,
    /// The snapshots.
    pub snapshots: Arc<Snapshots>,
    /// Registries.
    pub client: Client,
}

impl Node {
    /// Takes the root, mounts the device, finds out what the kernel can do, and takes up what a former process left.
    /// Asks no network. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the root can't be had, the kernel can't do it, or a part can't be set up.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let root = Root::open(&config.root)?;
        let client = client(config)?;
        let metrics = Metrics::new();
        let mut helper = Helper::default();
        if config.log.format == LogFormat::Json {
            helper.args.push("--json".into());
        }
        let program = helper.program.clone();
        let mounter = Arc::new(Mounter::new(helper));
        let options = DeviceOptions { dir: root.path().join("device"), threads: DEVICE_THREADS };
        let device = Arc::new(Device::mount(&options, Arc::clone(&metrics))?);
        let able = match probe::run(root.path(), &device, &mounter, &program).await {
            Ok(able) => able,
            Err(error) => {
                device.unmount();
                return Err(error);
            }
        };
        let mut options = StoreOptions::new(root.path());
        options.min_layer_size = config.index.min_layer_size.0;
        options.index_v1 = config.index.v1;
        options.index_v2 = config.index.v2;
        options.read_timeout = config.fetch.read_timeout.0;
        options.max_fetches = config.fetch.concurrency as usize;
        options.eager_downloads = config.fetch.downloads as usize;
        options.memory_budget = config.fetch.memory.0;
        options.directio = able.directio;
        let containerd = &config.containerd.address;
        let parts = Parts {
            client: client.clone(),
            containerd: (!containerd.as_os_str().is_empty()).then(|| containerd.clone()),
            device: Arc::clone(&device),
            mounter: Arc::clone(&mounter),
            metrics: Arc::clone(&metrics),
        };
        let layers = LayerStore::open(options, parts)?;
        let options = snapshots::Options {
            root: root.path().to_path_buf(),
            keep_mounted: config.snapshots.keep_mounted as usize,
            pending_wait: config.snapshots.pending_wait.0,
        };
        let shared: Arc<dyn Layers> = Arc::clone(&layers) as _;
        let snapshots = Snapshots::open(&options, shared, Arc::clone(&metrics))?;
        snapshots.restore().await?;
        Ok(Self { root, metrics, device, mounter, layers, snapshots, client })
    }

    /// Stops all work; mounts and state stay, so that the next start carries on.
    pub async fn stop(&self) {
        self.snapshots.finish_background(REMOVALS_WAIT).await;
        self.layers.shutdown().await;
    }

    /// Takes every mount away, for when nothing will be there to serve them: lazily where something still runs on them.
    /// To be called after [`Node::stop`].
    pub async fn take_mounts_away(&self) {
        self.snapshots.unmount_all().await;
        self.device.unmount();
    }
}

/// The registry client that `config` asks for.
fn client(config: &Config) -> Result<Client, Error> {
    let hosts = config.registry.hosts.iter().map(|host| HostConfig {
        host: host.host.clone(),
        plain_http: host.plain_http,
        skip_verify: host.skip_verify,
        ca_files: host.ca_files.clone(),
        mirrors: host.mirrors.clone(),
    });
    let options = ClientOptions { hosts: hosts.collect(), ..ClientOptions::default() };
    Client::new(options, credentials(&config.registry.docker_config))
        .map_err(|error| Error::FailedPrecondition(format!("the registry client can't be set up: {error}")))
}

fn credentials(docker_config: &Path) -> Arc<dyn CredentialSource> {
    if !docker_config.as_os_str().is_empty() {
        return Arc::new(DockerConfig { path: docker_config.to_path_buf(), helper_timeout: HELPER_TIMEOUT });
    }
    // A service has no HOME: then there is no such file.
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    match dir.map(|dir| dir.join("config.json")).filter(|path| path.exists()) {
        Some(path) => Arc::new(DockerConfig { path, helper_timeout: HELPER_TIMEOUT }),
        None => Arc::new(Anonymous),
    }
}

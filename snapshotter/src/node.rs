//! The parts that mount layers, put together in the order in which they need each other: mount helper, the file system that
//! the kernel can have layers by, layers. `daemon` makes snapshots of them for containerd, `embedded` mounts one image with them.

use std::sync::Arc;

use spandrel_credentials::{Credentials, DockerConfig, Options};
use spandrel_registry::{Client, ClientOptions, HostConfig};

use crate::Error;
use crate::config::{Config, LogFormat};
use crate::filesystem::{Chosen, FileSystem};
use crate::layer::{LayerStore, Parts, StoreOptions};
use crate::metrics::Metrics;
use crate::mounter::{Helper, Mounter};
use crate::open_files;
use crate::root::Root;

/// Everything that mounts layers below one root.
#[derive(Debug)]
pub struct Node {
    /// The root; nobody else has it.
    pub root: Root,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What layers are mounted by.
    pub filesystem: FileSystem,
    /// Why by that.
    pub chosen: Chosen,
    /// Mounts and unmounts.
    pub mounter: Arc<Mounter>,
    /// The layers.
    pub layers: Arc<LayerStore>,
    /// Registries.
    pub client: Client,
}

impl Node {
    /// Mounts the device, or the tree, and finds out what the kernel can do. What is on the disk is left alone until the layers are
    /// restored. Asks no network. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel can't do it, or a part can't be set up.
    pub async fn start(root: Root, config: &Config) -> Result<Self, Error> {
        open_files::raise_limit();
        let metrics = Metrics::new();
        let client = client(config, &metrics)?;
        let mut helper = Helper::default();
        if config.log.format == LogFormat::Json {
            helper.args.push("--json".into());
        }
        let program = helper.program.clone();
        let mounter = Arc::new(Mounter::new(helper));
        let (filesystem, chosen) =
            FileSystem::start(config.filesystem, root.path(), &metrics, &mounter, &program).await?;
        let mut options = StoreOptions::new(root.path());
        options.min_layer_size = config.index.min_layer_size.0;
        options.index_v1 = config.index.v1;
        options.index_v2 = config.index.v2;
        options.read_timeout = config.fetch.read_timeout.0;
        options.resolve_timeout = config.fetch.resolve_timeout.0;
        options.max_fetches = config.fetch.concurrency as usize;
        options.eager_downloads = config.fetch.downloads as usize;
        options.memory_budget = config.fetch.memory.0;
        options.background = config.fetch.background;
        options.background_rate = Some(config.fetch.background_rate.0).filter(|rate| *rate > 0);
        options.quota = config.disk.quota;
        options.unused_mark = config.disk.unused_mark;
        options.directio = chosen.directio;
        let containerd = &config.containerd.address;
        let parts = Parts {
            client: client.clone(),
            containerd: (!containerd.as_os_str().is_empty()).then(|| containerd.clone()),
            filesystem: filesystem.clone(),
            mounter: Arc::clone(&mounter),
            metrics: Arc::clone(&metrics),
        };
        let layers = LayerStore::open(options, parts)?;
        Ok(Self { root, metrics, filesystem, chosen, mounter, layers, client })
    }
}

/// The registry client that `config` asks for.
fn client(config: &Config, metrics: &Arc<Metrics>) -> Result<Client, Error> {
    let hosts = config.registry.hosts.iter().map(|host| HostConfig {
        host: host.host.clone(),
        plain_http: host.plain_http,
        skip_verify: host.skip_verify,
        ca_files: host.ca_files.clone(),
        mirrors: host.mirrors.clone(),
    });
    let options = ClientOptions { hosts: hosts.collect(), ..ClientOptions::default() };
    let docker = match &config.registry.docker_config {
        path if !path.as_os_str().is_empty() => Some(DockerConfig::new(path)),
        // A service has no HOME.
        _ => DockerConfig::from_environment(),
    };
    let credentials =
        Credentials::new(Options { given: None, docker, observer: Some(Arc::clone(metrics) as _) });
    Client::new(options, credentials)
        .map_err(|error| Error::FailedPrecondition(format!("the registry client can't be set up: {error}")))
}

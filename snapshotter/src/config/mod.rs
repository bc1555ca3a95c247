//! The configuration: a TOML file, of which every key has a default, and the flags that win over it. What each key means
//! and why its default is what it is stands in `keys`, from which the documentation is made; what the values do is left to
//! the modules that are handed them.

mod keys;
mod values;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::Share;
use crate::fetch::Background;
use crate::filesystem::Choice;

pub use keys::{documentation, file as default_file};
pub use values::{Size, Time};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/spandrel-snapshotter/config.toml";

/// Longest file that is read, in bytes: more than a thousand registry hosts.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Longest path of a unix socket, in bytes (`sun_path` holds 108 with the zero at its end).
const MAX_SOCKET_PATH: usize = 107;

/// Longest root in bytes: containerd is told paths below it, some hundred of them in one mount.
const MAX_ROOT: usize = 256;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Socket of the snapshots service.
    pub address: PathBuf,
    /// Where all state lies.
    pub root: PathBuf,
    /// As what layers are mounted.
    pub filesystem: Choice,
    /// Logs.
    pub log: Log,
    /// The containerd that asks us.
    pub containerd: Containerd,
    /// Metrics and the rest of what operators look at.
    pub metrics: Metrics,
    /// Which indexes are used, and for what.
    pub index: Index,
    /// Reading and fetching.
    pub fetch: Fetch,
    /// The room that layers take.
    pub disk: Disk,
    /// Snapshots and mounts.
    pub snapshots: Snapshots,
    /// Registries.
    pub registry: Registry,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or levels by module as `tracing` writes them.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The containerd that asks us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Containerd {
    /// Its socket; empty: manifests come from the registry only.
    pub address: PathBuf,
}

/// Metrics and the rest of what operators look at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where they are served: `IP:PORT`, or the path of a unix socket; empty: nowhere.
    pub address: String,
}

/// Which indexes are used, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Index {
    /// Whether indexes that refer to an image (SOCI v1) are used.
    pub v1: bool,
    /// Whether indexes that an image names (SOCI v2) are used.
    pub v2: bool,
    /// Smaller layers, compressed, are downloaded whole.
    pub min_layer_size: Size,
}

/// Reading and fetching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// How long a read waits for its span before it fails.
    pub read_timeout: Time,
    /// How long a pull looks for an image's manifest and index.
    pub resolve_timeout: Time,
    /// Requests to registries under way at once.
    pub concurrency: u32,
    /// Whole layers downloaded at once.
    pub downloads: u32,
    /// What spans that are not on disk yet may occupy.
    pub memory: Size,
    /// When the rest of mounted layers is fetched.
    pub background: Background,
    /// Most bytes a second that this takes; 0 for as many as come.
    pub background_rate: Size,
}

/// The room that layers take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// How much of it they may take.
    pub quota: Share,
    /// How full the file system may be before unused layers go.
    pub unused_mark: Share,
}

/// Snapshots and mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshots {
    /// Layers that nothing uses and that stay mounted.
    pub keep_mounted: u32,
    /// How long a container's start waits for a layer that is being filled.
    pub pending_wait: Time,
}

/// Registries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Docker's configuration with credentials; empty: where Docker would look.
    pub docker_config: PathBuf,
    /// Hosts that need something special.
    pub hosts: Vec<Host>,
}

/// A registry host that needs something special.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// `host[:port]` as image references write it.
    pub host: String,
    /// HTTP, not HTTPS.
    pub plain_http: bool,
    /// The certificate isn't checked.
    pub skip_verify: bool,
    /// Further certificate authorities, PEM files.
    pub ca_files: Vec<PathBuf>,
    /// Asked first, in order.
    pub mirrors: Vec<String>,
}

// The reasons for these numbers stand in `keys`; a test compares.
impl Default for Config {
    fn default() -> Self {
        Self {
            address: "/run/spandrel-snapshotter/spandrel-snapshotter.sock".into(),
            root: "/var/lib/spandrel-snapshotter".into(),
            filesystem: Choice::Auto,
            log: Log::default(),
            containerd: Containerd::default(),
            metrics: Metrics::default(),
            index: Index::default(),
            fetch: Fetch::default(),
            disk: Disk::default(),
            snapshots: Snapshots::default(),
            registry: Registry::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for Containerd {
    fn default() -> Self {
        Self { address: "/run/containerd/containerd.sock".into() }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self { v1: true, v2: true, min_layer_size: Size(10 << 20) }
    }
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            read_timeout: Time(Duration::from_secs(300)),
            resolve_timeout: Time(Duration::from_secs(20)),
            concurrency: 64,
            downloads: 8,
            memory: Size(256 << 20),
            background: Background::Stream,
            background_rate: Size(0),
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { quota: Share::Percent(60), unused_mark: Share::Percent(80) }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { keep_mounted: 100, pending_wait: Time(Duration::from_secs(10)) }
    }
}

/// What flags say; they win over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Socket of the snapshots service.
    pub address: Option<PathBuf>,
    /// Where all state lies.
    pub root: Option<PathBuf>,
    /// Log level.
    pub log_level: Option<String>,
}

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

fn wrong(key: &str, value: impl std::fmt::Debug, why: &str) -> ConfigError {
    ConfigError(format!("{key} = {value:?}: {why}"))
}

impl Config {
    /// The configuration of a run: defaults, the file, then flags. That the default file is missing is fine, a named one
    /// has to be there.
    ///
    /// # Errors
    /// When the file can't be read, has a key that there isn't, or a value makes no sense.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let (path, named) = match &overrides.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_PATH), false),
        };
        let mut config = match read(path) {
            Ok(text) => Self::parse(&text).map_err(|error| in_file(path, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound && !named => Self::default(),
            Err(error) => return Err(ConfigError(format!("configuration {}: {error}", path.display()))),
        };
        if let Some(address) = &overrides.address {
            config.address.clone_from(address);
        }
        if let Some(root) = &overrides.root {
            config.root.clone_from(root);
        }
        if let Some(level) = &overrides.log_level {
            config.log.level.clone_from(level);
        }
        config.checked()
    }

    /// Reads the file `path` as [`Config::load`] would, without flags.
    ///
    /// # Errors
    /// As there; the file has to be there.
    pub fn check(path: &Path) -> Result<Self, ConfigError> {
        let text =
            read(path).map_err(|error| ConfigError(format!("configuration {}: {error}", path.display())))?;
        Self::parse(&text).and_then(Self::checked).map_err(|error| in_file(path, &error))
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError(error.to_string()))
    }

    /// Checks values that have the right type but may make no sense.
    fn checked(mut self) -> Result<Self, ConfigError> {
        for (key, address) in
            [("address", &mut self.address), ("containerd.address", &mut self.containerd.address)]
        {
            if let Ok(path) = address.strip_prefix("unix:") {
                *address = Path::new("/").join(path);
            }
            if !address.as_os_str().is_empty() || key == "address" {
                check_socket(key, address)?;
            }
        }
        check_root(&self.root)?;
        self.log.filter()?;
        self.metrics.listen()?;
        for (key, value) in
            [("fetch.concurrency", self.fetch.concurrency), ("fetch.downloads", self.fetch.downloads)]
        {
            if !(1..=4096).contains(&value) {
                return Err(wrong(key, value, "must be from 1 to 4096"));
            }
        }
        if self.fetch.memory.0 < MIN_MEMORY {
            let why = "must be at least 64MiB: one span may have that size";
            return Err(wrong("fetch.memory", self.fetch.memory.to_string(), why));
        }
        if matches!(self.disk.quota, Share::Percent(0) | Share::Bytes(0)) {
            return Err(wrong("disk.quota", self.disk.quota.to_string(), "nothing could be kept"));
        }
        if self.fetch.read_timeout.0.is_zero() {
            return Err(wrong("fetch.read_timeout", "0", "nothing could be read"));
        }
        if self.fetch.resolve_timeout.0.is_zero() {
            return Err(wrong("fetch.resolve_timeout", "0", "no image could be found"));
        }
        for host in &self.registry.hosts {
            host.check()?;
        }
        Ok(self)
    }
}

/// Smallest memory budget, in bytes: the longest span that the zTOC reader accepts.
const MIN_MEMORY: u64 = 64 << 20;

impl Log {
    /// The filter that the level means.
    ///
    /// # Errors
    /// When it means none.
    pub fn filter(&self) -> Result<tracing_subscriber::EnvFilter, ConfigError> {
        let why = "is no level: use error, warn, info, debug or trace (or levels by module, as in \
                   \"info,spandrel_snapshotter::service=debug\")";
        // What soci-snapshotter's logging library calls these two.
        let level = match self.level.as_str() {
            "warning" => "warn",
            "fatal" | "panic" => "error",
            level => level,
        };
        if level.trim().is_empty() {
            return Err(wrong("log.level", &self.level, why));
        }
        // A lone word means our own lines: at debug the gRPC library writes one for every frame. (It would also be taken for a
        // module's name if it were no level.)
        let text = if level.chars().all(|c| c.is_ascii_alphabetic()) && level != "off" {
            let ours: tracing::Level = level.parse().map_err(|_| wrong("log.level", &self.level, why))?;
            let others = ours.min(tracing::Level::INFO);
            // What the FUSE library warns of (requests that a flat directory needn't answer) is no news.
            format!("{others},fuser=error,spandrel={ours}")
        } else {
            level.to_owned()
        };
        text.parse().map_err(|_| wrong("log.level", &self.level, why))
    }
}

impl Metrics {
    /// Where to listen, if anywhere.
    ///
    /// # Errors
    /// When the address is neither a socket's path nor `IP:PORT`.
    pub fn listen(&self) -> Result<Option<Listen>, ConfigError> {
        let address = self.address.as_str();
        if address.is_empty() {
            return Ok(None);
        }
        let path = address.strip_prefix("unix://").unwrap_or(address);
        if path.starts_with('/') {
            check_socket("metrics.address", Path::new(path))?;
            return Ok(Some(Listen::Unix(path.into())));
        }
        let why = "must be IP:PORT (for example \"127.0.0.1:9464\") or the absolute path of a unix socket";
        address
            .parse()
            .map(|address| Some(Listen::Tcp(address)))
            .map_err(|_| wrong("metrics.address", address, why))
    }
}

impl Host {
    fn check(&self) -> Result<(), ConfigError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
        if self.host.is_empty() || self.host.contains(bad) {
            let why = "must be host[:port] as image references write it";
            return Err(wrong("registry.hosts.host", &self.host, why));
        }
        for mirror in &self.mirrors {
            let rest = mirror.strip_prefix("https://").or_else(|| mirror.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
                let why = "must be scheme://host[:port][/path] with scheme http or https";
                return Err(wrong("registry.hosts.mirrors", mirror, why));
            }
            if rest.is_some_and(|rest| rest.contains('@')) {
                return Err(wrong("registry.hosts.mirrors", "...", "credentials belong into docker_config"));
            }
        }
        if let Some(file) = self.ca_files.iter().find(|file| !file.is_absolute()) {
            return Err(wrong("registry.hosts.ca_files", file, "must be an absolute path"));
        }
        Ok(())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let len = fs::metadata(path)?.len();
    if len > MAX_FILE_LEN {
        return Err(std::io::Error::other(format!("has {len} bytes, more than {MAX_FILE_LEN}")));
    }
    fs::read_to_string(path)
}

fn in_file(path: &Path, error: &ConfigError) -> ConfigError {
    ConfigError(format!("configuration {}: {}", path.display(), error.0.trim_end()))
}

fn check_socket(key: &str, path: &Path) -> Result<(), ConfigError> {
    if !path.is_absolute() {
        return Err(wrong(key, path, "must be the absolute path of a unix socket"));
    }
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(wrong(key, path, "is longer than the 107 bytes that a unix socket's path may have"));
    }
    Ok(())
}

/// Checks that a root can stand in the mounts that containerd is told.
pub(crate) fn check_root(root: &Path) -> Result<(), ConfigError> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@=%~".contains(c));
    if !root.is_absolute() || root == Path::new("/") {
        return Err(wrong("root", root, "must be an absolute path below /"));
    }
    if root.components().any(|part| part == Component::ParentDir) {
        return Err(wrong("root", root, "must not have .. in it"));
    }
    if root.as_os_str().len() > MAX_ROOT {
        return Err(wrong(
            "root",
            root,
            "is longer than 256 bytes, too long for the options of an overlay mount",
        ));
    }
    if !root.to_str().is_some_and(plain) {
        let why = "has characters that stand for something else in the options of an overlay mount: letters, digits and \
                   / . _ - + @ = % ~ are fine";
        return Err(wrong("root", root, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! The flags that several commands share, each defined once.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Parser, ValueEnum};
use spandrel_registry::manifest::Platform;
use spandrel_registry::{Digest, Reference};
use spandrel_soci::build::{BuildOptions, DEFAULT_MIN_LAYER_SIZE, KnownZtocs};
use spandrel_soci::cache::ZtocCache;
use spandrel_soci::containerd::Containerd;
use spandrel_soci::platform::Platforms;
use spandrel_soci::prefetch::Wanted;
use spandrel_soci::store::Store;

use crate::commands::Command;
use crate::error::{Error, exit};
use crate::{env, units};

/// Indexes container images so that they can be started while they are still in the registry, and works with what it
/// made.
#[derive(Debug, Parser)]
#[command(name = "spandrel", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = exit::help())]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of the tool's own store of indexes (an OCI layout) [default: /var/lib/spandrel/artifacts for root,
    /// $XDG_DATA_HOME/spandrel or ~/.local/share/spandrel for others]
    #[arg(long, global = true, env = env::STORE, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Longest time for the command, as in 30s or 5m; 0s is no limit
    #[arg(long, global = true, value_name = "DURATION", default_value = "0s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// What is logged to standard error
    #[arg(long, global = true, env = env::LOG_LEVEL, value_name = "LEVEL", default_value = "warn", value_enum)]
    pub log_level: LogLevel,
    /// The same as --log-level debug
    #[arg(long, global = true)]
    pub debug: bool,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// containerd's socket, for the commands that talk to it
    #[arg(
        long, short, global = true, env = env::CONTAINERD_ADDRESS, value_name = "SOCKET",
        default_value = "/run/containerd/containerd.sock"
    )]
    pub address: PathBuf,
    /// containerd's namespace, for the commands that talk to it
    #[arg(long, short, global = true, env = env::CONTAINERD_NAMESPACE, value_name = "NAME", default_value = "default")]
    pub namespace: String,
}

/// The directory that an environment variable names.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What is odd, too.
    Warn,
    /// What is done, too.
    Info,
    /// Requests, too.
    Debug,
    /// Everything.
    Trace,
}

impl Global {
    /// The store.
    pub fn store(&self) -> Store {
        let data = || {
            let home = || variable(env::HOME).map(|home| home.join(".local/share"));
            variable(env::XDG_DATA_HOME).or_else(home).unwrap_or_default().join("spandrel")
        };
        Store::new(match &self.store {
            Some(dir) => dir.clone(),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/spandrel/artifacts"),
            None => data(),
        })
    }

    /// The containerd that is meant.
    pub fn containerd(&self) -> Containerd {
        Containerd::new(&self.address, &self.namespace)
    }

    /// What is logged.
    pub fn level(&self) -> LogLevel {
        if self.debug { LogLevel::Debug } else { self.log_level }
    }
}

/// How to speak to a registry.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// Speak HTTP, not HTTPS (a loopback registry is found out by itself)
    #[arg(long)]
    pub plain_http: bool,
    /// Don't check the registry's certificate
    #[arg(long, short = 'k')]
    pub skip_verify: bool,
    /// File with further certificate authorities (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Vec<PathBuf>,
    /// User name and password; a password on the command line can be seen by others: set SPANDREL_PASSWORD instead
    /// [default: docker's configuration and its credential helpers; for Amazon ECR the AWS credentials of this machine]
    #[arg(long, short, value_name = "NAME[:PASSWORD]")]
    pub user: Option<String>,
}

/// Which images of an index are meant.
#[derive(Debug, Clone, Args)]
pub struct PlatformArgs {
    /// Platform of the image, as in linux/arm64; may be given several times [default: this machine's]
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform)]
    pub platform: Vec<Platform>,
    /// All platforms of the image
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
}

impl PlatformArgs {
    /// The platforms.
    pub fn platforms(&self) -> Platforms {
        if self.all_platforms {
            Platforms::All
        } else if self.platform.is_empty() {
            Platforms::Default
        } else {
            Platforms::Listed(self.platform.clone())
        }
    }
}

/// How layers are indexed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Index options")]
pub struct BuildArgs {
    /// Bytes of a layer between two points where reading can begin
    #[arg(long, value_name = "SIZE", default_value = "4194304", value_parser = units::parse_span_size)]
    pub span_size: u64,
    /// Smallest layer that is indexed, as compressed; smaller ones are downloaded whole when the image is mounted
    #[arg(long, value_name = "SIZE", default_value_t = DEFAULT_MIN_LAYER_SIZE, value_parser = units::parse_size)]
    pub min_layer_size: u64,
    /// Hints in the index, as soci has them: xattr marks layers that have neither extended attributes nor opaque directories
    #[arg(long, value_name = "NAME")]
    pub optimizations: Vec<Optimization>,
    /// Index layers anew that were indexed before with the same span size
    #[arg(long, short)]
    pub force: bool,
    /// File whose bytes a reader should have soon, by its path in the image or a pattern; may be given several times
    #[arg(long, value_name = "PATH")]
    pub prefetch_file: Vec<String>,
    /// File with a JSON list of such paths
    #[arg(long, value_name = "FILE")]
    pub prefetch_files_json: Option<PathBuf>,
    /// Layers indexed at once [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    pub parallel: Option<NonZeroUsize>,
    /// Memory for the layers that are indexed at once, by an estimate: fewer are when it is short
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = units::parse_size)]
    pub memory: u64,
    /// Directory where zTOCs are kept for later builds, of any image [default: $XDG_CACHE_HOME/spandrel/ztocs or
    /// ~/.cache/spandrel/ztocs]
    #[arg(long, env = env::CACHE, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Most bytes that stay in it; 0 keeps nothing
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::parse_size)]
    pub cache_size: u64,
}

/// What was built before: what is in the cache and in the store; what is built is put into the cache.
struct Known {
    cache: Option<ZtocCache>,
    store: Store,
    force: bool,
}

impl KnownZtocs for Known {
    fn get(&self, layer: &Digest, span_size: u64, build_tool: &str) -> Option<Bytes> {
        if self.force {
            return None;
        }
        let cached = self.cache.as_ref().and_then(|cache| cache.get(layer, span_size, build_tool));
        cached.or_else(|| self.store.get(layer, span_size, build_tool))
    }

    fn keep(&self, layer: &Digest, span_size: u64, build_tool: &str, ztoc: &Bytes) {
        if let Some(cache) = &self.cache {
            cache.keep(layer, span_size, build_tool, ztoc);
        }
    }
}

/// A hint in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Optimization {
    /// Which layers have no extended attributes.
    Xattr,
}

impl BuildArgs {
    /// What to build.
    ///
    /// # Errors
    /// When the file with paths can't be read, or a pattern makes no sense.
    pub fn options(&self) -> Result<BuildOptions, Error> {
        let mut paths = self.prefetch_file.clone();
        if let Some(path) = &self.prefetch_files_json {
            let bytes = std::fs::read(path).map_err(|source| Error::File {
                what: "reading",
                path: path.clone(),
                source,
            })?;
            let listed: Vec<String> = serde_json::from_slice(&bytes).map_err(|error| {
                Error::Usage(format!("{}: it is no JSON list of paths: {error}", path.display()))
            })?;
            paths.extend(listed);
        }
        let prefetch = Wanted::new(paths).map_err(|error| Error::Usage(error.to_string()))?;
        let parallel = self.parallel.unwrap_or(BuildOptions::default().parallel);
        Ok(BuildOptions {
            prefetch,
            parallel,
            memory: self.memory,
            span_size: self.span_size,
            min_layer_size: self.min_layer_size,
            hint_xattrs: self.optimizations.contains(&Optimization::Xattr),
            ..BuildOptions::default()
        })
    }

    /// What was built before.
    pub fn known(&self, global: &Global) -> Box<dyn KnownZtocs> {
        let home = || variable(env::HOME).map(|home| home.join(".cache"));
        let dir = self.cache.clone().or_else(|| {
            variable(env::XDG_CACHE_HOME).or_else(home).map(|cache| cache.join("spandrel/ztocs"))
        });
        let dir = dir.filter(|_| self.cache_size > 0);
        let cache = dir.map(|dir| ZtocCache::new(dir, self.cache_size));
        Box::new(Known { cache, store: global.store(), force: self.force })
    }
}

/// A platform, for clap.
pub fn parse_platform(text: &str) -> Result<Platform, String> {
    spandrel_soci::platform::parse(text).map_err(|error| error.to_string())
}

/// An image reference, for clap.
pub fn parse_reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error: spandrel_registry::ReferenceError| error.what.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}

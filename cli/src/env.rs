//! The environment variables that the tool reads. (The registry client reads the usual ones for proxies; docker's
//! configuration is where `DOCKER_CONFIG` says; for Amazon ECR the AWS SDK reads its own, `AWS_…`.)

/// The store's directory: as `--store`.
pub const STORE: &str = "SPANDREL_STORE";
/// Where zTOCs are kept for later builds: as `--cache`.
pub const CACHE: &str = "SPANDREL_CACHE";
/// What is logged: as `--log-level`.
pub const LOG_LEVEL: &str = "SPANDREL_LOG_LEVEL";
/// The password for the name in `--user`, so that it isn't in the process list.
pub const PASSWORD: &str = "SPANDREL_PASSWORD";
/// containerd's socket: as `--address`, and as `ctr` and soci have it.
pub const CONTAINERD_ADDRESS: &str = "CONTAINERD_ADDRESS";
/// containerd's namespace: as `--namespace`, and as `ctr` and soci have it.
pub const CONTAINERD_NAMESPACE: &str = "CONTAINERD_NAMESPACE";
/// Where a user's data lies, by the XDG base directory specification.
pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// Where what can be made again lies, by the XDG base directory specification.
pub const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// The user's home.
pub const HOME: &str = "HOME";
/// Set and not empty: no colours, also on a terminal (no-color.org).
pub const NO_COLOR: &str = "NO_COLOR";

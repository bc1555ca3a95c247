//! `spandrel mount` and `spandrel unmount`: an image's root file system without containerd. The work is the daemon's; this
//! tool doesn't contain it, it becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use spandrel_registry::Reference;

use crate::args::{Global, LogLevel, parse_reference};
use crate::error::Error;

/// The daemon's program.
const DAEMON: &str = "spandrel-snapshotter";

/// Mount an image's root file system lazily and read-only, without containerd: what is read is fetched then.
///
/// Each mount has a process of its own, which ends when the directory is unmounted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    /// The directory to mount it at
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Stay in the foreground, with the log on standard error, until it is unmounted
    #[arg(long)]
    foreground: bool,
    /// Speak HTTP, not HTTPS (a loopback registry is found out by itself)
    #[arg(long)]
    plain_http: bool,
    /// Folder with the state of all such mounts, on ext4 or xfs [default: /var/lib/spandrel/mounts]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Configuration file of the daemon, for its registries, index and fetch settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// End the mount of an image.
#[derive(Debug, clap::Args)]
pub struct UnmountArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Folder with the state of all such mounts [default: /var/lib/spandrel/mounts]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Mounts.
///
/// # Errors
/// When the daemon's program can't be started; otherwise this doesn't come back, and the exit code is that program's.
pub fn run(args: Args, global: &Global) -> Result<(), Error> {
    let mut words: Vec<OsString> = vec!["mount".into(), args.image.to_string().into(), args.dir.into()];
    let mut flag = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            words.extend([name.into(), value]);
        }
    };
    flag("--folder", args.folder.map(Into::into));
    flag("--config", args.config.map(Into::into));
    // Below its own default only what was asked for: a mount in the background logs to a file.
    flag("--log-level", (global.level() > LogLevel::Info).then(|| level(global.level()).into()));
    words.extend(args.foreground.then(|| "--foreground".into()));
    words.extend(args.plain_http.then(|| "--plain-http".into()));
    Err(become_daemon(words))
}

/// Unmounts.
///
/// # Errors
/// As [`run`].
pub fn unmount(args: UnmountArgs) -> Result<(), Error> {
    let mut words: Vec<OsString> = vec!["unmount".into(), args.dir.into()];
    if let Some(folder) = args.folder {
        words.extend(["--folder".into(), folder.into()]);
    }
    Err(become_daemon(words))
}

fn level(level: LogLevel) -> &'static str {
    if level == LogLevel::Trace { "trace" } else { "debug" }
}

/// Replaces this process by the daemon's program: beside this one, or else on the PATH.
fn become_daemon(words: Vec<OsString>) -> Error {
    let beside = std::env::current_exe().ok().map(|tool| tool.with_file_name(DAEMON));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(DAEMON));
    let error = Command::new(&program).args(words).exec();
    Error::Failed(format!(
        "{} can't be started: {error}; it comes with this tool and has to be beside it or on the PATH",
        program.display()
    ))
}

//! Entry point: flags, and which of the program's parts they start.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use spandrel_snapshotter::config::{self, Config, ConfigError, LogFormat, Overrides};
use spandrel_snapshotter::{daemon, embedded, logs, mounter, probe};
use tracing_subscriber::EnvFilter;

/// Exit code for a configuration that makes no sense, as for flags that make none.
const EXIT_USAGE: u8 = 2;

/// Longest that threads are waited for which still do something for calls that were broken off.
const RUNTIME_WAIT: Duration = Duration::from_secs(5);

/// Mounts image layers from their index and fills them on demand: a snapshotter for containerd.
///
/// Exit codes: 0 stopped as asked, 1 failed, 2 wrong flags or configuration.
#[derive(Debug, Parser)]
#[command(name = "spandrel-snapshotter", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Flags {
    /// Configuration file [default: /etc/spandrel-snapshotter/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket to serve [default: /run/spandrel-snapshotter/spandrel-snapshotter.sock]
    #[arg(long, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// Directory for all state, on ext4 or xfs [default: /var/lib/spandrel-snapshotter]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the default configuration with comments, or check a file
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Mount an image's root file system lazily and read-only at a directory, without containerd
    ///
    /// The directory's mount has a process of its own, which ends when it is unmounted or told to by SIGTERM.
    Mount(MountArgs),
    /// End the mount of an image at a directory
    Unmount {
        /// The directory
        dir: PathBuf,
        /// Folder with the state of all such mounts
        #[arg(long, value_name = "FOLDER", default_value = embedded::DEFAULT_FOLDER)]
        folder: PathBuf,
    },
    /// Reads a file of the trial mount; started by the daemon
    #[command(hide = true)]
    ProbeRead {
        /// The file
        file: PathBuf,
    },
    /// The helper process that mounts; started by the daemon
    #[command(hide = true)]
    Mounter {
        /// Log as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct MountArgs {
    /// The image
    reference: String,
    /// Where to mount it
    dir: PathBuf,
    /// Stay in the foreground, with the log on standard error, until it is unmounted
    #[arg(long)]
    foreground: bool,
    /// Speak HTTP to the image's registry
    #[arg(long)]
    plain_http: bool,
    /// Folder with the state of all such mounts, on ext4 or xfs
    #[arg(long, value_name = "FOLDER", default_value = embedded::DEFAULT_FOLDER)]
    folder: PathBuf,
    /// Configuration file, for its registries, index and fetch settings [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Serve the mount in the background for the process that started this one
    #[arg(long, hide = true, conflicts_with = "foreground")]
    behind: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every key with its default, what it means and why
    Default,
    /// Check a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(cli.flags),
        Some(Command::Config { what }) => configuration(&what),
        Some(Command::Mount(args)) => mount(args),
        Some(Command::Unmount { dir, folder }) => unmount(&folder, &dir),
        Some(Command::ProbeRead { file }) => {
            probe::read_whole(&file, &mut std::io::stdout()).with_context(|| file.display().to_string())
        }
        Some(Command::Mounter { json }) => help_mounting(json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code says it all the same.
            let _ = writeln!(std::io::stderr(), "spandrel-snapshotter: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn serve(flags: Flags) -> anyhow::Result<()> {
    let Flags { config, address, root, log_level } = flags;
    let config = Config::load(&Overrides { config, address, root, log_level })?;
    logs::start(config.log.filter()?, config.log.format);
    let runtime = runtime()?;
    let result = runtime.block_on(daemon::run(&config));
    runtime.shutdown_timeout(RUNTIME_WAIT);
    Ok(result?)
}

fn mount(args: MountArgs) -> anyhow::Result<()> {
    let mut config = match &args.config {
        Some(file) => Config::check(file)?,
        None => Config::default(),
    };
    if let Some(level) = &args.log_level {
        config.log.level.clone_from(level);
    }
    let filter = config.log.filter()?;
    if !args.foreground && !args.behind {
        let log = embedded::log_file(&args.folder, &args.dir)?;
        let again: Vec<OsString> = std::env::args_os().skip(1).chain(["--behind".into()]).collect();
        let sentence = embedded::start_in_background(&again, &log)?;
        return writeln!(std::io::stdout(), "{sentence}").context("standard output");
    }
    if args.behind {
        // Apart from the caller's terminal: its end is not this process's.
        rustix::process::setsid().context("a session of its own")?;
    }
    logs::start(filter, config.log.format);
    let MountArgs { reference, dir, folder, plain_http, behind, .. } = args;
    let options = embedded::MountOptions { reference, dir, folder, plain_http };
    let say = |sentence: &str| {
        let word = if behind { embedded::READY } else { "" };
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{word}{sentence}")?;
        stdout.flush()
    };
    let runtime = runtime()?;
    let result = runtime.block_on(embedded::run(&options, config, say));
    runtime.shutdown_timeout(RUNTIME_WAIT);
    if let (Err(error), true) = (&result, behind) {
        // Who waits may have gone meanwhile; the log has it too.
        let _ = writeln!(std::io::stdout(), "{error}");
    }
    Ok(result?)
}

fn unmount(folder: &Path, dir: &Path) -> anyhow::Result<()> {
    Ok(runtime()?.block_on(embedded::unmount(folder, dir))?)
}

fn configuration(what: &ConfigCommand) -> anyhow::Result<()> {
    let text = match what {
        ConfigCommand::Default => config::default_file(),
        ConfigCommand::Check { file } => {
            Config::check(file)?;
            format!("{} is fine\n", file.display())
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

fn help_mounting(json: bool) -> anyhow::Result<()> {
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    logs::start(EnvFilter::new("info"), format);
    mounter::run().context("the mount helper")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("threads can't be started")
}

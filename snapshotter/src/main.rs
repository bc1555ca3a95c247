//! Entry point: flags, and which of the program's parts they start.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use spandrel_snapshotter::config::{self, Config, ConfigError, LogFormat, Overrides};
use spandrel_snapshotter::{daemon, logs, mounter, probe};
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

//! What the tool `spandrel` does.
//!
//! [`run`] is the whole program: it reads the command line, runs one of `commands`, and says by an exit code how it went.
//! The work itself is `spandrel_soci`'s, and `pull`'s where containerd is concerned.
#![forbid(unsafe_code)]

pub mod args;
pub mod commands;
pub mod env;
pub mod error;
pub mod fit;
pub mod man;
pub mod output;
pub mod place;
pub mod progress;
pub mod pull;
pub mod registry;
pub mod table;
pub mod units;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use args::{Cli, LogLevel};
use error::{Error, exit};

/// How long work on threads may take to notice that it was given up, at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the tool with these arguments, the first being its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version too; that nobody reads them is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    log(cli.global.level());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::failure(&Error::Failed(format!("threads can't be started: {error}")));
            return ExitCode::FAILURE;
        }
    };
    let timeout = cli.global.timeout;
    let result = runtime.block_on(guarded(timeout, cli.command.run(&cli.global)));
    runtime.shutdown_timeout(GRACE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs `work` until it is done, its time is over, or a signal wants it to end: then it is dropped, and cleans up.
async fn guarded(timeout: Duration, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Failed(format!("signals can't be caught: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let over = async {
        match timeout {
            Duration::ZERO => std::future::pending().await,
            timeout => tokio::time::sleep(timeout).await,
        }
    };
    let number = |kind: SignalKind| Error::Signal(u8::try_from(kind.as_raw_value()).unwrap_or_default());
    tokio::select! {
        result = work => result,
        () = over => Err(Error::TimedOut(timeout)),
        _ = interrupt.recv() => Err(number(SignalKind::interrupt())),
        _ = terminate.recv() => Err(number(SignalKind::terminate())),
    }
}

/// Logs to standard error.
fn log(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(output::colours())
        .finish();
    // Only a test that runs this twice in one process has one already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

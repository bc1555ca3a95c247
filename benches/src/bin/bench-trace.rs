//! `./dev bench-trace`: where the time of a start went, from the files that `./dev bench-start TRACE=folder` left.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use spandrel_benches::trace;

/// Where the time of a start went: requests under way, what the cores did, and when nothing was asked for.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Files that bench-start left where TRACE said
    #[arg(required = true)]
    traces: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "bench-trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for file in &arguments.traces {
        let text = trace::account(&trace::read(file)?).with_context(|| format!("{}", file.display()))?;
        writeln!(out, "{text}")?;
    }
    Ok(())
}

//! `report`: docs/benchmarks.md and its pictures from the files of benchmark runs; or their tables as text.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use spandrel_benches::report::{self, Which};

/// Turns the results of benchmark runs into docs/benchmarks.md and its pictures.
#[derive(Debug, Parser)]
#[command(name = "report")]
struct Arguments {
    /// Result files, and folders of them (with causes.md, where somebody wrote it)
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The documentation's folder
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Print the tables as text and write no file
    #[arg(long)]
    print: bool,
    /// With --print: of each benchmark only what was measured like the newest run, and which files were left out
    #[arg(long, requires = "print")]
    newest: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "report: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.print {
        let which = if arguments.newest { Which::Newest } else { Which::All };
        out.write_all(report::text(&arguments.results, which)?.as_bytes())?;
        return Ok(());
    }
    for path in report::write(&arguments.results, &arguments.docs)? {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

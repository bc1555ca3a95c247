//! Entry point of the tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    spandrel_cli::run(std::env::args_os())
}

//! `spandrel completions` and `spandrel man`: what packages of the tool bring along, made from its own definitions.

use std::path::PathBuf;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell as Generator;

use crate::args::Cli;
use crate::error::Error;
use crate::{man, output};

/// Print what a shell needs to complete the tool's commands and flags.
///
/// Where it goes: for bash /usr/share/bash-completion/completions/spandrel or ~/.local/share/bash-completion/completions/spandrel,
/// for zsh _spandrel in a folder of $fpath, for fish ~/.config/fish/completions/spandrel.fish.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// The shells whose users we expect on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the tool's man pages into a folder: one for the tool, one for each command.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder; made where there is none
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions.
///
/// # Errors
/// When nobody can take them.
pub fn run(args: &Args) -> Result<(), Error> {
    let shell = match args.shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "spandrel", &mut script);
    output::print_bytes(&script)
}

/// Writes the man pages.
///
/// # Errors
/// When they can't be written there.
pub fn man(args: &ManArgs) -> Result<(), Error> {
    man::write(&args.folder)
}

//! `spandrel ztoc`: the indexes of single layers.

mod build;
mod get_file;
mod info;
mod list;
mod locate;

use clap::Subcommand;

use crate::args::Global;
use crate::error::Error;

/// What to do with zTOCs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the zTOCs in the store, by digest
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Print what a zTOC says: spans and files
    Info(info::Args),
    /// Write a file out of a layer, fetching only the spans that hold it
    GetFile(get_file::Args),
    /// Build a zTOC from a layer in a file
    Build(build::Args),
}

/// Does it.
///
/// # Errors
/// [`Error`] says why not.
pub async fn run(command: Command, global: &Global) -> Result<(), Error> {
    match command {
        Command::List(args) => list::run(args, global).await,
        Command::Info(args) => info::run(args, global).await,
        Command::GetFile(args) => get_file::run(args, global).await,
        Command::Build(args) => build::run(args, global).await,
    }
}

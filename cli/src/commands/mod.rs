//! The commands: each has its flags and its output here, one file a command, and its work elsewhere.

pub mod completions;
pub mod convert;
pub mod create;
pub mod diff;
pub mod index;
mod indexes;
pub mod inspect;
pub mod mount;
pub mod prefetch;
pub mod pull;
pub mod push;
pub mod ztoc;

use clap::Subcommand;

use crate::args::Global;
use crate::error::Error;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Index an image in a registry
    Create(create::Args),
    /// Copy an image from anywhere to anywhere so that it names its own index
    Convert(convert::Args),
    /// Push an image's indexes from the store into its repository
    Push(push::Args),
    /// Say what will be lazy of an image, and why not all
    Inspect(inspect::Args),
    /// Prove an image's indexes against its layers
    Diff(diff::Args),
    /// Show and remove the indexes in the store
    #[command(subcommand)]
    Index(index::Command),
    /// Show, read and build zTOCs, the indexes of single layers
    #[command(subcommand)]
    Ztoc(ztoc::Command),
    /// Show the prefetch artifacts in the store
    #[command(subcommand)]
    Prefetch(prefetch::Command),
    /// Pull an image into containerd, lazily
    Pull(pull::Args),
    /// Mount an image's root file system lazily, without containerd
    Mount(mount::Args),
    /// End such a mount
    Unmount(mount::UnmountArgs),
    /// Print shell completions
    Completions(completions::Args),
    /// Write the man pages into a folder
    Man(completions::ManArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`] says why not, and which exit code that is.
    pub async fn run(self, global: &Global) -> Result<(), Error> {
        match self {
            Self::Create(args) => create::run(args, global).await,
            Self::Convert(args) => convert::run(args, global).await,
            Self::Push(args) => push::run(args, global).await,
            Self::Inspect(args) => inspect::run(args, global).await,
            Self::Diff(args) => diff::run(args, global).await,
            Self::Index(command) => index::run(command, global).await,
            Self::Ztoc(command) => ztoc::run(command, global).await,
            Self::Prefetch(command) => prefetch::run(command, global).await,
            Self::Pull(args) => pull::run(args, global).await,
            Self::Mount(args) => mount::run(args, global),
            Self::Unmount(args) => mount::unmount(args),
            Self::Completions(args) => completions::run(&args),
            Self::Man(args) => completions::man(&args),
        }
    }
}

/// Runs what reads or writes files on a thread, so that a signal is heard meanwhile.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Failed(format!("a worker ended early: {error}"))),
    }
}

/// An image's full name, as the store has it; what is no reference stays what it is, and fits nothing.
pub(crate) fn canonical(image: &str) -> String {
    image.parse::<spandrel_registry::Reference>().map_or_else(|_| image.to_owned(), |image| image.to_string())
}

//! Why a command failed: in words, with what to do next, and as an exit code.

use std::path::PathBuf;
use std::time::Duration;

use spandrel_registry::ErrorKind;

use crate::pull::PullError;

/// Exit codes, as docs/cli.md lists them.
pub mod exit {
    /// Something else.
    pub const FAILURE: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 2;
    /// What was named isn't there.
    pub const NOT_FOUND: u8 = 3;
    /// No permission, or wrong credentials.
    pub const UNAUTHORIZED: u8 = 4;
    /// The registry can't be reached or asks for patience: trying again later may help.
    pub const UNAVAILABLE: u8 = 5;
    /// Bytes aren't what their digest says, or an index isn't what the layers are.
    pub const CORRUPT: u8 = 6;
    /// `--timeout` was over.
    pub const TIMED_OUT: u8 = 124;
    /// Ended by a signal: 128 and its number.
    pub const SIGNAL: u8 = 128;
    /// Ctrl-C: [`SIGNAL`] and SIGINT's number.
    const INTERRUPTED: u8 = SIGNAL + 2;
    /// [`SIGNAL`] and SIGTERM's number.
    const TERMINATED: u8 = SIGNAL + 15;

    /// All of them with what they mean, for help and man pages.
    pub const CODES: [(u8, &str); 10] = [
        (0, "Done"),
        (FAILURE, "Failed for another reason than those below"),
        (USAGE, "Wrong usage: an unknown flag, a malformed reference or digest"),
        (NOT_FOUND, "What was named isn't there: image, platform, index, zTOC, file"),
        (UNAUTHORIZED, "No permission, or wrong credentials"),
        (UNAVAILABLE, "The registry can't be reached or asks for patience: trying again later may help"),
        (CORRUPT, "Bytes aren't what their digest says, or an index isn't what the layers are"),
        (TIMED_OUT, "The time of --timeout was over"),
        (INTERRUPTED, "Interrupted (Ctrl-C)"),
        (TERMINATED, "Terminated"),
    ];

    /// The list below the tool's help.
    pub fn help() -> String {
        let lines = CODES.map(|(code, meaning)| format!("{code:>5}  {meaning}"));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Finding, building, keeping or pushing an index.
    #[error(transparent)]
    Soci(#[from] spandrel_soci::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] spandrel_registry::Error),
    /// A reference makes no sense.
    #[error(transparent)]
    Reference(#[from] spandrel_registry::ReferenceError),
    /// Pulling into containerd.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// A zTOC or a layer in a file.
    #[error("{path}: {source}", path = .path.display())]
    Ztoc {
        /// The file, or the digest.
        path: PathBuf,
        /// What is wrong with it.
        source: spandrel_ztoc::Error,
    },
    /// What was given makes no sense together.
    #[error("{0}")]
    Usage(String),
    /// What was named isn't there.
    #[error("{0}")]
    NotFound(String),
    /// An index isn't true.
    #[error(
        "{image}: the index and the layers differ in {differences} points; make another index with \
         `spandrel create {image} --force --push`, or `spandrel convert` where the image names it"
    )]
    Differs {
        /// The image.
        image: String,
        /// In how many points.
        differences: u64,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// A file.
    #[error("{what} {path}: {source}", path = .path.display())]
    File {
        /// What was tried: `reading`, `writing`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The output can't be written.
    #[error("writing the output: {0}")]
    Output(std::io::Error),
    /// `--timeout` was over.
    #[error("not done after {0:?} (--timeout)")]
    TimedOut(Duration),
    /// Ended by a signal.
    #[error("interrupted")]
    Signal(u8),
}

impl Error {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Reference(_) => exit::USAGE,
            Self::NotFound(_) => exit::NOT_FOUND,
            Self::Differs { .. } => exit::CORRUPT,
            Self::TimedOut(_) => exit::TIMED_OUT,
            Self::Signal(number) => exit::SIGNAL.saturating_add(*number),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => exit::NOT_FOUND,
            Self::Soci(error) if error.is_not_found() => exit::NOT_FOUND,
            Self::Soci(spandrel_soci::Error::NoReferrers(_)) => exit::USAGE,
            Self::Soci(spandrel_soci::Error::LayerDigest { .. } | spandrel_soci::Error::Span { .. }) => {
                exit::CORRUPT
            }
            _ => match self.registry_kind() {
                Some(ErrorKind::NotFound) => exit::NOT_FOUND,
                Some(ErrorKind::Unauthorized) => exit::UNAUTHORIZED,
                Some(ErrorKind::RateLimited | ErrorKind::Unavailable) => exit::UNAVAILABLE,
                Some(ErrorKind::Corrupt) => exit::CORRUPT,
                _ => exit::FAILURE,
            },
        }
    }

    /// Which flag may help, where there is one; the text says the rest.
    pub fn hint(&self) -> Option<&'static str> {
        match self.registry_kind()? {
            ErrorKind::Unauthorized => {
                Some("without docker's configuration: --user NAME, and SPANDREL_PASSWORD")
            }
            ErrorKind::Unavailable => Some(
                "a registry without TLS wants --plain-http, one with a certificate of its own --tlscacert FILE",
            ),
            _ => None,
        }
    }

    fn registry_kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Soci(spandrel_soci::Error::Registry(error))
            | Self::Registry(error)
            | Self::Pull(
                PullError::Registry(error) | PullError::Soci(spandrel_soci::Error::Registry(error)),
            ) => Some(error.kind),
            _ => None,
        }
    }

    /// Whether nobody reads our output any more, which is no failure: `spandrel ztoc info … | head`.
    pub fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Output(error) | Self::Soci(spandrel_soci::Error::Output(error)) => {
                error.kind() == std::io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

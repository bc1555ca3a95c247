//! Where registry credentials come from.
//!
//! [`Credentials`] asks the sources in their order, for the daemon and the tool alike: what was given on the command line,
//! docker's configuration with its credential helpers ([`DockerConfig`]), and Amazon ECR by whatever AWS credentials the
//! machine has. It says in the log, to an [`Observer`] and to whoever asks ([`Credentials::explain`]) which of them served,
//! and never what it said.
//!
//! What docker's configuration says is read anew at each question; the registry client keeps what it got for some minutes,
//! and asks again when a registry refuses it. ECR's tokens are kept here (docs/credentials.md).
#![forbid(unsafe_code)]

mod config;
mod docker;
mod ecr;
mod helper;
pub mod limits;
mod sources;

pub use docker::DockerConfig;
pub use ecr::EcrHost;
pub use sources::{Credentials, Given, Observer, Options, Origin, Step};

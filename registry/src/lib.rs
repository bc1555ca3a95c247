//! An OCI distribution client made for lazy loading: exact ranges, redirects resolved once, every mirror tried, no
//! secret ever printed.
#![forbid(unsafe_code)]
#![allow(clippy::todo)]

mod body;
mod client;
mod credential;
mod digest;
mod error;
pub mod manifest;
pub mod media_type;
mod reference;

pub use body::Body;
pub use client::{Client, ClientOptions, FetchedManifest, HostConfig};
pub use credential::{Anonymous, Credential, CredentialError, CredentialSource};
pub use digest::{Digest, DigestError};
pub use error::{Error, ErrorKind};
pub use reference::{Reference, ReferenceError, Repository};

//! An OCI distribution client made for lazy loading: exact ranges, redirects resolved once, every mirror tried, no
//! secret ever printed.
#![forbid(unsafe_code)]

mod auth;
mod body;
mod challenge;
mod client;
mod clock;
mod content;
mod credential;
mod digest;
mod endpoint;
mod error;
mod expiry;
mod failure;
mod inner;
pub mod limits;
mod link;
pub mod manifest;
pub mod media_type;
mod places;
mod push;
mod range;
mod redirect;
mod reference;
mod referrers;
mod retry;
mod token;
mod transport;

pub use body::Body;
pub use client::{Client, ClientOptions, FetchedManifest, HostConfig};
pub use clock::{Clock, SystemClock};
pub use content::{BlobContent, BlobPieces, Pushed};
pub use credential::{Anonymous, Credential, CredentialError, CredentialSource};
pub use digest::{Digest, DigestError};
pub use error::{Error, ErrorKind};
pub use reference::{Reference, ReferenceError, Repository};

//! The daemon: a containerd snapshotter whose layers are mounted from their index and filled on demand.
#![allow(clippy::todo)]

mod error;
pub mod layer;

pub use error::Error;

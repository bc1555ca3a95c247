//! The daemon: a containerd snapshotter whose layers are mounted from their index and filled on demand.
#![allow(clippy::todo)]

pub mod device;
mod error;
pub mod layer;
pub mod metrics;
pub mod mounter;
pub mod service;
pub mod snapshots;

pub use error::Error;

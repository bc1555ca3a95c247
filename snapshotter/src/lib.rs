//! The daemon: a containerd snapshotter whose layers are mounted from their index and filled on demand.

pub mod admin;
pub mod cache;
pub mod config;
pub mod daemon;
pub mod device;
pub mod embedded;
mod error;
pub mod fetch;
pub mod filesystem;
mod image;
pub mod layer;
mod listen;
pub mod logs;
pub mod metrics;
pub mod mounter;
pub mod node;
mod open_files;
pub mod probe;
pub mod root;
pub mod service;
#[cfg(test)]
mod small_disk;
pub mod snapshots;
pub mod tree;

pub use error::Error;

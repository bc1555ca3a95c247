//! SOCI index manifests: what they say, how they are found in a registry, how they are built and pushed.
#![forbid(unsafe_code)]

mod blob_reader;
pub mod build;
pub mod cache;
pub mod containerd;
pub mod convert;
mod error;
pub mod file;
pub mod find;
pub mod gojson;
mod hash;
pub mod image;
pub mod index;
pub mod json;
pub mod limits;
pub mod platform;
pub mod prefetch;
pub mod prove;
pub mod push;
pub mod source;
pub mod store;
pub mod target;
#[cfg(test)]
mod testing;
pub mod time;

pub use error::Error;

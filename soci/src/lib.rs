//! SOCI index manifests: what they say, how they are found in a registry, how they are built and pushed.
#![forbid(unsafe_code)]
#![allow(clippy::todo)]

pub mod build;
mod error;
pub mod find;
pub mod index;
pub mod push;
pub mod source;

pub use error::Error;

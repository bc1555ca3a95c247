//! Where benchmarks keep what is used again: images, the registry's storage, results.

use std::path::PathBuf;

/// The benchmarks' part of the cache folder. It may not exist.
pub fn dir() -> PathBuf {
    spandrel_fixtures::cache::dir().join("bench")
}

/// Where results go unless told otherwise.
pub fn results() -> PathBuf {
    dir().join("results")
}

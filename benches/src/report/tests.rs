//! What a report says of small results; that its bytes depend on nothing else; that its pictures are well-formed.

mod crossings;
mod golden;
mod merging;
mod pictures;
mod sample;

use std::path::Path;

use serde::Serialize;

use crate::results::Run;

/// Leaves a run's file in a folder.
fn save<V: Serialize>(dir: &Path, name: &str, run: &Run<V>) {
    std::fs::write(dir.join(name), serde_json::to_string_pretty(run).unwrap()).unwrap();
}

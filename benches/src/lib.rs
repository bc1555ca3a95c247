//! The instrument that says how much sooner a program is ready, and what that costs: start-up, file system, index and
//! scale, side by side with what people would use instead.
//!
//! `results` is what a run leaves, and all that `report` (the program) makes docs/benchmarks.md from. A measurement puts
//! together a `workload` (an image made by a script), a `system` (how a node gets its files), a `network` (the shaping
//! proxy before the registry of `depot`) and a `node` (a fresh containerd and snapshotter, with their `usage`); `start`
//! measures a container's start there, `fs` reads and metadata in a container, `index` the making of an image's index,
//! `scale` a node with very many images; `trace` says where a start's time went. `options`, `program`, `progress` and `interrupt` are what all programs in
//! `bin` share.

pub mod cache;
pub mod clock;
pub mod depot;
pub mod fs;
pub mod index;
pub mod interrupt;
pub mod layout;
pub mod network;
pub mod node;
pub mod options;
pub mod program;
pub mod progress;
pub mod report;
pub mod results;
pub mod scale;
pub mod start;
pub mod system;
pub mod trace;
pub mod usage;
pub mod workload;

use std::io::Write as _;

/// Says something to whoever runs the benchmark. Results go to files, so this is all on standard error.
pub fn say(text: &str) {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

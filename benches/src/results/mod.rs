//! What a benchmark run leaves: one JSON file with the machine, the versions and every single value.
//!
//! Tables and pictures are made from these files alone (`report`), so they hold nothing that is computed from other
//! values: no means, no ratios. `file` keeps one on disk and continues it; `machine` says where values come from; the
//! others say what a value is, one for each benchmark. Times are seconds, sizes bytes.

pub mod file;
pub mod fs;
pub mod index;
pub mod machine;
pub mod node;
pub mod start;

use serde::{Deserialize, Serialize};

pub use machine::Machine;

/// Version of these files' format: readers refuse others.
pub const FORMAT: u32 = 1;

/// One benchmark run: what was asked for, and what was measured so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run<V> {
    /// [`FORMAT`].
    pub format: u32,
    /// Which benchmark: `start`, `fs`, `index` or `node`.
    pub kind: String,
    /// When it began, RFC 3339 in UTC.
    pub begun: String,
    /// What was asked for: the same plan continues the same file.
    pub plan: Plan,
    /// Where values were measured; a value names its machine by its place here.
    pub machines: Vec<Machine>,
    /// Systems that were asked for and aren't there, with the reason.
    pub absent: Vec<Absent>,
    /// In the order in which they were measured.
    pub values: Vec<V>,
}

/// What a run was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Names of workloads (for `bench-fs` of its tests, for `bench-node` of its questions).
    pub workloads: Vec<String>,
    /// Names of systems.
    pub systems: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// How often each cell is measured.
    pub repeats: u32,
}

/// A system that can't run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Its name.
    pub system: String,
    /// What is missing.
    pub why: String,
}

/// Where and when a value was measured: one repeat of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Place in [`Run::machines`].
    pub machine: usize,
    /// When it was measured, RFC 3339 in UTC.
    pub at: String,
    /// Name of the workload, with its variant: `python`, `density:20:random`.
    pub workload: String,
    /// Name of the system.
    pub system: String,
    /// Name of the network.
    pub network: String,
    /// From 1.
    pub repeat: u32,
}

impl Cell {
    /// Whether it is this repeat of this cell.
    pub fn is(&self, workload: &str, system: &str, network: &str, repeat: u32) -> bool {
        self.workload == workload && self.system == system && self.network == network && self.repeat == repeat
    }
}

/// A measurement that came to an end, or why it didn't.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// What was measured.
    Measured(T),
    /// Why there is no figure.
    Failed(String),
}

/// Anything that knows its cell.
pub trait Value {
    /// Where and when it was measured.
    fn cell(&self) -> &Cell;

    /// The same, to be changed.
    fn cell_mut(&mut self) -> &mut Cell;
}

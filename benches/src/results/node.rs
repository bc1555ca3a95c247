//! What `bench-node` measures: a node with very many images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, Outcome};

/// One look at the node. [`Cell::workload`] is the question: `images:200`, `starts:16`, `restart`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Which one.
    #[serde(flatten)]
    pub cell: Cell,
    /// How many images were mounted.
    pub images: usize,
    /// How many distinct layers they have.
    pub layers: usize,
    /// What was measured.
    pub outcome: Outcome<Node>,
}

impl super::Value for Value {
    fn cell(&self) -> &Cell {
        &self.cell
    }

    fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }
}

/// A node as it was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Seconds by what they were needed for, one value for each container or restart: `start` (RunPodSandbox until
    /// ready), `runc` (a container of no image, from its start to its end), `pull`, `restart` (from telling the daemon to end until the next one answers), `ready` (from the same
    /// moment until a container that was started then is ready).
    pub seconds: BTreeMap<String, Vec<f64>>,
    /// Resident memory of the snapshotter's processes in bytes, of containerd's where it has no other.
    pub memory: u64,
    /// File descriptors that they hold.
    pub descriptors: u64,
    /// Their threads.
    pub threads: u64,
    /// Mounts of the node's.
    pub mounts: u64,
    /// CPU seconds that they needed for the question; for `restart` those of the last daemon until the end.
    pub cpu: f64,
}

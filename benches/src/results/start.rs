//! What `bench-start` measures: a container's start on a node that never saw the image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, Outcome};

/// One start, or why there was none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Which one.
    #[serde(flatten)]
    pub cell: Cell,
    /// The image as the registry has it.
    pub image: Image,
    /// What was measured.
    pub outcome: Outcome<Start>,
}

impl super::Value for Value {
    fn cell(&self) -> &Cell {
        &self.cell
    }

    fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }
}

/// An image in the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Layers.
    pub layers: usize,
    /// Bytes of all layers as they are in the registry, compressed.
    pub compressed: u64,
    /// Bytes of all layers' tar streams.
    pub uncompressed: u64,
    /// Bytes of the index and what it names (zTOCs), 0 where the system uses none or found nothing worth indexing.
    pub index: u64,
}

/// A start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Seconds from the call of PullImage until it returned.
    pub pulled: f64,
    /// Seconds from the call of PullImage until the program said that it is ready.
    pub ready: f64,
    /// Seconds from RunPodSandbox until a second container of the image on the same node said that it is ready; not where
    /// the network was watched after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_ready: Option<f64>,
    /// What had passed the network when the first was ready.
    pub until_ready: Passed,
    /// What passed in the 30 s after that; only in full runs, once per cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Passed>,
    /// CPU seconds until the first was ready, by role: `containerd` (with unpigz), `shim` (with runc), `program` (what runs in the
    /// container and its sandbox), `snapshotter`. Where no start of a run has a `program`, it is a part of `shim`.
    pub cpu: BTreeMap<String, f64>,
    /// What the machine did besides, until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Others>,
    /// Peak resident memory until then in bytes, by role, of processes that are there then (unpigz and runc have ended); of
    /// roles with several the sum of their peaks.
    pub memory: BTreeMap<String, u64>,
    /// Bytes allocated on disk by containerd and the snapshotter when the first was ready.
    pub disk: u64,
}

/// CPU seconds that had nothing to do with a measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Others {
    /// Of processes that are neither node, proxy, registry nor the kernel's.
    pub cpu: f64,
    /// That the host gave to others while this machine wanted them.
    pub stolen: f64,
}

/// What passed between node and registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Requests by kind.
    pub requests: BTreeMap<String, u64>,
    /// Bytes from the registry, heads and bodies.
    pub bytes: u64,
    /// The longest chain of requests each of which began after the one before had ended.
    pub longest_chain: u64,
    /// The most requests that were under way at once.
    pub highest_concurrency: u64,
}

//! What `bench-fs` measures: reads and metadata in a container.

use serde::{Deserialize, Serialize};

use super::{Cell, Outcome};

/// One test in one state. [`Cell::workload`] is the test's name: `fio:randread:buffered:4k:1`, `find`, `tar`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Which one.
    #[serde(flatten)]
    pub cell: Cell,
    /// What was in place before.
    pub state: State,
    /// What was measured.
    pub outcome: Outcome<Test>,
}

impl super::Value for Value {
    fn cell(&self) -> &Cell {
        &self.cell
    }

    fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }
}

/// What was in place before a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing but what the pull brought: bytes come over the network.
    Cold,
    /// All bytes are on the node's disk, none in the page cache.
    Filled,
    /// The same test was just done: all is in the page cache.
    Warm,
}

/// A test that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Seconds that it took.
    pub seconds: f64,
    /// Bytes that it read, where it counts them (fio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Read operations that it did, where it counts them (fio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// 99th percentile of a read's latency in seconds, where it says so (fio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_99: Option<f64>,
    /// Requests that the kernel sent to the snapshotter's FUSE file system meanwhile, where it says so, without RELEASE (which
    /// older results may contain; nobody waits for it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuse_requests: Option<u64>,
    /// CPU seconds of the snapshotter's processes meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshotter_cpu: Option<f64>,
    /// Bytes from the registry meanwhile.
    pub network_bytes: u64,
}

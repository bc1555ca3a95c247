//! What `bench-index` measures: making an image's index.

use serde::{Deserialize, Serialize};

use super::start::Image;
use super::{Cell, Outcome};

/// One index made. [`Cell::system`] is the tool: `spandrel create` or `soci create`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Which one.
    #[serde(flatten)]
    pub cell: Cell,
    /// The image.
    pub image: Image,
    /// What was measured.
    pub outcome: Outcome<Made>,
}

impl super::Value for Value {
    fn cell(&self) -> &Cell {
        &self.cell
    }

    fn cell_mut(&mut self) -> &mut Cell {
        &mut self.cell
    }
}

/// An index, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Seconds until the tool ended.
    pub seconds: f64,
    /// Seconds before that for what the tool needs and doesn't do itself: soci's wants the image in containerd.
    pub pull_seconds: f64,
    /// CPU seconds of the tool, user and system.
    pub cpu: f64,
    /// CPU seconds of the pull before it: containerd and what it started.
    pub pull_cpu: f64,
    /// Peak resident memory of the tool in bytes.
    pub memory: u64,
    /// Bytes that came from the registry, pull included.
    pub network_bytes: u64,
    /// Bytes of the index's manifest and its zTOCs.
    pub index_bytes: u64,
    /// Layers that have a zTOC.
    pub indexed_layers: usize,
}

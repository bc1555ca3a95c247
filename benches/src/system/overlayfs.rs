//! containerd's own pull, unpacked for overlayfs: what everybody has.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{System, containerd, no_containerd, started};
use crate::depot::Depot;
use crate::network::Network;
use crate::node::{Node, Snapshotter};

/// containerd's overlayfs.
#[derive(Debug, Clone, Copy)]
pub struct Overlayfs;

impl System for Overlayfs {
    fn name(&self) -> String {
        "overlayfs".to_owned()
    }

    fn absent(&self) -> Option<String> {
        no_containerd()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn is_lazy(&self) -> bool {
        false
    }

    fn key(&self) -> String {
        "plain".to_owned()
    }

    fn prepare(&self, _: &Depot, _: &str) -> Result<u64> {
        Ok(0)
    }

    fn start(&self, network: &Network) -> Result<Node> {
        let containerd = started(containerd("overlayfs", network, &network.host()))?;
        Ok(Node::new(containerd, Snapshotter::Containerd, network.host()))
    }
}

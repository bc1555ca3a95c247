//! What is stored of a snapshot, and how: JSON, so that a later release can add a field. Where, and by which rules it
//! changes, is `store`'s.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::layer::LayerKey;
use crate::service::{Info, Kind, Usage};

/// One snapshot. Its key (or name, once it is committed) is what it is stored under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names its directory; never used twice.
    pub number: u64,
    /// Key of the committed snapshot below, empty at the bottom.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
    /// As containerd gave them, without empty values.
    pub labels: BTreeMap<String, String>,
    /// When it was prepared, or committed.
    pub created: SystemTime,
    /// When its labels were changed last.
    pub updated: SystemTime,
    /// Measured at commit; zero before, and for remote snapshots, whose layer knows.
    #[serde(default)]
    pub usage: Usage,
    /// Of a remote snapshot: its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// What makes a snapshot remote: no directory of files but a layer that is mounted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// The layer.
    pub layer: LayerKey,
    /// Whether nobody has seen the layer ready yet.
    pub pending: bool,
    /// containerd's namespace at the time of the pull: for asking again.
    pub namespace: String,
    /// The chain ID that containerd asked for: the snapshot's name, unless that was taken.
    pub chain_id: String,
}

impl Record {
    /// What containerd may know of it.
    pub fn info(&self, name: &str) -> Info {
        Info {
            kind: self.kind,
            name: name.to_owned(),
            parent: self.parent.clone(),
            labels: self.labels.clone().into_iter().collect(),
            created: self.created,
            updated: self.updated,
        }
    }

    /// For the database.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|error| Error::Internal(format!("a snapshot's record: {error}")))
    }

    /// From the database; `key` is for the message only.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::Internal(format!("snapshot {key}: its record can't be read: {error}")))
    }
}

/// Labels as they are stored: containerd drops those with an empty value.
pub fn stored_labels(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

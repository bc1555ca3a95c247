//! The snapshots service as containerd speaks it: what a snapshotter is ([`Snapshotter`]), containerd's filter language
//! ([`filter`]), and gRPC on top ([`grpc`], with the one mapping of errors to codes in [`status`]). What a snapshot
//! *means* is `snapshots`' to say.

pub mod filter;
pub mod grpc;
pub mod status;

use std::collections::HashMap;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::Error;

/// What a snapshot is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read-only, to be looked at.
    View,
    /// Writable.
    Active,
    /// Finished: a parent for others.
    Committed,
}

impl Kind {
    /// The word that filters use for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// What containerd may know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Its key (active, view) or name (committed).
    pub name: String,
    /// Name of the snapshot below, empty at the bottom.
    pub parent: String,
    /// Labels; no value is empty.
    pub labels: HashMap<String, String>,
    /// When it was prepared, or committed.
    pub created: SystemTime,
    /// When its labels were changed last.
    pub updated: SystemTime,
}

/// What a snapshot occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Bytes allocated.
    pub size: u64,
    /// Inodes, hard links counted once.
    pub inodes: u64,
}

/// A mount that containerd (not we) makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// File system type, `bind` or `overlay`.
    pub kind: &'static str,
    /// Source: a path for `bind`.
    pub source: String,
    /// Options in order.
    pub options: Vec<String>,
}

/// What containerd asks of a snapshotter. The shape is that of the crate `containerd-snapshots`' trait of this name.
#[async_trait]
pub trait Snapshotter: Send + Sync + 'static {
    /// What is known of the snapshot `key`.
    async fn stat(&self, key: String) -> Result<Info, Error>;

    /// Sets the labels of the snapshot `info.name`; `fieldpaths` says which (`labels`, `labels.NAME`), `None` all.
    async fn update(&self, info: Info, fieldpaths: Option<Vec<String>>) -> Result<Info, Error>;

    /// What the snapshot `key` occupies, without its parents.
    async fn usage(&self, key: String) -> Result<Usage, Error>;

    /// The mounts of the active or view snapshot `key`.
    async fn mounts(&self, key: String) -> Result<Vec<Mount>, Error>;

    /// Makes a writable snapshot `key` on `parent` (empty: on nothing).
    async fn prepare(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error>;

    /// Makes a read-only snapshot `key` of `parent`.
    async fn view(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Error>;

    /// Turns the active snapshot `key` into the committed one `name`. Labels are replaced, not inherited.
    async fn commit(&self, name: String, key: String, labels: HashMap<String, String>) -> Result<(), Error>;

    /// Removes the snapshot `key`, which nothing is built on.
    async fn remove(&self, key: String) -> Result<(), Error>;

    /// Finishes removals, and sweeps up what no snapshot owns.
    async fn clear(&self) -> Result<(), Error>;

    /// All snapshots that one of `filters` matches, in the order of their names; all where there is no filter.
    async fn list(&self, filters: Vec<String>) -> Result<BoxStream<'static, Result<Info, Error>>, Error>;
}

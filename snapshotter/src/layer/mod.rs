//! The layers of a node: how the snapshot side asks for them. One implementation, [`store::LayerStore`]; a test double
//! beside the service's tests.

pub(crate) mod bitmap;
pub(crate) mod files;
mod fill;
mod hash;
mod lazy;
mod node;
mod one;
mod opened;
mod options;
mod parents;
mod prefetch;
mod record;
pub mod store;
pub(crate) mod stream;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
mod unpack;
mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::Error;

pub(crate) use hash::Hasher;
pub use store::{LayerStore, Parts, StoreOptions};

/// Name of a layer's state below `layers/`: the bare hex of the layer digest, with `.` and the hex of the zTOC's digest
/// behind it while the layer is lazy (DESIGN: one image's index must not choose bytes for another's layer).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct LayerKey(pub String);

/// What `Prepare` knows of an image layer.
#[derive(Debug, Clone)]
pub struct LayerRequest {
    /// containerd's namespace.
    pub namespace: String,
    /// The chain ID that the snapshot is to be committed under (label `containerd.io/snapshot.ref`).
    pub chain_id: String,
    /// All labels of the call.
    pub labels: HashMap<String, String>,
    /// Chain ID of the snapshot below, empty for the bottom layer.
    pub parent: String,
}

/// The answer to `Prepare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// We have it or are getting it: the snapshot is committed at once, `AlreadyExists` is the answer.
    Remote(LayerKey),
    /// An ordinary snapshot: containerd unpacks it itself; the reason is logged and counted.
    Ordinary(&'static str),
}

/// What a ready layer's snapshot directory is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Its table can be mounted.
    Mountable,
    /// It was unpacked into an ordinary directory (beyond a table): [`Layers::mount`] binds nothing, see there.
    Unpacked,
}

/// Disk use of a layer, as allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A layer as operators see it (`/layers`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Its key.
    pub layer: LayerKey,
    /// Digest of its blob.
    pub digest: String,
    /// Where it comes from, without credentials: `host/repository`.
    pub repository: String,
    /// How far it has come: `indexed`, `filling`, `complete` or `unpacked`.
    pub stage: &'static str,
    /// Digest of the zTOC that a lazy layer is read by.
    pub ztoc: Option<String>,
    /// Length of the blob in bytes.
    pub compressed_size: u64,
    /// Length of the stream in bytes, 0 while it isn't known.
    pub uncompressed_size: u64,
    /// Spans of a lazy layer; unknown until it is read for the first time since the start, and for others.
    pub spans: Option<u32>,
    /// How many of them are present.
    pub present_spans: Option<u32>,
    /// Where its table is mounted now.
    pub mounts: Vec<PathBuf>,
}

/// The layers of a node.
#[async_trait]
pub trait Layers: Send + Sync + 'static {
    /// Asks for a layer; never waits for a whole one. The first call of an image resolves the image.
    async fn prepare(&self, request: &LayerRequest) -> Result<Prepared, Error>;

    /// Waits until the layer can be mounted: at once for a lazy one, when it is filled and verified for others. A
    /// failed fill is tried again by the next call.
    async fn ready(&self, layer: &LayerKey) -> Result<Ready, Error>;

    /// Whether a new container may have the layer: not when it has turned out not to be what its image says.
    async fn check(&self, _: &LayerKey) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the layer, which is ready, has directories that no entry of it describes. What they are like is for the layers
    /// below to say, so that each snapshot of it needs a table of its own: [`Layers::write_table`]. Hardly any layer has.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such layer.
    fn depends_on_lowers(&self, layer: &LayerKey) -> Result<bool, Error>;

    /// Writes the layer's table as it is above `lowers` to the file `table`, durably. `lowers` are directories, the uppermost
    /// first, where the layers below are mounted or unpacked.
    async fn write_table(&self, layer: &LayerKey, lowers: &[PathBuf], table: &Path) -> Result<(), Error>;

    /// Mounts `table`, or the layer's own where there is none, at `target`, an existing directory; does nothing when it is
    /// mounted there already. For an unpacked layer the directory is bind-mounted from where it was unpacked.
    async fn mount(&self, layer: &LayerKey, table: Option<&Path>, target: &Path) -> Result<(), Error>;

    /// Takes the mount at `target` away; does nothing when there is none.
    async fn unmount(&self, layer: &LayerKey, target: &Path) -> Result<(), Error>;

    /// Disk use of the layer.
    async fn usage(&self, layer: &LayerKey) -> Result<Usage, Error>;

    /// No snapshot uses the layer any more: its downloads stop. What is there of it is kept for the next pull while the disk
    /// has room, and goes otherwise.
    async fn remove(&self, layer: &LayerKey) -> Result<(), Error>;

    /// At start-up: exactly these layers are in use; everything else below `layers/` is kept for the next pull, or goes. No
    /// network. From now on layers are kept within the room that they may take.
    async fn restore(&self, layers: &[LayerKey]) -> Result<(), Error>;

    /// Something else could not be written for lack of room: sees what layers can give back, and says whether that was
    /// anything.
    async fn make_room(&self) -> bool {
        false
    }

    /// What there is, ordered by key. Asks neither the network nor the device.
    async fn report(&self) -> Vec<Report> {
        Vec::new()
    }

    /// Stops all work and makes what is on disk safe; mounts stay.
    async fn shutdown(&self);
}

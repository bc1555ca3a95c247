//! Where images go, each kind of place in a file of its own. What is asked of a target is here; what is put there, and in which
//! order, is `convert`'s.
//!
//! Content comes first and the name last: whoever looks finds the old image or the whole new one.

mod archive;
mod containerd;
mod layout;
mod registry;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::manifest::Descriptor;
use spandrel_registry::{Digest, FetchedManifest};

pub use archive::ArchiveTarget;
pub use containerd::ContainerdTarget;
pub use layout::LayoutTarget;
pub use registry::RegistryTarget;
pub use spandrel_registry::Pushed as Put;

use crate::Error;
use crate::index::{Version, descriptor};
use crate::source::{BlobStream, Once};

/// A blob's bytes, had when a target needs them, and anew for every try.
#[async_trait]
pub trait Content: Send + Sync {
    /// Begins to read them, from the first one on.
    ///
    /// # Errors
    /// When they can't be had.
    async fn open(&self) -> Result<Box<dyn BlobStream>, Error>;
}

/// A place that takes an image under one name.
#[async_trait]
pub trait ImageTarget: Send + Sync + std::fmt::Debug {
    /// The name of the place, for messages: `registry.example/app:1`.
    fn name(&self) -> String;

    /// Says which blobs (digest, bytes) will be put there, before any of them is: an archive gives them their places, so that
    /// the same image gives the same bytes in whatever order they come.
    fn expect(&self, _: &[(Digest, u64)]) {}

    /// Whether there is a place for indexes of version 1, which only refer to the image.
    fn takes_referrers(&self) -> bool {
        true
    }

    /// Puts a blob of `size` bytes there, unless it is there already: then `content` isn't opened.
    ///
    /// # Errors
    /// When it can't be put there, or `content` isn't what the digest says.
    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error>;

    /// Puts a manifest or an index there by its digest. What it names is there.
    ///
    /// # Errors
    /// When it can't be put there.
    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error>;

    /// Puts a SOCI index of version 1 there that refers to a manifest which is there.
    ///
    /// # Errors
    /// When it can't be put there.
    async fn put_referrer(&self, manifest: &FetchedManifest) -> Result<(), Error>;

    /// Puts the image itself there and gives it its name: everything else is there.
    ///
    /// # Errors
    /// When it can't be put there. The name stands for what it stood for before.
    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error>;

    /// Nothing more comes, and what was put there has no name: it needn't be held.
    async fn give_up(&self) {}
}

/// Bytes that are at hand.
#[derive(Debug, Clone)]
pub struct InMemory(pub Bytes);

#[async_trait]
impl Content for InMemory {
    async fn open(&self) -> Result<Box<dyn BlobStream>, Error> {
        Ok(Box::new(Once::new(self.0.clone(), &(0..u64::MAX))))
    }
}

/// A manifest's descriptor.
fn descriptor_of(manifest: &FetchedManifest) -> Descriptor {
    descriptor(&manifest.media_type, manifest.digest.clone(), manifest.bytes.len() as u64)
}

/// The descriptor of a SOCI index of version 1 in a list of manifests.
fn descriptor_of_referrer(manifest: &FetchedManifest) -> Descriptor {
    let mut descriptor = descriptor_of(manifest);
    descriptor.artifact_type = Some(Version::V1.artifact_type().to_owned());
    descriptor
}

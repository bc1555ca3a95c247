//! Where images come from, each kind of place in a file of its own. What is asked of a source is here; what it means is
//! `find`'s, `image`'s, `build`'s and `convert`'s.

mod containerd;
mod docker_archive;
mod file;
mod files;
mod layout;
mod registry;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Digest, FetchedManifest};

pub use containerd::ContainerdSource;
pub use docker_archive::DockerArchive;
pub use file::LayerFile;
pub use layout::{LayoutSource, Named};
pub(crate) use layout::{REF_NAME, blob_path};
pub use registry::RegistrySource;

use crate::Error;
use crate::index::Version;

/// A place that has blobs.
#[async_trait]
pub trait BlobSource: Send + Sync + std::fmt::Debug {
    /// The name of the place, for messages: `registry.example/app`.
    fn name(&self) -> String;

    /// The bytes `range` of a blob as they arrive, exactly these; nobody has checked them.
    ///
    /// # Errors
    /// When the blob isn't there or can't be had.
    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error>;
}

/// A place that has images, one repository of it.
#[async_trait]
pub trait ImageSource: BlobSource {
    /// The manifest or index that `part`, a tag or a digest, names; checked when `part` is a digest.
    ///
    /// # Errors
    /// When it isn't there or can't be had.
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error>;

    /// The SOCI indexes of `version` that refer to `subject`, by digest, in the source's order.
    ///
    /// # Errors
    /// When the source can't be asked.
    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error>;

    /// A whole small blob of `size` bytes, checked against its digest.
    ///
    /// # Errors
    /// When it isn't there, can't be had or isn't what its digest says.
    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error>;

    /// Whether it has this blob. A registry isn't asked: it takes no manifest that names what it hasn't got. Elsewhere an index may
    /// list images that lack their layers.
    ///
    /// # Errors
    /// When that can't be found out.
    async fn has_blob(&self, _: &Digest) -> Result<bool, Error> {
        Ok(true)
    }

    /// Finds out where blobs lie that will be read, so that their first reads go there at once
    /// ([`spandrel_registry::Client::find_places`]). A source that has them all itself does nothing. Never fails: who reads them finds out.
    async fn find_places(&self, _: &[Digest]) {}
}

/// The bytes of a blob as they arrive.
#[async_trait]
pub trait BlobStream: Send {
    /// The next piece, or `None` when all that was asked for has come.
    ///
    /// # Errors
    /// When the source breaks off for good.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error>;
}

/// Bytes that are at hand as a stream of one piece.
#[derive(Debug)]
pub(crate) struct Once(Option<Bytes>);

impl Once {
    /// The part `range` of them, as far as they have it.
    pub(crate) fn new(bytes: Bytes, range: &Range<u64>) -> Self {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let (start, end) = (at(range.start), at(range.end));
        Self(Some(bytes.slice(start.min(end)..end)))
    }
}

#[async_trait]
impl BlobStream for Once {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

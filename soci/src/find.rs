//! Finds the index of an image: label, annotation, referrers.

use spandrel_registry::{Client, Digest, Repository};

use crate::index::IndexManifest;

/// How an index was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// A label named it.
    Label,
    /// The image manifest's annotation named it (version 2).
    Annotation,
    /// It refers to the image manifest (version 1).
    Referrer,
}

/// An index that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// How.
    pub by: FoundBy,
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub index: IndexManifest,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// The index named explicitly (label `containerd.io/snapshot/remote/soci.index.digest`).
    pub label: Option<Digest>,
    /// Whether version 1 indexes are looked for.
    pub v1: bool,
    /// Whether version 2 indexes are looked for.
    pub v2: bool,
}

/// Finds the index of the image whose manifest has digest `image` and bytes `manifest`; `None` when it has none.
///
/// # Errors
/// When the registry can't be asked, or what it has is no index.
pub async fn find(
    _client: &Client,
    _repository: &Repository,
    _image: &Digest,
    _manifest: &[u8],
    _options: &FindOptions,
) -> Result<Option<Found>, crate::Error> {
    todo!()
}

//! A source of images in memory, for this crate's tests: it has what it was given, counts what it was asked for, and
//! breaks where it was told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Digest, ErrorKind, FetchedManifest};

use crate::Error;
use crate::index::Version;
use crate::source::{BlobStream, ImageSource};

#[derive(Debug, Default)]
pub(crate) struct MemorySource {
    /// By tag or digest: media type and bytes.
    pub(crate) manifests: BTreeMap<String, (String, Bytes)>,
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    pub(crate) referrers: Vec<Digest>,
    /// What every request fails with, when set.
    pub(crate) fails: Option<ErrorKind>,
    /// Blobs whose stream breaks off before its end.
    pub(crate) breaks: Vec<Digest>,
    /// What was asked for, in order.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl MemorySource {
    /// Adds a manifest; it can be had by its digest.
    pub(crate) fn add_manifest(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.manifests.insert(digest.to_string(), (media_type.to_owned(), bytes));
        digest
    }

    pub(crate) fn add_blob(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn ask(&self, what: String) -> Result<(), Error> {
        self.asked.lock().unwrap().push(what.clone());
        self.fails.map_or(Ok(()), |kind| Err(failure(kind, what)))
    }
}

pub(crate) fn failure(kind: ErrorKind, what: String) -> Error {
    spandrel_registry::Error { kind, what, message: "told to fail".to_owned() }.into()
}

#[async_trait]
impl ImageSource for MemorySource {
    fn name(&self) -> String {
        "memory.example/app".to_owned()
    }

    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        self.ask(format!("manifest {part}"))?;
        let (media_type, bytes) =
            self.manifests.get(part).cloned().ok_or_else(|| failure(ErrorKind::NotFound, part.to_owned()))?;
        Ok(FetchedManifest { media_type, digest: Digest::sha256(&bytes), bytes })
    }

    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error> {
        self.ask(format!("referrers {} {subject}", version.name()))?;
        Ok(self.referrers.clone())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        self.ask(format!("blob {digest} {size}"))?;
        self.blobs.get(digest).cloned().ok_or_else(|| failure(ErrorKind::NotFound, digest.to_string()))
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        self.ask(format!("blob {digest} {range:?}"))?;
        let blob = self.blobs.get(digest).ok_or_else(|| failure(ErrorKind::NotFound, digest.to_string()))?;
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        if end > blob.len() {
            return Err(failure(ErrorKind::Corrupt, format!("{range:?} of {} bytes", blob.len())));
        }
        Ok(Box::new(Pieces { rest: blob.slice(start..end), breaks: self.breaks.contains(digest) }))
    }
}

/// A blob in pieces of an odd length.
struct Pieces {
    rest: Bytes,
    breaks: bool,
}

#[async_trait]
impl BlobStream for Pieces {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.breaks && self.rest.len() < 5000 {
            return Err(failure(ErrorKind::Unavailable, "blob".to_owned()));
        }
        let len = self.rest.len().min(4999);
        Ok(Some(self.rest.split_to(len)))
    }
}

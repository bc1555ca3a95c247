//! A repository in a registry as a target of images.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{BlobContent, BlobPieces, Client, Digest, FetchedManifest, Reference, Repository};

use super::{Content, ImageTarget, Put};
use crate::Error;
use crate::hash::Hasher;
use crate::source::BlobStream;

/// An image's name in a registry.
#[derive(Debug, Clone)]
pub struct RegistryTarget {
    client: Client,
    reference: Reference,
    /// Repositories of the same host that may have the blobs.
    from: Option<Repository>,
}

impl RegistryTarget {
    /// The image that `reference` will name; `from` may have its blobs, and where it lies on the same host they are mounted from
    /// there. Retries are the client's.
    pub fn new(client: Client, reference: Reference, from: Option<Repository>) -> Self {
        Self { client, reference, from }
    }

    fn repository(&self) -> &Repository {
        &self.reference.repository
    }
}

#[async_trait]
impl ImageTarget for RegistryTarget {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error> {
        let failed = Slot::default();
        let content = Read { content, digest, size, failed: failed.clone() };
        let pushed =
            self.client.push_blob_from(self.repository(), digest, size, &content, self.from.as_ref()).await;
        // What the source said is more than what the registry's side made of it.
        match failed.take() {
            Some(error) if pushed.is_err() => Err(error),
            _ => Ok(pushed?),
        }
    }

    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error> {
        let digest = manifest.digest.as_str();
        if self.client.manifest_head(self.repository(), digest).await?.is_some() {
            return Ok(Put::Exists);
        }
        self.push(digest, manifest).await?;
        Ok(Put::Sent)
    }

    async fn put_referrer(&self, manifest: &FetchedManifest) -> Result<(), Error> {
        // Also when it is there: where the registry has no list of referrers, the client keeps one.
        self.push(manifest.digest.as_str(), manifest).await
    }

    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error> {
        let Some(tag) = &self.reference.tag else { return self.put_manifest(root).await.map(drop) };
        let named = self.client.manifest_head(self.repository(), tag).await?;
        if named.is_some_and(|named| named.digest == root.digest) {
            return Ok(());
        }
        self.push(tag, root).await
    }
}

impl RegistryTarget {
    async fn push(&self, part: &str, manifest: &FetchedManifest) -> Result<(), Error> {
        let bytes = manifest.bytes.clone();
        self.client.push_manifest(self.repository(), part, &manifest.media_type, bytes).await?;
        Ok(())
    }
}

/// Where a source's error waits until the registry's side has given up.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Error>>>);

impl Slot {
    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the error, and gives its text.
    fn keep(&self, error: Error) -> io::Error {
        let text = error.to_string();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(text)
    }
}

/// Content as the registry's client reads it.
struct Read<'a> {
    content: &'a dyn Content,
    digest: &'a Digest,
    size: u64,
    failed: Slot,
}

/// Its pieces, checked before the last one goes out: a registry's own word for other bytes would only be that it refuses them.
struct Pieces {
    stream: Box<dyn BlobStream>,
    digest: Digest,
    /// Bytes that are still to come.
    left: u64,
    hasher: Option<Hasher>,
    failed: Slot,
}

#[async_trait]
impl BlobContent for Read<'_> {
    async fn open(&self) -> io::Result<Box<dyn BlobPieces>> {
        let stream = self.content.open().await.map_err(|error| self.failed.keep(error))?;
        Ok(Box::new(Pieces {
            stream,
            digest: self.digest.clone(),
            left: self.size,
            hasher: Some(Hasher::new(self.digest.algorithm())),
            failed: self.failed.clone(),
        }))
    }
}

#[async_trait]
impl BlobPieces for Pieces {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.stream.chunk().await.map_err(|error| self.failed.keep(error))?;
        let Some(bytes) = &piece else { return Ok(None) };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
        {
            let got = hasher.finish();
            if got != self.digest.as_str() {
                return Err(self.failed.keep(Error::LayerDigest { layer: self.digest.to_string(), got }));
            }
        }
        Ok(piece)
    }
}

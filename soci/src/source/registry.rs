//! A repository in a registry as a source of images.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Body, Client, Digest, FetchedManifest, Repository};

use super::{BlobSource, BlobStream, ImageSource};
use crate::Error;
use crate::index::Version;

/// A repository in a registry.
#[derive(Debug, Clone)]
pub struct RegistrySource {
    client: Client,
    repository: Repository,
}

impl RegistrySource {
    /// The images of `repository`; retries are the client's.
    pub fn new(client: Client, repository: Repository) -> Self {
        Self { client, repository }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

#[async_trait]
impl BlobSource for RegistrySource {
    fn name(&self) -> String {
        self.repository.to_string()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        Ok(Box::new(self.client.blob_range(&self.repository, digest, range).await?))
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        Ok(self.client.manifest(&self.repository, part).await?)
    }

    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error> {
        let found = self.client.referrers(&self.repository, subject, version.artifact_type()).await?;
        Ok(found.into_iter().map(|descriptor| descriptor.digest).collect())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        Ok(self.client.blob(&self.repository, digest, size).await?)
    }

    async fn find_places(&self, blobs: &[Digest]) {
        self.client.find_places(&self.repository, blobs).await;
    }
}

#[async_trait]
impl BlobStream for Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(Body::chunk(self).await?)
    }
}

//! Where images come from: a registry (more in later issues). What is asked of a source is here; what it means is
//! `find`'s, `image`'s and `build`'s.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Body, Client, Digest, FetchedManifest, Repository};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

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

    /// Finds out where blobs lie that will be read, so that their first reads go there at once
    /// ([`Client::find_places`]). A source that has them all itself does nothing. Never fails: who reads them finds out.
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

/// A layer's blob in a file: its only blob, whatever digest is asked for (whoever reads it checks what came).
#[derive(Debug, Clone)]
pub struct LayerFile {
    path: PathBuf,
}

impl LayerFile {
    /// The layer in the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { what: "reading", path: self.path.clone(), source }
    }
}

#[async_trait]
impl BlobSource for LayerFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn blob_range(&self, _: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        let mut file = tokio::fs::File::open(&self.path).await.map_err(|error| self.failed(error))?;
        file.seek(SeekFrom::Start(range.start)).await.map_err(|error| self.failed(error))?;
        Ok(Box::new(FileStream { file, left: range.end.saturating_sub(range.start), from: self.clone() }))
    }
}

/// How much of a file is read at once, in bytes.
const FILE_PIECE: u64 = 256 << 10;

struct FileStream {
    file: tokio::fs::File,
    left: u64,
    from: LayerFile,
}

#[async_trait]
impl BlobStream for FileStream {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut piece = Vec::new();
        let read = (&mut self.file).take(self.left.min(FILE_PIECE)).read_to_end(&mut piece).await;
        read.map_err(|error| self.from.failed(error))?;
        if piece.is_empty() {
            let kind = io::ErrorKind::UnexpectedEof;
            return Err(self.from.failed(io::Error::new(kind, "it is shorter than the zTOC's layer")));
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(Some(piece.into()))
    }
}

//! Blobs from a source to a target. A layer that is read to be indexed is copied by the same reading.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use spandrel_registry::{Digest, FetchedManifest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{ConvertEvent, Tell};
use crate::Error;
use crate::index::Version;
use crate::source::{BlobSource, BlobStream, ImageSource};
use crate::target::{Content, ImageTarget, Put};

/// How many pieces may be read ahead of the slower of index and target: with pieces of 16 to 256 KiB, 2 MiB at most.
const PIECES: usize = 8;

/// Copies blobs, each once.
pub(super) struct Copier {
    source: Arc<dyn ImageSource>,
    target: Arc<dyn ImageTarget>,
    /// What is there.
    done: Mutex<BTreeSet<Digest>>,
    tell: Tell,
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copier")
            .field("source", &self.source)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Copier {
    pub(super) fn new(source: Arc<dyn ImageSource>, target: Arc<dyn ImageTarget>, tell: Tell) -> Self {
        Self { source, target, done: Mutex::default(), tell }
    }

    fn is_done(&self, digest: &Digest) -> bool {
        // A set of digests has no invariant that a panic could break.
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn note(&self, digest: &Digest, put: Put) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
        (self.tell)(ConvertEvent::Copied { blob: digest.clone(), put });
    }

    /// Says which blobs will be copied.
    pub(super) fn expect(&self, blobs: &[(Digest, u64)]) {
        (self.tell)(ConvertEvent::Expect(blobs.to_vec()));
    }

    /// Copies those of `blobs` (digest, bytes) that aren't there, `parallel` at once.
    pub(super) async fn copy(
        self: &Arc<Self>,
        blobs: &[(Digest, u64)],
        parallel: NonZeroUsize,
    ) -> Result<(), Error> {
        let left = blobs.iter().filter(|(digest, _)| !self.is_done(digest));
        let copies: Vec<_> = left.map(|blob| Arc::clone(self).copy_one(blob.clone())).collect();
        futures_util::stream::iter(copies).buffer_unordered(parallel.get()).try_collect().await
    }

    async fn copy_one(self: Arc<Self>, (digest, size): (Digest, u64)) -> Result<(), Error> {
        let tell = Some(Arc::clone(&self.tell));
        let content = FromSource { source: Arc::clone(&self.source), digest: digest.clone(), size, tell };
        let put = self.target.put_blob(&digest, size, &content).await?;
        self.note(&digest, put);
        Ok(())
    }
}

/// A blob of a source.
struct FromSource {
    source: Arc<dyn ImageSource>,
    digest: Digest,
    size: u64,
    /// Who hears of its bytes; nobody when others tell of them already.
    tell: Option<Tell>,
}

#[async_trait]
impl Content for FromSource {
    async fn open(&self) -> Result<Box<dyn BlobStream>, Error> {
        if let Some(tell) = &self.tell {
            tell(ConvertEvent::Copy { blob: self.digest.clone(), size: self.size });
        }
        let inner = self.source.blob_range(&self.digest, 0..self.size).await?;
        Ok(Box::new(Counted { inner, digest: self.digest.clone(), tell: self.tell.clone() }))
    }
}

/// A stream whose bytes are told of.
struct Counted {
    inner: Box<dyn BlobStream>,
    digest: Digest,
    tell: Option<Tell>,
}

#[async_trait]
impl BlobStream for Counted {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.inner.chunk().await?;
        if let (Some(bytes), Some(tell)) = (&chunk, &self.tell) {
            tell(ConvertEvent::Bytes { blob: self.digest.clone(), len: bytes.len() as u64 });
        }
        Ok(chunk)
    }
}

/// The source, of which every blob that is read whole goes to the target too.
#[derive(Debug)]
pub(super) struct Tee {
    copier: Arc<Copier>,
}

impl Tee {
    pub(super) fn new(copier: Arc<Copier>) -> Self {
        Self { copier }
    }
}

#[async_trait]
impl BlobSource for Tee {
    fn name(&self) -> String {
        self.copier.source.name()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        let inner = self.copier.source.blob_range(digest, range.clone()).await?;
        if self.copier.is_done(digest) || range.start != 0 {
            return Ok(inner);
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let again = FromSource {
            source: Arc::clone(&self.copier.source),
            digest: digest.clone(),
            size: range.end,
            tell: None,
        };
        let content = Branch { first: Mutex::new(Some(receiver)), again };
        let (target, blob) = (Arc::clone(&self.copier.target), digest.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { target.put_blob(&blob, range.end, &content).await });
        let copier = Arc::clone(&self.copier);
        Ok(Box::new(Trunk { inner, sender: Some(sender), task, digest: digest.clone(), copier }))
    }
}

#[async_trait]
impl ImageSource for Tee {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        self.copier.source.manifest(part).await
    }

    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error> {
        self.copier.source.referrers(subject, version).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        self.copier.source.blob(digest, size).await
    }
}

/// What passes from the trunk to the branch: bytes, or that all have come.
type Piece = Option<Bytes>;

/// The stream that whoever indexes reads. Its end comes when the target has the blob; dropped before, it gives up the copy.
struct Trunk {
    inner: Box<dyn BlobStream>,
    /// None when the target wants no more.
    sender: Option<mpsc::Sender<Piece>>,
    task: JoinSet<Result<Put, Error>>,
    digest: Digest,
    copier: Arc<Copier>,
}

impl Trunk {
    /// Passes a piece on. A target that has the blob already, or that begins anew, doesn't take it.
    async fn pass(&mut self, piece: Piece) {
        if let Some(sender) = &self.sender
            && sender.send(piece).await.is_err()
        {
            self.sender = None;
        }
    }
}

#[async_trait]
impl BlobStream for Trunk {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.inner.chunk().await? {
            self.pass(Some(bytes.clone())).await;
            return Ok(Some(bytes));
        }
        self.pass(None).await;
        self.sender = None;
        if let Some(put) = self.task.join_next().await {
            let put = put.map_err(|error| Error::Worker(error.to_string()))??;
            self.copier.note(&self.digest, put);
        }
        Ok(None)
    }
}

/// The blob as the target reads it: what the trunk passes on the first time, anew from the source from then on.
struct Branch {
    first: Mutex<Option<mpsc::Receiver<Piece>>>,
    again: FromSource,
}

#[async_trait]
impl Content for Branch {
    async fn open(&self) -> Result<Box<dyn BlobStream>, Error> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(pieces) => Ok(Box::new(Passed { pieces, ended: false })),
            None => self.again.open().await,
        }
    }
}

/// What the trunk passes on.
struct Passed {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

#[async_trait]
impl BlobStream for Passed {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        match self.pieces.recv().await {
            Some(Some(bytes)) => Ok(Some(bytes)),
            Some(None) => {
                self.ended = true;
                Ok(None)
            }
            // Why is told on the trunk's side.
            None => Err(Error::Worker("the download broke off".to_owned())),
        }
    }
}

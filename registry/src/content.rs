//! What is pushed without being held in memory: a blob's bytes, had anew from their beginning for every try.

use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ErrorKind;
use crate::failure::Failure;
use crate::transport::lock;

/// A blob's bytes, wherever they come from.
#[async_trait]
pub trait BlobContent: Send + Sync {
    /// Begins to read them, from the first one on.
    ///
    /// # Errors
    /// When they can't be had; the push fails then, and isn't tried again: retries are this side's own.
    async fn open(&self) -> io::Result<Box<dyn BlobPieces>>;
}

/// A blob's bytes as they come.
#[async_trait]
pub trait BlobPieces: Send {
    /// The next piece, or `None` behind the last one.
    ///
    /// # Errors
    /// When the rest can't be had.
    async fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// How a blob got where it was pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry took it from another repository of its own.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// Content whose failures are remembered, so that they aren't taken for the network's.
pub(crate) struct Watched {
    pieces: Box<dyn BlobPieces>,
    failed: Arc<Mutex<Option<String>>>,
}

/// Where a [`Watched`] says that it failed.
#[derive(Default)]
pub(crate) struct Failed(Arc<Mutex<Option<String>>>);

impl Failed {
    /// What the content failed with, if it did.
    pub(crate) fn take(&self) -> Option<Failure> {
        lock(&self.0).take().map(failure)
    }
}

impl Watched {
    /// Begins to read `content`.
    pub(crate) async fn open(content: &dyn BlobContent, failed: &Failed) -> Result<Self, Failure> {
        let pieces = content.open().await.map_err(|error| failure(error.to_string()))?;
        Ok(Self { pieces, failed: Arc::clone(&failed.0) })
    }

    /// The next piece.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.pieces.next().await;
        if let Err(error) = &piece {
            lock(&self.failed).get_or_insert_with(|| error.to_string());
        }
        piece
    }

    /// All of it as the body of a request.
    pub(crate) fn into_body(self) -> reqwest::Body {
        reqwest::Body::wrap_stream(futures_util::stream::try_unfold(self, |mut watched| async move {
            Ok::<_, io::Error>(watched.next().await?.map(|piece| (piece, watched)))
        }))
    }
}

fn failure(message: String) -> Failure {
    Failure::lasting(ErrorKind::Invalid, format!("can't be sent the blob, which can't be read: {message}"))
}

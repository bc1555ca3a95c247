//! Blobs in files: a layer in a file of its own, and the reading of any part of a file as it is wanted.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use spandrel_registry::Digest;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{BlobSource, BlobStream};
use crate::Error;

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
}

#[async_trait]
impl BlobSource for LayerFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn blob_range(&self, _: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        read_range(&self.path, range).await
    }
}

/// How much of a file is read at once, in bytes.
const FILE_PIECE: u64 = 256 << 10;

/// The bytes `range` of the file at `path`.
pub(super) async fn read_range(path: &Path, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
    let failed = |error| failed(path, error);
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.seek(SeekFrom::Start(range.start)).await.map_err(failed)?;
    Ok(Box::new(FileStream { file, left: range.end.saturating_sub(range.start), path: path.to_owned() }))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { what: "reading", path: path.to_owned(), source }
}

struct FileStream {
    file: tokio::fs::File,
    left: u64,
    path: PathBuf,
}

#[async_trait]
impl BlobStream for FileStream {
    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut piece = Vec::new();
        let read = (&mut self.file).take(self.left.min(FILE_PIECE)).read_to_end(&mut piece).await;
        read.map_err(|error| failed(&self.path, error))?;
        if piece.is_empty() {
            let kind = io::ErrorKind::UnexpectedEof;
            return Err(failed(
                &self.path,
                io::Error::new(kind, "it is shorter than the blob that should be in it"),
            ));
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(Some(piece.into()))
    }
}

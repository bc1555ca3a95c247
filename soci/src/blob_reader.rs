//! A blob that arrives on the async side, read on a thread: the bridge between the network and what inflates.
//!
//! The digest is taken on the way. What breaks the network's side off for good shows as an error of the reader, never as
//! an end.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::Error;
use crate::hash::Hasher;
use crate::source::BlobStream;

/// How many pieces may wait for the thread: enough to bridge the time that it takes over one, and, with pieces of some
/// 16 to 64 KiB, far below a MiB in memory.
const PIECES: usize = 8;

/// What passes from the network's side to the thread.
enum Piece {
    Bytes(Bytes),
    /// All bytes have come.
    End,
}

/// The reading side.
pub(crate) struct BlobReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    hasher: Hasher,
}

/// The sending side.
pub(crate) struct BlobFeed {
    pieces: mpsc::Sender<Piece>,
}

/// Both sides of a bridge for bytes whose digest is taken by `algorithm`: `sha256` or `sha512`.
pub(crate) fn bridge(algorithm: &str) -> (BlobFeed, BlobReader) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let hasher = Hasher::new(algorithm);
    (
        BlobFeed { pieces: sender },
        BlobReader { pieces: receiver, current: Bytes::new(), ended: false, hasher },
    )
}

impl BlobFeed {
    /// Passes all of `stream` to the reader; `arrived` hears how many bytes came. Ends early, and well, when the reader
    /// has had enough.
    pub(crate) async fn feed(
        self,
        stream: &mut dyn BlobStream,
        mut arrived: impl FnMut(u64),
    ) -> Result<(), Error> {
        while let Some(bytes) = stream.chunk().await? {
            arrived(bytes.len() as u64);
            if self.pieces.send(Piece::Bytes(bytes)).await.is_err() {
                return Ok(());
            }
        }
        // A reader that has gone doesn't want to know.
        let _ = self.pieces.send(Piece::End).await;
        Ok(())
    }
}

impl BlobReader {
    /// Reads and drops what is left, then gives the digest of the whole blob.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.hasher.update(&bytes);
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                // The feed was dropped: it failed, or the work was given up. Its error is told there.
                None => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download broke off"));
                }
            }
        }
        let len = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

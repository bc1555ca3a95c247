//! Fills a layer in full: its blob comes in pieces, several at a time, and is hashed, inflated, hashed again and walked as it
//! passes, and written to the stream, once and in order. What comes out is complete and checked, or nothing.
//!
//! Two threads share the work: one hashes the blob and inflates it, the other hashes what comes out, walks it and writes it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as thread;

use bytes::{Buf as _, Bytes};
use spandrel_ztoc::tar::{TarError, TarRules, TarWalk, Toc};
use spandrel_ztoc::tree::Tree;
use spandrel_ztoc::unpack::{LayerFormat, StreamReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hash::Hasher;
use super::lazy::{STREAM, TABLE};
use super::record::{Record, Stage};
use super::stream::Stream;
use super::{files, table, unpack};
use crate::Error;
use crate::fetch::{BlobSource, Engine, Piece, download};

/// Pieces that may wait to be inflated, beside those that are on their way.
const PIECES: usize = 1;

/// The stream while it is being filled: its name says that nothing in it was checked, and no try touches one that was.
const STREAM_NEW: &str = "stream.new";

/// How much of the stream is written at a time, in bytes: long enough that the system calls cost nothing.
const WRITE_LEN: usize = 512 << 10;

/// How much of it is written before the disk is told to begin, in bytes: long runs, and while they are written the next ones
/// are inflated. All of it must be on the disk before the layer counts as filled.
const SYNC_LEN: u64 = 8 << 20;

/// Buffers of that length that wait to be written: enough that neither thread waits for the other at each one. With those in hand
/// a layer has 3 MiB.
const BUFFERS: usize = 4;

/// Length of a tar's block, in bytes: headers begin at multiples of it.
const TAR_BLOCK: usize = 512;

/// Longest stream, in bytes.
const MAX_STREAM_LEN: u64 = spandrel_ztoc::limits::MAX_STREAM_LEN;

/// Fills the layer of `record` in the directory `dir`; gives the record of what is there now, which was saved.
///
/// # Errors
/// [`Error::Unavailable`] when the blob can't be had or `stop` was cancelled, [`Error::Corrupt`] when it isn't what its
/// digest or the image says, [`Error::NoSpace`] when the disk is full. The stream's bytes are given up then.
pub(super) async fn fill(
    source: Arc<dyn BlobSource>,
    record: Record,
    dir: &Path,
    stop: CancellationToken,
    engine: &Arc<Engine>,
) -> Result<Record, Error> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (work_dir, work_stop) = (dir.to_path_buf(), stop.clone());
    let name = format!("layer {} of {}", record.digest, record.repository());
    let size = record.size;
    let pouring = tokio::task::spawn_blocking(move || {
        let poured = pour(receiver, record, &work_dir, &work_stop);
        if poured.is_err() {
            // What was written is of no use: the next try begins anew. The file itself may not even be there.
            std::fs::remove_file(work_dir.join(STREAM_NEW)).ok();
        }
        poured
    });
    let downloaded = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::Unavailable(format!("{name}: the download was stopped"))),
        downloaded = download(source, engine, size, sender) => downloaded.map_err(Error::from),
    };
    let poured =
        pouring.await.unwrap_or_else(|error| Err(Error::Internal(format!("{name}: a task failed: {error}"))));
    // Where the download failed, what was made of half a blob says nothing.
    downloaded?;
    poured
}

/// The blob as a reader, hashed in passing.
struct Blob {
    pieces: mpsc::Receiver<Piece>,
    /// What is being read: it counts against the memory budget until it is all read.
    piece: Option<Piece>,
    /// How many of its chunks were begun.
    begun: usize,
    current: Bytes,
    hasher: Hasher,
    len: u64,
}

impl Blob {
    fn new(pieces: mpsc::Receiver<Piece>, hasher: Hasher) -> Self {
        Self { pieces, piece: None, begun: 0, current: Bytes::new(), hasher, len: 0 }
    }

    /// The next chunk; `None` at the end.
    fn chunk(&mut self) -> Option<Bytes> {
        loop {
            let chunk = self.piece.as_mut().and_then(|piece| piece.chunks.get_mut(self.begun));
            if let Some(chunk) = chunk {
                self.begun += 1;
                return Some(std::mem::take(chunk));
            }
            // Its memory goes back before the next one is waited for.
            self.piece = None;
            (self.piece, self.begun) = (Some(self.pieces.blocking_recv()?), 0);
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(chunk) = self.chunk() else { return Ok(0) };
            self.hasher.update(&chunk);
            self.len += chunk.len() as u64;
            self.current = chunk;
        }
        let len = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

/// What is read of the blob's beginning to see how it is packed, put before the rest.
type Whole = io::Chain<io::Cursor<Vec<u8>>, Blob>;

fn pour(
    pieces: mpsc::Receiver<Piece>,
    mut record: Record,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Record, Error> {
    let name = format!("layer {} of {}", record.digest, record.repository());
    let path = dir.join(STREAM_NEW);
    let mut stream = Stream::create(&path, 0).map_err(|e| files::failed("make", &path, &e))?;
    let mut blob = Blob::new(pieces, Hasher::like(&record.digest));
    let mut head = Vec::new();
    // A channel doesn't fail.
    (&mut blob).take(4).read_to_end(&mut head).map_err(|e| Error::Internal(format!("{name}: {e}")))?;
    // As containerd does: the first bytes say how it is packed, whatever the media type says.
    let format = LayerFormat::of_first_bytes(&head);
    let mut whole: Whole = Read::chain(io::Cursor::new(head), blob);
    let poured = inflate(&mut whole, format, &stream, &path, &record, stop)?;
    let (_, mut blob) = whole.into_inner();
    // What the decoder had no use for belongs to the blob all the same.
    io::copy(&mut blob, &mut io::sink()).map_err(|e| Error::Internal(format!("{name}: {e}")))?;
    let corrupt = |what: String| Error::Corrupt(format!("{name}: {what}"));
    let found = blob.hasher.finish();
    if blob.len != record.size || found != record.digest.as_str() {
        return Err(corrupt(format!("what came has {} bytes and the digest {found}", blob.len)));
    }
    if poured.digest != record.diff_id.as_str() {
        return Err(corrupt(format!(
            "its tar has the digest {}, the image says {} (diff ID)",
            poured.digest, record.diff_id
        )));
    }
    record.stream_len = poured.len;
    record.verified = true;
    stream.set_len(poured.len).map_err(|e| files::failed("write", &path, &e))?;
    finish(&stream, poured, &mut record, dir, stop)?;
    record.save(dir)?;
    Ok(record)
}

/// What came out of a blob.
struct Poured {
    len: u64,
    digest: String,
    toc: Result<Toc, TarError>,
}

fn inflate(
    blob: &mut Whole,
    format: LayerFormat,
    stream: &Stream,
    path: &Path,
    record: &Record,
    stop: &CancellationToken,
) -> Result<Poured, Error> {
    let bad = |error: io::Error| {
        let what = format!("layer {} of {}: {error}", record.digest, record.repository());
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Error::Corrupt(what),
            _ => Error::Internal(what),
        }
    };
    let mut reader = StreamReader::new(blob, format).map_err(bad)?;
    let (full, to_keep) = thread::sync_channel::<(Vec<u8>, usize)>(BUFFERS);
    let (kept, empty) = thread::channel();
    std::thread::scope(|scope| {
        let keeper = scope.spawn(move || keep(&to_keep, &kept, stream, path, record));
        let read = loop {
            if stop.is_cancelled() {
                break Err(Error::Unavailable("stopped".to_owned()));
            }
            let mut buffer = empty.try_recv().unwrap_or_else(|_| vec![0; WRITE_LEN]);
            match read_full(&mut reader, &mut buffer) {
                Ok(0) => break Ok(()),
                // The other side has ended, and says why.
                Ok(len) if full.send((buffer, len)).is_err() => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(bad(error)),
            }
        };
        drop(full);
        let kept = keeper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What can't be written is why no more was read.
        kept.and_then(|poured| read.map(|()| poured))
    })
}

/// Hashes, walks and writes what is inflated, and gives the buffers back.
fn keep(
    inflated: &thread::Receiver<(Vec<u8>, usize)>,
    done: &thread::Sender<Vec<u8>>,
    stream: &Stream,
    path: &Path,
    record: &Record,
) -> Result<Poured, Error> {
    let mut hasher = Hasher::like(&record.diff_id);
    let mut walk = Ok(TarWalk::new(TarRules::Fill));
    let (mut len, mut begun) = (0, 0);
    for (buffer, filled) in inflated {
        let bytes = &buffer[..filled];
        hasher.update(bytes);
        // What can't be in a table may still be unpacked: the stream is completed in any case.
        walk = walk.and_then(|mut walk| walk.push(bytes).map(|()| walk));
        stream.write(len, bytes).map_err(|e| files::failed("write", path, &e))?;
        len += filled as u64;
        if len - begun >= SYNC_LEN {
            stream.not_needed(begun..len);
            begun = len;
        }
        if len > MAX_STREAM_LEN {
            let name = format!("layer {} of {}", record.digest, record.repository());
            return Err(Error::Corrupt(format!("{name}: its tar has over {MAX_STREAM_LEN} bytes")));
        }
        // Nobody takes it any more when all has been read.
        done.send(buffer).ok();
    }
    Ok(Poured { len, digest: hasher.finish(), toc: walk.and_then(TarWalk::finish) })
}

/// Reads until `buffer` is full or nothing more comes.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The tree that the complete layer in `dir` has its table from: its headers are read again, but not its files' data.
///
/// # Errors
/// When the stream can't be read, or isn't any more what it was.
pub(super) fn tree(dir: &Path, record: &Record) -> Result<Tree, Error> {
    let path = dir.join(STREAM);
    let stream = Stream::open(&path, record.stream_len).map_err(|e| files::failed("open", &path, &e))?;
    let damaged = |what: String| Error::Corrupt(format!("{}: {what}", path.display()));
    let mut walk = TarWalk::new(TarRules::Fill);
    let mut block = [0; TAR_BLOCK];
    let mut at = 0;
    while at < record.stream_len && !walk.at_end() {
        let len = (record.stream_len - at).min(TAR_BLOCK as u64);
        let bytes = &mut block[..usize::try_from(len).expect("is a block's at most")];
        stream.read(at, bytes).map_err(|e| files::failed("read", &path, &e))?;
        walk.push(bytes).map_err(|error| damaged(error.to_string()))?;
        // A stream that was cut within a file's padding has no more.
        at += len + walk.skip_data();
        let padding = (at.next_multiple_of(TAR_BLOCK as u64).min(record.stream_len)).saturating_sub(at);
        walk.push(&[0; TAR_BLOCK][..usize::try_from(padding).expect("is less than a block")])
            .map_err(|error| damaged(error.to_string()))?;
        at += padding;
    }
    let toc = walk.finish().map_err(|error| damaged(error.to_string()))?;
    Tree::new(&toc.entries, record.stream_len).map_err(|error| damaged(error.to_string()))
}

/// Makes a table over the complete stream, or unpacks what can't have one.
fn finish(
    stream: &Stream,
    poured: Poured,
    record: &mut Record,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let beyond = match poured.toc {
        Ok(toc) => match Tree::new(&toc.entries, poured.len) {
            Ok(tree) => match table::build(&tree, poured.len) {
                Ok(table) => {
                    let (new, done) = (dir.join(STREAM_NEW), dir.join(STREAM));
                    let written = stream.sync().and_then(|()| std::fs::rename(&new, &done));
                    written.map_err(|e| files::failed("write", &done, &e))?;
                    files::replace(&dir.join(TABLE), &table)?;
                    record.stage = Stage::Complete;
                    record.implied = !tree.implied.is_empty();
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        },
        Err(error @ TarError::Unsupported { .. }) => error.to_string(),
        Err(error) => {
            let what = format!("layer {} of {}: {error}", record.digest, record.repository());
            return Err(Error::Corrupt(what));
        }
    };
    tracing::info!(layer = %record.digest, beyond, "can't be in a table: unpacking it into a directory");
    unpack::unpack(&dir.join(STREAM_NEW), poured.len, dir, stop).map_err(|error| {
        unpack::named(error, &format!("layer {} of {}", record.digest, record.repository()))
    })?;
    record.stage = Stage::Unpacked;
    Ok(())
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;

//! A layer with an index: its files are made from the zTOC alone, its stream is filled as it is read.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spandrel_ztoc::tree::Tree;
use spandrel_ztoc::unpack::LayerFormat;
use spandrel_ztoc::{Compression, Sha256Digest, SpanTable, WindowMap, Ztoc};

use super::bitmap::Bitmap;
use super::files;
use super::node::Node;
use super::record::{Record, Stage};
use super::stream::{Buffer, Stream};
use super::table;
use crate::Error;
use crate::device::{Backing, ReadReply};
use crate::fetch::{BlobSource, Files, Headers, MAX_DECODED_LEN, Spans};
use crate::open_files::LazyFile;

/// Longest zTOC that is read back from the disk.
const MAX_ZTOC_LEN: u64 = spandrel_ztoc::limits::MAX_ZTOC_LEN;

/// Names of a layer's files.
pub(super) const STREAM: &str = "stream";
pub(super) const TABLE: &str = "table";
const BITMAP: &str = "bitmap";
const ZTOC: &str = "ztoc";
const HEADERS: &str = "headers";

/// Why a zTOC isn't used; the layer is filled in full then.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// For the metric.
    pub reason: &'static str,
    /// For the log.
    pub what: String,
}

/// A zTOC that was looked at.
struct Decoded {
    ztoc: Ztoc,
    windows: WindowMap,
    spans: SpanTable,
}

fn decode(bytes: &[u8], record: &Record) -> Result<Decoded, Unfit> {
    let unfit = |reason, what: String| Unfit { reason, what };
    let (ztoc, windows) =
        Ztoc::decode_without_windows(bytes).map_err(|e| unfit("ztoc-invalid", e.to_string()))?;
    if ztoc.compressed_size != record.size {
        let what =
            format!("it is of a blob of {} bytes, the layer has {}", ztoc.compressed_size, record.size);
        return Err(unfit("ztoc-mismatch", what));
    }
    let spans = SpanTable::new(&ztoc).map_err(|e| unfit("ztoc-invalid", e.to_string()))?;
    if let Some(span) =
        spans.iter().find(|span| span.uncompressed.end - span.uncompressed.start > MAX_DECODED_LEN)
    {
        let what = format!("span {} has over {MAX_DECODED_LEN} bytes of stream", span.id.0);
        return Err(unfit("ztoc-invalid", what));
    }
    // Docker's media type for plain tar is also put on compressed layers: only what can't be is refused.
    let format = LayerFormat::of_media_type(&record.media_type);
    match (ztoc.compression, format) {
        (Compression::Gzip, Some(LayerFormat::Gzip | LayerFormat::Tar))
        | (Compression::Uncompressed, Some(LayerFormat::Tar)) => Ok(Decoded { ztoc, windows, spans }),
        (compression, _) => {
            let what = format!("it is of a blob of kind {compression:?}, the layer is {}", record.media_type);
            Err(unfit("ztoc-mismatch", what))
        }
    }
}

/// Makes the files of a layer in the empty directory `dir` from its zTOC. `record` is completed and saved, last.
///
/// # Errors
/// [`Unfit`] inside when the zTOC can't be used; outside when the disk fails.
pub(super) fn create(dir: &Path, bytes: &[u8], record: &mut Record) -> Result<Result<(), Unfit>, Error> {
    let decoded = match decode(bytes, record) {
        Ok(decoded) => decoded,
        Err(unfit) => return Ok(Err(unfit)),
    };
    let stream_len = decoded.ztoc.uncompressed_size;
    let tree = match Tree::new(&decoded.ztoc.entries, stream_len) {
        Ok(tree) => tree,
        Err(error) => return Ok(Err(Unfit { reason: "ztoc-tree", what: error.to_string() })),
    };
    let headers = match Headers::encode(&decoded.ztoc) {
        Ok(headers) => headers,
        Err(what) => return Ok(Err(Unfit { reason: "ztoc-invalid", what })),
    };
    let table = match table::build(&tree, stream_len) {
        Ok(table) => table,
        Err(error) => return Ok(Err(Unfit { reason: "ztoc-tree", what: error.to_string() })),
    };
    let spans = u32::try_from(decoded.spans.len()).unwrap_or(u32::MAX); // MAX_SPANS fits 32 bits
    files::replace(&dir.join(ZTOC), bytes)?;
    files::replace(&dir.join(TABLE), &table)?;
    write_headers(dir, &headers)?;
    let (stream, bitmap) = (dir.join(STREAM), dir.join(BITMAP));
    Stream::create(&stream, stream_len).map_err(|e| files::failed("make", &stream, &e))?;
    Bitmap::create(&bitmap, spans).map_err(|e| files::failed("make", &bitmap, &e))?;
    record.stage = Stage::Indexed;
    record.implied = !tree.implied.is_empty();
    record.stream_len = stream_len;
    record.save(dir)?;
    Ok(Ok(()))
}

/// Writes the file of what the index says of tar headers. No power cut is feared: it can be made again.
fn write_headers(dir: &Path, headers: &[u8]) -> Result<(), Error> {
    let path = dir.join(HEADERS);
    std::fs::write(&path, headers).map_err(|e| files::failed("write", &path, &e))
}

/// Opens that file, which is made again from `ztoc` where it is damaged or missing.
fn open_headers(dir: &Arc<Path>, ztoc: &Ztoc, node: &Node) -> Result<Headers, Error> {
    let path = dir.join(HEADERS);
    let open = || match Headers::open(LazyFile::new(dir, HEADERS, &node.files), ztoc.uncompressed_size) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(|e| files::failed("read", &path, &e)),
    };
    if let Some(headers) = open()? {
        return Ok(headers);
    }
    tracing::info!(path = %path.display(), "is made again from the zTOC");
    let headers = Headers::encode(ztoc);
    write_headers(dir, &headers.map_err(|what| Error::Corrupt(format!("{}: {what}", dir.display())))?)?;
    open()?.ok_or_else(|| Error::Corrupt(format!("{} isn't what was written just now", path.display())))
}

/// Reads the zTOC in `dir` again: where it lies, and what is in it.
fn read(dir: &Path, record: &Record) -> Result<(PathBuf, Decoded), Error> {
    let path = dir.join(ZTOC);
    let bytes = files::read(&path, MAX_ZTOC_LEN)?;
    let damaged = |what: String| Error::Corrupt(format!("{}: {what}", path.display()));
    // Windows are read from it later without another look.
    let found = Sha256Digest::of(&bytes).to_string();
    if record.ztoc.as_ref().map(|digest| digest.as_str()) != Some(found.as_str()) {
        return Err(damaged(format!("has the digest {found}")));
    }
    let decoded = decode(&bytes, record).map_err(|unfit| damaged(unfit.what))?;
    Ok((path, decoded))
}

/// The tree that the layer in `dir` has its table from.
///
/// # Errors
/// When its zTOC is damaged, or isn't there.
pub(super) fn tree(dir: &Path, record: &Record) -> Result<Tree, Error> {
    let (path, decoded) = read(dir, record)?;
    Tree::new(&decoded.ztoc.entries, record.stream_len)
        .map_err(|error| Error::Corrupt(format!("{}: {error}", path.display())))
}

/// Length of the zTOC in `dir`, in bytes.
///
/// # Errors
/// When there is none.
pub(super) fn ztoc_len(dir: &Path) -> Result<u64, Error> {
    let path = dir.join(ZTOC);
    std::fs::metadata(&path).map(|found| found.len()).map_err(|e| files::failed("look at", &path, &e))
}

/// Bytes that the stream in `dir` takes on the disk.
pub(super) fn allocated(dir: &Path) -> io::Result<u64> {
    Ok(dir.join(STREAM).metadata()?.blocks() * 512)
}

/// Gives all spans in `dir` back, while nobody has its files open; says how many bytes that gave.
///
/// # Errors
/// When the files can't be written.
pub(super) fn empty(dir: &Path, record: &Record) -> Result<u64, Error> {
    let (stream, bitmap) = (dir.join(STREAM), dir.join(BITMAP));
    // First for good what says that they are there: without it they aren't.
    let removed = match std::fs::remove_file(&bitmap) {
        // A crash, or a disk that failed, may have come in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let removed = removed.and_then(|()| files::sync_parent(&bitmap));
    removed.map_err(|e| files::failed("delete", &bitmap, &e))?;
    let punch = || {
        let file = Stream::open(&stream, record.stream_len)?;
        let before = file.allocated()?;
        file.punch(0..u64::MAX)?;
        Ok(before - file.allocated()?.min(before))
    };
    punch().map_err(|e| files::failed("punch a hole into", &stream, &e))
}

/// Opens the files in `dir`.
///
/// # Errors
/// When they are damaged, or aren't all there.
pub(super) fn open(
    dir: &Arc<Path>,
    record: &Record,
    source: Arc<dyn BlobSource>,
    node: &Node,
) -> Result<Arc<Spans>, Error> {
    let (_, decoded) = read(dir, record)?;
    let headers = open_headers(dir, &decoded.ztoc, node)?;
    let when_used = |name| LazyFile::new(dir, name, &node.files);
    let (stream, bitmap) = (dir.join(STREAM), dir.join(BITMAP));
    let spans = u32::try_from(decoded.spans.len()).unwrap_or(u32::MAX);
    let files = Files {
        stream: Stream::open_when_used(when_used(STREAM), record.stream_len)
            .map_err(|e| files::failed("open", &stream, &e))?,
        bitmap: Bitmap::open(&bitmap, spans)
            .map_err(|e| files::failed("open", &bitmap, &e))?
            .opened_when_used(when_used(BITMAP)),
        ztoc: when_used(ZTOC),
        windows: decoded.windows,
    };
    let name = format!("layer {} of {}", record.digest, record.repository());
    let opened = Spans::new(name, decoded.spans, files, Some(headers), source, &node.fetch);
    if let Some(what) = &record.refuted {
        opened.refute(what);
    }
    // What a crash left costs room and nothing else.
    if let Err(error) = opened.give_back_strays() {
        tracing::warn!(layer = %record.digest, %error, "room that holds nothing can't be given back");
    }
    Ok(opened)
}

thread_local! {
    /// What a thread of the device reads into: to make a new one, zeroed, for each read costs as much as the read.
    static BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// Lends `work` this thread's buffer, `len` bytes of it, with any content.
fn with_buffer<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer.of(len)))
}

/// Answers the device from the spans of a layer.
pub(super) struct LazyBacking(pub Arc<Spans>);

impl Backing for LazyBacking {
    fn read(&self, offset: u64, len: usize, reply: ReadReply) {
        let (spans, mut reply) = (&self.0, Some(reply));
        with_buffer(len, |bytes| {
            if spans.read_present(offset, bytes)
                && let Some(reply) = reply.take()
            {
                reply.data(bytes);
            }
        });
        let Some(reply) = reply else { return };
        let spans = Arc::clone(&self.0);
        self.0.runtime().spawn(async move {
            match spans.read(offset, len).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.fail(&error),
            }
        });
    }
}

/// Answers the device from a stream that is complete.
pub(super) struct WholeBacking {
    pub stream: Arc<Stream>,
    /// It was filled just now: much of it is in the page cache.
    pub just_filled: bool,
}

impl Backing for WholeBacking {
    fn read(&self, offset: u64, len: usize, reply: ReadReply) {
        let read = |bytes: &mut [u8]| {
            if self.just_filled {
                self.stream.read(offset, bytes)
            } else {
                self.stream.read_past_cache(offset, bytes)
            }
        };
        with_buffer(len, |bytes| match read(bytes) {
            Ok(()) => {
                reply.data(bytes);
                if self.just_filled {
                    // The kernel has it now where it is looked for next.
                    self.stream.not_needed(offset..offset.saturating_add(len as u64));
                }
            }
            Err(error) => {
                tracing::error!(%error, offset, "a layer's stream can't be read");
                reply.fail(&Error::Internal(format!("read a layer's stream: {error}")));
            }
        });
    }
}

//! Reads one file of a layer through its zTOC: only the spans that hold it are fetched, and each is checked before a byte
//! of it is used.

use std::io::{self, Read as _, Write};
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use spandrel_registry::Digest;
use spandrel_ztoc::tree::{InodeKind, Tree};
use spandrel_ztoc::{Span, SpanDecoder, SpanId, SpanTable, WINDOW_LEN, Ztoc};

use crate::Error;
use crate::blob_reader::{BlobReader, bridge};
use crate::source::BlobSource;

/// How many spans are on their way at once: enough to hide a round trip behind decoding, and with spans of 4 MiB little
/// memory.
const SPANS_AHEAD: usize = 4;

/// Spans longer than this, in bytes of stream, are fetched one at a time: a hostile zTOC may have spans of a GiB, and each is
/// held in memory.
const LONG_SPAN: u64 = 64 << 20;

/// How much is decoded at once, in bytes.
const PIECE_LEN: usize = 64 << 10;

/// How many symbolic links are followed on the way to a file: what Linux does.
const MAX_LINKS: usize = 40;

/// Why a path names no file in a layer. The texts are soci's where it says the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name, or it is in another layer.
    #[error("file {0} does not exist in metadata")]
    Missing(String),
    /// It is something else than a regular file.
    #[error("{0} is no regular file but {1}")]
    NoFile(String, &'static str),
    /// Links that lead to one another.
    #[error("{0} leads to more than {MAX_LINKS} symbolic links, one after the other")]
    Loop(String),
}

/// Where the content of the file `path` lies in the layer's stream, in bytes.
///
/// Leading `/` and `./` don't matter, and symbolic links are followed as far as this layer has what they name.
///
/// # Errors
/// [`LookupError`], or the zTOC's entries make no tree.
pub fn lookup(ztoc: &Ztoc, path: &[u8]) -> Result<Result<Range<u64>, LookupError>, spandrel_ztoc::Error> {
    let tree = Tree::new(&ztoc.entries, ztoc.uncompressed_size)?;
    Ok(walk(&tree, path))
}

fn walk(tree: &Tree, path: &[u8]) -> Result<Range<u64>, LookupError> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let missing = || LookupError::Missing(shown());
    // What is left of the way, the next component last.
    let mut left: Vec<Vec<u8>> = components(path);
    let mut at = vec![0u32]; // from the root to where we are
    let mut links = 0;
    while let Some(name) = left.pop() {
        let Some(&here) = at.last() else { return Err(missing()) };
        if name == b".." {
            // The root's parent is the root.
            at.truncate(at.len().saturating_sub(1).max(1));
            continue;
        }
        let InodeKind::Directory { children, .. } = &inode(tree, here).ok_or_else(missing)?.kind else {
            return Err(missing());
        };
        let id = *children.get(&name).ok_or_else(missing)?;
        if let InodeKind::Symlink(target) = &inode(tree, id).ok_or_else(missing)?.kind {
            links += 1;
            if links > MAX_LINKS {
                return Err(LookupError::Loop(shown()));
            }
            if target.starts_with(b"/") {
                at.truncate(1);
            }
            left.extend(components(target));
        } else {
            at.push(id);
        }
    }
    let found = at.last().and_then(|id| inode(tree, *id)).ok_or_else(missing)?;
    let other = match &found.kind {
        InodeKind::File { offset, size } => return Ok(*offset..offset.saturating_add(*size)),
        InodeKind::Directory { .. } => "a directory",
        InodeKind::Char(..) | InodeKind::Block(..) => "a device",
        InodeKind::Fifo => "a named pipe",
        InodeKind::Whiteout | InodeKind::Symlink(_) => return Err(missing()),
    };
    Err(LookupError::NoFile(shown(), other))
}

fn inode(tree: &Tree, id: u32) -> Option<&spandrel_ztoc::tree::Inode> {
    tree.inodes.get(usize::try_from(id).ok()?)
}

/// The components of a path, the last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

/// Writes `range` of the stream of `layer` to `out`, fetching from `source` just the spans that hold it. `arrived` hears of
/// the bytes that came over the network.
///
/// # Errors
/// When a span can't be had, isn't what its digest says, or can't be decoded; or `out` can't be written.
pub async fn copy(
    source: &dyn BlobSource,
    layer: &Digest,
    ztoc: Arc<Ztoc>,
    range: Range<u64>,
    out: &mut dyn Write,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let spans = SpanTable::new(&ztoc).map_err(|source| Error::Layer { layer: layer.to_string(), source })?;
    let wanted = || spans.covering(range.clone()).filter_map(|id| spans.get(SpanId(id)));
    let longest = wanted().map(|span| span.uncompressed.end - span.uncompressed.start).max().unwrap_or(0);
    let ahead = if longest > LONG_SPAN { 1 } else { SPANS_AHEAD };
    let fetches = wanted().map(|span| fetch(source, layer, Arc::clone(&ztoc), span, arrived));
    let mut decoded = futures_util::stream::iter(fetches).buffered(ahead);
    while let Some((span, bytes)) = decoded.try_next().await? {
        let from = range.start.max(span.uncompressed.start) - span.uncompressed.start;
        let to = range.end.min(span.uncompressed.end) - span.uncompressed.start;
        // Both lie within the span, which is in memory.
        let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
        out.write_all(bytes.get(from..to).unwrap_or_default()).map_err(Error::Output)?;
    }
    Ok(())
}

/// A span and what it decodes to, checked.
async fn fetch(
    source: &dyn BlobSource,
    layer: &Digest,
    ztoc: Arc<Ztoc>,
    span: Span,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<(Span, Vec<u8>), Error> {
    let mut stream = source.blob_range(layer, span.compressed.clone()).await?;
    let (feed, reader) = bridge("sha256");
    let wanted = span.clone();
    let thread = tokio::task::spawn_blocking(move || decode(reader, &ztoc, &wanted));
    let fed = feed.feed(&mut *stream, arrived).await;
    let decoded = thread.await.map_err(|error| Error::Worker(error.to_string()))?;
    // When the network failed, what the thread says is only that its bytes broke off.
    fed?;
    let bad = |source| Error::Layer { layer: layer.to_string(), source };
    let (decoded, got) = decoded.map_err(|error| bad(error.into()))?;
    let want = span.digest.to_string();
    // Before anything is made of what was decoded, or of why it couldn't be.
    if got != want {
        return Err(Error::Span {
            layer: layer.to_string(),
            name: source.name(),
            span: span.id.0,
            got,
            want,
        });
    }
    Ok((span, decoded.map_err(bad)?))
}

/// Decodes a span while its bytes arrive, so that no more of them is held than comes out; and their digest.
fn decode(
    mut reader: BlobReader,
    ztoc: &Ztoc,
    span: &Span,
) -> io::Result<(Result<Vec<u8>, spandrel_ztoc::Error>, String)> {
    let window = usize::try_from(span.id.0)
        .ok()
        .and_then(|id| id.checked_mul(WINDOW_LEN))
        .and_then(|at| ztoc.windows.get(at..at.checked_add(WINDOW_LEN)?))
        .unwrap_or_default();
    let len = span.uncompressed.end - span.uncompressed.start;
    let len = usize::try_from(len).unwrap_or(usize::MAX); // a zTOC's spans are checked: at most MAX_SPAN_LEN
    let mut decoder = SpanDecoder::new(ztoc.compression, span.bits, window, len);
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let len = reader.read(&mut piece)?;
        if len == 0 {
            break;
        }
        if let Ok(running) = &mut decoder
            && let Err(error) = running.push(&piece[..len])
        {
            decoder = Err(error);
        }
    }
    Ok((decoder.and_then(SpanDecoder::finish), reader.finish()?))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

//! Reads one file of a layer through its zTOC: only the spans that hold it are fetched, and each is checked before a byte
//! of it is used.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use spandrel_registry::Digest;
use spandrel_ztoc::tree::{InodeKind, Tree};
use spandrel_ztoc::{Sha256Digest, Span, SpanId, SpanTable, WINDOW_LEN, Ztoc, decode_span};

use crate::Error;
use crate::source::BlobSource;

/// How many spans are on their way at once: enough to hide a round trip behind decoding, and with spans of 4 MiB little
/// memory.
const SPANS_AHEAD: usize = 4;

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
    let bad = |source| Error::Layer { layer: layer.to_string(), source };
    let spans = SpanTable::new(&ztoc).map_err(bad)?;
    let wanted: Vec<Span> = spans.covering(range.clone()).filter_map(|id| spans.get(SpanId(id))).collect();
    let fetches: Vec<_> =
        wanted.into_iter().map(|span| fetch(source, layer, Arc::clone(&ztoc), span, arrived)).collect();
    let mut decoded = futures_util::stream::iter(fetches).buffered(SPANS_AHEAD);
    while let Some((span, bytes)) = decoded.try_next().await? {
        let from = range.start.max(span.uncompressed.start) - span.uncompressed.start;
        let to = range.end.min(span.uncompressed.end) - span.uncompressed.start;
        // Both lie within the span, which is in memory.
        let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
        let part = bytes.get(from..to).unwrap_or_default();
        out.write_all(part).map_err(Error::Output)?;
    }
    Ok(())
}

async fn fetch(
    source: &dyn BlobSource,
    layer: &Digest,
    ztoc: Arc<Ztoc>,
    span: Span,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<(Span, Vec<u8>), Error> {
    let mut stream = source.blob_range(layer, span.compressed.clone()).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.chunk().await? {
        arrived(piece.len() as u64);
        bytes.extend_from_slice(&piece);
    }
    let layer = layer.to_string();
    let name = source.name();
    tokio::task::spawn_blocking(move || {
        let got = Sha256Digest::of(&bytes);
        if got != span.digest {
            return Err(Error::Span {
                layer,
                name,
                span: span.id.0,
                got: got.to_string(),
                want: span.digest.to_string(),
            });
        }
        let index = usize::try_from(span.id.0).unwrap_or(usize::MAX);
        let window = index
            .checked_mul(WINDOW_LEN)
            .and_then(|at| ztoc.windows.get(at..at.checked_add(WINDOW_LEN)?))
            .unwrap_or_default();
        let len = span.uncompressed.end - span.uncompressed.start;
        let len = usize::try_from(len).unwrap_or(usize::MAX); // limited by MAX_SPAN_LEN
        let decoded = decode_span(ztoc.compression, span.bits, window, &bytes, len)
            .map_err(|source| Error::Layer { layer, source })?;
        Ok((span, decoded))
    })
    .await
    .map_err(|error| Error::Worker(error.to_string()))?
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

//! Which files of an image are meant by a list of paths and patterns, and where their bytes lie.
//!
//! An image is what overlayfs makes of its layers: the topmost layer that has a name decides, whiteouts hide, and links lead on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use globset::{GlobBuilder, GlobMatcher};
use spandrel_registry::Digest;
use spandrel_ztoc::tree::{InodeKind, Tree};
use spandrel_ztoc::{SpanTable, Ztoc};

use super::{Artifact, spans_of};
use crate::Error;
use crate::limits::{MAX_PREFETCH_FILES, MAX_PREFETCH_PATTERNS};

/// How many links are followed on the way to a file: what Linux does.
const MAX_LINKS: usize = 40;

/// The files that are wanted, as they were named.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Vec<Path>);

#[derive(Debug, Clone)]
struct Path {
    text: String,
    components: Components,
    /// When it has characters of a pattern.
    pattern: Option<GlobMatcher>,
}

/// A path's names, from the root on.
type Components = Vec<Vec<u8>>;

/// A pattern makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("prefetch file {text:?}: {what}")]
pub struct WantedError {
    /// The path or pattern.
    pub text: String,
    /// What is wrong with it.
    pub what: String,
}

impl Wanted {
    /// The files with these paths within the image. `/usr/bin/x`, `./usr/bin/x` and `usr/bin/../bin/x` are the same; `*`, `?`,
    /// `[…]` and `{…}` stand for more, within one name, and `**` for any number of folders.
    ///
    /// # Errors
    /// When a pattern can't be read, or there are too many.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Result<Self, WantedError> {
        let mut wanted = Vec::new();
        for text in paths {
            let fail = |what: String| WantedError { text: text.clone(), what };
            if wanted.len() >= MAX_PREFETCH_PATTERNS {
                return Err(fail(format!("more than {MAX_PREFETCH_PATTERNS} paths are named")));
            }
            let components = components(text.as_bytes());
            if components.is_empty() {
                return Err(fail("it names no file".to_owned()));
            }
            let pattern = if text.contains(['*', '?', '[', '{']) {
                let cleaned = String::from_utf8_lossy(&components.join(&b'/')).into_owned();
                let glob = GlobBuilder::new(&cleaned).literal_separator(true).build();
                Some(glob.map_err(|error| fail(error.kind().to_string()))?.compile_matcher())
            } else {
                None
            };
            wanted.push(Path { text, components, pattern });
        }
        Ok(Self(wanted))
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names from the root on; `..` leads up, but not above the root.
fn components(path: &[u8]) -> Components {
    let mut parts: Components = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part.to_vec()),
        }
    }
    parts
}

/// A layer of the image.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// Its digest.
    pub digest: &'a Digest,
    /// Its zTOC's bytes.
    pub ztoc: &'a [u8],
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Prefetched {
    /// For each layer, in the order they were given, what should be fetched of it.
    pub artifacts: Vec<Option<Artifact>>,
    /// What is in no layer, as it was named.
    pub missing: Vec<String>,
}

/// Finds the files `wanted` in the image of these layers, the lowest first. Layers that have no zTOC are unknown: what is in them
/// counts as missing, and what they hide as seen.
///
/// # Errors
/// When a zTOC can't be read, or a pattern fits more files than can be listed.
pub fn prefetch(layers: &[Layer<'_>], wanted: &Wanted) -> Result<Prefetched, Error> {
    let bad = |layer: &Layer<'_>, source| Error::Layer { layer: layer.digest.to_string(), source };
    let mut image = Image { layers: Vec::new() };
    for layer in layers {
        let (ztoc, _) = Ztoc::decode_without_windows(layer.ztoc).map_err(|error| bad(layer, error))?;
        let tree = Tree::new(&ztoc.entries, ztoc.uncompressed_size);
        let tree = match tree {
            Ok(tree) => tree,
            // Such a layer is unpacked by whoever mounts the image: no span of it is read.
            Err(error) => {
                tracing::warn!(layer = %layer.digest, %error, "nothing of this layer can be prefetched");
                Tree::new(&[], 0).map_err(|error| bad(layer, error.into()))?
            }
        };
        let spans = SpanTable::new(&ztoc).map_err(|error| bad(layer, error))?;
        image.layers.push((tree, spans));
    }
    let mut spans: Vec<BTreeSet<(u32, u32)>> = vec![BTreeSet::new(); layers.len()];
    let mut missing = Vec::new();
    for path in &wanted.0 {
        // A file may really be called so.
        let mut files: Vec<File> = image.file(&path.components).into_iter().collect();
        if let (true, Some(pattern)) = (files.is_empty(), &path.pattern) {
            files = image.matching(pattern)?;
        }
        if files.is_empty() {
            missing.push(path.text.clone());
        }
        for file in files {
            spans[file.layer].extend(spans_of(&image.layers[file.layer].1, file.range));
        }
    }
    Ok(Prefetched { artifacts: spans.into_iter().map(Artifact::of).collect(), missing })
}

/// A regular file.
#[derive(Debug, Clone)]
struct File {
    /// Number of the layer that has it.
    layer: usize,
    /// Where its bytes lie in the layer's stream.
    range: Range<u64>,
}

struct Image {
    layers: Vec<(Tree, SpanTable)>,
}

/// What one layer says of a path.
enum Said<'a> {
    /// This is there.
    Here(&'a InodeKind),
    /// Nothing; a lower one may.
    Nothing,
    /// It is gone, whatever lower ones have.
    Gone,
}

impl Image {
    /// The regular file at a path, through links.
    fn file(&self, path: &[Vec<u8>]) -> Option<File> {
        // What is left of the way, the next name last.
        let mut left: Components = path.iter().rev().cloned().collect();
        let (mut at, mut links) = (Components::new(), 0);
        loop {
            let name = left.pop()?;
            if name == b".." {
                at.pop();
                continue;
            }
            at.push(name);
            let (layer, kind) = self.find(&at)?;
            match kind {
                InodeKind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    at.pop();
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    let parts =
                        target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    left.extend(parts.map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().rev());
                }
                InodeKind::File { offset, size } if left.is_empty() => {
                    return Some(File { layer, range: *offset..offset.saturating_add(*size) });
                }
                InodeKind::Directory { .. } => {}
                _ => return None,
            }
        }
    }

    /// What the image has at a path (no name of which is a link, but the last), and in which layer.
    fn find(&self, path: &[Vec<u8>]) -> Option<(usize, &InodeKind)> {
        for (number, (tree, _)) in self.layers.iter().enumerate().rev() {
            match said(tree, path) {
                Said::Here(kind) => return Some((number, kind)),
                Said::Gone => return None,
                Said::Nothing => {}
            }
        }
        None
    }

    /// All regular files whose paths fit a pattern, and those that links so called lead to.
    fn matching(&self, pattern: &GlobMatcher) -> Result<Vec<File>, Error> {
        let mut paths: BTreeSet<Components> = BTreeSet::new();
        for (tree, _) in &self.layers {
            let mut folders: Vec<(Components, u32)> = vec![(Components::new(), 0)];
            while let Some((path, id)) = folders.pop() {
                let Some(InodeKind::Directory { children, .. }) = kind(tree, id) else { continue };
                for (name, child) in children {
                    let mut path = path.clone();
                    path.push(name.clone());
                    match kind(tree, *child) {
                        Some(InodeKind::Directory { .. }) => folders.push((path, *child)),
                        Some(InodeKind::File { .. } | InodeKind::Symlink(_))
                            if pattern.is_match(OsStr::from_bytes(&path.join(&b'/'))) =>
                        {
                            paths.insert(path);
                        }
                        _ => {}
                    }
                }
            }
            let found = paths.len() as u64;
            crate::index::limit("number of files that a prefetch pattern fits", found, MAX_PREFETCH_FILES)?;
        }
        Ok(paths.iter().filter_map(|path| self.file(path)).collect())
    }
}

fn kind(tree: &Tree, id: u32) -> Option<&InodeKind> {
    tree.inodes.get(usize::try_from(id).ok()?).map(|inode| &inode.kind)
}

/// What one layer says of a path.
fn said<'a>(tree: &'a Tree, path: &[Vec<u8>]) -> Said<'a> {
    let (mut id, mut hidden) = (0u32, false);
    for (nth, name) in path.iter().enumerate() {
        let Some(InodeKind::Directory { children, opaque }) = kind(tree, id) else { return Said::Gone };
        hidden |= opaque;
        let Some(&child) = children.get(name) else {
            return if hidden { Said::Gone } else { Said::Nothing };
        };
        match kind(tree, child) {
            Some(InodeKind::Whiteout) | None => return Said::Gone,
            Some(kind) if nth + 1 == path.len() => return Said::Here(kind),
            _ => id = child,
        }
    }
    Said::Nothing
}

//! Every bound on what an image or an index from a registry may claim, in one place, each with its reason.

/// Longest index manifest, image manifest or image index that is read, in bytes: 4 MiB, what registries accept at most
/// and what oras (and with it soci) reads.
pub const MAX_MANIFEST_LEN: u64 = 4 << 20;

/// Most layers of an image and entries of an index. Overlayfs stacks 500 layers at most; an index may list a zTOC and a
/// prefetch artifact for each.
pub const MAX_LAYERS: usize = 1024;

/// Longest prefetch artifact, in bytes: a list of ranges, some dozen bytes each.
pub const MAX_PREFETCH_LEN: u64 = 4 << 20;

/// Most manifests of an image index that are looked at: all platforms there are, their attestations and SOCI indexes fit
/// several times.
pub const MAX_MANIFESTS: usize = 1024;

/// Longest all manifests of an image together, in bytes: they are held until the last blob is copied. Each has some KiB.
pub const MAX_MANIFESTS_LEN: u64 = 64 << 20;

/// Longest image configuration that is read for its platform, in bytes. It lists the history of the image.
pub const MAX_CONFIG_LEN: u64 = 8 << 20;

/// How many version 1 indexes of one image are tried, when the ones before are broken. Anybody who may push can add
/// more, and each costs a request.
pub const MAX_REFERRERS_TRIED: usize = 8;

/// Most files of an archive with an image: a blob each, and docker's three files for each layer.
pub const MAX_ARCHIVE_FILES: u64 = 65536;

/// Longest all headers of an archive together, in bytes, with the long names that belong to them: 2 KiB for each of its files.
pub const MAX_ARCHIVE_HEADERS_LEN: u64 = MAX_ARCHIVE_FILES * 2048;

/// Most links in an archive that are followed from one to the next. docker writes one.
pub const MAX_ARCHIVE_LINKS: usize = 8;

/// Longest list in an image on disk that is read (`index.json`, `manifest.json`), in bytes: some ten thousand images.
pub const MAX_LIST_LEN: u64 = 16 << 20;

/// How deep image indexes may lie in one another when they are copied: one in another is all that is seen.
pub const MAX_INDEX_DEPTH: usize = 4;

/// Most paths and patterns that are named for prefetching. What a start reads are some hundred files.
pub const MAX_PREFETCH_PATTERNS: usize = 10_000;

/// Most files of a layer that one pattern may fit: all of a large layer's.
pub const MAX_PREFETCH_FILES: u64 = 1_000_000;

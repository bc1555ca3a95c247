//! What a zTOC says, as plain data: the entries of the tar and the compression's checkpoints.
//!
//! Reading and writing the bytes is `codec`'s; which spans the checkpoints make is `span`'s; what the entries mean as a
//! file system is `tree`'s.

use crate::digest::Sha256Digest;
use crate::{SpanId, WINDOW_LEN};

/// How a layer's blob is compressed, as far as a zTOC can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Gzip, of one member or many.
    Gzip,
    /// Not compressed: the blob is the tar.
    Uncompressed,
}

/// Type of a tar entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link; the target is [`Entry::linkname`], verbatim.
    Symlink,
    /// Another name of the entry called [`Entry::linkname`].
    Hardlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl EntryKind {
    const ALL: [Self; 7] =
        [Self::Regular, Self::Directory, Self::Symlink, Self::Hardlink, Self::Char, Self::Block, Self::Fifo];

    /// The word that a zTOC has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "reg",
            Self::Directory => "dir",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Char => "char",
            Self::Block => "block",
            Self::Fifo => "fifo",
        }
    }

    /// The type that a zTOC's word means, or `None` when it means none.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }
}

/// A point in time: seconds since 1970-01-01T00:00:00Z (negative before) and nanoseconds (below 1,000,000,000) on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// 0000-01-01T00:00:00Z and 10000-01-01T00:00:00Z in seconds: what the four digits of a zTOC's year can say.
    pub(crate) const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

    /// A time, or `None` where a zTOC can't say it.
    pub(crate) fn of_text(seconds: i64, nanoseconds: u32) -> Option<Self> {
        Self::YEARS.contains(&seconds).then_some(Self { seconds, nanoseconds })
    }
}

/// One entry of a layer's tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name as the tar has it (bytes, not text), after PAX and GNU long names: may begin with `./` or `/`.
    pub name: Vec<u8>,
    /// Type of the entry.
    pub kind: EntryKind,
    /// Where the entry's data begins in the stream, in bytes: the first byte after its last header block.
    pub offset: u64,
    /// Length of the data in bytes; 0 for everything but regular files.
    pub size: u64,
    /// Target of a symbolic or hard link, verbatim.
    pub linkname: Vec<u8>,
    /// The mode field as the tar has it; the reader's part is `mode & 0o7777`.
    pub mode: i64,
    /// Owner, truncated to 32 bits as the format has it.
    pub uid: u32,
    /// Group, truncated to 32 bits as the format has it.
    pub gid: u32,
    /// Owner's name; kept, never used.
    pub uname: Vec<u8>,
    /// Group's name; kept, never used.
    pub gname: Vec<u8>,
    /// Time of modification; `None` where the format can't say it (years outside 0 to 9999) or it couldn't be read.
    pub mtime: Option<Timestamp>,
    /// Major device number, for devices.
    pub devmajor: i64,
    /// Minor device number, for devices.
    pub devminor: i64,
    /// All PAX records of the entry, sorted by key; extended attributes are the keys `SCHILY.xattr.*`.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Where its data lie in the stream; empty for everything but regular files. What lies past the largest offset there can be
    /// is cut.
    pub fn data(&self) -> std::ops::Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

/// A point at which decompression can begin, without its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Offset in the blob of the first whole byte that isn't consumed yet.
    pub compressed_offset: u64,
    /// Offset in the stream.
    pub uncompressed_offset: u64,
    /// How many high-order bits of the byte before `compressed_offset` belong to this span, 0 to 7.
    pub bits: u8,
}

/// A decoded, validated zTOC. Windows aren't kept apart: [`Ztoc::windows`] holds them in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ztoc {
    /// Version of the format; written as `0.9`, never looked at.
    pub version: Vec<u8>,
    /// Who built it, e.g. `AWS SOCI CLI v0.2`.
    pub build_tool: Vec<u8>,
    /// Length of the layer's blob in bytes.
    pub compressed_size: u64,
    /// Where the tar ends in the stream, in bytes: also the end of the last span.
    pub uncompressed_size: u64,
    /// The tar's entries in their order.
    pub entries: Vec<Entry>,
    /// How the blob is compressed.
    pub compression: Compression,
    /// The span size that was asked for when it was built, in bytes of stream.
    pub span_size: u64,
    /// One checkpoint for each span.
    pub checkpoints: Vec<Checkpoint>,
    /// One window of [`crate::WINDOW_LEN`] bytes for each checkpoint (gzip), one after the other; empty for plain tar.
    pub windows: Vec<u8>,
    /// SHA-256 of each span's compressed bytes.
    pub span_digests: Vec<Sha256Digest>,
    /// Whether the zInfo blob leaves the first checkpoint out (the layout of tools before 0.1.0).
    pub first_checkpoint_implied: bool,
}

impl Ztoc {
    /// The window that span `id` is decoded with: empty where it has none (plain tar), or where the windows were left in the
    /// encoded zTOC ([`Ztoc::decode_without_windows`]).
    pub fn window(&self, id: SpanId) -> &[u8] {
        let start = usize::try_from(id.0).unwrap_or(usize::MAX).saturating_mul(WINDOW_LEN);
        self.windows.get(start..start.saturating_add(WINDOW_LEN)).unwrap_or_default()
    }
}

/// The PAX record by which an entry is a sparse file, of those that `record` finds by key. Its size in a zTOC is that of the
/// file and not of its data, so what lies at its offset is neither all of it nor in its place.
pub(crate) fn sparse_key<'a>(record: impl Fn(&str) -> Option<&'a [u8]>) -> Option<&'static str> {
    let value = |key: &str| record(key).filter(|value| !value.is_empty());
    match (value("GNU.sparse.major"), value("GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) | (Some(b"0"), Some(b"0" | b"1")) => Some("GNU.sparse.major"),
        (None, None) => value("GNU.sparse.map").map(|_| "GNU.sparse.map"),
        _ => None, // of a version nobody knows: plain records
    }
}

//! Walks a tar stream and yields its entries: a push parser, fed as the bytes pass, with no I/O of its own.

use crate::model::Entry;

/// Which tars are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarRules {
    /// What goes into a zTOC: everything the Go builder refuses is refused (global headers, sparse files, odd types).
    Index,
    /// What containerd can unpack: global headers are passed over.
    Fill,
}

/// Why a tar can't be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// A header is malformed.
    #[error("invalid tar header at byte {offset} of the stream: {what}")]
    Header {
        /// Offset of the header block in the stream.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The entry's type can't be in a table of contents (or not in this mode): `S`, `7`, ...
    #[error("unsupported tar entry type {kind:?} at byte {offset} of the stream")]
    Unsupported {
        /// Offset of the header block in the stream.
        offset: u64,
        /// The type byte, or the word `sparse`.
        kind: String,
    },
    /// The stream ends within an entry.
    #[error("the tar ends early, at byte {offset} of the stream")]
    Truncated {
        /// Length of what there is.
        offset: u64,
    },
    /// A size or count is above its named limit.
    #[error("tar: {what} is {value}, above the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
}

/// The entries of a whole tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The entries in their order.
    pub entries: Vec<Entry>,
    /// Where the archive ends in the stream, in bytes (see `uncompressed_archive_size` in docs/formats.md).
    pub archive_end: u64,
}

/// A walk in progress.
#[derive(Debug)]
pub struct TarWalk {}

impl TarWalk {
    /// A walk from the start of a stream.
    pub fn new(_rules: TarRules) -> Self {
        todo!()
    }

    /// Takes the next bytes of the stream, of any length.
    ///
    /// # Errors
    /// When what was seen so far is no tar, or not one that the rules accept.
    pub fn push(&mut self, _bytes: &[u8]) -> Result<(), TarError> {
        todo!()
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// When it ended within an entry.
    pub fn finish(self) -> Result<Toc, TarError> {
        todo!()
    }
}

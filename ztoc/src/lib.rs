//! The zTOC format: a table of contents and decompressor checkpoints for one image layer.
//!
//! No I/O beyond `Read`, nothing async, no unsafe code.
#![forbid(unsafe_code)]

pub mod build;
mod codec;
mod decode;
mod digest;
mod error;
mod gzip;
pub mod limits;
mod model;
mod prefix;
mod scan;
mod span;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod zinfo;

pub use decode::{SpanDecoder, decode_span};
pub use digest::{DigestError, Sha256Digest};
pub use error::Error;
pub use model::{Checkpoint, Compression, Entry, EntryKind, Timestamp, Ztoc};
pub use span::{Span, SpanId, SpanTable, WindowMap};

/// Length of a deflate window in bytes.
pub const WINDOW_LEN: usize = 32 * 1024;

/// Span size where none is asked for: 4 MiB, as soci has it.
pub const DEFAULT_SPAN_SIZE: u64 = 4 << 20;

/// What our builder calls itself in a zTOC: the builder's format, not the release, so that digests last.
pub const BUILD_TOOL: &str = "Spandrel zTOC v1";

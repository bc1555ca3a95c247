//! The zTOC format: a table of contents and decompressor checkpoints for one image layer.
//!
//! | to | use |
//! |---|---|
//! | make the index of a layer | [`build::build`] |
//! | read or write one | [`Ztoc::decode`], [`Ztoc::encode`] |
//! | know which bytes of the blob hold a range of the stream | [`SpanTable`] |
//! | decode a span | [`SpanDecoder`], [`decode_span`] |
//! | fill a layer in full | [`unpack::StreamReader`], [`tar::TarWalk`] |
//! | know what a layer is as a file system | [`tree::Tree`] |
//!
//! No I/O beyond `Read`, nothing async, no unsafe code.
//!
//! A single file, with no more of the blob than holds it:
//!
//! ```
//! use spandrel_ztoc::{Entry, Error, Sha256Digest, SpanTable, Ztoc, decode_span};
//!
//! /// The content of `entry`. `fetch` gets a range of the layer's blob.
//! fn content(
//!     ztoc: &Ztoc,
//!     entry: &Entry,
//!     fetch: impl Fn(std::ops::Range<u64>) -> Vec<u8>,
//! ) -> Result<Vec<u8>, Error> {
//!     let spans = SpanTable::new(ztoc)?;
//!     let mut content = Vec::new();
//!     // `spans.compressed(entry.data())` is all of it as one range, for one request.
//!     for piece in spans.pieces(entry.data()) {
//!         let span = &piece.span;
//!         let bytes = fetch(span.compressed.clone());
//!         if Sha256Digest::of(&bytes) != span.digest {
//!             panic!("not the layer that this zTOC is of"); // an error, in earnest
//!         }
//!         let len = (span.uncompressed.end - span.uncompressed.start) as usize;
//!         let decoded = decode_span(ztoc.compression, span.bits, ztoc.window(span.id), &bytes, len)?;
//!         content.extend_from_slice(piece.cut(&decoded).expect("has the span's length"));
//!     }
//!     Ok(content)
//! }
//!
//! # use spandrel_ztoc::{build::{BuildOptions, build}, Compression};
//! # let mut tar = vec![0; 4096];
//! # tar[..4].copy_from_slice(b"name");
//! # tar[124..135].copy_from_slice(b"00000001750");
//! # tar[148..155].copy_from_slice(b"0002276");
//! # tar[512..1512].fill(b'x');
//! // Of plain tar here, in spans of 400 bytes.
//! let options = BuildOptions { span_size: 400, ..BuildOptions::default() };
//! let ztoc = build(&tar[..], Compression::Uncompressed, &options)?.ztoc;
//! let file = &ztoc.entries[0];
//! let read = content(&ztoc, file, |range| tar[range.start as usize..range.end as usize].to_vec())?;
//! assert_eq!(read, [b'x'; 1000]);
//! # Ok::<(), Error>(())
//! ```
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
pub use span::{Piece, Span, SpanId, SpanTable, WindowMap};

/// Length of a deflate window in bytes.
pub const WINDOW_LEN: usize = 32 * 1024;

/// Span size where none is asked for: 4 MiB, as soci has it.
pub const DEFAULT_SPAN_SIZE: u64 = 4 << 20;

/// What our builder calls itself in a zTOC: the builder's format, not the release, so that digests last.
pub const BUILD_TOOL: &str = "Spandrel zTOC v1";

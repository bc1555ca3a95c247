//! The bounds of fetching, each with its reason. Those that operators choose are in `layer::StoreOptions`.

use std::time::Duration;

/// Longest range that neighbouring spans are merged into, in compressed bytes: beyond it a second connection is sooner
/// done (an S3 connection gives 90 MB/s), and a first span isn't held up by those behind it since all are decoded as
/// they arrive.
pub(super) const MAX_REQUEST_LEN: u64 = 16 << 20;

/// Longest stretch of stream that one request is made for, in bytes: its memory is taken before it is sent. Also the longest
/// span of a layer that is read lazily, which is decoded in memory as a whole: 16 times what tools make, and a quarter of
/// the memory that spans have by default.
pub(crate) const MAX_DECODED_LEN: u64 = 64 << 20;

/// Requests of one layer that are under way at a time: a registry that answers nothing then holds up its own layer's
/// reads, and no other's.
pub(super) const LAYER_FETCHES: usize = 16;

/// Wait before a failed request is made again; doubles with each failure. The client has made its own quick retries.
pub(super) const MIN_BACKOFF: Duration = Duration::from_millis(250);

/// Longest such wait: when a registry comes back, reads go on within this time.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How often a span whose bytes aren't what the index says is fetched: a second time, in case a proxy had kept damaged bytes.
pub(super) const CORRUPT_TRIES: u32 = 2;

/// Unit in which memory is counted, in bytes: a semaphore counts in 32 bits.
pub(super) const MEMORY_UNIT: u64 = 4096;

/// Longest tar header with its extensions that is compared with an index, in bytes: long names, and attributes that a file
/// system can hold. A layer with a longer one is filled in full.
pub(super) const MAX_HEADER_LEN: u64 = 64 << 10;

/// Most bytes of a layer's headers that lie across the borders of spans: pieces of them are kept in memory until the rest
/// comes. A border is in a header of 1 or 2 KiB now and then. A layer with more is filled in full.
pub(super) const MAX_CROSSING_LEN: u64 = 8 << 20;

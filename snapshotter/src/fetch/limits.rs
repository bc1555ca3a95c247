//! The bounds of fetching, each with its reason. Those that operators choose are in `layer::StoreOptions`.

use std::time::Duration;

/// Longest range that one request asks for, in compressed bytes (a longer span is asked for alone): beyond it a second
/// connection is sooner done (an S3 connection gives 90 MB/s), and a first span isn't held up by those behind it since all
/// are decoded as they arrive.
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

/// Part of the node's requests and memory that one host may have: a half. One that never answers, or one byte a minute,
/// leaves the rest to the layers of others; 32 connections still fill any link.
pub(super) const HOST_SHARE: u32 = 2;

/// Part of the memory that only those have who wait for something: a quarter, which is 16 spans of the usual 4 MiB.
pub(super) const DEMAND_MEMORY_SHARE: u64 = 4;

/// Part of a host's requests that is left to those who wait for something: a quarter.
pub(super) const RESERVED_SHARE: usize = 4;

/// Longest stretch of stream that one request is made for that nobody waits for, in bytes: several of them shall find room
/// in the memory, and each can give way after a span.
pub(super) const BACKGROUND_DECODED_LEN: u64 = 24 << 20;

/// Requests that nobody waits for that a host is sent at a time before it is known what it bears, and at least: two fill a line
/// that one connection fills while they take turns in waiting for their first byte.
pub(super) const FIRST_REQUESTS: usize = 3;
pub(super) const MIN_REQUESTS: usize = 2;

/// How long is measured before more requests are allowed, or fewer: some requests' time.
pub(super) const MEASURE_TIME: Duration = Duration::from_millis(100);

/// Shortest range that requests are made for where more is wanted, in bytes: what a round trip of 10 ms is worth at 1 Gbit/s.
pub(super) const MIN_REQUEST_LEN: u64 = 1 << 20;

/// How many round trips' worth of bytes one request asks for: the wait for the first byte is a fifth of its time then.
pub(super) const REQUEST_ROUND_TRIPS: u32 = 4;

/// What one connection is taken to bring before it was measured, in bytes a second: that of S3.
pub(super) const USUAL_BANDWIDTH: u64 = 90_000_000;

/// Time to the first byte before it was measured: that of S3, about.
pub(super) const USUAL_ROUND_TRIP: Duration = Duration::from_millis(30);

/// Most spans that a reader is read ahead by: 64 MiB of the usual ones.
pub(super) const MAX_WINDOW: u32 = 16;

/// How long nobody must have waited for a host before the background goes on, where it is to be quiet: longer than a program
/// thinks between two reads of its start.
pub(super) const QUIET: Duration = Duration::from_millis(500);

/// For so many round trips nobody must have waited for a host before the background asks it for more, however eager it is. Who
/// reads one file after the other asks again within one; what was asked for in between would be on the line before it, and
/// take what a start can spare least. 32 layers of which one file each is read were ready in 3.8 s without this rule, in 2.8 s
/// with it and in 2.7 s with no background at all; programs that compute between their reads lost nothing.
pub(super) const BACKGROUND_ROUND_TRIPS: u32 = 2;

/// How long after a mount the background waits for a first reader: until then the image may still be on its way, and what it
/// lacks is worth more than what nobody reads yet. Longer than containerd needs for the other layers of an image that are
/// small, and from the last of them to the container's start.
pub(super) const PULL_PATIENCE: Duration = Duration::from_secs(2);

/// First bytes that must have been seen before one counts as late.
pub(super) const HEDGE_SAMPLES: usize = 20;

/// A first byte is late when it takes half as long again as 95 of 100 (so many halves).
pub(super) const HEDGE_FACTOR: u32 = 3;

/// Shortest wait before a request is sent a second time: less is within what a busy machine needs.
pub(super) const MIN_HEDGE: Duration = Duration::from_millis(30);

/// One request in so many is sent a second time at most: 5 %.
pub(super) const HEDGE_SHARE: u64 = 20;

/// Length of the pieces in which whole blobs are fetched, in bytes: long beside a round trip, and short enough that a few of each
/// layer find room in the memory.
pub(super) const PIECE_LEN: u64 = 4 << 20;

/// Length of the first piece of a blob that has several: inflating it begins while the others come.
pub(super) const FIRST_PIECE_LEN: u64 = 1 << 20;

/// Pieces of one blob that are under way, or wait for those before them, at a time: one is inflated while another arrives, and
/// storage that gives 90 MB/s on a connection fills 2.5 Gbit/s.
pub(super) const PIECES_AT_ONCE: usize = 4;

/// How often a piece is asked for without getting on; the client has made its own quick retries each time.
pub(super) const PIECE_TRIES: u32 = 4;

/// Bytes by which a piece has got on.
pub(super) const MIN_PROGRESS: u64 = 64 << 10;

/// How often a span whose bytes aren't what the index says is fetched: a second time, in case a proxy had kept damaged bytes.
pub(super) const CORRUPT_TRIES: u32 = 2;

/// How often a read asks for a span whose fetch ended without a word (a panic).
pub(super) const ABANDONED_TRIES: u32 = 3;

/// Longest tar header with its extensions that is compared with an index, in bytes: long names, and attributes that a file
/// system can hold. A layer with a longer one is filled in full.
pub(super) const MAX_HEADER_LEN: u64 = 64 << 10;

/// Most bytes of a layer's headers that lie across the borders of spans: pieces of them are kept in memory until the rest
/// comes. A border is in a header of 1 or 2 KiB now and then. A layer with more is filled in full.
pub(super) const MAX_CROSSING_LEN: u64 = 8 << 20;

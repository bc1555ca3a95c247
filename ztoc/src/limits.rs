//! Every bound on what a zTOC, a tar or a stream may claim, in one place, each with its reason.

/// Longest zTOC that is read, in bytes. The largest seen (a TensorFlow layer of 45,000 entries) has 16 MB.
pub const MAX_ZTOC_LEN: u64 = 1 << 30;

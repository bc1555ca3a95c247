//! Every bound on what a zTOC, a tar or a stream may claim, in one place, each with its reason.

/// Longest zTOC that is read, in bytes. The largest seen (a TensorFlow layer of 45,000 entries) has 16 MB.
pub const MAX_ZTOC_LEN: u64 = 1 << 30;

/// Most spans of one layer: 4 TiB in spans of 4 MiB, and with gzip more than [`MAX_ZTOC_LEN`] holds windows for.
pub const MAX_SPANS: u64 = 1 << 20;

/// Longest blob and longest stream, in bytes: an EROFS table counts a stream's blocks of 512 bytes in 32 bits.
pub const MAX_STREAM_LEN: u64 = 1 << 41;

/// Longest span, in bytes of stream: it is inflated in memory as a whole. Spans are as long as the span size and one deflate
/// block, which is some MiB at most with the encoders there are (16 MiB of zeros with zlib's longest blocks).
pub const MAX_SPAN_LEN: u64 = 1 << 30;

/// Deflate's best ratio: 258 bytes for a length code of one bit and a distance code of one bit, 1032 to 1.
pub const MAX_RATIO: u64 = 1032;

/// What a span may hold above [`MAX_RATIO`], in bytes: the bytes of a block whose end lies in the span's first byte.
pub const RATIO_SLACK: u64 = 64 * 1024;

/// Fewest bytes of zTOC for each entry that it claims: one place in the vector, and a table of a length word and the
/// seven fields that are never left out. What claims more entries names one table many times.
pub const MIN_ENTRY_LEN: usize = 32;

/// How often the strings of a zTOC may be longer, taken together, than the zTOC: a writer may share equal strings (an
/// owner's name, the target of many hard links), and a hostile one could share a long one a million times.
pub const MAX_STRING_SHARING: usize = 4;

/// Longest body of a tar's extension header (PAX records, GNU long names), in bytes: Go's own limit, so that no layer has more.
pub const MAX_EXTENSION_LEN: u64 = 1 << 20;

/// Most entries of a tar. Layers of a million files have been seen, and a file system of 64 GB has four million inodes.
pub const MAX_ENTRIES: u64 = 1 << 22;

/// How long the strings of a tar's entries may be, taken together, in bytes: for [`MAX_ENTRIES`] 128 bytes each, and half of what
/// [`MAX_ZTOC_LEN`] leaves them. A tar of PAX records alone would otherwise be held in memory as a whole.
pub const MAX_TOC_LEN: u64 = 1 << 29;

/// What a PAX record counts for [`MAX_TOC_LEN`] besides its key and value, in bytes: two vectors, and their place in the heap.
pub const RECORD_COST: u64 = 96;

/// Most inodes of a tree, with the directories that no entry names: a path of 4 KiB names two thousand of them.
pub const MAX_INODES: u64 = MAX_ENTRIES;

/// Longest name of a file, in bytes: NAME_MAX of Linux and of EROFS.
pub const MAX_NAME_LEN: usize = 255;

/// Longest path from the layer's root, in bytes: PATH_MAX of Linux without its NUL, so that no tool could have unpacked it.
pub const MAX_PATH_LEN: usize = 4095;

/// Longest target of a symbolic link, in bytes: what Linux and EROFS hold.
pub const MAX_LINK_LEN: usize = 4095;

/// Most symbolic links on the way to one name: containerd's limit.
pub const MAX_LINKS: usize = 255;

/// Most steps through paths with symbolic links in them, of all a layer's entries together. A few million are a second's work;
/// a layer of a hundred thousand names below a link takes ten each.
pub const MAX_LINK_STEPS: u64 = 1 << 24;

/// Largest window of a zstd frame, as a power of two, in bytes: 128 MiB, which is what the zstd tool itself accepts.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;

//! The figures as they are today. Whoever changes one changes it here, in the same commit, and the change is there to be seen.
//! Where a figure isn't good yet its line says what would be.

use std::ops::RangeInclusive;

use spandrel_fixtures::scripted::Kind::{self, Blob, BlobRange, Manifest, Referrers, Resolve};
use spandrel_soci::index::Version;

use super::node::{PLAIN, Way};
use super::sheet::{Bounds, Figure};

/// Requests until the first byte of a file.
#[derive(Debug)]
pub struct Start {
    /// Of what.
    pub what: &'static str,
    /// How many layers the image has, all of them lazy.
    pub layers: u64,
    /// How it gets here.
    pub way: Way,
    /// Requests by kind. A round begins when all of the one before have been answered, so there are as many as the longest
    /// chain of requests is long.
    pub rounds: &'static [&'static [(Kind, u64)]],
}

const V1: Way = Way { version: Version::V1, ..PLAIN };

/// From the first Prepare to the first byte of a small file in the lowest layer, read through the container's mount.
///
/// What the rounds are: the index (v1: what refers to the image, by the API and by the tag that stands in for it, and then the
/// index); all zTOCs; the file's span. With redirects zTOCs take two rounds, and the layers' redirects are asked for in the
/// second of these: the first has shown that the registry redirects. A daemon that knows it asks for them beside the index.
/// Better would be: a zTOC only for a layer that is read (31 requests fewer), or all of them in one blob.
pub const STARTS: &[Start] = &[
    Start {
        what: "1 layer, index v2",
        layers: 1,
        way: PLAIN,
        rounds: &[&[(Manifest, 1)], &[(Blob, 1)], &[(BlobRange, 1)]],
    },
    Start {
        what: "32 layers, index v2",
        layers: 32,
        way: PLAIN,
        rounds: &[&[(Manifest, 1)], &[(Blob, 32)], &[(BlobRange, 1)]],
    },
    Start {
        what: "1 layer, index v1",
        layers: 1,
        way: V1,
        rounds: &[&[(Referrers, 1), (Manifest, 1)], &[(Manifest, 1)], &[(Blob, 1)], &[(BlobRange, 1)]],
    },
    Start {
        what: "32 layers, index v1",
        layers: 32,
        way: V1,
        rounds: &[&[(Referrers, 1), (Manifest, 1)], &[(Manifest, 1)], &[(Blob, 32)], &[(BlobRange, 1)]],
    },
    Start {
        what: "1 layer, index v2, redirects",
        layers: 1,
        way: Way { redirect: true, ..PLAIN },
        rounds: &[&[(Manifest, 1)], &[(Resolve, 1)], &[(Blob, 1), (Resolve, 1)], &[(BlobRange, 1)]],
    },
    Start {
        what: "32 layers, index v2, redirects",
        layers: 32,
        way: Way { redirect: true, ..PLAIN },
        rounds: &[&[(Manifest, 1)], &[(Resolve, 32)], &[(Blob, 32), (Resolve, 32)], &[(BlobRange, 1)]],
    },
    Start {
        what: "100 layers, index v2, redirects",
        layers: 100,
        way: Way { redirect: true, ..PLAIN },
        rounds: &[&[(Manifest, 1)], &[(Resolve, 100)], &[(Blob, 100), (Resolve, 100)], &[(BlobRange, 1)]],
    },
    Start {
        what: "32 layers, index v1, redirects",
        layers: 32,
        way: Way { redirect: true, ..V1 },
        rounds: &[
            &[(Referrers, 1), (Manifest, 1)],
            &[(Manifest, 1)],
            &[(Resolve, 32)],
            &[(Blob, 32), (Resolve, 32)],
            &[(BlobRange, 1)],
        ],
    },
    Start {
        what: "32 layers, index v2, without containerd's content",
        layers: 32,
        way: Way { containerd: false, ..PLAIN },
        rounds: &[&[(Manifest, 1)], &[(Manifest, 1), (Blob, 1)], &[(Blob, 32)], &[(BlobRange, 1)]],
    },
];

/// What comes of a layer for some reads.
#[derive(Debug)]
pub struct Fetch {
    /// Which reads.
    pub what: &'static str,
    /// Bytes of the layer's blob, as they were sent.
    pub bytes: u64,
    /// Requests, of every kind: the fewest and the most. How many spans are asked for together depends on how fast the registry
    /// was before.
    pub requests: RangeInclusive<u64>,
}

/// One span, a thousand times what is read. Better: less than a span, where what was read can be checked without the rest.
pub const ONE_SMALL: Fetch = Fetch { what: "one file of 4 KiB", bytes: 4_260_100, requests: 1..=1 };

/// A span and a request for each, and one more: two of the files lie so near one another that their reader is taken for one who
/// goes on.
pub const TEN_SMALL: Fetch =
    Fetch { what: "ten files of 4 KiB in ten other spans", bytes: 46_861_100, requests: 10..=11 };

/// The span that the file begins in, and the one after it: the file lies behind the one that was read last.
pub const LARGE_START: Fetch =
    Fetch { what: "the first 4 KiB of a file of 64 MiB", bytes: 8_520_200, requests: 1..=2 };

/// All that is missing of it, read ahead, in a request for each span at most: near a registry a request for more of them would
/// bring nothing.
pub const LARGE_WHOLE: Fetch = Fetch {
    what: "all of the file of 64 MiB, the first two spans of which are there",
    bytes: 59_100_533,
    requests: 1..=14,
};

/// From the disk.
pub const LARGE_AGAIN: Fetch =
    Fetch { what: "the file of 64 MiB again, not in the page cache", bytes: 0, requests: 0..=0 };

/// One span. That nothing but zeros lies behind the tar's end is proved by the digest of the whole layer, and not fetched.
pub const THE_REST: Fetch =
    Fetch { what: "all other files, until the layer is verified", bytes: 4_260_100, requests: 1..=1 };

/// A lookup, an open and a getattr for the layer's one device file. There can hardly be fewer.
pub const MOUNT: Figure = Figure { what: "FUSE requests, start of a container of one layer", today: 3 };

/// Names, attributes and directories are the kernel's own.
pub const FIND: Figure = Figure { what: "FUSE requests, find with stat over 1,225 names", today: 0 };

/// One read, of all of the file.
pub const SMALL_COLD: Figure = Figure { what: "FUSE requests, a file of 4 KiB for the first time", today: 1 };

/// From the page cache.
pub const SMALL_WARM: Figure = Figure { what: "FUSE requests, the same file again", today: 0 };

/// One for each MiB, and some until the kernel's read-ahead has its whole length. Not exact: EROFS puts at most 16 pieces of
/// memory into one request, and how many pieces a window has depends on how large ones the kernel finds. With a read-ahead of
/// the usual 128 KiB there would be 512 and more.
pub const LARGE_COLD: Bounds =
    Bounds { what: "FUSE requests, 64 MiB in sequence, nothing there", least: 64, most: 96 };

/// From the page cache.
pub const LARGE_WARM: Figure =
    Figure { what: "FUSE requests, 64 MiB in sequence, in the page cache", today: 0 };

/// As [`LARGE_COLD`]: whether the spans are there makes no difference.
pub const LARGE_FILLED: Bounds =
    Bounds { what: "FUSE requests, 64 MiB in sequence, on the disk", least: 64, most: 96 };

/// An open, and a read for each MiB: the most that the kernel and the daemon have agreed on, whatever EROFS makes of it.
pub const DEVICE: Figure =
    Figure { what: "FUSE requests, 64 MiB straight from the device by 1 MiB", today: 65 };

/// A hole as long as the stream.
pub const DISK_NONE: Figure = Figure { what: "bytes of a stream's file, nothing read", today: 0 };

/// One span, in whole pages.
pub const DISK_SMALL: Figure =
    Figure { what: "bytes of a stream's file, 4 KiB of it read", today: 4_263_936 };

/// The tar without the padding at its end, in whole pages. What the files hold is kept once, not in files of their own.
pub const DISK_ALL: Figure = Figure { what: "bytes of a stream's file, all of it read", today: 122_986_496 };

/// As many as stay open, however many layers there are: what was used last. Three files of each would be 300.
/// Few less where a layer's were just closed.
pub const OPEN_LAYERS: Bounds =
    Bounds { what: "descriptors of layers' files, 100 layers mounted and read", least: 250, most: 256 };

/// Those, the device, sockets and the database; connections to the registry come and go.
pub const OPEN_ALL: Bounds =
    Bounds { what: "descriptors of the daemon, 100 layers mounted and read", least: 270, most: 360 };

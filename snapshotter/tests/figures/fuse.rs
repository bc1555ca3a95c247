//! Requests of the kernel to the daemon: each is a round trip to user space.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::image::{LARGE, LARGE_FILE, PARTS, SMALL, SMALL_FILES, content, deep, small, small_content};
use super::node::{Node, PLAIN, blocking, find, forget, read_start, reads_as};
use super::sheet::{Bounds, Figure, Sheet};
use super::values::{DEVICE, FIND, LARGE_COLD, LARGE_FILLED, LARGE_WARM, MOUNT, SMALL_COLD, SMALL_WARM};

/// How often a warm read is tried: it takes a fraction of a second, and a page cache isn't dropped as often as that.
const WARM_TRIES: usize = 5;

/// Requests since the last time.
struct Meter<'a> {
    node: &'a Node,
    before: u64,
    sheet: Sheet,
}

impl Meter<'_> {
    async fn see(&mut self, figure: &Figure) {
        let seen = self.since().await;
        self.sheet.see(figure, seen);
    }

    /// The fewest that `again` needs of some tries: whoever drops the machine's page cache, or needs its memory, in between
    /// makes it more.
    async fn see_warm(&mut self, figure: &Figure, again: impl AsyncFn()) {
        let mut fewest = u64::MAX;
        for _ in 0..WARM_TRIES {
            again().await;
            fewest = fewest.min(self.since().await);
            if fewest <= figure.today {
                break;
            }
        }
        self.sheet.see(figure, fewest);
    }

    async fn see_within(&mut self, bounds: &Bounds) {
        let seen = self.since().await;
        self.sheet.see_within(bounds, seen);
    }

    async fn since(&mut self) -> u64 {
        let now = self.node.fuse_requests().await;
        now - std::mem::replace(&mut self.before, now)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_kernel() {
    let Some(mut node) = Node::start(&deep(), PLAIN).await else { return };
    let before = node.fuse_requests().await;
    let merged = node.start_container().await;
    let mut meter = Meter { node: &node, before, sheet: Sheet::default() };
    meter.see(&MOUNT).await;

    let names = blocking({
        let merged = merged.clone();
        move || find(&merged)
    });
    assert_eq!(names.await, PARTS * (SMALL_FILES + 2) + 1);
    meter.see(&FIND).await;

    let small_file = async || {
        assert!(read_start(merged.join(small(3, 3)), SMALL).await == small_content(3, 3));
    };
    small_file().await;
    meter.see(&SMALL_COLD).await;
    meter.see_warm(&SMALL_WARM, small_file).await;

    let large = merged.join(LARGE_FILE);
    let large_file = async || assert!(reads_as(large.clone(), content(0, LARGE)).await);
    large_file().await;
    meter.see_within(&LARGE_COLD).await;
    meter.see_warm(&LARGE_WARM, large_file).await;
    node.wait_until_written().await;
    forget(large.clone()).await;
    large_file().await;
    meter.see_within(&LARGE_FILLED).await;

    let device = node.device();
    blocking(move || read_device(&device)).await;
    meter.see(&DEVICE).await;
}

/// Reads as many bytes as the large file has straight from the device, each MiB by one read into whole pages.
fn read_device(device: &Path) {
    const MIB: usize = 1 << 20;
    const PAGE: usize = 4096;
    let device = File::open(device).expect("opens");
    let mut buffer = vec![0; MIB + PAGE];
    let start = buffer.as_ptr().align_offset(PAGE);
    for number in 0..LARGE / MIB {
        let part = &mut buffer[start..start + MIB];
        device.read_exact_at(part, (number * MIB) as u64).expect("reads");
    }
}

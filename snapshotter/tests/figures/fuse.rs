//! Requests of the kernel to the daemon: each is a round trip to user space.

use super::image::{LARGE, LARGE_FILE, PARTS, SMALL, SMALL_FILES, content, deep, small, small_content};
use super::node::{Node, PLAIN, blocking, find, forget, read_start, reads_as};
use super::sheet::{Bounds, Figure, Sheet};
use super::values::{FIND, LARGE_COLD, LARGE_FILLED, LARGE_WARM, MOUNT, SMALL_COLD, SMALL_WARM};

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

    for figure in [&SMALL_COLD, &SMALL_WARM] {
        assert!(read_start(merged.join(small(3, 3)), SMALL).await == small_content(3, 3));
        meter.see(figure).await;
    }

    let large = merged.join(LARGE_FILE);
    assert!(reads_as(large.clone(), content(0, LARGE)).await);
    meter.see_within(&LARGE_COLD).await;
    assert!(reads_as(large.clone(), content(0, LARGE)).await);
    meter.see(&LARGE_WARM).await;
    node.wait_until_written().await;
    forget(large.clone()).await;
    assert!(reads_as(large, content(0, LARGE)).await);
    meter.see_within(&LARGE_FILLED).await;
}

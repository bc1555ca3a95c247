//! Bytes of a layer that come from the registry for given reads, one after the other on the same node.

use super::image::{LARGE, LARGE_FILE, PARTS, SMALL, SMALL_FILES, content, deep, small, small_content};
use super::node::{Node, PLAIN, forget, read_start, reads_as};
use super::sheet::Sheet;
use super::values::{Fetch, LARGE_AGAIN, LARGE_START, LARGE_WHOLE, ONE_SMALL, TEN_SMALL, THE_REST};

/// Parts of which a file is read.
const TEN: u64 = 10;

/// Bytes and requests since the last time.
struct Meter<'a> {
    node: &'a Node,
    bytes: u64,
    requests: usize,
    sheet: Sheet,
}

impl Meter<'_> {
    async fn see(&mut self, figure: &Fetch) {
        // What is read ahead counts, too.
        self.node.wait_until_written().await;
        let bytes = self.node.sent().await;
        let requests = self.node.registry.log().len();
        self.sheet.see_that(&format!("bytes fetched, {}", figure.what), figure.bytes, bytes - self.bytes);
        let made = (requests - self.requests) as u64;
        let (least, most) = (*figure.requests.start(), *figure.requests.end());
        let nearest = made.clamp(least, most);
        self.sheet.see_that(&format!("requests, {} (from {least} to {most})", figure.what), nearest, made);
        (self.bytes, self.requests) = (bytes, requests);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_fetched_for_reads() {
    let Some(mut node) = Node::start(&deep(), PLAIN).await else { return };
    let merged = node.start_container().await;
    assert_eq!(node.sent().await, 0, "of a lazy layer before it is read");
    let requests = node.registry.log().len();
    let mut meter = Meter { node: &node, bytes: 0, requests, sheet: Sheet::default() };
    let small_file = async |part, file| {
        let bytes = read_start(merged.join(small(part, file)), SMALL).await;
        assert!(bytes == small_content(part, file), "{part} {file}");
    };
    let large = merged.join(LARGE_FILE);

    small_file(TEN, 0).await;
    meter.see(&ONE_SMALL).await;
    for part in 0..TEN {
        small_file(part, SMALL_FILES / 2).await;
    }
    meter.see(&TEN_SMALL).await;
    assert!(read_start(large.clone(), SMALL).await == content(0, SMALL));
    meter.see(&LARGE_START).await;
    assert!(reads_as(large.clone(), content(0, LARGE)).await);
    meter.see(&LARGE_WHOLE).await;
    forget(large.clone()).await;
    assert!(reads_as(large, content(0, LARGE)).await);
    meter.see(&LARGE_AGAIN).await;
    for part in 0..PARTS {
        let path = merged.join(format!("part-{part}/filler"));
        assert!(reads_as(path, super::image::filler_content(part)).await);
        for file in 0..SMALL_FILES {
            small_file(part, file).await;
        }
    }
    node.wait_until_verified().await;
    meter.see(&THE_REST).await;
}

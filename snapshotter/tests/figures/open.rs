//! File descriptors that the daemon has open.

use super::image::{SMALL, content, hello, wide};
use super::node::{Node, PLAIN, read_start};
use super::sheet::Sheet;
use super::values::{OPEN_ALL, OPEN_LAYERS};

/// Layers of the image: with three files each they would be more than stay open.
const LAYERS: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_beside_many_layers() {
    let Some(mut node) = Node::start(&wide(LAYERS), PLAIN).await else { return };
    let merged = node.start_container().await;
    for layer in 0..LAYERS {
        assert!(read_start(merged.join(hello(layer)), SMALL).await == content(layer, SMALL));
    }
    node.registry.wait_until_idle().await;
    let (all, layers) = node.descriptors();
    let mut sheet = Sheet::default();
    sheet.see_within(&OPEN_LAYERS, layers);
    sheet.see_within(&OPEN_ALL, all);
    let (now, most) = node.descriptor_limit();
    assert_eq!(now, most, "it takes what it may have");
}

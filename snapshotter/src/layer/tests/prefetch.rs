//! Lists of what is to be prefetched.

use spandrel_soci::index::Version;
use spandrel_soci::prefetch::Artifact;

use super::*;
use crate::fetch::testing::{indexed, noise, tar};

fn layer() -> TestLayer {
    indexed(tar(&[("first", 300_000), ("second", 900_000), ("third", 300_000)]), 64 << 10)
}

/// An image of `layer` whose index has `list` of it.
fn listing(layer: &TestLayer, list: Vec<u8>) -> (Arc<MemoryImage>, Blobs) {
    let listed = Listed {
        prefetch: Some(list),
        ..Listed::new(GZIP, &layer.blob, &layer.tar, Some(&layer.ztoc_bytes))
    };
    let blobs = BTreeMap::from([(listed.digest.to_string(), Blob::new(layer.blob.clone()))]);
    (MemoryImage::new(vec![listed], Version::V2), Arc::new(Mutex::new(blobs)))
}

async fn present(bench: &Bench) -> u32 {
    bench.store.report().await[0].present_spans.expect("it is open")
}

/// Longest that a test waits for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until so many spans are present.
async fn until_present(bench: &Bench, count: u32) {
    let comes = async {
        while present(bench).await < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, comes).await;
    assert!(came.is_ok(), "{:?}", bench.store.report().await);
}

/// Waits until a list was refused.
async fn until_refused(bench: &Bench) {
    let comes = async {
        while bench.errors("prefetch-list") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.expect("it is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_comes_with_the_mount_and_nothing_else() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let list = Artifact::of([(2, 3)]).expect("a list");
    let (image, blobs) = listing(&layer, list.to_bytes());
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let key = bench.prepare(&image, 0).await;
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
    assert!(bench.blob(&layer).requests().is_empty(), "not before the mount");
    let target = bench.mount(&key).await;
    until_present(&bench, 2).await;
    let filled = bench.metrics.fills.get_or_create(&[("cause", "prefetch")]).get();
    assert_eq!((filled, bench.blob(&layer).requests().len()), (2, 1));
    // Another snapshot of it, or the image once more: nothing is asked for again.
    let again = bench.prepare(&image, 0).await;
    assert_eq!(again, key);
    let other = bench.mount(&key).await;
    assert_eq!((present(&bench).await, bench.blob(&layer).requests().len()), (2, 1));
    assert!(contents(target.join("second")).await.expect("reads") == noise(2, 900_000));
    let lists = image
        .asked()
        .iter()
        .filter(|line| **line == format!("blob {}", Digest::sha256(&list.to_bytes())))
        .count();
    assert_eq!(lists, 1);
    for target in [target, other] {
        bench.store.unmount(&key, &target).await.expect("unmounts");
    }
    bench.store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_late_still_counts_and_one_that_is_wrong_does_no_harm() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let runs = |runs: &str| format!("{{\"version\":\"1.0\",\"prefetch_spans\":[{runs}]}}").into_bytes();
    let many: Vec<_> = (0..1000).map(|_| r#"{"start_span":0,"end_span":4294967295}"#).collect();
    for list in [
        b"no JSON".to_vec(),
        runs(""),
        runs(r#"{"start_span":3,"end_span":2}"#),
        runs(r#"{"start_span":0,"end_span":4294967295}"#),
        runs(&many.join(",")),
    ] {
        let (image, blobs) = listing(&layer, list);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        let target = bench.mount(&key).await;
        until_refused(&bench).await;
        assert!(contents(target.join("first")).await.expect("reads") == noise(1, 300_000));
        assert_eq!(bench.metrics.fills.get_or_create(&[("cause", "prefetch")]).get(), 0);
        bench.store.unmount(&key, &target).await.expect("unmounts");
        bench.store.remove(&key).await.expect("goes");
        bench.store.shutdown().await;
    }
    // It can't be had at first, and then is, when the layer is mounted and its image is asked for again. Behind the layer's end
    // there is nothing to fetch.
    let list = Artifact::of([(4, 4), (30, 31)]).expect("a list");
    let (image, blobs) = listing(&layer, list.to_bytes());
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let digest = Digest::sha256(&list.to_bytes());
    image.put(&digest, None);
    let key = bench.prepare(&image, 0).await;
    let target = bench.mount(&key).await;
    until_refused(&bench).await;
    assert_eq!(present(&bench).await, 0);
    image.put(&digest, Some(list.to_bytes()));
    // The error is counted before it is forgotten that the list was asked for.
    let asked_again = async {
        while present(&bench).await == 0 {
            bench.prepare(&image, 0).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked_again).await.expect("it comes");
    assert_eq!(present(&bench).await, 1);
    bench.store.unmount(&key, &target).await.expect("unmounts");
    bench.store.shutdown().await;
}

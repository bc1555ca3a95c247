//! Layers that are filled in full.

use std::os::unix::fs::MetadataExt as _;

use spandrel_soci::index::Version;
use tokio::sync::Semaphore;

use super::*;
use crate::fetch::testing::{Fault, indexed, noise, tar};
use crate::small_disk::SmallDisk;

fn layer() -> TestLayer {
    indexed(tar(&[("etc/hosts", 100), ("bin/big", 2_000_000)]), 64 << 10)
}

/// An image of one layer whose blob is packed otherwise than by gzip.
fn packed(media_type: &'static str, layer: &TestLayer, blob: Vec<u8>) -> (Arc<MemoryImage>, Blobs) {
    let listed = Listed::new(media_type, &blob, &layer.tar, None);
    let blobs = BTreeMap::from([(listed.digest.to_string(), Blob::new(blob))]);
    (MemoryImage::new(vec![listed], Version::V2), Arc::new(Mutex::new(blobs)))
}

#[tokio::test(flavor = "multi_thread")]
async fn however_it_is_packed_it_is_downloaded_once_and_mounted() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let zstd = zstd::encode_all(layer.tar.as_slice(), 1).expect("in memory");
    let cases = [
        ("application/vnd.oci.image.layer.v1.tar", layer.tar.clone()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", layer.blob.clone()),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd),
        // Docker calls what it compresses this too.
        ("application/vnd.docker.image.rootfs.diff.tar", layer.blob.clone()),
    ];
    for (media_type, blob) in cases {
        let (image, blobs) = packed(media_type, &layer, blob);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        assert!(!key.0.contains('.'));
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable), "{media_type}");
        let target = bench.mount(&key).await;
        assert!(
            contents(target.join("bin/big")).await.expect("reads") == noise(2, 2_000_000),
            "{media_type}"
        );
        assert_eq!(std::fs::symlink_metadata(target.join("etc/hosts")).expect("stats").uid(), 1000);
        let blob = Arc::clone(blobs.lock().expect("not poisoned").values().next().expect("one"));
        assert_eq!(blob.requests().len(), 1, "{media_type}");
        bench.store.unmount(&key, &target).await.expect("unmounts");
        bench.store.remove(&key).await.expect("goes");
        assert!(bench.on_disk().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_layers_are_downloaded_at_the_first_prepare_and_prepare_waits_for_none() {
    let Some(dir) = disk() else { return };
    let layers: Vec<TestLayer> =
        (0..3).map(|index| indexed(tar(&[(["a", "b", "c"][index], 10_000 + index)]), 64 << 10)).collect();
    // The second is small, with an index; the others have none.
    let (image, blobs) = image(&[(&layers[0], false), (&layers[1], true), (&layers[2], false)], Version::V2);
    let bench =
        Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| options.min_layer_size = 1 << 20);
    let gate = Arc::new(Semaphore::new(0));
    for layer in &layers {
        bench.blob(layer).always(Fault::Hold(Arc::clone(&gate)));
    }
    let first = bench.prepare(&image, 0).await;
    for layer in &layers {
        bench.blob(layer).requested(1).await;
    }
    gate.add_permits(3);
    assert_eq!(bench.store.ready(&first).await, Ok(Ready::Mountable));
    for position in [1, 2] {
        let key = bench.prepare(&image, position).await;
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
    }
    for layer in &layers {
        assert_eq!(bench.blob(layer).requests().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_layer_is_downloaded_first() {
    let Some(dir) = disk() else { return };
    let names = ["a", "b", "c", "d", "e", "f"];
    let layers: Vec<TestLayer> = names.iter().map(|name| indexed(tar(&[(name, 10_000)]), 64 << 10)).collect();
    let listed: Vec<_> = layers.iter().map(|layer| (layer, false)).collect();
    let (image, blobs) = image(&listed, Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| options.eager_downloads = 1);
    let gate = Arc::new(Semaphore::new(0));
    for layer in &layers {
        bench.blob(layer).always(Fault::Hold(Arc::clone(&gate)));
    }
    bench.prepare(&image, 0).await;
    for (index, layer) in layers.iter().enumerate() {
        bench.blob(layer).requested(1).await;
        for above in &layers[index + 1..] {
            assert!(bench.blob(above).requests().is_empty(), "{index}");
        }
        gate.add_permits(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_layer_is_refused_and_a_failed_fill_is_tried_again() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, false)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let blob = bench.blob(&layer);
    blob.always(Fault::Flip(3000));
    let key = bench.prepare(&image, 0).await;
    assert!(matches!(bench.store.ready(&key).await, Err(Error::Corrupt(_))));
    blob.always(Fault::Fail(crate::fetch::Cause::Unreachable));
    assert!(matches!(bench.store.ready(&key).await, Err(Error::Unavailable(_))));
    blob.always(Fault::Break(5000));
    assert!(matches!(bench.store.ready(&key).await, Err(Error::Unavailable(_))));
    let held = bench.store.usage(&key).await.expect("usage").size;
    assert!(held < 100_000, "what a failed fill has written is given back: {held}");
    blob.always(Fault::None);
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));

    // The bytes are those of the blob's digest, and not those of the image's diff ID.
    let mut other = layer.clone();
    other.tar[600] ^= 1;
    let (image, blobs) = super::image(&[(&other, false)], Version::V2);
    drop(bench);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(&[]).await.expect("restores");
    let key = bench.prepare(&image, 0).await;
    let error = bench.store.ready(&key).await.expect_err("another tar");
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("diff ID")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_layer_stops_its_download() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, false)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.blob(&layer).always(Fault::Hang);
    let key = bench.prepare(&image, 0).await;
    bench.blob(&layer).requested(1).await;
    let waiting = tokio::spawn({
        let (store, key) = (Arc::clone(&bench.store), key.clone());
        async move { store.ready(&key).await }
    });
    bench.store.remove(&key).await.expect("goes");
    assert!(waiting.await.expect("ran").is_err());
    assert!(bench.on_disk().is_empty());
    // The next pull begins anew.
    bench.blob(&layer).always(Fault::None);
    let key = bench.prepare(&image, 0).await;
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_ahead_and_never_asked_for_goes() {
    let Some(dir) = disk() else { return };
    let layers = [layer(), indexed(tar(&[("x", 5000)]), 64 << 10)];
    let (image, blobs) = image(&[(&layers[0], false), (&layers[1], false)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        options.unclaimed_patience = Duration::from_millis(50);
    });
    let key = bench.prepare(&image, 0).await;
    bench.blob(&layers[1]).requested(1).await;
    while bench.on_disk().len() != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.on_disk(), [key.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ztoc_that_does_not_fit_means_a_full_download() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let other = indexed(tar(&[("y", 2_000_000)]), 64 << 10);
    let mut cut = layer.ztoc_bytes.clone();
    cut.truncate(1000);
    for (ztoc, class) in [(other.ztoc_bytes.clone(), "ztoc-mismatch"), (cut, "ztoc-invalid")] {
        let unfit = TestLayer { ztoc_bytes: ztoc, ..layer.clone() };
        let (image, blobs) = image(&[(&unfit, true)], Version::V2);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        assert!(!key.0.contains('.'));
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
        assert_eq!(bench.errors(class), 1);
        bench.store.remove(&key).await.expect("goes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_table_can_hold_is_unpacked_and_mounted_all_the_same() {
    let Some(dir) = disk() else { return };
    let source = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(source.path().join("holes")).expect("made");
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 10 << 20).expect("written");
    let made = std::process::Command::new("tar")
        .args(["-S", "--hole-detection=seek", "-cC"])
        .arg(source.path())
        .arg("holes")
        .output()
        .expect("tar runs");
    assert!(made.status.success());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &made.stdout).expect("in memory");
    let blob = gzip.finish().expect("in memory");
    let layer = TestLayer { tar: made.stdout, ..layer() };
    let (image, blobs) = packed(GZIP, &layer, blob);
    let key = {
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Unpacked));
        key
    };
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Unpacked));
    let target = bench.mount(&key).await;
    let read = contents(target.join("holes")).await.expect("reads");
    assert!(
        read.len() == (10 << 20) + 4
            && read.ends_with(b"data")
            && read[..10 << 20].iter().all(|byte| *byte == 0)
    );
    assert!(std::fs::write(target.join("new"), "x").is_err(), "it is read-only");
    let usage = bench.store.usage(&key).await.expect("usage");
    assert!(usage.size < 200_000, "{usage:?}");
    bench.store.unmount(&key, &target).await.expect("unmounts");
    bench.store.remove(&key).await.expect("goes");
    assert!(bench.on_disk().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_nothing_in_it_is_an_empty_directory() {
    let Some(dir) = disk() else { return };
    for tar in [vec![0; 1024], Vec::new(), vec![0; 10_240]] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &tar).expect("in memory");
        let blob = gzip.finish().expect("in memory");
        let layer = TestLayer { tar: tar.clone(), ..layer() };
        for (media_type, blob) in [(GZIP, blob), ("application/vnd.oci.image.layer.v1.tar", tar.clone())] {
            let (image, blobs) = packed(media_type, &layer, blob);
            let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
            let key = bench.prepare(&image, 0).await;
            assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
            let target = bench.mount(&key).await;
            assert_eq!(std::fs::read_dir(&target).expect("lists").count(), 0);
            bench.store.unmount(&key, &target).await.expect("unmounts");
            bench.store.remove(&key).await.expect("goes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_it_fails_and_says_so_and_is_filled_when_there_is_room() {
    if disk().is_none() {
        return;
    }
    // A journal and the layer's 2 MB have room in it.
    let Some(small) = SmallDisk::new(24 << 20) else { return };
    let root = small.path().join("root");
    let layer = layer();
    let (image, blobs) = packed("application/vnd.oci.image.layer.v1.tar+gzip", &layer, layer.blob.clone());
    let blob = bench_blob(&blobs);
    let gate = Arc::new(Semaphore::new(0));
    blob.next([Fault::Hold(Arc::clone(&gate))]);
    let bench = Bench::new(&root, Arc::clone(&image), &blobs);
    let key = bench.prepare(&image, 0).await;
    blob.requested(1).await;
    small.fill();
    gate.add_permits(1);
    let failed = bench.store.ready(&key).await;
    assert!(matches!(&failed, Err(Error::NoSpace(text)) if text.contains("No space left")), "{failed:?}");
    assert!(bench.errors("no-space") > 0);
    small.empty();
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
    let target = bench.mount(&key).await;
    assert!(contents(target.join("bin/big")).await.expect("reads") == noise(2, 2_000_000));
    bench.store.unmount(&key, &target).await.expect("unmounts");
    bench.store.remove(&key).await.expect("goes");
}

/// The only blob of a test.
fn bench_blob(blobs: &Blobs) -> Arc<Blob> {
    Arc::clone(blobs.lock().expect("not poisoned").values().next().expect("one"))
}

//! Files of layers: open while they are mounted, and no longer.

use spandrel_soci::index::Version;

use super::*;
use crate::fetch::testing::{Fault, indexed, noise, tar};

fn layer() -> TestLayer {
    indexed(tar(&[("one", 100_000), ("two", 300_000)]), 64 << 10)
}

/// Waits until the layer's files are closed.
async fn closed(bench: &Bench, key: &LayerKey) {
    while bench.device().has(&key.0) || bench.store.open_files() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_mounted_no_more_is_closed_and_opened_again_when_it_is() {
    let Some(dir) = disk() else { return };
    let (lazy, whole) = (layer(), indexed(tar(&[("whole", 400_000)]), 64 << 10));
    let (image, blobs) = image(&[(&lazy, true), (&whole, false)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let (first, second) = (bench.prepare(&image, 0).await, bench.prepare(&image, 1).await);
    bench.store.ready(&second).await.expect("filled");
    let (target, other) = (bench.mount(&first).await, bench.mount(&second).await);
    assert!(contents(target.join("one")).await.expect("reads") == noise(1, 100_000));
    assert!(contents(target.join("two")).await.expect("reads") == noise(2, 300_000));
    assert!(contents(other.join("whole")).await.expect("reads") == noise(1, 400_000));
    assert!(bench.store.open_files() >= 2, "their streams at least");
    for (key, target) in [(&first, &target), (&second, &other)] {
        bench.store.unmount(key, target).await.expect("unmounts");
        while bench.device().has(&key.0) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    closed(&bench, &first).await;
    // What was read is there: nobody has to be asked for it.
    bench.blob(&lazy).always(Fault::Fail(crate::fetch::Cause::Unreachable));
    bench.store.mount(&first, None, &target).await.expect("mounts");
    bench.store.mount(&second, None, &other).await.expect("mounts");
    assert!(contents(target.join("one")).await.expect("reads") == noise(1, 100_000));
    assert!(contents(target.join("two")).await.expect("reads") == noise(2, 300_000));
    assert!(contents(other.join("whole")).await.expect("reads") == noise(1, 400_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_stays_open_until_it_is_complete_and_checked() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, true)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        options.background = Background::Stream;
        options.failure_memory = Duration::ZERO;
    });
    let key = bench.prepare(&image, 0).await;
    let blob = bench.blob(&layer);
    blob.always(Fault::Hang);
    let target = bench.mount(&key).await;
    // By the background.
    blob.requested(1).await;
    bench.store.unmount(&key, &target).await.expect("unmounts");
    bench.device().released(&key.0).await;
    // Whoever is slow to close it has had the time by then: it is mounted and unmounted as often as not.
    for _ in 0..3 {
        bench.store.mount(&key, None, &target).await.expect("mounts");
        bench.store.unmount(&key, &target).await.expect("unmounts");
        bench.device().released(&key.0).await;
        assert!(bench.device().has(&key.0), "its rest is still to come");
    }
    // The registry answers again, once what hangs has been given up.
    blob.always(Fault::None);
    bench.store.mount(&key, None, &target).await.expect("mounts");
    bench.store.interrupt(&key);
    assert!(contents(target.join("two")).await.expect("reads") == noise(2, 300_000));
    bench.store.unmount(&key, &target).await.expect("unmounts");
    assert!(bench.store.verified(&key).await);
    closed(&bench, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_and_unmounts_that_race_leave_a_layer_that_reads() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, true)], Version::V2);
    let bench = Arc::new(Bench::new(dir.path(), Arc::clone(&image), &blobs));
    let key = bench.prepare(&image, 0).await;
    let targets: Vec<PathBuf> = (0..4).map(|number| dir.path().join(format!("own-{number}"))).collect();
    let racing = targets.iter().map(|target| {
        let (bench, key, target) = (Arc::clone(&bench), key.clone(), target.clone());
        std::fs::create_dir(&target).expect("a directory");
        tokio::spawn(async move {
            for round in 0..10 {
                bench.store.mount(&key, None, &target).await.expect("mounts");
                let (name, want) =
                    if round % 2 == 0 { ("one", noise(1, 100_000)) } else { ("two", noise(2, 300_000)) };
                assert!(contents(target.join(name)).await.expect("reads") == want, "round {round}");
                bench.store.unmount(&key, &target).await.expect("unmounts");
            }
        })
    });
    for raced in futures_util::future::join_all(racing).await {
        raced.expect("doesn't panic");
    }
    // All of it was read; as soon as it is checked its files are closed.
    closed(&bench, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_says_of_headers_is_made_again_where_it_is_damaged() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("gone", |path| std::fs::remove_file(path).expect("deleted")),
        ("torn", |path| std::fs::write(path, b"SPNDHD01").expect("written")),
        ("flipped", |path| {
            let mut bytes = std::fs::read(path).expect("reads");
            bytes[40] ^= 1;
            std::fs::write(path, bytes).expect("written");
        }),
    ];
    for (what, damage) in damages {
        let (image, blobs) = image(&[(&layer, true)], Version::V2);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        let path = dir.path().join("layers").join(&key.0).join("headers");
        let whole = std::fs::read(&path).expect("it was made with the layer");
        damage(&path);
        let target = bench.mount(&key).await;
        assert!(std::fs::read(&path).expect("reads") == whole, "{what}");
        assert!(contents(target.join("two")).await.expect("reads") == noise(2, 300_000), "{what}");
        bench.store.unmount(&key, &target).await.expect("unmounts");
        bench.store.remove(&key).await.expect("goes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_comes_later_is_no_lie_of_the_index() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, true)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        options.failure_memory = Duration::from_millis(1);
    });
    let key = bench.prepare(&image, 0).await;
    let target = bench.mount(&key).await;
    let path = dir.path().join("layers").join(&key.0).join("headers");
    let whole = std::fs::read(&path).expect("it was made with the layer");
    let mut bytes = whole.clone();
    // The first entry's hash.
    bytes[32] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    contents(target.join("one")).await.expect_err("it can't be compared");
    assert_eq!(bench.store.check(&key).await, Ok(()), "it isn't known that it lies");
    std::fs::write(&path, whole).expect("written");
    let mut tries = 0;
    let read = loop {
        match contents(target.join("one")).await {
            Ok(read) => break read,
            Err(error) => assert!(tries < 50, "{error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(read == noise(1, 100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_layer_is_read_on_where_a_mount_of_it_was_kept() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    let (image, blobs) = image(&[(&layer, true)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        options.close_patience = Duration::from_millis(1);
    });
    let key = bench.prepare(&image, 0).await;
    let target = bench.mount(&key).await;
    assert!(contents(target.join("one")).await.expect("reads") == noise(1, 100_000));
    // As a mount namespace keeps it: an open file is left of an unmounted layer.
    let file = std::fs::File::open(target.join("one")).expect("opens");
    bench.store.unmount(&key, &target).await.expect("unmounts, lazily");
    bench.store.remove(&key).await.expect("goes");
    // One of the same name, with nothing in it yet.
    assert_eq!(bench.prepare(&image, 0).await, key);
    let again = bench.mount(&key).await;
    let read = apart(move || {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
        let mut bytes = vec![0; 100_000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).map(|()| bytes)
    });
    assert!(read.await.expect("from the files as they were") == noise(1, 100_000));
    assert!(contents(again.join("one")).await.expect("reads") == noise(1, 100_000));
}

//! The daemon's end and its next start, with a device and a helper of their own each time.

use spandrel_soci::index::Version;

use super::*;
use crate::fetch::testing::{Fault, indexed, noise, tar};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_local_works_after_a_restart_without_a_network() {
    let Some(dir) = disk() else { return };
    let lazy = indexed(tar(&[("read", 100_000), ("unread", 900_000)]), 64 << 10);
    let whole = indexed(tar(&[("whole", 400_000)]), 64 << 10);
    let gone = indexed(tar(&[("gone", 400_000)]), 64 << 10);
    let (image, blobs) = image(&[(&lazy, true), (&whole, false), (&gone, false)], Version::V1);
    let mut keys = Vec::new();
    {
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        for position in 0..3 {
            let key = bench.prepare(&image, position).await;
            bench.store.ready(&key).await.expect("is filled");
            keys.push(key);
        }
        let target = bench.mount(&keys[0]).await;
        assert!(contents(target.join("read")).await.expect("reads") == noise(1, 100_000));
        bench.store.shutdown().await;
        // No unmount: the mounts of a daemon that was killed are still there.
    }
    for blob in blobs.lock().expect("not poisoned").values() {
        blob.always(Fault::Fail(crate::fetch::Cause::Unreachable));
    }
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        options.read_timeout = Duration::from_secs(1);
        options.failure_memory = Duration::from_millis(1);
    });
    bench.store.restore(&keys[..2]).await.expect("restores");
    let mut want: Vec<String> = keys[..2].iter().map(|key| key.0.clone()).collect();
    want.sort();
    assert_eq!(bench.on_disk(), want, "the layer that nothing uses is gone");
    assert!(matches!(bench.store.ready(&keys[2]).await, Err(Error::NotFound(_))));
    let (first, second) = (bench.mount(&keys[0]).await, bench.mount(&keys[1]).await);
    assert!(contents(first.join("read")).await.expect("it is local") == noise(1, 100_000));
    assert!(contents(second.join("whole")).await.expect("it is local") == noise(1, 400_000));
    let error = contents(first.join("unread")).await.expect_err("the registry is away");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    for blob in blobs.lock().expect("not poisoned").values() {
        blob.always(Fault::None);
    }
    // Reads ahead that began while it was away may fail still, each once.
    let mut tries = 0;
    let read = loop {
        match contents(first.join("unread")).await {
            Ok(read) => break read,
            Err(error) => assert!(tries < 50, "{error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(read == noise(2, 900_000), "it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_was_cut_off_is_done_again() {
    let Some(dir) = disk() else { return };
    let layer = indexed(tar(&[("whole", 400_000)]), 64 << 10);
    let (image, blobs) = image(&[(&layer, false)], Version::V2);
    let key = {
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        bench.blob(&layer).next([Fault::Hang]);
        let key = bench.prepare(&image, 0).await;
        bench.blob(&layer).requested(1).await;
        bench.store.shutdown().await;
        key
    };
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
    let target = bench.mount(&key).await;
    assert!(contents(target.join("whole")).await.expect("reads") == noise(1, 400_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_state_costs_its_layer_and_nothing_else() {
    let Some(dir) = disk() else { return };
    let layers = [
        indexed(tar(&[("a", 100_000)]), 64 << 10),
        indexed(tar(&[("b", 100_001)]), 64 << 10),
        indexed(tar(&[("c", 100_002)]), 64 << 10),
    ];
    let (image, blobs) = image(&[(&layers[0], true), (&layers[1], true), (&layers[2], true)], Version::V2);
    let mut keys = Vec::new();
    {
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        for position in 0..3 {
            keys.push(bench.prepare(&image, position).await);
        }
        bench.store.shutdown().await;
    }
    let path = |index: usize, file: &str| dir.path().join("layers").join(&keys[index].0).join(file);
    let cut = |path: PathBuf| {
        let len = std::fs::metadata(&path).expect("there").len();
        std::fs::OpenOptions::new().write(true).open(path).expect("opens").set_len(len / 2).expect("cuts");
    };
    cut(path(0, "layer.json"));
    cut(path(1, "ztoc"));
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(&keys).await.expect("restores");
    for index in [0, 1] {
        assert!(matches!(bench.store.ready(&keys[index]).await, Err(Error::NotFound(_))), "{index}");
        // As the snapshots' side does then.
        let key = bench.prepare(&image, index).await;
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
        assert_eq!(key, keys[index]);
    }
    for (key, (name, len)) in keys.iter().zip([("a", 100_000), ("b", 100_001), ("c", 100_002)]) {
        let target = bench.mount(key).await;
        assert!(contents(target.join(name)).await.expect("reads") == noise(1, len));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_of_layers_that_are_there() {
    let Some(dir) = disk() else { return };
    let layers = [indexed(tar(&[("a", 100_000)]), 64 << 10), indexed(tar(&[("b", 100_001)]), 64 << 10)];
    let (image, blobs) = image(&[(&layers[0], true), (&layers[1], true)], Version::V2);
    let ztocs = layers.each_ref().map(|layer| format!("blob {}", Digest::sha256(&layer.ztoc_bytes)));
    let asked = |ztoc: &String| image.asked().iter().filter(|asked| *asked == ztoc).count();
    let key = {
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        bench.prepare(&image, 1).await;
        bench.store.shutdown().await;
        key
    };
    assert_eq!(ztocs.each_ref().map(asked), [1, 1]);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
    assert_eq!(bench.prepare(&image, 0).await, key);
    assert_eq!(ztocs.each_ref().map(asked), [1, 2]);
    // Their places neither: a task of its own has asked for the other's by and by.
    let digests = layers.each_ref().map(|layer| Digest::sha256(&layer.blob));
    while image.places().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(image.places(), [&digests[..], &digests[1..]].concat());
}

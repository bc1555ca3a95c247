//! Layers with an index.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::{Command, Stdio};

use spandrel_soci::index::Version;

use super::*;
use crate::fetch::testing::{Fault, indexed, noise, tar};

fn layer() -> TestLayer {
    indexed(
        tar(&[("etc/hosts", 100), ("bin/big", 2_000_000), ("lib/other", 300_000), ("lib/empty", 0)]),
        64 << 10,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_mounted_without_a_byte_of_its_blob_and_reads_as_the_layer_says() {
    let Some(dir) = disk() else { return };
    let layer = layer();
    for version in [Version::V1, Version::V2] {
        let (image, blobs) = image(&[(&layer, true)], version);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        assert!(key.0.contains('.'), "{key:?}");
        assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
        let target = bench.mount(&key).await;
        assert!(bench.blob(&layer).requests().is_empty());

        // Metadata is the kernel's alone.
        let before = bench.device().requests();
        let at = target.clone();
        let stat = apart(move || {
            assert_eq!(std::fs::read_dir(&at).expect("lists").count(), 3);
            std::fs::symlink_metadata(at.join("bin/big")).expect("stats")
        })
        .await;
        assert_eq!((stat.len(), stat.uid(), stat.gid(), stat.mode() & 0o7777), (2_000_000, 1000, 100, 0o644));
        assert!(!stat.file_type().is_char_device());
        assert_eq!(bench.device().requests(), before);

        // One small file: only the span that it is in.
        assert_eq!(contents(target.join("etc/hosts")).await.expect("reads"), noise(1, 100));
        let requests = bench.blob(&layer).requests();
        assert!(requests.len() == 1 && requests[0].end < layer.blob.len() as u64 / 2, "{requests:?}");
        for (name, want) in
            [("bin/big", noise(2, 2_000_000)), ("lib/other", noise(3, 300_000)), ("lib/empty", vec![])]
        {
            assert!(contents(target.join(name)).await.expect("reads") == want, "{name}");
        }
        let usage = bench.store.usage(&key).await.expect("usage");
        assert!(usage.size > 2_000_000 && usage.size < 5_000_000, "{usage:?}");

        // Mounting where it is mounted does nothing.
        bench.store.mount(&key, None, &target).await.expect("mounted");
        bench.store.unmount(&key, &target).await.expect("unmounts");
        bench.store.unmount(&key, &target).await.expect("there is nothing to do");
        assert!(!crate::mounter::is_mount_point(&target));
        bench.store.remove(&key).await.expect("goes");
        assert!(bench.on_disk().is_empty());
        assert!(!bench.device().has(&key.0));
        assert!(matches!(bench.store.ready(&key).await, Err(Error::NotFound(_))));
        bench.store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_complete_layer_is_compared_with_its_diff_id() {
    let Some(dir) = disk() else { return };
    let (honest, mut other) = (layer(), layer());
    // The image claims another tar than the one in its blob.
    other.tar[0] ^= 1;
    for (layer, lies) in [(honest, false), (other, true)] {
        let (image, blobs) = image(&[(&layer, true)], Version::V2);
        let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
        let key = bench.prepare(&image, 0).await;
        let target = bench.mount(&key).await;
        for name in ["etc/hosts", "bin/big", "lib/other"] {
            contents(target.join(name)).await.expect("reads");
        }
        // What lies behind the last file is padding that no file has: read it as the device does.
        let device = bench.device().path(&key.0);
        apart(move || std::fs::read(device)).await.expect("reads");
        let found = bench.store.verified(&key).await;
        assert_eq!(found, !lies);
        assert_eq!(bench.store.check(&key).await.is_err(), lies, "also while it is mounted");
        bench.store.unmount(&key, &target).await.expect("unmounts");
        let again = bench.store.mount(&key, None, &target).await;
        if lies {
            assert!(matches!(again, Err(Error::Corrupt(_))), "{again:?}");
            assert_eq!(bench.errors("diff-id"), 1);
        } else {
            again.expect("mounts");
            bench.store.unmount(&key, &target).await.expect("unmounts");
        }
        bench.store.remove(&key).await.expect("goes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_complete_layer_outlasts_a_registry_that_is_away() {
    let Some(dir) = disk() else { return };
    // What lies behind the archive has to be looked at.
    let mut tar = layer().tar;
    tar.extend_from_slice(&noise(7, 700));
    let layer = indexed(tar, 64 << 10);
    let (image, blobs) = image(&[(&layer, true)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let key = bench.prepare(&image, 0).await;
    let blob = bench.blob(&layer);
    bench.mount(&key).await;
    let last = layer.ztoc.checkpoints.last().expect("one").uncompressed_offset;
    let device = std::fs::File::open(bench.device().path(&key.0)).expect("opens");
    let read = move |at: u64, end: u64| {
        let mut bytes = vec![0; usize::try_from(end - at).expect("small")];
        std::os::unix::fs::FileExt::read_exact_at(&device, &mut bytes, at).expect("reads");
        device
    };
    let device = apart(move || read(0, last)).await;
    // The last span comes, and then nothing more.
    blob.next([Fault::None, Fault::Fail(crate::fetch::Cause::Unreachable)]);
    let end = layer.tar.len() as u64;
    apart(move || {
        let mut bytes = vec![0; usize::try_from(end - last).expect("small")];
        std::os::unix::fs::FileExt::read_at(&device, &mut bytes, last).expect("reads");
    })
    .await;
    assert!(bench.store.verified(&key).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_an_io_error_and_never_wrong_bytes() {
    for by in [By::Erofs, By::Fuse] {
        let Some(dir) = disk() else { return };
        let layer = layer();
        let (image, blobs) = image(&[(&layer, true)], Version::V2);
        let bench = Bench::by(by, dir.path(), Arc::clone(&image), &blobs, |options| {
            options.failure_memory = Duration::from_millis(300);
        });
        let key = bench.prepare(&image, 0).await;
        let target = bench.mount(&key).await;
        bench.blob(&layer).always(Fault::Flip(77));
        let error = contents(target.join("bin/big")).await.expect_err("fails");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(bench.errors("corrupt") >= 2);
        // The registry is mended: the same mount works.
        bench.blob(&layer).always(Fault::None);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(contents(target.join("bin/big")).await.expect("reads") == noise(2, 2_000_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_silent_registry_hold_up_nobody_and_can_be_killed_and_unmounted() {
    for by in [By::Erofs, By::Fuse] {
        let Some(dir) = disk() else { return };
        let (stuck, fine) = (layer(), indexed(tar(&[("fine", 500_000)]), 64 << 10));
        let (image, blobs) = image(&[(&stuck, true), (&fine, true)], Version::V2);
        let bench = Bench::by(by, dir.path(), Arc::clone(&image), &blobs, |_| {});
        bench.blob(&stuck).always(Fault::Hang);
        let keys = [bench.prepare(&image, 0).await, bench.prepare(&image, 1).await];
        let targets = [bench.mount(&keys[0]).await, bench.mount(&keys[1]).await];
        let mut readers: Vec<_> = (0..40)
            .map(|_| {
                Command::new("cat")
                    .arg(targets[0].join("bin/big"))
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("cat starts")
            })
            .collect();
        bench.blob(&stuck).requested(1).await;
        assert!(contents(targets[1].join("fine")).await.expect("reads") == noise(1, 500_000));
        // A reader that is killed dies, though nobody has answered it.
        apart(move || {
            for reader in &mut readers {
                reader.kill().expect("kills");
            }
            for reader in &mut readers {
                reader.wait().expect("is gone");
            }
        })
        .await;
        // Pages of the dead are still waited for: the unmount must not hang on them.
        let unmounted =
            tokio::time::timeout(Duration::from_secs(60), bench.store.unmount(&keys[0], &targets[0]));
        unmounted.await.expect("ends").expect("unmounts");
        bench.store.remove(&keys[0]).await.expect("goes");
        match &bench.filesystem {
            FileSystem::Erofs(device) => assert!(!device.has(&keys[0].0)),
            FileSystem::Fuse(tree) => assert!(tree.layer_at(&targets[0]).is_none()),
        }
        assert_eq!(bench.on_disk(), [keys[1].0.clone()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_in_use_is_unmounted_lazily_and_its_device_file_goes_when_it_is_closed() {
    for by in [By::Erofs, By::Fuse] {
        let Some(dir) = disk() else { return };
        let layer = layer();
        let (image, blobs) = image(&[(&layer, true)], Version::V2);
        let bench = Bench::by(by, dir.path(), Arc::clone(&image), &blobs, |options| {
            options.close_patience = Duration::from_millis(10);
        });
        let key = bench.prepare(&image, 0).await;
        let target = bench.mount(&key).await;
        contents(target.join("etc/hosts")).await.expect("reads");
        let held = std::fs::File::open(target.join("etc/hosts")).expect("opens");
        bench.store.unmount(&key, &target).await.expect("lazily");
        bench.store.remove(&key).await.expect("goes");
        assert!(bench.on_disk().is_empty());
        // The same layer comes again while the old mount lives on.
        let key = bench.prepare(&image, 0).await;
        let target = bench.mount(&key).await;
        assert_eq!(contents(target.join("etc/hosts")).await.expect("reads"), noise(1, 100));
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lies_gives_no_byte() {
    lie(Version::V1).await;
    // Whoever names the zTOC in a manifest of his own doesn't make it truer, and may share it with others.
    lie(Version::V2).await;
}

async fn lie(version: Version) {
    let Some(dir) = disk() else { return };
    let mut layer = layer();
    // It calls the second file setuid.
    layer.ztoc.entries[1].mode = 0o4755;
    layer.ztoc_bytes = layer.ztoc.encode();
    let (image, blobs) = image(&[(&layer, true)], version);
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    let key = bench.prepare(&image, 0).await;
    let target = bench.mount(&key).await;
    let error = contents(target.join("bin/big")).await.expect_err("fails");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(bench.errors("index-mismatch") >= 1);
    assert!(contents(target.join("lib/other")).await.is_err(), "the whole layer isn't believed");
    assert!(bench.store.check(&key).await.is_err());

    // It isn't believed after a restart either, before anything of it is read.
    while bench.store.refuted_on_disk(&key).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(bench);
    let bench = Bench::new(dir.path(), image, &blobs);
    bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
    assert!(matches!(bench.store.check(&key).await, Err(Error::Corrupt(_))));
    assert!(matches!(bench.store.mount(&key, None, &target).await, Err(Error::Corrupt(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_share_a_layer_but_not_what_their_indexes_say() {
    let Some(dir) = disk() else { return };
    let one = layer();
    let other = TestLayer { ztoc_bytes: indexed(one.tar.clone(), 128 << 10).ztoc_bytes, ..one.clone() };
    let (first, blobs) = image(&[(&one, true)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&first), &blobs);
    let key = bench.prepare(&first, 0).await;
    // The same layer asked for twice at once is one layer.
    let (again, once_more) = tokio::join!(bench.prepare(&first, 0), bench.prepare(&first, 0));
    assert_eq!((&key, &key), (&again, &once_more));
    drop(bench);
    let (second, _) = image(&[(&other, true)], Version::V2);
    let bench = Bench::new(dir.path(), Arc::clone(&second), &blobs);
    bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
    let other_key = bench.prepare(&second, 0).await;
    assert_ne!(key, other_key);
    for key in [&key, &other_key] {
        let target = bench.mount(key).await;
        assert!(contents(target.join("bin/big")).await.expect("reads") == noise(2, 2_000_000));
    }
    assert_eq!(bench.on_disk().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_layer_above_others_has_their_directories() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    for by in [By::Erofs, By::Fuse] {
        let Some(dir) = disk() else { return };
        let layer = indexed(tar(&[("tmp/x", 100_000), ("new/y", 100_001), ("z", 3)]), 64 << 10);
        let plain = indexed(tar(&[("tmp", 100_000)]), 64 << 10);
        // The same by its zTOC, and filled in full.
        for whole in [false, true] {
            let (image, blobs) = image(&[(&layer, !whole), (&plain, true)], Version::V2);
            let root = dir.path().join(if whole { "whole" } else { "lazy" });
            let below = root.join("below");
            std::fs::create_dir_all(below.join("tmp")).expect("made");
            std::fs::set_permissions(below.join("tmp"), std::fs::Permissions::from_mode(0o1777))
                .expect("set");
            std::os::unix::fs::chown(below.join("tmp"), Some(7), Some(8)).expect("root may");
            let bench = Bench::by(by, &root, Arc::clone(&image), &blobs, |_| {});
            let keys = [bench.prepare(&image, 0).await, bench.prepare(&image, 1).await];
            for key in &keys {
                bench.store.ready(key).await.expect("ready");
            }
            assert_eq!(bench.store.depends_on_lowers(&keys[0]), Ok(true));
            assert_eq!(bench.store.depends_on_lowers(&keys[1]), Ok(false));
            let table = root.join("table-of-a-snapshot");
            bench.store.write_table(&keys[0], &[below], &table).await.expect("written");
            let (own, above) = (bench.mount(&keys[0]).await, bench.mount_by(&keys[0], Some(&table)).await);
            let seen = |path: PathBuf| {
                let meta = std::fs::metadata(path).expect("there");
                (meta.mode() & 0o7777, meta.uid(), meta.gid())
            };
            assert_eq!(seen(above.join("tmp")), (0o1777, 7, 8));
            assert_eq!((seen(above.join("new")), seen(own.join("tmp"))), ((0o755, 0, 0), (0o755, 0, 0)));
            assert!(contents(above.join("tmp/x")).await.expect("reads") == noise(1, 100_000));
            bench.store.shutdown().await;
        }
    }
}

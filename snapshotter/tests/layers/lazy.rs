//! An image from the first question to the last byte.

use std::time::Duration;

use spandrel_fixtures::scripted::{Fault, Kind, Rule};
use spandrel_snapshotter::layer::Layers as _;
use spandrel_soci::index::Version;

use crate::bench::{Bench, By, content, disk, image, read, registry};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_with_few_requests_and_reads_as_it_is() {
    let Some(dir) = disk() else { return };
    for (by, version, manifests) in
        [(By::Erofs, Version::V1, 3), (By::Erofs, Version::V2, 2), (By::Fuse, Version::V2, 2)]
    {
        let registry = registry();
        let image = image(&registry, version);
        let root = tempfile::tempdir_in(dir.path()).expect("a directory");
        let mut bench = Bench::new(by, root.path(), |_| {});
        let mut taken = Vec::new();
        for position in 0..3 {
            taken.push(bench.take_up(&registry, &image, position).await);
        }
        // Image manifest and index; no HEAD; nothing of the lazy layer. The tag that may list referrers is asked for, too, unless
        // the API has answered before that request has a connection.
        let seen = registry.count(Kind::Manifest);
        assert!((2..=manifests).contains(&seen), "{version:?}: {seen}");
        assert_eq!(registry.count(Kind::Head), 0);
        assert_eq!(registry.count(Kind::Referrers), usize::from(version == Version::V1));
        assert_eq!(registry.sent(&image.layers[0].digest), 0);

        let large = taken[0].1.join("data/large");
        let head = tokio::task::spawn_blocking({
            let large = large.clone();
            move || {
                let mut bytes = vec![0; 1000];
                std::io::Read::read_exact(&mut std::fs::File::open(large).expect("opens"), &mut bytes)
                    .expect("reads");
                bytes
            }
        });
        assert!(head.await.expect("ran") == content(1, 3_000_000)[..1000]);
        let sent = registry.sent(&image.layers[0].digest);
        assert!(sent > 0 && sent < image.layers[0].blob.len() as u64, "{sent}");
        assert!(read(large).await.expect("reads") == content(1, 3_000_000));
        assert!(read(taken[1].1.join("data/small")).await.expect("reads") == content(2, 1000));
        assert!(read(taken[2].1.join("data/zstd")).await.expect("reads") == content(3, 500_000));
        for layer in &image.layers[1..] {
            assert_eq!(registry.sent(&layer.digest), layer.blob.len() as u64, "once");
        }
        let report = bench.store.report().await;
        let stages: Vec<_> = taken
            .iter()
            .map(|(key, _)| report.iter().find(|layer| layer.layer == *key).expect("is there").stage)
            .collect();
        assert_eq!(stages, ["indexed", "complete", "complete"]);
        for (key, target) in &taken {
            bench.store.unmount(key, target).await.expect("unmounts");
            bench.store.remove(key).await.expect("goes");
        }
        assert_eq!(std::fs::read_dir(root.path().join("layers")).expect("lists").count(), 0);
        bench.nothing_is_served().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_gone_fails_what_is_missing_after_the_time_limit_and_works_when_it_is_back() {
    for by in By::ALL {
        let Some(dir) = disk() else { return };
        let mut registry = registry();
        let image = image(&registry, Version::V2);
        let mut bench = Bench::new(by, dir.path(), |options| {
            options.read_timeout = Duration::from_secs(2);
            options.failure_memory = Duration::from_millis(100);
        });
        let (_, target) = bench.take_up(&registry, &image, 0).await;
        registry.stop();
        // Where the blob lies is known by now, and the storage is still there.
        registry.expire_urls();
        let error = read(target.join("data/large")).await.map(drop).expect_err("nobody has it");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        registry.restart();
        let mut tries = 0;
        let bytes = loop {
            match read(target.join("data/large")).await {
                Ok(bytes) => break bytes,
                // Reads ahead that began before may fail still.
                Err(error) => assert!(tries < 100, "{error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(bytes == content(1, 3_000_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_changed_gives_errors_and_no_byte() {
    for by in By::ALL {
        let Some(dir) = disk() else { return };
        let registry = registry();
        let image = image(&registry, Version::V2);
        let mut bench = Bench::new(by, dir.path(), |_| {});
        let (_, target) = bench.take_up(&registry, &image, 0).await;
        registry.rule(Rule::new(Kind::BlobRange, Fault::Flip(50)).digest(&image.layers[0].digest));
        let error = read(target.join("data/large")).await.expect_err("is damaged");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(bench.metrics.encode().contains(r#"spandrel_errors_total{class="corrupt"}"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsteady_registry_is_a_slow_read() {
    for by in By::ALL {
        let Some(dir) = disk() else { return };
        let registry = registry();
        let image = image(&registry, Version::V1);
        let mut bench = Bench::new(by, dir.path(), |_| {});
        let (_, target) = bench.take_up(&registry, &image, 0).await;
        let digest = &image.layers[0].digest;
        for (nth, fault) in [
            (0, Fault::ResetAfter(10_000)),
            (1, Fault::status(503)),
            (2, Fault::Short(100)),
            (3, Fault::ContentRange("bytes 0-1/2".to_owned())),
            (5, Fault::status(403)),
            (7, Fault::IgnoreRange),
        ] {
            registry.rule(Rule::new(Kind::BlobRange, fault).digest(digest).nth(nth));
        }
        assert!(read(target.join("data/large")).await.expect("in the end") == content(1, 3_000_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_ahead_of_a_layer_is_a_mebibyte() {
    for by in By::ALL {
        let Some(dir) = disk() else { return };
        let registry = registry();
        let image = image(&registry, Version::V2);
        let mut bench = Bench::new(by, dir.path(), |_| {});
        let (key, target) = bench.take_up(&registry, &image, 0).await;
        let before = bench.requests();
        read(target.join("data/large")).await.expect("reads");
        // The kernel begins with 64 KiB at a time and goes up to the whole window; with its own 128 KiB there are 32 at least.
        let requests = bench.requests() - before;
        assert!(requests <= 28, "{requests} requests");
        bench.store.unmount(&key, &target).await.expect("unmounts");
    }
}

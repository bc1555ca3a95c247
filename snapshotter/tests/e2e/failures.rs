//! A registry that goes away, bytes that are wrong, a pull that is cancelled.

use std::time::{Duration, Instant};

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::peers::Version;

use super::bed::{Bed, READ_TIMEOUT, SNAPSHOTTER, content, large_layer, sha256};

const LEN: usize = 200_000;

#[tokio::test]
async fn without_its_registry_what_is_there_is_read_and_the_rest_waits_and_fails_and_recovers() {
    for version in Version::ALL {
        let Some(mut bed) = Bed::start(version) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 30, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        let first = cri.output(&container, "sha256sum < /data/1").await;
        bed.registry.stop();
        // Past the page cache: the daemon has it on disk.
        assert_eq!(cri.output(&container, "sha256sum < /data/1").await, first);
        let start = Instant::now();
        let ran = cri.exec(&container, "cat /data/25 > /dev/null").await;
        let took = start.elapsed();
        assert_ne!(ran.code, 0, "{version:?}: {ran:?}");
        assert!(ran.err.contains("I/O error") || ran.err.contains("Input/output error"), "{ran:?}");
        assert!(took >= Duration::from_secs(READ_TIMEOUT - 1), "{version:?}: failed after {took:?} only");
        bed.registry.restart();
        let deadline = Instant::now() + Duration::from_secs(60);
        let sum = loop {
            let ran = cri.exec(&container, "sha256sum < /data/25").await;
            if ran.code == 0 {
                break ran.out;
            }
            assert!(Instant::now() < deadline, "{version:?}: {ran:?}\n{}", bed.daemon.tail());
        };
        assert!(sum.starts_with(&sha256(&content(1, 25, LEN))), "{version:?}");
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn wrong_bytes_are_an_error_and_never_read() {
    for version in Version::ALL {
        let Some(bed) = Bed::start(version) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 30, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        // One bit in the middle of each span's worth of bytes in the second half.
        let file = bed.registry.blob_file(&image.layers[1].digest);
        let mut bytes = std::fs::read(&file).expect("the blob");
        let half = bytes.len() / 2;
        for at in (half..bytes.len()).step_by(50_000) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(&file, bytes).expect("written");
        let ran = cri.exec(&container, "sha256sum < /data/27").await;
        let right = ran.out.starts_with(&sha256(&content(1, 27, LEN)));
        assert!(ran.code != 0 && !right, "{version:?}: {ran:?}");
        assert!(bed.metric(r#"spandrel_errors_total{class="corrupt"}"#).await > 0, "{version:?}");
        // What lies before the damage is fine.
        let sum = cri.output(&container, "sha256sum < /data/1").await;
        assert!(sum.starts_with(&sha256(&content(1, 1, LEN))), "{version:?}");
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn a_cancelled_pull_stops_and_the_next_one_finishes() {
    for version in Version::ALL {
        let Some(bed) = Bed::start(version) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 100, LEN)]) else { return };
        let reference = bed.push(&image, "app");
        let mut cri = bed.cri().await;
        // A client that loses patience: the call is broken off.
        let short = tokio::time::timeout(Duration::from_millis(150), cri.pull(&reference)).await;
        if let Ok(Ok(_)) = short {
            continue; // too quick a machine to be cancelled
        }
        cri.pull(&reference)
            .await
            .unwrap_or_else(|error| panic!("{version:?}: {error}\n{}", bed.daemon.tail()));
        let container = cri.start(&reference).await.expect("started");
        let sum = cri.output(&container, "sha256sum < /data/99").await;
        assert!(sum.starts_with(&sha256(&content(1, 99, LEN))), "{version:?}");
        cri.stop(container).await;
        let list = bed.containerd.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", SNAPSHOTTER, "ls"]);
        assert!(list.expect("a list").contains("Committed"));
    }
}

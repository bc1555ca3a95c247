//! A registry that goes away, bytes that are wrong, a pull that is cancelled.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::proxy::{Proxy, Shape};

use super::bed::{Bed, READ_TIMEOUT, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// A slow registry, in bytes a second: the layer takes some ten seconds.
const SLOW: u64 = 1_000_000;

#[tokio::test]
async fn without_its_registry_what_is_there_is_read_and_the_rest_waits_and_fails_and_recovers() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
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
        assert_ne!(ran.code, 0, "{setting:?}: {ran:?}");
        assert!(ran.err.contains("I/O error") || ran.err.contains("Input/output error"), "{ran:?}");
        assert!(took >= Duration::from_secs(READ_TIMEOUT - 1), "{setting:?}: failed after {took:?} only");
        bed.registry.restart();
        let deadline = Instant::now() + Duration::from_secs(60);
        let sum = loop {
            let ran = cri.exec(&container, "sha256sum < /data/25").await;
            if ran.code == 0 {
                break ran.out;
            }
            assert!(Instant::now() < deadline, "{setting:?}: {ran:?}\n{}", bed.daemon.tail());
        };
        assert!(sum.starts_with(&sha256(&content(1, 25, LEN))), "{setting:?}");
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn wrong_bytes_are_an_error_and_never_read() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
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
        assert!(ran.code != 0 && !right, "{setting:?}: {ran:?}");
        assert!(ran.err.contains("I/O error") || ran.err.contains("Input/output error"), "{ran:?}");
        assert!(bed.metric(r#"spandrel_errors_total{class="corrupt"}"#).await > 0, "{setting:?}");
        // What lies before the damage is fine.
        let sum = cri.output(&container, "sha256sum < /data/1").await;
        assert!(sum.starts_with(&sha256(&content(1, 1, LEN))), "{setting:?}");
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn a_cancelled_pull_is_finished_by_the_next() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 60, LEN)]) else { return };
        bed.push(&image, "app");
        // So slow that the pull can't be done before it is cancelled.
        let registry: SocketAddr = bed.registry.host().parse().expect("an address");
        let shape = Shape { rate: Some(SLOW), ..Shape::default() };
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), registry, shape).expect("a proxy");
        let reference = format!("{}/app:1", proxy.addr());
        let (mut other, name) = (bed.cri().await, reference.clone());
        let pull = tokio::spawn(async move { other.pull(&name).await });
        let filling = async {
            while !bed.layers().await.iter().any(|layer| layer["stage"] == "filling") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), filling).await.expect("the pull gets to its layers");
        assert!(!pull.is_finished(), "{setting:?}: it was to be cancelled");
        // The client goes: its call is broken off.
        pull.abort();
        assert!(pull.await.is_err_and(|error| error.is_cancelled()), "{setting:?}");
        let mut cri = bed.cri().await;
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = cri.pull(&reference).await {
            assert!(Instant::now() < deadline, "{setting:?}: {error}\n{}", bed.daemon.tail());
        }
        let container = cri.start(&reference).await.expect("started");
        let sum = cri.output(&container, "sha256sum < /data/59").await;
        assert!(sum.starts_with(&sha256(&content(1, 59, LEN))), "{setting:?}");
        cri.stop(container).await;
    }
}

//! A large image that is being pulled holds nobody up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::peers::Version;
use spandrel_fixtures::proxy::{Proxy, Shape};

use super::bed::{Bed, large_layer};

/// How fast the registry is meanwhile, in bytes a second: the pull lasts longer than all that is done beside it.
const RATE: u64 = 200_000;

/// How many starts are timed; the quickest counts, since other tests run at the same time.
const STARTS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_while_a_large_image_is_pulled_and_garbage_is_collected() {
    for version in Version::ALL {
        let Some(bed) = Bed::start(version) else { continue };
        let Some(local) = busybox([]) else { return };
        let Some(large) = busybox([large_layer("data", 1, 60, 200_000)]) else { return };
        let local = bed.push(&local, "local");
        bed.push(&large, "large");
        let mut cri = bed.cri().await;
        cri.pull(&local).await.expect("pulled");
        let warm = cri.start(&local).await.expect("started");
        cri.stop(warm).await;

        let registry: SocketAddr = bed.registry.host().parse().expect("an address");
        let shape = Shape { rate: Some(RATE), ..Shape::default() };
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), registry, shape).expect("a proxy");
        let slow = format!("{}/large:1", proxy.addr());
        let mut other = bed.cri().await;
        let pull = tokio::spawn(async move { other.pull(&slow).await });
        let filling = async {
            while !bed.layers().await.iter().any(|layer| layer["stage"] == "filling") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), filling).await.expect("the pull gets to its layers");

        let mut quickest = Duration::MAX;
        for _ in 0..STARTS {
            // The removal of an image starts the garbage collector, and waits for it.
            bed.containerd
                .ctr(&["-n", "k8s.io", "image", "tag", &local, "registry.example/extra:1"])
                .expect("tagged");
            let name = local.clone();
            let start = tokio::spawn(async move {
                let begin = Instant::now();
                let container = cri.start(&name).await;
                (cri, container, begin.elapsed())
            });
            let collect = ["-n", "k8s.io", "image", "rm", "--sync", "registry.example/extra:1"];
            tokio::task::block_in_place(|| bed.containerd.ctr(&collect)).expect("garbage is collected");
            let (back, container, took) = start.await.expect("no panic");
            cri = back;
            quickest = quickest.min(took);
            cri.stop(container.expect("started")).await;
        }
        assert!(!pull.is_finished(), "{version:?}: the pull was too quick to be in anybody's way");
        assert!(quickest < Duration::from_secs(1), "{version:?}: a pod took {quickest:?} to start");
        pull.abort();
    }
}

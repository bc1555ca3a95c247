//! What is removed leaves nothing.

use std::time::Duration;

use spandrel_fixtures::image::busybox;

use super::bed::{Bed, SNAPSHOTTER, Setting, large_layer};

/// Longest that containerd's garbage collector and our removals after it may take.
const GONE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn neither_mount_nor_record_nor_stream_is_left() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 10, 200_000)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        cri.output(&container, "cat /data/* > /dev/null; echo x > /data/0").await;
        assert!(!bed.layer_mounts().is_empty());
        cri.stop(container).await;
        cri.remove_image(&reference).await;
        let pause = format!("{}/pause:1", bed.registry.host());
        cri.remove_image(&pause).await;
        let list = || {
            bed.containerd
                .ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", SNAPSHOTTER, "ls"])
                .expect("a list")
        };
        let is_gone = || {
            list().lines().count() == 1
                && bed.layer_mounts().is_empty()
                && bed.entries("snapshots").is_empty()
                && bed.entries("layers").is_empty()
        };
        let wait = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(GONE, wait).await.is_err() {
            panic!(
                "{setting:?}: left are {}\nmounts {:?}\nsnapshots {:?}\nlayers {:?}",
                list(),
                bed.layer_mounts(),
                bed.entries("snapshots"),
                bed.entries("layers")
            );
        }
        assert_eq!(bed.layers().await.len(), 0);
    }
}

//! The daemon ends, and starts again: images that were pulled before start after it.

use rustix::process::Signal;
use spandrel_fixtures::image::busybox;

use super::bed::{Bed, Setting, content, large_layer, sha256};

#[tokio::test]
async fn an_image_pulled_before_a_restart_runs_after_it() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 10, 200_000)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let want = sha256(&content(1, 3, 200_000));
        for how in ["terminated", "killed", "after a reboot"] {
            match how {
                "terminated" => bed.daemon.signal(Signal::TERM),
                _ => bed.daemon.signal(Signal::KILL),
            }
            bed.daemon.wait(std::time::Duration::from_secs(30)).expect("it ends");
            if how == "after a reboot" {
                for point in bed.layer_mounts().iter().rev() {
                    rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
                }
                rustix::mount::unmount(bed.place.fuse_dir(), rustix::mount::UnmountFlags::DETACH)
                    .expect("unmounted");
            }
            bed.daemon = bed.place.start();
            let container = cri.start(&reference).await.unwrap_or_else(|error| {
                panic!("{setting:?} {how}: {error}\n{}", bed.daemon.tail());
            });
            let sum = cri.output(&container, "sha256sum < /data/3").await;
            assert!(sum.starts_with(&want), "{setting:?} {how}");
            cri.stop(container).await;
        }
    }
}

#[tokio::test]
async fn what_is_local_needs_no_registry_after_a_restart() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 10, 200_000)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        let all = "cat /data/* | sha256sum";
        let sum = cri.output(&container, all).await;
        cri.stop(container).await;
        bed.registry.stop();
        bed.restart_daemon();
        let container = cri.start(&reference).await.unwrap_or_else(|error| {
            panic!("{setting:?}: {error}\n{}", bed.daemon.tail());
        });
        assert_eq!(cri.output(&container, all).await, sum, "{setting:?}");
        cri.stop(container).await;
    }
}

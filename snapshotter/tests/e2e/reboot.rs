//! The machine ends, and starts again without its network: what is local works. (`restart` has the daemon alone, and a
//! registry that answers.)

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use spandrel_fixtures::cri::{Container, Cri};
use spandrel_fixtures::image::busybox;
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};

use super::bed::{Bed, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// Longest until what is back is read again.
const PATIENCE: Duration = Duration::from_secs(60);

impl Bed {
    /// Everything below the daemon's root that is mounted, the device too; the latest first.
    fn mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let root = self.place.root();
        let mut points: Vec<_> =
            points.filter(|point| Path::new(point).starts_with(&root)).map(str::to_owned).collect();
        points.reverse();
        points
    }

    /// Ends the daemon as a crash does.
    fn kill_daemon(&mut self) {
        self.daemon.kill();
    }

    /// What a reboot leaves of containerd, the daemon and the mounts, without containers: nothing but their files. Returns how
    /// long the daemon took to start.
    fn reboot(&mut self) -> Duration {
        self.containerd.stop();
        self.kill_daemon();
        for point in self.mounts() {
            unmount(&point, UnmountFlags::DETACH).unwrap_or_else(|error| panic!("{point}: {error}"));
        }
        assert_eq!(self.mounts(), [""; 0]);
        // /run is empty then.
        let run = self.place.socket();
        std::fs::remove_dir_all(run.parent().expect("a folder")).expect("removed");
        let begin = Instant::now();
        self.daemon = self.place.start();
        let took = begin.elapsed();
        self.containerd.restart();
        took
    }
}

#[tokio::test]
async fn after_a_reboot_without_network_pods_read_what_was_filled() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let small = TarBuilder::new().with(Entry::file("small", "small")).finish();
        let Some(lazy) = busybox([large_layer("data", 1, 30, LEN), Layer::gzip(&small)]) else { return };
        let Some(eager) = busybox([large_layer("more", 2, 10, LEN)]) else { return };
        let (lazy, eager) = (bed.push_indexed(&lazy, "lazy"), bed.push(&eager, "eager"));
        let mut cri = bed.cri().await;
        for reference in [&lazy, &eager] {
            cri.pull(reference).await.expect("pulled");
        }
        let container = cri.start(&lazy).await.expect("started");
        cri.output(&container, "cat /data/1 /small > /dev/null").await;
        cri.stop(container).await;
        assert!(!bed.layer_mounts().is_empty());

        bed.registry.stop();
        // Twice: what the first start made of it lasts too.
        for round in 1..=2 {
            let daemon = bed.reboot();
            let begin = Instant::now();
            let (mut cri, container) = start(&bed, &lazy).await;
            let pod = begin.elapsed();
            eprintln!(
                "{setting:?}: reboot {round}: the daemon starts within {daemon:?}, the first pod {pod:?}"
            );
            let sum = cri.output(&container, "cat /small; sha256sum < /data/1").await;
            assert_eq!(sum.trim_end(), format!("small{}  -", sha256(&content(1, 1, LEN))), "{setting:?}");
            let listed = cri.output(&container, "find /data -type f | wc -l").await;
            assert_eq!(listed, "30\n", "{setting:?}");
            let ran = cri.exec(&container, "cat /data/25 > /dev/null").await;
            assert_ne!(ran.code, 0, "{setting:?}: nobody has these bytes");
            let other = cri.start(&eager).await.expect("started");
            // Nobody ever read it; a complete layer needs nobody.
            let sum = cri.output(&other, "sha256sum < /more/9").await;
            assert!(sum.starts_with(&sha256(&content(2, 9, LEN))), "{setting:?}");
            for container in [container, other] {
                cri.stop(container).await;
            }
        }

        bed.registry.restart();
        let (mut cri, container) = start(&bed, &lazy).await;
        // That its bytes couldn't be had is remembered for a moment.
        let begin = Instant::now();
        let sum = loop {
            let ran = cri.exec(&container, "sha256sum < /data/25").await;
            if ran.code == 0 {
                break ran.out;
            }
            assert!(begin.elapsed() < PATIENCE, "{setting:?}: {ran:?}\n{}", bed.daemon.tail());
        };
        eprintln!("{setting:?}: the rest is read {:?} after the first try", begin.elapsed());
        assert!(sum.starts_with(&sha256(&content(1, 25, LEN))), "{setting:?}");
        cri.stop(container).await;
    }
}

/// Starts a container by a new connection.
async fn start(bed: &Bed, reference: &str) -> (Cri, Container) {
    let mut cri = bed.cri().await;
    let started = cri.start(reference).await;
    let container = started.unwrap_or_else(|error| panic!("{error}\n{}", bed.daemon.tail()));
    (cri, container)
}

#[tokio::test]
async fn killed_between_pull_and_start_without_registry() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let small = TarBuilder::new().with(Entry::file("small", "small")).finish();
        let layers = [large_layer("data", 1, 10, LEN), Layer::gzip(&small)];
        let Some(image) = busybox(layers) else { return };
        let reference = bed.push(&image, "app");
        let pause = format!("{}/pause:1", bed.registry.host());
        let mut cri = bed.cri().await;
        for reference in [&pause, &reference] {
            cri.pull(reference).await.expect("pulled");
        }
        // No container ever ran: nothing of it was read.
        bed.registry.stop();
        let mut last = None;
        for how in ["killed", "killed again", "as asked"] {
            match how {
                "as asked" => bed.restart_daemon(),
                _ => {
                    bed.kill_daemon();
                    bed.daemon = bed.place.start();
                }
            }
            let (mut cri, container) = start(&bed, &reference).await;
            let sum = cri.output(&container, "cat /small; cat /data/* | sha256sum").await;
            assert_eq!(last.get_or_insert(sum.clone()), &sum, "{setting:?} {how}");
            assert!(sum.starts_with("small"), "{setting:?} {how}");
            let sum = cri.output(&container, "sha256sum < /data/9").await;
            assert!(sum.starts_with(&sha256(&content(1, 9, LEN))), "{setting:?} {how}");
            cri.stop(container).await;
        }
        assert_eq!(bed.metric("spandrel_fetched_bytes_total").await, 0, "{setting:?}");
    }
}

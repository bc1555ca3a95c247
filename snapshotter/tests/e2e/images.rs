//! Every kind of image starts and has the right files: indexed or not, small and large layers, whiteouts, many layers; the
//! files are those that containerd's own snapshotter gives.

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::Version;

use super::bed::{Bed, SNAPSHOTTER, Setting, content, large_layer, large_tar, sha256};

/// All there is to say about a tree, one line for each file.
/// (Of a directory the size is the file system's own business, and so is its number of links.)
const DESCRIBE: &str = "cd /; find bin data conf link* more tmp var ! -type d -exec stat -c '%N %f %u %g %s %Y %h %t:%T' {} + | sort; \
                        find bin data conf more tmp var -type d -exec stat -c '%N %f %u %g %Y' {} + | sort; \
                        find odd -type d -exec stat -c '%N %f %u %g' {} + | sort; \
                        find bin data conf more odd -type f -exec sha256sum {} + | sort";

fn odd_layers() -> [Layer; 4] {
    let lower = TarBuilder::new()
        .with(Entry::dir("data"))
        .with(Entry::file("data/gone", "gone"))
        .with(Entry::dir("data/hidden"))
        .with(Entry::file("data/hidden/below", "below"))
        .with(Entry::file("data/changed", "old"))
        .with(Entry::dir("odd").mode(0o1777))
        .with(Entry::dir("odd/app").mode(0o700).owner(1000, 1001))
        .with(Entry::dir("conf"))
        .with(Entry::file("conf/kept", "kept").mode(0o4711).owner(12, 34).mtime(1_234_567_890, 5));
    let upper = TarBuilder::new()
        .with(Entry::dir("data"))
        .with(Entry::whiteout("data/gone"))
        .with(Entry::dir("data/hidden"))
        .with(Entry::opaque("data/hidden"))
        .with(Entry::file("data/hidden/above", "above"))
        .with(Entry::file("data/changed", "new"))
        .with(Entry::symlink("link-1", "data/changed"))
        .with(Entry::hard_link("link-2", "data/changed"))
        .with(Entry::fifo("data/fifo"));
    let large = large_layer("more", 5, 20, 60_000);
    // Without entries for the directories that they are in: those have the time of their unpacking with containerd.
    let files = TarBuilder::new().with(Entry::file("odd/x", "x")).with(Entry::file("odd/app/new/y", "y"));
    let upper = Layer::gzip_members(&upper.finish(), 3);
    [Layer::gzip(&lower.finish()), large, upper, Layer::gzip(&files.finish())]
}

#[tokio::test]
async fn files_are_those_that_containerds_own_snapshotter_gives() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox(odd_layers()) else { return };
        let mut cri = bed.cri().await;
        for (name, indexed) in [("indexed", true), ("plain", false)] {
            let reference = if indexed { bed.push_indexed(&image, name) } else { bed.push(&image, name) };
            cri.pull(&reference).await.expect("pulled");
            let container = cri.start(&reference).await.expect("started");
            let ours = cri.output(&container, DESCRIBE).await;
            cri.stop(container).await;
            let mut pull =
                vec!["-n", "k8s.io", "image", "pull", "--plain-http", "--snapshotter", "overlayfs"];
            if setting.containerd == Version::V2_1 {
                // Not by the transfer service, which unpacks only for the snapshotters of its configuration.
                pull.push("--local");
            }
            pull.push(&reference);
            bed.containerd.ctr(&pull).expect("pulled by containerd itself");
            let id = spandrel_fixtures::peers::Containerd::unique_id("plain");
            let theirs = bed
                .containerd
                .ctr(&[
                    "-n",
                    "k8s.io",
                    "run",
                    "--rm",
                    "--snapshotter",
                    "overlayfs",
                    &reference,
                    &id,
                    "/bin/sh",
                    "-c",
                    DESCRIBE,
                ])
                .expect("run by containerd itself");
            assert_eq!(ours, theirs.replace("\r\n", "\n"), "{setting:?} {name}");
            assert!(ours.contains("odd 43ff 0 0\nodd/app 41c0 1000 1001\n"), "{ours}");
            assert!(ours.contains("data/changed") && !ours.contains("data/gone"), "{ours}");
            cri.remove_image(&reference).await;
            let _ = bed.containerd.ctr(&["-n", "k8s.io", "image", "rm", "--sync", &reference]);
        }
    }
}

#[tokio::test]
async fn small_large_unindexed_and_zstd_layers_mix() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let small = |name: &str| TarBuilder::new().with(Entry::file(name, name.to_owned())).finish();
        let Some(image) = busybox([
            large_layer("a", 1, 10, 100_000),
            Layer::gzip(&small("small-gzip")),
            Layer::zstd(&large_tar("b", 2, 10, 100_000)),
            Layer::plain(&small("small-plain")),
            large_layer("c", 3, 10, 100_000),
        ]) else {
            return;
        };
        let reference = bed.push_indexed(&image, "mixed");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        for (dir, seed) in [("a", 1), ("b", 2), ("c", 3)] {
            let sum = cri.output(&container, &format!("cat /{dir}/7 | sha256sum")).await;
            assert!(sum.starts_with(&sha256(&content(seed, 7, 100_000))), "{setting:?} {dir}");
        }
        assert_eq!(cri.output(&container, "cat /small-gzip /small-plain").await, "small-gzipsmall-plain");
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn a_hundred_layers_are_mounted() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let layer = |number: usize| {
            let tar = TarBuilder::new()
                .with(Entry::file(format!("layer-{number}"), number.to_string()))
                .with(Entry::file("last", number.to_string()));
            Layer::gzip(&tar.finish())
        };
        let Some(image) = busybox((1..=99).map(layer)) else { return };
        let reference = bed.push(&image, "hundred");
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        assert_eq!(
            cri.output(&container, "cat /layer-1 /layer-50 /layer-99 /last").await,
            "1509999",
            "{setting:?}"
        );
        cri.stop(container).await;
        let list = bed.containerd.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", SNAPSHOTTER, "ls"]);
        assert!(list.expect("a list").lines().count() > 100);
    }
}

//! The tool's commands against the real thing: `spandrel pull` and `ctr run`, `spandrel mount` of an indexed image.

use std::process::Command;
use std::time::Duration;

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::peers::{Containerd, Version};

use super::bed::{Bed, MIN_LAYER_SIZE, SNAPSHOTTER, Setting, content, large_layer, sha256};
use super::daemon::get;

const LEN: usize = 200_000;

/// Longest that a fetch that nobody waits for may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_image_pulled_by_the_tool_is_lazy_and_runs() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let output = Command::new(&bed.spandrel)
            .arg("--address")
            .arg(bed.containerd.socket())
            .args(["pull", "--snapshotter", SNAPSHOTTER, &reference])
            .output()
            .expect("spandrel runs");
        assert!(output.status.success(), "{setting:?}: {}", String::from_utf8_lossy(&output.stderr));
        let content_list = bed.containerd.ctr(&["content", "ls", "-q"]).expect("a list");
        assert!(
            !content_list.contains(&image.layers[1].digest),
            "{setting:?}: the layer's blob was downloaded"
        );
        let id = Containerd::unique_id("pulled");
        let script = "sha256sum < /data/20";
        let ran = bed.containerd.ctr(&[
            "run",
            "--rm",
            "--snapshotter",
            SNAPSHOTTER,
            &reference,
            &id,
            "/bin/sh",
            "-c",
            script,
        ]);
        assert!(ran.expect("it runs").starts_with(&sha256(&content(1, 20, LEN))), "{setting:?}");
        let fetched = bed.metric("spandrel_fetched_bytes_total").await;
        assert!(fetched < image.layers[1].blob.len() as u64, "{setting:?}: {fetched} bytes");
    }
}

#[tokio::test]
async fn a_converted_image_is_lazy_by_the_index_that_it_names() {
    let Some(bed) = Bed::start(Version::V2_1) else { return };
    let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
    let (src, dst) = (bed.push(&image, "app"), format!("{}/lazy:1", bed.registry.host()));
    let store = bed.place.dir.path().join("store").display().to_string();
    let min = MIN_LAYER_SIZE.to_string();
    let how = ["--span-size", "262144", "--cache-size", "0", "--min-layer-size", &min, "--store", &store];
    let how = [&how[..], &["--prefetch-file", "/data/39"]].concat();
    let output = bed.tool(&[&["convert", &src, &dst][..], &how].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = bed.tool(&["pull", "--snapshotter", SNAPSHOTTER, &dst]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = bed.ctr_run(SNAPSHOTTER, &dst, "sha256sum < /data/20");
    assert!(said.starts_with(&sha256(&content(1, 20, LEN))), "{said}");
    // What the index lists came too, though nobody has read it.
    let comes = async {
        while bed.metric("spandrel_fills_total{cause=\"prefetch\"}").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.expect("it is prefetched");
    // Nothing refers to it: there is no other way to an index than the image's own.
    let fetched = bed.metric("spandrel_fetched_bytes_total").await;
    assert!(0 < fetched && fetched < image.layers[1].blob.len() as u64, "{fetched} bytes");
}

#[tokio::test]
async fn an_indexed_image_is_mounted_without_containerd_and_lazily() {
    let Some(bed) = Bed::start(Version::V1_6) else { return };
    let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
    let reference = bed.push_indexed(&image, "app");
    let dir = bed.place.dir.path();
    let (target, folder, config) = (dir.join("image"), dir.join("mounts"), dir.join("mount.toml"));
    std::fs::create_dir(&target).expect("a directory");
    for filesystem in ["erofs", "fuse"] {
        let text = format!("filesystem = {filesystem:?}\n[index]\nmin_layer_size = \"64KiB\"\n");
        std::fs::write(&config, text).expect("written");
        let run = |words: &[&str]| {
            let output =
                Command::new(&bed.spandrel).args(words).arg(&target).arg("--folder").arg(&folder).output();
            let output = output.expect("spandrel runs");
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["mount", "--config", config.to_str().expect("UTF-8"), &reference]);
        assert_eq!(
            sha256(&std::fs::read(target.join("data/20")).expect("read")),
            sha256(&content(1, 20, LEN))
        );
        let state = std::fs::read_dir(&folder).expect("a folder").next().expect("one").expect("one").path();
        let (_, metrics) = get(&state.join("admin.sock"), "/metrics").await;
        let fetched = metrics.lines().find_map(|line| line.strip_prefix("spandrel_fetched_bytes_total "));
        let fetched: usize = fetched.expect("counted").parse().expect("a number");
        let all: usize = image.layers.iter().map(|layer| layer.blob.len()).sum();
        assert!(fetched > 0 && fetched < all / 2, "{fetched} of {all} bytes");
        run(&["unmount"]);
        assert!(std::fs::read_dir(&target).expect("a directory").next().is_none());
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0);
    }
}

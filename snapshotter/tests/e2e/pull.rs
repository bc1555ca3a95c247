//! `spandrel pull` and `ctr run`: what each kind of image becomes, what is there already, what is said when something is
//! gone, what is left after the removal. (`tool` has the first look at it.)

use std::time::Duration;

use serde_json::Value;
use spandrel_fixtures::image::{Image, ImageBuilder, Index, busybox, busybox_layer};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};

use super::bed::{Bed, SNAPSHOTTER, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// Longest that containerd's garbage collector and our removals after it, or containerd's new connection to the daemon,
/// may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pulls by the tool what has to succeed; what it says as JSON.
fn pulled(bed: &Bed, args: &[&str]) -> Value {
    let output = bed.tool(&[&["pull", "--json"], args].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}\n{}", bed.daemon.tail());
    assert_eq!(err, "", "{args:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Pulls by the tool what has to fail; what it says.
fn refused(bed: &Bed, args: &[&str]) -> String {
    let output = bed.tool(&[&["pull"], args].concat());
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// How each layer was had.
fn how(pulled: &Value) -> Vec<&str> {
    let layers = pulled["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["how"].as_str().expect("a word")).collect()
}

/// The checksum of file `number` below `dir`, read in a new container.
fn sum_in(bed: &Bed, snapshotter: &str, reference: &str, dir: &str, number: usize) -> String {
    bed.ctr_run(snapshotter, reference, &format!("sha256sum < /{dir}/{number}"))
}

fn blob_len(image: &Image, layer: usize) -> u64 {
    image.layers[layer].blob.len() as u64
}

#[tokio::test]
async fn images_are_lazy_where_they_can_be_and_shared_and_removed() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let data = large_layer("data", 1, 40, LEN);
        let Some(first) = busybox([data.clone()]) else { return };
        let Some(second) = busybox([data, large_layer("more", 2, 10, LEN)]) else { return };
        let indexed = bed.push_indexed(&first, "first");
        let fetched = async || bed.metric("spandrel_fetched_bytes_total").await;

        let said = pulled(&bed, &[&indexed]);
        assert_eq!(how(&said), ["remote", "remote"], "{setting:?}");
        assert_eq!(said["name"], indexed.as_str());
        assert_eq!(said["manifest"], first.digest());
        assert_eq!(said["digest"], first.digest());
        assert_eq!(said["snapshotter"], SNAPSHOTTER);
        assert_eq!(said["chain_id"], first.chain_ids()[1]);
        assert_eq!(said["layers"][1]["digest"], first.layers[1].digest);
        assert_eq!(said["layers"][1]["size"], blob_len(&first, 1));
        assert!(fetched().await < blob_len(&first, 1) / 4, "{setting:?}: pulled in full");
        let sum = sum_in(&bed, SNAPSHOTTER, &indexed, "data", 20);
        assert!(sum.starts_with(&sha256(&content(1, 20, LEN))), "{setting:?}");
        let after_first = fetched().await;
        let limit = blob_len(&first, 1) / 2 + blob_len(&first, 0);
        assert!(after_first < limit, "{setting:?}: {after_first} bytes for one file of forty");

        // The same once more.
        assert_eq!(how(&pulled(&bed, &[&indexed])), ["exists", "exists"], "{setting:?}");
        assert_eq!(fetched().await, after_first, "{setting:?}");

        // No index: what it shares is there, the rest is filled before the pull ends.
        let plain = bed.push(&second, "second");
        assert_eq!(how(&pulled(&bed, &[&plain])), ["exists", "exists", "remote"], "{setting:?}");
        let more = fetched().await - after_first;
        assert!(more >= blob_len(&second, 2), "{setting:?}: {more} bytes of {}", blob_len(&second, 2));
        let sum = sum_in(&bed, SNAPSHOTTER, &plain, "more", 9);
        assert!(sum.starts_with(&sha256(&content(2, 9, LEN))), "{setting:?}");
        assert_eq!(bed.layers().await.len(), 3, "{setting:?}");

        removed(&bed, &[&indexed, &plain]).await;
    }
}

/// Removes these images and waits until nothing is left of them.
async fn removed(bed: &Bed, references: &[&str]) {
    for reference in references {
        bed.containerd.ctr(&["image", "rm", "--sync", reference]).expect("removed");
    }
    let list = || bed.containerd.ctr(&["snapshots", "--snapshotter", SNAPSHOTTER, "ls"]).expect("a list");
    let left = || {
        let (mounts, snapshots, layers) =
            (bed.layer_mounts(), bed.entries("snapshots"), bed.entries("layers"));
        let gone =
            list().lines().count() == 1 && [&mounts, &snapshots, &layers].iter().all(|left| left.is_empty());
        (!gone).then(|| format!("{}mounts {mounts:?}\nsnapshots {snapshots:?}\nlayers {layers:?}", list()))
    };
    let wait = async {
        while left().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("left are {:?}", left());
    }
    assert!(bed.layers().await.is_empty());
    // No content either: the lease of the pull is gone.
    assert_eq!(bed.containerd.ctr(&["leases", "ls", "-q"]).expect("a list").trim(), "");
    assert_eq!(bed.containerd.ctr(&["content", "ls", "-q"]).expect("a list").trim(), "");
}

#[tokio::test]
async fn containerds_own_snapshotter_gets_an_ordinary_pull() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 10, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let said = pulled(&bed, &["--snapshotter", "overlayfs", &reference]);
        assert_eq!(how(&said), ["unpacked", "unpacked"], "{setting:?}");
        let sum = sum_in(&bed, "overlayfs", &reference, "data", 7);
        assert!(sum.starts_with(&sha256(&content(1, 7, LEN))), "{setting:?}");
        assert!(bed.layers().await.is_empty(), "{setting:?}: the daemon had nothing to do with it");
        // The image is there; that its layers aren't on the other snapshotter is no obstacle.
        assert_eq!(how(&pulled(&bed, &[&reference])), ["remote", "remote"], "{setting:?}");
        let sum = sum_in(&bed, SNAPSHOTTER, &reference, "data", 7);
        assert!(sum.starts_with(&sha256(&content(1, 7, LEN))), "{setting:?}");
    }
}

#[tokio::test]
async fn of_an_image_for_several_platforms_ours_is_pulled() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(ours) = busybox([large_layer("data", 1, 10, LEN)]) else { return };
        let Some(base) = busybox_layer() else { return };
        let foreign = TarBuilder::new().with(Entry::file("foreign", "foreign")).finish();
        let foreign = ImageBuilder::new().layer(base).layer(Layer::gzip(&foreign));
        let foreign = foreign.platform("linux", "s390x", "").build();
        let index = Index::new(vec![foreign, ours.clone()]);
        index.push(&bed.registry.client(), "several", "1");
        let reference = format!("{}/several:1", bed.registry.host());
        bed.create_index(&reference);
        let said = pulled(&bed, &[&reference]);
        assert_eq!(said["digest"], index.digest(), "{setting:?}");
        assert_eq!(said["manifest"], ours.digest(), "{setting:?}");
        assert_eq!(how(&said), ["remote", "remote"], "{setting:?}");
        let layers = bed.layers().await;
        let data = layers.iter().find(|layer| layer["digest"] == ours.layers[1].digest);
        assert_eq!(data.expect("the layer")["stage"], "indexed", "{setting:?}");
        let sum = sum_in(&bed, SNAPSHOTTER, &reference, "data", 3);
        assert!(sum.starts_with(&sha256(&content(1, 3, LEN))), "{setting:?}");
        removed(&bed, &[&reference]).await;
    }
}

#[tokio::test]
async fn what_is_gone_is_named_with_what_to_do() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 10, LEN)]) else { return };
        let reference = bed.push(&image, "app");

        let said = refused(&bed, &[&format!("{}/nothing:1", bed.registry.host())]);
        assert!(said.contains("/nothing") && said.contains("Check the name"), "{setting:?}: {said}");
        let said = refused(&bed, &["--snapshotter", "nobody", &reference]);
        assert!(said.contains("nobody") && said.contains("docs/containerd.md"), "{setting:?}: {said}");

        bed.daemon.stop();
        let said = refused(&bed, &[&reference]);
        assert!(said.contains("is the snapshotter's daemon running?"), "{setting:?}: {said}");
        // It is back, and so is the pull, as soon as containerd has tried again.
        bed.daemon = bed.place.start();
        let again = async {
            while !bed.tool(&["pull", "--quiet", &reference]).status.success() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("the pull works again");
        let sum = sum_in(&bed, SNAPSHOTTER, &reference, "data", 3);
        assert!(sum.starts_with(&sha256(&content(1, 3, LEN))), "{setting:?}");

        bed.containerd.stop();
        let said = refused(&bed, &[&reference]);
        let socket = bed.containerd.socket();
        assert!(said.contains(socket.to_str().expect("UTF-8")), "{setting:?}: {said}");
        assert!(said.contains("is containerd running, and is --address its socket?"), "{setting:?}: {said}");
        bed.containerd.restart();
    }
}

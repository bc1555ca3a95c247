//! Which layers are mounted, with real mounts.

use super::*;

fn bed(keep_mounted: usize) -> Bed {
    Bed::with(Fake::mounting(), |options| options.keep_mounted = keep_mounted)
}

#[tokio::test]
async fn used_ones_stay_and_of_the_others_those_used_last() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let bed = bed(1);
    for layer in ["one", "two", "three"] {
        bed.remote(layer, "").await;
    }
    bed.settle().await;
    assert_eq!(bed.snapshots.lowers.mounted(), [3], "only the last one used");
    bed.prepare("container", "chain-one").await.expect("prepared");
    bed.prepare("other", "chain-two").await.expect("prepared");
    bed.settle().await;
    assert_eq!(bed.snapshots.lowers.mounted(), [1, 2, 3], "two in use, one kept");
    assert!(bed.metrics.encode().contains("spandrel_layer_mounts 3"));
    bed.snapshots.remove("container".into()).await.expect("removed");
    bed.settle().await;
    assert_eq!(bed.snapshots.lowers.mounted(), [1, 2], "chain-three was used before chain-one");
}

#[tokio::test]
async fn a_mount_is_made_once_and_again_when_somebody_took_it_away() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let bed = bed(100);
    bed.remote("one", "").await;
    bed.prepare("container", "chain-one").await.expect("prepared");
    bed.snapshots.mounts("container".into()).await.expect("mounts");
    assert_eq!(bed.layers.state().mounts, 1);
    rustix::mount::unmount(bed.dir.path().join("snapshots/1/fs"), rustix::mount::UnmountFlags::DETACH)
        .expect("unmounted");
    bed.snapshots.mounts("container".into()).await.expect("mounts");
    assert_eq!(bed.layers.state().mounts, 2);
}

#[tokio::test]
async fn a_restart_replaces_the_mounts_that_are_in_use() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let bed = bed(100);
    for layer in ["one", "two"] {
        bed.remote(layer, "").await;
    }
    bed.prepare("container", "chain-one").await.expect("prepared");
    assert_eq!(bed.layers.state().mounts, 2);
    let bed = bed.restart().await;
    assert_eq!(bed.snapshots.lowers.mounted(), [1]);
    let targets: Vec<_> = bed.layers.state().mounted.keys().cloned().collect();
    assert_eq!(targets, [bed.dir.path().join("snapshots/1/fs")]);
    bed.snapshots.remove("container".into()).await.expect("removed");
    bed.snapshots.remove("chain-one".into()).await.expect("removed");
    bed.settle().await;
    assert_eq!(bed.layers.state().mounted.len(), 0);
    assert!(!bed.dir.path().join("snapshots/1").exists());
}

#[tokio::test]
async fn every_mount_goes_when_nothing_will_serve_them() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let bed = bed(100);
    bed.remote("one", "").await;
    bed.prepare("container", "chain-one").await.expect("prepared");
    bed.snapshots.unmount_all().await;
    assert_eq!(bed.layers.state().mounted.len(), 0);
}

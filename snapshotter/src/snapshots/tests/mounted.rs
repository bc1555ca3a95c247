//! Which layers are mounted, with real mounts.

use spandrel_fixtures::random::Random;

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

/// Containers that come and go at once, on chains that share layers, with hardly any layer kept beside those in use.
async fn storm(bed: &Bed, keep: usize) {
    const LAYERS: usize = 6;
    for layer in 0..LAYERS {
        let parent = layer.checked_sub(2).map(|below| format!("chain-{below}")).unwrap_or_default();
        bed.remote(&layer.to_string(), &parent).await;
    }
    let containers = (0..8_usize).map(|number| async move {
        let mut random = Random::new(number as u64);
        for round in 0..12 {
            let top = usize::try_from(random.below(LAYERS as u64)).expect("few");
            let key = format!("container-{number}-{round}");
            bed.prepare(&key, &format!("chain-{top}")).await.expect("prepared");
            // From the answer to the removal, whatever the others do meanwhile.
            for _ in 0..random.below(20) {
                let mounted = bed.layers.state().mounted.clone();
                for layer in (0..=top).rev().step_by(2) {
                    let target = bed.dir.path().join(format!("snapshots/{}/fs", layer + 1));
                    let found = mounted.get(&target).map(|key| key.0.clone());
                    assert_eq!(found, Some(layer.to_string()), "{key} stands on it");
                }
                if random.below(4) == 0 {
                    bed.snapshots.mounts(key.clone()).await.expect("mounts");
                }
                tokio::task::yield_now().await;
            }
            bed.snapshots.remove(key).await.expect("removed");
        }
    });
    futures_util::future::join_all(containers).await;
    bed.settle().await;
    bed.snapshots.lowers.evict().await;
    let left = bed.layers.state().mounted.len();
    assert_eq!(left, keep, "nobody uses any: those used last");
    assert_eq!(bed.snapshots.lowers.mounted().len(), keep, "and that is known");
    assert!(bed.metrics.encode().contains(&format!("spandrel_layer_mounts {keep}\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_never_unmounted() {
    for keep in [0, 2] {
        storm(&Bed::with(Fake::default(), |options| options.keep_mounted = keep), keep).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_never_really_unmounted() {
    if spandrel_fixtures::require::root() {
        storm(&bed(1), 1).await;
    }
}

//! The room that layers take: what is kept, what goes when, and what containers notice of it.

use spandrel_soci::index::Version;
use tokio::sync::Semaphore;

use super::*;
use crate::fetch::testing::{Fault, indexed, noise, tar};
use crate::fetch::{Background, Cause};
use crate::small_disk::SmallDisk;

/// Bytes of a test's large file.
const LARGE: usize = 3_000_000;

fn layer(name: &str) -> TestLayer {
    // Few spans: each has 32 KiB in the zTOC, which takes room, too.
    indexed(tar(&[(name, LARGE), ("small", 100)]), 300_000)
}

/// Everything is kept.
fn kept(options: &mut StoreOptions) {
    options.quota = Share::Percent(100);
    options.unused_mark = Share::Percent(100);
}

async fn unused(bench: &Bench, keys: &[LayerKey]) {
    for key in keys {
        bench.store.remove(key).await.expect("put away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_snapshot_uses_is_kept_for_the_next_pull_also_over_a_restart() {
    let Some(dir) = disk() else { return };
    let layers = [layer("lazy"), layer("whole")];
    let (image, blobs) = image(&[(&layers[0], true), (&layers[1], false)], Version::V2);
    let requests = |bench: &Bench| layers.each_ref().map(|layer| bench.blob(layer).requests().len());
    let mut before = None;
    for round in 0..3 {
        let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
        bench.store.restore(&[]).await.expect("restores");
        assert_eq!(bench.on_disk().len(), if round == 0 { 0 } else { 2 }, "what was kept is known again");
        // Twice in one life, too.
        for again in [false, true] {
            let keys = [bench.prepare(&image, 0).await, bench.prepare(&image, 1).await];
            for (key, name) in keys.iter().zip(["lazy", "whole"]) {
                bench.store.ready(key).await.expect("ready");
                let target = bench.mount(key).await;
                assert!(contents(target.join(name)).await.expect("reads") == noise(1, LARGE), "{name}");
                bench.store.unmount(key, &target).await.expect("unmounts");
            }
            let now = requests(&bench);
            assert_eq!(*before.get_or_insert(now), now, "{round} {again}: nothing is fetched twice");
            bench.node().fetch.tasks.wait().await;
            unused(&bench, &keys).await;
            assert!(bench.store.report().await.is_empty());
            assert!(!bench.device().has(&keys[0].0) && !bench.device().has(&keys[1].0));
            assert_eq!(bench.on_disk().len(), 2);
        }
        bench.store.shutdown().await;
    }
    // Fuller than the mark they are of no use to anybody.
    let bench = Bench::new(dir.path(), Arc::clone(&image), &blobs);
    bench.store.restore(&[]).await.expect("restores");
    assert!(bench.on_disk().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_layer_that_is_damaged_or_another_images_is_not_used() {
    let Some(dir) = disk() else { return };
    let layer = layer("whole");
    let (image, blobs) = image(&[(&layer, false)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
    let key = bench.prepare(&image, 0).await;
    bench.store.ready(&key).await.expect("ready");
    unused(&bench, std::slice::from_ref(&key)).await;
    drop(bench);
    // The same blob, and another diff ID: one of them lies.
    let (liar, _) = super::image(&[(&TestLayer { tar: vec![0; 1024], ..layer.clone() }, false)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&liar), &blobs, kept);
    bench.store.restore(&[]).await.expect("restores");
    let prepared = bench.store.prepare(&liar.request(0)).await.expect("prepares");
    assert_eq!(prepared, Prepared::Ordinary("diff-id"));
    assert_eq!(bench.on_disk(), std::slice::from_ref(&key.0));
    drop(bench);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
    bench.store.restore(&[]).await.expect("restores");
    let record = dir.path().join("layers").join(&key.0).join("layer.json");
    std::fs::write(record, b"{").expect("written");
    let before = bench.blob(&layer).requests().len();
    assert_eq!(bench.prepare(&image, 0).await, key);
    assert_eq!(bench.store.ready(&key).await, Ok(Ready::Mountable));
    assert!(bench.blob(&layer).requests().len() > before);
    assert_eq!(bench.errors("layer-damaged"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_quota_unused_layers_go_first_then_unmounted_ones_then_spans() {
    let Some(dir) = disk() else { return };
    // By what becomes of them.
    let names = ["emptied", "unused", "mounted", "mounted, too", "dropped"];
    let layers = names.map(layer);
    let listed: Vec<_> = layers.iter().zip([true, false, true, true, false]).collect();
    let (image, blobs) = image(&listed, Version::V2);
    // Three layers and a half, each of which takes little more than its file.
    let quota = 7 * LARGE as u64 / 2;
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        kept(options);
        options.quota = Share::Bytes(quota);
    });
    let mut keys = Vec::new();
    let mut targets = Vec::new();
    for (position, name) in names.into_iter().enumerate() {
        let key = bench.prepare(&image, position).await;
        bench.store.ready(&key).await.expect("ready");
        let target = bench.mount(&key).await;
        assert!(contents(target.join(name)).await.expect("reads") == noise(1, LARGE));
        keys.push(key);
        targets.push(target);
    }
    bench.node().fetch.tasks.wait().await;
    // All are mounted: what has no checkpoints stays, whatever the quota says.
    let used = || bench.on_disk().iter().map(|name| allocated(dir.path(), name)).sum::<u64>();
    assert!(used() > 5 * LARGE as u64);
    bench.store.look().await;
    assert!(used() <= quota, "{}", used());
    assert_eq!(bench.on_disk().len(), 5);
    assert!(bench.given_back("spans") > 0);
    assert_eq!((bench.given_back("unused"), bench.given_back("unmounted")), (0, 0));
    // What went is fetched again, and is right.
    for position in [0, 2, 3] {
        let (key, target) = (&keys[position], &targets[position]);
        bench.store.unmount(key, target).await.expect("unmounts");
        bench.store.mount(key, None, target).await.expect("mounts");
        assert!(contents(target.join(names[position])).await.expect("reads") == noise(1, LARGE));
    }
    bench.node().fetch.tasks.wait().await;
    assert!(used() > 5 * LARGE as u64);

    // Now one is unused, one of each kind is unmounted, and two are mounted.
    for position in [4, 1, 0] {
        bench.store.unmount(&keys[position], &targets[position]).await.expect("unmounts");
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let dropped = std::fs::File::open(dir.path().join("layers").join(&keys[4].0)).expect("opens");
    dropped.set_modified(long_ago).expect("touched");
    unused(&bench, &keys[1..2]).await;
    let spans = bench.given_back("spans");
    bench.store.look().await;
    assert!(used() <= quota);
    assert!(!bench.on_disk().contains(&keys[1].0), "the unused one went first");
    assert_eq!(bench.given_back("spans"), spans, "no mounted one had to give anything");
    // Then the one that was unmounted first: it has no checkpoints, and went as a whole.
    assert!(!bench.on_disk().contains(&keys[4].0));
    let gone = bench.store.mount(&keys[4], None, &targets[4]).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    assert_eq!(bench.prepare(&image, 4).await, keys[4], "it is asked for anew");
    bench.store.ready(&keys[4]).await.expect("ready");

    // Over it once more: the unmounted lazy one gives all its spans, and keeps what it is mounted by.
    bench.store.look().await;
    assert!(used() <= quota);
    assert_eq!(bench.given_back("spans"), spans);
    let requests = bench.blob(&layers[0]).requests().len();
    bench.store.mount(&keys[0], None, &targets[0]).await.expect("mounts without a network");
    assert_eq!(bench.blob(&layers[0]).requests().len(), requests);
    assert!(contents(targets[0].join(names[0])).await.expect("reads") == noise(1, LARGE));
    assert!(bench.blob(&layers[0]).requests().len() > requests);
}

/// Waits until what is touched now is newer than the layer `name`: file systems count time in some milliseconds.
fn next_tick(root: &Path, name: &str) {
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified()).expect("known");
    let (layer, probe) = (root.join("layers").join(name), root.join("probe"));
    let before = modified(&layer);
    while {
        std::fs::write(&probe, b"").expect("written");
        modified(&probe)
    } <= before
    {}
    std::fs::remove_file(&probe).expect("removed");
}

fn allocated(root: &Path, name: &str) -> u64 {
    files::allocated(&root.join("layers").join(name)).expect("counted").0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_layer_that_was_not_opened_since_the_start_is_emptied_too() {
    // Also where the daemon died after the bitmap had gone.
    for half_emptied in [false, true] {
        let Some(dir) = disk() else { return };
        let layer = layer("lazy");
        let (image, blobs) = image(&[(&layer, true)], Version::V2);
        let key = {
            let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
            let key = bench.prepare(&image, 0).await;
            let target = bench.mount(&key).await;
            contents(target.join("lazy")).await.expect("reads");
            bench.store.unmount(&key, &target).await.expect("unmounts");
            bench.store.shutdown().await;
            key
        };
        assert!(allocated(dir.path(), &key.0) > LARGE as u64);
        if half_emptied {
            std::fs::remove_file(dir.path().join("layers").join(&key.0).join("bitmap")).expect("removed");
        }
        let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
            kept(options);
            options.quota = Share::Bytes(1 << 20);
        });
        bench.store.restore(std::slice::from_ref(&key)).await.expect("restores");
        bench.store.look().await;
        assert!(allocated(dir.path(), &key.0) < 1 << 20);
        let target = bench.mount(&key).await;
        assert!(contents(target.join("lazy")).await.expect("reads") == noise(1, LARGE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_longer_than_the_quota_is_not_fetched_and_thrown_away_by_turns() {
    let Some(dir) = disk() else { return };
    let layers = [layer("a"), layer("b"), layer("c")];
    let listed: Vec<_> = layers.iter().map(|layer| (layer, true)).collect();
    let (image, blobs) = image(&listed, Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, |options| {
        kept(options);
        options.quota = Share::Bytes(LARGE as u64);
        options.background = Background::Stream;
    });
    let mut targets = Vec::new();
    for position in 0..3 {
        let key = bench.prepare(&image, position).await;
        bench.store.ready(&key).await.expect("ready");
        targets.push(bench.mount(&key).await);
    }
    // Each look finds more than there may be until the background has been told to stop.
    let fetched = || layers.iter().map(|layer| bench.blob(layer).requests().len()).sum::<usize>();
    let mut quiet = 0;
    while quiet < 5 {
        let before = fetched();
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.node().fetch.tasks.wait().await;
        let freed = bench.store.look().await;
        quiet = if fetched() == before && freed == 0 { quiet + 1 } else { 0 };
    }
    for (target, name) in targets.iter().zip(["a", "b", "c"]) {
        assert!(contents(target.join(name)).await.expect("reads") == noise(1, LARGE), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_what_is_unused_goes_and_work_goes_on() {
    if disk().is_none() {
        return;
    }
    let Some(small) = SmallDisk::new(40 << 20) else { return };
    let root = small.path().join("root");
    let larger = |name, len| indexed(tar(&[(name, len)]), 64 << 10);
    let layers = [larger("old", 8_000_000), layer("lazy"), layer("whole"), larger("older", 6_000_000)];
    let listed: Vec<_> = layers.iter().zip([false, true, false, false]).collect();
    let (image, blobs) = image(&listed, Version::V2);
    let bench = Bench::with(&root, Arc::clone(&image), &blobs, |options| {
        kept(options);
        // Nothing is begun ahead by itself: each layer has its turn in this test.
        options.unclaimed_patience = Duration::from_secs(3600);
        options.room_period = Duration::from_secs(3600);
    });
    bench.store.restore(&[]).await.expect("restores");
    let gate = Arc::new(Semaphore::new(0));
    bench.blob(&layers[2]).always(Fault::Hold(Arc::clone(&gate)));
    let mut keys = Vec::new();
    for position in [3, 0, 1, 2] {
        keys.push(bench.prepare(&image, position).await);
    }
    let [older, old, lazy, whole] = &keys[..] else { panic!("four") };
    for key in [older, old] {
        bench.store.ready(key).await.expect("ready");
    }
    unused(&bench, std::slice::from_ref(older)).await;
    next_tick(&root, &older.0);
    unused(&bench, std::slice::from_ref(old)).await;
    let target = bench.mount(lazy).await;
    small.fill();

    // A reader notices nothing, and when the older of the two has gone there is room for what is read.
    assert!(contents(target.join("lazy")).await.expect("reads") == noise(1, LARGE));
    while bench.on_disk().contains(&older.0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(bench.errors("no-space") > 0);
    assert!(bench.given_back("unused") > 0);
    bench.store.unmount(lazy, &target).await.expect("unmounts");
    bench.store.mount(lazy, None, &target).await.expect("mounts");
    assert!(contents(target.join("lazy")).await.expect("reads") == noise(1, LARGE));
    bench.node().fetch.tasks.wait().await;
    assert!(bench.store.usage(lazy).await.expect("counted").size > 1 << 20, "it is kept now");

    // A layer that is filled in full finds no room at first, either.
    small.fill_again();
    gate.add_permits(1000);
    assert_eq!(bench.store.ready(whole).await, Ok(Ready::Mountable));
    assert!(!bench.on_disk().contains(&old.0));
    let whole = bench.mount(whole).await;
    assert!(contents(whole.join("whole")).await.expect("reads") == noise(1, LARGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_room_is_told_whether_there_is_any() {
    let Some(dir) = disk() else { return };
    let layer = layer("whole");
    let (image, blobs) = image(&[(&layer, false)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
    assert!(!bench.store.make_room().await, "nobody looks yet");
    bench.store.restore(&[]).await.expect("restores");
    let key = bench.prepare(&image, 0).await;
    bench.store.ready(&key).await.expect("ready");
    unused(&bench, std::slice::from_ref(&key)).await;
    assert!(bench.store.make_room().await, "somebody has made some");
    assert_eq!(bench.on_disk(), [key.0], "then nothing has to go");
    bench.store.shutdown().await;
    assert!(!bench.store.make_room().await, "nobody looks any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_being_filled_or_is_doubted_is_not_kept() {
    let Some(dir) = disk() else { return };
    let (whole, mut lazy) = (layer("whole"), layer("lazy"));
    lazy.ztoc.entries[1].mode = 0o4755;
    lazy.ztoc_bytes = lazy.ztoc.encode();
    let (image, blobs) = image(&[(&whole, false), (&lazy, true)], Version::V2);
    let bench = Bench::with(dir.path(), Arc::clone(&image), &blobs, kept);
    bench.blob(&whole).always(Fault::Fail(Cause::Unreachable));
    let keys = [bench.prepare(&image, 0).await, bench.prepare(&image, 1).await];
    let target = bench.mount(&keys[1]).await;
    assert!(contents(target.join("small")).await.is_err());
    bench.store.unmount(&keys[1], &target).await.expect("unmounts");
    unused(&bench, &keys).await;
    assert!(bench.on_disk().is_empty(), "{:?}", bench.on_disk());
}

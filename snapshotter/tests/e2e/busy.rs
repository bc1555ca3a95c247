//! A layer that never comes holds nobody up: its registry sends a part of it and then waits for the test. (`waiting` has a
//! slow registry, and looks at the clock more closely.)

use std::time::{Duration, Instant};

use spandrel_fixtures::cri::Cri;
use spandrel_fixtures::image::busybox;
use spandrel_fixtures::scripted::{Fault, Gate, Kind, Rule, ScriptedRegistry};

use super::bed::{Bed, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// How many starts are timed; the median counts.
const STARTS: usize = 3;

/// Longest that a start may take where it isn't slower anyhow: what is promised.
const PROMISED: Duration = Duration::from_secs(1);

/// A busy machine takes longer for any start: so many times the median without the pull is fine too. Whoever waits for the
/// layer waits for ever, since the gate is opened only afterwards.
const SLOWER: u32 = 2;

/// Longest for what should come soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts and ends a pod some times; the median of what the starts took.
async fn median_start(cri: &mut Cri, reference: &str) -> Duration {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let begin = Instant::now();
        let started = tokio::time::timeout(PATIENCE, cri.start(reference)).await;
        let container = started.expect("a pod starts without waiting for the layer").expect("started");
        took.push(begin.elapsed());
        cri.stop(container).await;
    }
    took.sort();
    took[STARTS / 2]
}

/// Whether the daemon has a layer. (containerd's list of snapshots asks for each, and so waits for those to come.)
async fn has(bed: &Bed, digest: &str) -> bool {
    bed.layers().await.iter().any(|layer| layer["digest"] == digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_and_garbage_is_collected_while_a_layer_does_not_come() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(local) = busybox([large_layer("local", 1, 10, LEN)]) else { return };
        let Some(junk) = busybox([large_layer("junk", 2, 10, LEN)]) else { return };
        let Some(large) = busybox([large_layer("data", 3, 60, LEN)]) else { return };
        let (local, junk_name) = (bed.push_indexed(&local, "local"), bed.push(&junk, "junk"));
        let mut cri = bed.cri().await;
        for reference in [&local, &junk_name] {
            cri.pull(reference).await.expect("pulled");
        }
        let alone = median_start(&mut cri, &local).await;

        let registry = ScriptedRegistry::plain();
        large.put(&registry, "large", "1");
        let gate = Gate::new();
        let (digest, len) = (&large.layers[1].digest, large.layers[1].blob.len());
        for kind in [Kind::Blob, Kind::BlobRange] {
            // The first answer stops in the middle; when the daemon has lost patience (15 s) and asks again, there is none.
            registry.rule(Rule::new(kind, Fault::HoldAfter(len / 2, gate.clone())).digest(digest).nth(0));
            registry.rule(Rule::new(kind, Fault::Hold(gate.clone())).digest(digest));
        }
        let reference = format!("{}/large:1", registry.host());
        let mut other = bed.cri().await;
        let name = reference.clone();
        let pull = tokio::spawn(async move { other.pull(&name).await.map(|_| other) });
        let sending = async {
            while registry.sent(digest) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.expect("the layer is on its way");

        // Of an image's names the last is removed with collection; the snapshots go with it.
        let gone = &junk.layers[1].digest;
        assert!(has(&bed, gone).await, "{setting:?}");
        let begin = Instant::now();
        let removed = async {
            cri.remove_image(&junk_name).await;
            while has(&bed, gone).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, removed).await.expect("the junk is collected");
        eprintln!("{setting:?}: garbage is collected within {:?}", begin.elapsed());
        assert!(!pull.is_finished(), "{setting:?}: the gate is closed");

        // The collector runs again and again while pods start.
        let beside = {
            let containerd = &bed.containerd;
            let ended = std::sync::atomic::AtomicBool::new(false);
            let (ended, local) = (&ended, &local);
            std::thread::scope(|scope| {
                let collector = scope.spawn(move || {
                    let mut rounds = 0;
                    while rounds == 0 || !ended.load(std::sync::atomic::Ordering::Relaxed) {
                        let extra = "registry.example/extra:1";
                        containerd.ctr(&["-n", "k8s.io", "image", "tag", local, extra]).expect("tagged");
                        containerd.ctr(&["-n", "k8s.io", "image", "rm", "--sync", extra]).expect("collected");
                        rounds += 1;
                    }
                    rounds
                });
                let cri = &mut cri;
                let beside = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(median_start(cri, local))
                });
                ended.store(true, std::sync::atomic::Ordering::Relaxed);
                let rounds = collector.join().expect("the collector runs");
                eprintln!("{setting:?}: start alone {alone:?}, beside {beside:?}, {rounds} collections");
                beside
            })
        };
        assert!(!pull.is_finished(), "{setting:?}: the gate is closed");
        assert!(
            beside < PROMISED.max(alone * SLOWER),
            "{setting:?}: a pod took {beside:?} to start, {alone:?} without the pull"
        );

        gate.open();
        let mut cri = pull.await.expect("no panic").expect("the pull ends well");
        let container = cri.start(&reference).await.expect("started");
        let sum = cri.output(&container, "sha256sum < /data/59").await;
        assert!(sum.starts_with(&sha256(&content(3, 59, LEN))), "{setting:?}");
        cri.stop(container).await;
    }
}

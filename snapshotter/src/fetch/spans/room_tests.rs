//! Giving spans back: what readers get meanwhile and afterwards, on the disk and in concurrency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spandrel_ztoc::SpanId;

use super::*;
use crate::fetch::testing::{Blob, Fault, TestLayer, indexed, settings, spans, tar};
use crate::fetch::{Background, Cause, Settings};
use crate::layer::bitmap::Presence;
use crate::small_disk::SmallDisk;

fn layer() -> TestLayer {
    indexed(tar(&[("a", 300_000), ("b", 10), ("c", 500_000)]), 64 << 10)
}

fn range(spans: &Spans, id: u32) -> Range<u64> {
    spans.table().get(SpanId(id)).expect("there is one").uncompressed
}

async fn quiet(spans: &Spans) {
    spans.engine.tasks.wait().await;
}

fn all(spans: &Spans) -> Vec<u32> {
    (0..spans.progress().1).collect()
}

#[tokio::test]
async fn what_is_given_back_is_a_hole_and_comes_again_when_it_is_read() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let len = layer.tar.len();
    spans.read(0, len).await.expect("reads");
    quiet(&spans).await;
    spans.files.stream.sync().expect("on the disk");
    let full = spans.files.stream.allocated().expect("known");
    let before = blob.requests().len();

    // Two neighbours share the block between them; the others keep theirs.
    let given = spans.give_back(&[1, 2, 4]).expect("given back");
    let holes = range(&spans, 1).start..range(&spans, 2).end;
    let whole = holes.end / 4096 * 4096 - holes.start.next_multiple_of(4096);
    let single = range(&spans, 4).end / 4096 * 4096 - range(&spans, 4).start.next_multiple_of(4096);
    assert_eq!(given, whole + single);
    assert_eq!(full - spans.files.stream.allocated().expect("known"), given);
    assert_eq!(spans.files.bitmap.get(1), Presence::Missing);
    let bytes = &mut [0; 10];
    assert!(!spans.read_present(range(&spans, 2).start, bytes));
    assert!(spans.read_present(0, bytes) && spans.read_present(range(&spans, 3).start, bytes));

    assert_eq!(spans.read(0, len).await.expect("reads"), layer.tar);
    quiet(&spans).await;
    assert_eq!(blob.requests().len(), before + 2, "{:?}", blob.requests());
    assert_eq!(spans.progress().0, spans.progress().1);
    // All of it: the padding, too.
    spans.give_back(&all(&spans)).expect("given back");
    assert_eq!(spans.files.stream.allocated().expect("known"), 0);
    assert_eq!(spans.read(0, len).await.expect("reads"), layer.tar);
}

#[tokio::test]
async fn what_is_on_its_way_or_relied_on_stays() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    assert_eq!(spans.give_back(&[0, 1]).expect("nothing to do"), 0);
    spans.read(0, layer.tar.len()).await.expect("reads");
    quiet(&spans).await;
    {
        let _whole = spans.keep_whole().expect("all are there");
        assert_eq!(spans.give_back(&all(&spans)).expect("nothing to do"), 0);
    }
    // One that somebody is checking, say.
    let waiter = spans.tower().take_off(1);
    spans.give_back(&[0, 1]).expect("given back");
    assert_eq!(
        (spans.files.bitmap.get(0), spans.files.bitmap.get(1)),
        (Presence::Missing, Presence::Present)
    );
    drop((spans.tower().land(1), waiter));
    assert!(spans.keep_whole().is_none(), "one is missing");
    spans.give_back(&[1]).expect("nobody relies on it");
    assert_eq!(spans.files.bitmap.get(1), Presence::Missing);
}

#[tokio::test]
async fn who_comes_while_a_span_goes_waits_and_fetches_it() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    spans.read(0, 10).await.expect("reads");
    quiet(&spans).await;
    let before = blob.requests().len();
    // As far as it is under the lock.
    assert!(spans.tower().leave(0) && !spans.tower().leave(0));
    spans.files.bitmap.withdraw(&[0]);
    let mut reader = tokio::spawn({
        let spans = Arc::clone(&spans);
        async move { spans.read(0, 10).await }
    });
    tokio::select! {
        biased;
        _ = &mut reader => panic!("there is nothing to answer it from"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    assert_eq!(blob.requests().len(), before, "its place is taken");
    spans.engine.lost(spans.id, 0);
    spans.tower().left(0);
    assert_eq!(reader.await.expect("ran").expect("reads"), layer.tar[..10]);
    assert_eq!(blob.requests().len(), before + 1);
}

#[tokio::test]
async fn after_a_crash_at_any_point_a_span_is_right_or_missing_and_takes_nothing() {
    type Crash = fn(&Spans);
    let crashes: [(&str, Crash, bool); 4] = [
        ("before anything", |_| {}, true),
        ("before the bit", |spans| spans.files.bitmap.withdraw(&[1, 2]), true),
        (
            "before the hole",
            |spans| {
                spans.files.bitmap.withdraw(&[1, 2]);
                spans.files.bitmap.forget(&[1, 2]).expect("written");
            },
            false,
        ),
        (
            // What must not be, if the disk did as it was told.
            "after the hole, and the bit never reached the disk",
            |spans| {
                let holes = range(spans, 1).start..range(spans, 2).end;
                spans.files.stream.punch(holes).expect("punched");
            },
            false,
        ),
    ];
    for (what, crash, is_there) in crashes {
        let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
        let blob = Blob::new(layer.blob.clone());
        let full = {
            let spans = spans(dir.path(), &layer, blob.clone(), &settings());
            spans.read(0, layer.tar.len()).await.expect("reads");
            quiet(&spans).await;
            spans.files.stream.sync().expect("on the disk");
            let full = spans.files.stream.allocated().expect("known");
            crash(&spans);
            full
        };
        let before = blob.requests().len();
        let spans = spans(dir.path(), &layer, blob.clone(), &settings());
        spans.give_back_strays().expect("looks");
        let left = spans.files.stream.allocated().expect("known");
        assert_eq!(left == full, is_there, "{what}: {left} of {full}");
        assert_eq!(spans.read(0, layer.tar.len()).await.expect("reads"), layer.tar, "{what}");
        assert_eq!(blob.requests().len() == before, is_there, "{what}");
        quiet(&spans).await;
        spans.files.stream.sync().expect("on the disk");
        assert_eq!(spans.files.stream.allocated().expect("known"), full, "{what}");
    }
}

#[tokio::test]
async fn what_is_used_is_known_by_age() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    spans.read(0, layer.tar.len()).await.expect("reads");
    quiet(&spans).await;
    spans.engine.ledger.next_age();
    assert!(spans.read_present(range(&spans, 1).start, &mut [0; 10]));
    spans.engine.ledger.next_age();
    spans.read(range(&spans, 3).start, 10).await.expect("reads");
    let held = spans.held();
    let used: Vec<u16> = held.iter().map(|(held, _)| held.used).collect();
    assert_eq!(used[..5], [1, 2, 1, 3, 1]);
    let want = range(&spans, 1);
    assert_eq!(held[1].1, want.end - want.start);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_is_not_completed_until_the_next_mount() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let eager = Settings { background: Background::Stream, ..settings() };
    let spans = spans(dir.path(), &layer, blob.clone(), &eager);
    spans.engine.ledger.set_tight(true);
    spans.complete_in_background();
    let minute = std::time::Duration::from_secs(60);
    assert!(tokio::time::timeout(minute, spans.completed()).await.is_err(), "there is no room");
    assert_eq!(blob.requests().len(), 0);
    spans.engine.ledger.set_tight(false);
    spans.weigh_background();
    tokio::time::timeout(minute, spans.completed()).await.expect("there is room again");
    spans.give_back(&[0, 1]).expect("given back");
    spans.weigh_background();
    assert!(tokio::time::timeout(minute, spans.completed()).await.is_err(), "it would go again");
    spans.complete_in_background();
    tokio::time::timeout(minute, spans.completed()).await.expect("somebody mounts it");
}

#[tokio::test]
async fn on_a_full_disk_reads_are_answered_and_what_was_half_written_takes_nothing() {
    let Some(disk) = SmallDisk::new(24 << 20) else { return };
    let layer = layer();
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(&disk.path(), &layer, blob.clone(), &settings());
    disk.fill();
    for _ in 0..2 {
        assert_eq!(spans.read(0, layer.tar.len()).await.expect("from memory"), layer.tar);
        quiet(&spans).await;
    }
    assert_eq!(spans.progress().0, 0);
    assert_eq!(spans.files.stream.allocated().expect("known"), 0);
    assert!(spans.engine.metrics.errors.get_or_create(&[("class", "no-space")]).get() > 0);
    let short = spans.engine.ledger.look().short;
    assert!(short >= layer.tar.len() as u64, "{short}");
    disk.empty();
    spans.read(0, layer.tar.len()).await.expect("reads");
    quiet(&spans).await;
    assert_eq!(spans.progress().0, spans.progress().1);
    // Giving back needs no room of its own.
    disk.fill();
    assert!(spans.give_back(&all(&spans)).expect("given back") > 0);
    blob.always(Fault::Fail(Cause::Unreachable));
    assert_eq!(spans.files.stream.allocated().expect("known"), 0);
}

/// Readers on threads of their own, by both ways, while spans go all the time: no byte is ever wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_ever_sees_a_hole() {
    const ROUNDS: usize = 400;
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    spans.read(0, layer.tar.len()).await.expect("reads");
    quiet(&spans).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tar: Arc<[u8]> = layer.tar.clone().into();
    let mut readers = Vec::new();
    for seed in 0..2_usize {
        let (spans, stop, tar) = (Arc::clone(&spans), Arc::clone(&stop), Arc::clone(&tar));
        readers.push(std::thread::spawn(move || {
            let (mut at, mut hits) = (seed * 77_777, 0_u64);
            let mut bytes = vec![0; 20_000];
            while !stop.load(Ordering::Relaxed) {
                at = (at + 54_321) % (tar.len() - bytes.len());
                if spans.read_present(at as u64, &mut bytes) {
                    assert!(bytes == tar[at..at + bytes.len()], "wrong bytes at {at}");
                    hits += 1;
                }
            }
            hits
        }));
    }
    let slow = tokio::spawn({
        let (spans, stop, tar) = (Arc::clone(&spans), Arc::clone(&stop), Arc::clone(&tar));
        async move {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                at = (at + 98_765) % (tar.len() - 40_000);
                let read = spans.read(at as u64, 40_000).await.expect("reads");
                assert!(read == tar[at..at + 40_000], "wrong bytes at {at}");
            }
        }
    });
    for round in 0..ROUNDS {
        let all = spans.progress().1;
        let ids: Vec<u32> = (0..all).filter(|id| (*id as usize + round).is_multiple_of(3)).collect();
        let this = Arc::clone(&spans);
        tokio::task::spawn_blocking(move || this.give_back(&ids)).await.expect("ran").expect("given back");
    }
    stop.store(true, Ordering::Relaxed);
    slow.await.expect("every byte was right");
    let hits: u64 = readers.into_iter().map(|reader| reader.join().expect("every byte was right")).sum();
    assert!(hits > 0, "nobody read anything");
}

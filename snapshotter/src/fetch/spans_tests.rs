//! Tests of spans: each failure is caused, and no clock is waited for.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use spandrel_ztoc::SpanId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;
use crate::fetch::source::Cause;
use crate::fetch::testing::{
    Blob, Fault, TestLayer, indexed, indexed_plain, settings, spans, spans_checked, tar,
};
use crate::fetch::{Background, Settings};
use crate::layer::bitmap::Bitmap;
use crate::layer::stream::Stream;

const SPAN: u64 = 64 << 10;

fn layer() -> TestLayer {
    let layer = indexed(tar(&[("a", 300_000), ("b", 10), ("c", 500_000)]), SPAN);
    assert!(layer.ztoc.checkpoints.len() >= 5, "{}", layer.ztoc.checkpoints.len());
    layer
}

fn range(spans: &Spans, id: u32) -> Range<u64> {
    spans.table().get(SpanId(id)).expect("there is one").uncompressed
}

/// What can be read without waiting.
fn present(spans: &Spans, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    spans.read_present(offset, &mut bytes).then_some(bytes)
}

/// Waits until nothing is under way: spans are written after their readers were answered.
async fn quiet(spans: &Spans) {
    spans.engine.tasks.wait().await;
}

fn errors(spans: &Spans, class: &'static str) -> u64 {
    spans.engine.metrics.errors.get_or_create(&[("class", class)]).get()
}

#[tokio::test]
async fn what_is_read_is_the_tar() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let len = layer.tar.len();
    for (offset, count) in [(0, 1), (0, 4096), (65_000, 9_000), (len - 5000, 5000), (100, 700_000), (0, len)]
    {
        let read = spans.read(offset as u64, count).await.expect("reads");
        assert_eq!(read, layer.tar[offset..offset + count], "{offset} {count}");
    }
    quiet(&spans).await;
    let before = blob.requests().len();
    assert_eq!(present(&spans, 0, len).expect("all is there"), layer.tar);
    assert_eq!(blob.requests().len(), before);
    // Behind the end there are zeros: EROFS reads whole pages.
    let read = spans.read(len as u64 - 10, 4096).await.expect("reads");
    assert_eq!(read[..10], layer.tar[len - 10..]);
    assert!(read[10..].iter().all(|byte| *byte == 0));
    spans.completed().await;
}

#[tokio::test]
async fn spans_of_one_read_are_one_request_and_no_span_comes_twice() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let gate = Arc::new(Semaphore::new(0));
    blob.always(Fault::Hold(Arc::clone(&gate)));
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let spans = Arc::clone(&spans);
            let at = range(&spans, 1).start;
            tokio::spawn(async move { spans.read(at, 2 * usize::try_from(SPAN).expect("small")).await })
        })
        .collect();
    blob.requested(1).await;
    gate.add_permits(100);
    for reader in readers {
        let at = usize::try_from(range(&spans, 1).start).expect("small");
        assert_eq!(reader.await.expect("ran").expect("reads"), layer.tar[at..][..2 * (64 << 10)]);
    }
    assert_eq!(blob.requests().len(), 1, "{:?}", blob.requests());
    quiet(&spans).await;
    assert!(spans.tower().flying().is_empty());
    assert_eq!(spans.engine.free_memory(), 64 << 20, "all memory was given back");
}

#[tokio::test(start_paused = true)]
async fn damaged_bytes_are_fetched_once_more_and_never_answered() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    blob.next([Fault::Flip(1000)]);
    assert_eq!(spans.read(0, 100).await.expect("the second try is good"), layer.tar[..100]);
    assert_eq!((blob.requests().len(), errors(&spans, "corrupt")), (2, 1));
    quiet(&spans).await;

    blob.always(Fault::Flip(1000));
    let at = range(&spans, 2).start;
    let error = spans.read(at, 100).await.expect_err("it is damaged each time");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert_eq!((blob.requests().len(), errors(&spans, "corrupt")), (4, 3));
    assert_eq!(spans.files.bitmap.get(2), Presence::Missing);
    assert!(present(&spans, at, 100).is_none());

    // The kernel asks again in pieces: no request each.
    for offset in [at, at + 4096] {
        assert_eq!(spans.read(offset, 100).await, Err(error.clone()));
    }
    assert_eq!(blob.requests().len(), 4);

    blob.always(Fault::None);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(spans.read(at, 100).await.is_ok(), "a later access tries again");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_registry_is_a_slow_read_and_an_error_after_the_time_limit() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    // Each with some bytes more, and one that refuses: none is the reader's business.
    blob.next([Fault::Fail(Cause::Unreachable), Fault::Break(5000), Fault::Fail(Cause::Refused)]);
    assert_eq!(spans.read(0, 100_000).await.expect("in the end"), layer.tar[..100_000]);
    quiet(&spans).await;

    for fault in [Fault::Fail(Cause::Unreachable), Fault::Fail(Cause::Absent), Fault::Hang, Fault::Break(0)] {
        blob.always(fault.clone());
        let (since, at) = (Instant::now(), range(&spans, 4).start);
        let error = spans.read(at, 1).await.expect_err("never there");
        assert!(matches!(error, Error::Unavailable(_)), "{fault:?}: {error}");
        assert_eq!(since.elapsed().as_secs(), 300, "{fault:?}");
        blob.always(Fault::None);
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert!(spans.read(range(&spans, 4).start, 1).await.is_ok(), "it recovers");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_keeps_the_spans_that_came() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let second = spans.table().get(SpanId(1)).expect("there is one").compressed;
    let first = spans.table().get(SpanId(0)).expect("there is one").compressed;
    let len = usize::try_from(second.start - first.start).expect("small") + 3000;
    blob.next([Fault::Break(len)]);
    let all = layer.tar.len();
    assert_eq!(spans.read(0, all).await.expect("reads"), layer.tar);
    let requests = blob.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].start, second.start, "span 0 isn't asked for again");
}

#[tokio::test]
async fn after_a_restart_bytes_are_looked_at_before_they_are_used() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let all = layer.tar.len();
    {
        let spans = spans(dir.path(), &layer, blob.clone(), &settings());
        spans.read(0, all).await.expect("reads");
        quiet(&spans).await;
        // A power cut: of span 1 some bytes never reached the disk, of span 3 not even its entry did.
        spans.files.stream.write(range(&spans, 1).start + 700, b"torn").expect("written");
        spans.files.bitmap.clear(3).expect("written");
    }
    let before = blob.requests().len();
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    assert_eq!(spans.progress().0, 0, "nothing is believed yet");
    assert!(present(&spans, 0, 10).is_none());
    assert_eq!(spans.read(0, all).await.expect("reads"), layer.tar);
    quiet(&spans).await;
    let mut asked: Vec<u64> = blob.requests()[before..].iter().map(|range| range.start).collect();
    asked.sort_unstable();
    let want = [1, 3].map(|id| spans.table().get(SpanId(id)).expect("there is one").compressed.start);
    assert_eq!(asked, want, "the others were local");
    assert_eq!(present(&spans, 0, all).expect("all is there"), layer.tar);
}

#[tokio::test]
async fn a_full_disk_fails_no_read() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    // /dev/full says ENOSPC at each write, and reads as zeros.
    std::os::unix::fs::symlink("/dev/full", dir.path().join("full")).expect("a link");
    let spans = {
        let whole = spans(dir.path(), &layer, blob.clone(), &settings());
        let (ztoc, windows) = spandrel_ztoc::Ztoc::decode_without_windows(&layer.ztoc_bytes).expect("ours");
        let files = Files {
            stream: Stream::of(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there")),
            bitmap: Bitmap::create(
                &dir.path().join("other"),
                u32::try_from(ztoc.checkpoints.len()).expect("few"),
            )
            .expect("made"),
            ztoc: File::open(dir.path().join("ztoc")).expect("opens").into(),
            windows,
        };
        let table = SpanTable::new(&ztoc).expect("ours");
        Spans::new("layer test".to_owned(), table, files, None, blob.clone(), &whole.engine)
    };
    for round in 1..3 {
        assert_eq!(spans.read(0, 1000).await.expect("from memory"), layer.tar[..1000]);
        quiet(&spans).await;
        assert_eq!(errors(&spans, "no-space"), round);
        assert_eq!(spans.files.bitmap.get(0), Presence::Missing);
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_is_fetched_anew() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    spans.read(0, 10).await.expect("reads");
    quiet(&spans).await;
    // Span 0 is said to be there, and isn't; span 1 isn't even said to be.
    File::options().write(true).open(dir.path().join("stream")).expect("opens").set_len(100).expect("cut");
    let len = usize::try_from(range(&spans, 1).end).expect("small");
    assert_eq!(spans.read(0, len).await.expect("from the registry"), layer.tar[..len]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_fails_what_waits_and_nothing_later() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    blob.next([Fault::Hang]);
    let reader = tokio::spawn({
        let spans = Arc::clone(&spans);
        async move { spans.read(0, 10).await }
    });
    blob.requested(1).await;
    spans.interrupt();
    assert!(matches!(reader.await.expect("ran"), Err(Error::Unavailable(_))));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(spans.read(0, 10).await.is_ok());
    quiet(&spans).await;
    spans.close();
    let at = range(&spans, 3).start;
    assert!(spans.read(at, 10).await.is_err(), "a closed layer fetches nothing");
    assert!(spans.read(0, 10).await.is_ok(), "what is there can still be read");
}

#[tokio::test]
async fn a_span_longer_than_the_memory_budget_comes_alone() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let tight = Settings { memory_budget: 4096, max_fetches: 1, ..settings() };
    let spans = spans(dir.path(), &layer, blob.clone(), &tight);
    let len = layer.tar.len();
    let readers = (0..4).map(|_| spans.read(0, len));
    for read in futures_util::future::join_all(readers).await {
        assert_eq!(read.expect("reads"), layer.tar);
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_lies_is_found_out_when_its_headers_come() {
    type Lie = fn(&mut Entry);
    let lies: [(&str, Lie); 6] = [
        ("name", |entry| entry.name = b"passwd".to_vec()),
        ("mode", |entry| entry.mode = 0o4755),
        ("owner", |entry| entry.uid = 0),
        ("type", |entry| entry.kind = spandrel_ztoc::EntryKind::Fifo),
        ("link", |entry| entry.linkname = b"x".to_vec()),
        ("xattr", |entry| entry.pax = vec![(b"SCHILY.xattr.user.x".to_vec(), b"y".to_vec())]),
    ];
    for (what, lie) in lies {
        let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
        let mut ztoc = layer.ztoc.clone();
        lie(&mut ztoc.entries[2]);
        let blob = Blob::new(layer.blob.clone());
        let headers = Headers::new(&ztoc).expect("well-formed");
        let spans = spans_checked(dir.path(), &layer, Some(headers), blob.clone(), &settings());
        assert!(spans.read(0, 1000).await.is_ok(), "{what}: the lie lies elsewhere");
        let at = ztoc.entries[2].offset;
        let error = spans.read(at, 10).await.expect_err(what);
        assert!(matches!(error, Error::Corrupt(_)), "{what}: {error}");
        assert!(spans.read(0, 1000).await.is_err(), "{what}: now the whole layer isn't believed");
        assert!(present(&spans, 0, 1000).is_none(), "{what}");
        assert_eq!(errors(&spans, "index-mismatch"), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_leaves_out_the_end_is_found_out_when_that_comes() {
    for left in [2, 1, 0] {
        let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
        let mut ztoc = layer.ztoc.clone();
        ztoc.entries.truncate(left);
        let headers = Headers::new(&ztoc).expect("well-formed");
        assert!(headers.compare_all(&layer.ztoc.entries).is_err());
        let spans =
            spans_checked(dir.path(), &layer, Some(headers), Blob::new(layer.blob.clone()), &settings());
        let at = layer.ztoc.entries[left].offset;
        assert!(matches!(spans.read(at, 10).await, Err(Error::Corrupt(_))), "{left} entries are left");
        assert!(spans.refuted().is_some());
    }
    let layer = layer();
    let honest = Headers::new(&layer.ztoc).expect("well-formed");
    assert_eq!(honest.compare_all(&layer.ztoc.entries), Ok(()));
    assert!(honest.compare_all(&layer.ztoc.entries[1..]).is_err());
    assert!(honest.compare_all(&layer.ztoc.entries[..2]).is_err());
}

#[test]
fn headers_that_would_fill_the_memory_are_refused() {
    let mut ztoc = layer().ztoc;
    ztoc.entries[1].offset += 64 << 10;
    assert!(Headers::new(&ztoc).is_err(), "a header of over 64 KiB");

    let mut ztoc = layer().ztoc;
    let (entry, at) = (ztoc.entries[0].clone(), ztoc.checkpoints[0]);
    let place = |index: u64| index * (60 << 10);
    ztoc.entries = (1..200).map(|index| Entry { offset: place(index), size: 0, ..entry.clone() }).collect();
    ztoc.uncompressed_size = place(200);
    assert!(Headers::new(&ztoc).is_ok());
    // A border in each.
    ztoc.checkpoints = (0..200)
        .map(|index| spandrel_ztoc::Checkpoint { uncompressed_offset: place(index) + index.min(1), ..at })
        .collect();
    assert!(Headers::new(&ztoc).is_err());
}

#[tokio::test]
async fn an_honest_index_passes_also_where_headers_lie_in_two_spans() {
    // Many small files: some header lies across the border of two spans.
    let files: Vec<(String, usize)> =
        (0..400).map(|index| (format!("dir/file-{index}"), index * 7 % 3000)).collect();
    let files: Vec<(&str, usize)> = files.iter().map(|(name, len)| (name.as_str(), *len)).collect();
    let layer = indexed_plain(tar(&files), 10_000);
    let crossing = layer.ztoc.entries.iter().filter(|entry| {
        layer
            .ztoc
            .checkpoints
            .iter()
            .any(|at| (entry.offset - 511..entry.offset).contains(&at.uncompressed_offset))
    });
    let crossing: Vec<u64> = crossing.map(|entry| entry.offset).collect();
    assert!(!crossing.is_empty());
    let blob = Blob::new(layer.blob.clone());
    let dir = tempfile::tempdir().expect("a directory");
    let headers = Headers::new(&layer.ztoc).expect("well-formed");
    let spans = spans_checked(dir.path(), &layer, Some(headers), blob.clone(), &settings());
    assert_eq!(spans.read(0, layer.tar.len()).await.expect("reads"), layer.tar);

    // One that lies in a header across a border is found out by the second of its spans, whichever that is.
    for backwards in [false, true] {
        let mut ztoc = layer.ztoc.clone();
        ztoc.entries.iter_mut().find(|entry| entry.offset == crossing[0]).expect("it").gid = 77;
        let dir = tempfile::tempdir().expect("a directory");
        let headers = Headers::new(&ztoc).expect("well-formed");
        let spans = spans_checked(dir.path(), &layer, Some(headers), blob.clone(), &settings());
        let mut ids: Vec<u32> = (0..u32::try_from(spans.table().len()).expect("few")).collect();
        if backwards {
            ids.reverse();
        }
        let mut failed = 0;
        for id in ids {
            let at = range(&spans, id);
            failed += u32::from(spans.read(at.start, 1).await.is_err());
        }
        assert!(failed >= 1);
        assert!(spans.refuted().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_meets_a_failed_span_leaves_the_others_to_those_who_come() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    blob.always(Fault::Flip(1000));
    spans.read(range(&spans, 1).start, 10).await.expect_err("it is damaged");
    blob.always(Fault::None);
    // Span 0 is missing, span 1 failed a moment ago.
    spans.read(0, usize::try_from(range(&spans, 1).end).expect("small")).await.expect_err("span 1");
    assert!(spans.tower().flying().is_empty(), "nobody flies span 0");
    assert_eq!(spans.read(0, 10).await.expect("it can be had"), layer.tar[..10]);
    tokio::time::advance(Duration::from_secs(2)).await;
    let len = usize::try_from(range(&spans, 1).end).expect("small");
    assert_eq!(spans.read(0, len).await.expect("both come"), layer.tar[..len]);
}

#[tokio::test]
async fn a_fetch_that_ended_without_a_word_is_done_again() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    blob.next([Fault::Panic]);
    assert_eq!(spans.read(0, 10).await.expect("reads"), layer.tar[..10]);
}

fn background(kind: Background) -> Settings {
    Settings { background: kind, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn a_mounted_layer_gets_complete_by_itself() {
    for (kind, completed) in [(Background::Stream, true), (Background::Quiet, true), (Background::Off, false)]
    {
        let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
        let blob = Blob::new(layer.blob.clone());
        // An unsteady registry is no obstacle.
        blob.next([Fault::Fail(Cause::Unreachable), Fault::Break(30_000), Fault::Fail(Cause::Busy)]);
        let spans = spans(dir.path(), &layer, blob.clone(), &background(kind));
        assert_eq!(blob.requests().len(), 0, "{kind:?}: not before the mount");
        spans.complete_in_background();
        let waited = tokio::time::timeout(Duration::from_secs(60), spans.completed()).await;
        assert_eq!(waited.is_ok(), completed, "{kind:?}");
        let (present, all) = spans.progress();
        assert_eq!(present == all, completed, "{kind:?}");
        if completed {
            let before = blob.requests().len();
            assert_eq!(spans.read(0, layer.tar.len()).await.expect("reads"), layer.tar);
            assert_eq!(blob.requests().len(), before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_span_does_not_keep_the_background_busy() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    blob.always(Fault::Flip(10));
    let spans = spans(dir.path(), &layer, blob.clone(), &background(Background::Stream));
    spans.complete_in_background();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(blob.requests().len() <= 4, "{:?}", blob.requests());
    // Whoever reads it hears about it, and when it is mended the next mount completes it.
    assert!(matches!(spans.read(0, 10).await, Err(Error::Corrupt(_))));
    blob.always(Fault::None);
    spans.complete_in_background();
    tokio::time::timeout(Duration::from_secs(60), spans.completed()).await.expect("completes");
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_served_before_the_background_and_shares_its_spans() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let gate = Arc::new(Semaphore::new(0));
    blob.always(Fault::Hold(Arc::clone(&gate)));
    let spans = spans(dir.path(), &layer, blob.clone(), &background(Background::Stream));
    spans.complete_in_background();
    blob.requested(1).await;
    let under_way = blob.requests().len();
    let reader = tokio::spawn({
        let spans = Arc::clone(&spans);
        async move { spans.read(0, 10).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(blob.requests().len(), under_way, "the span is on its way already");
    gate.add_permits(100);
    assert_eq!(reader.await.expect("ran").expect("reads"), layer.tar[..10]);
    spans.completed().await;
    let mut starts: Vec<u64> = blob.requests().iter().map(|range| range.start).collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), blob.requests().len(), "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn who_reads_on_is_read_ahead_for() {
    let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let all = spans.progress().1;
    for id in 0..all {
        spans.read(range(&spans, id).start, 10).await.expect("reads");
        quiet(&spans).await;
    }
    let requests = blob.requests();
    assert!(requests.len() < all as usize, "{} requests for {all} spans", requests.len());
    assert_eq!(spans.progress(), (all, all));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_late_is_sent_once_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let layer = indexed(tar(&[("a", 4_000_000)]), 20_000);
    let blob = Blob::new(layer.blob.clone());
    let spans = spans(dir.path(), &layer, blob.clone(), &settings());
    let all = spans.progress().1;
    assert!(all > 60, "{all}");
    // Every other one, backwards: nobody reads ahead for that.
    for id in (30..all).rev().step_by(3).take(25) {
        spans.read(range(&spans, id).start, 10).await.expect("reads");
    }
    let before = blob.requests().len();
    blob.next([Fault::Hang]);
    let since = Instant::now();
    let at = range(&spans, 3).start;
    let read = spans.read(at, 10).await.expect("from the second");
    assert_eq!(read, layer.tar[usize::try_from(at).expect("small")..][..10]);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(blob.requests().len(), before + 2);
    // Not for every one: then it is the host that is slow.
    blob.next([Fault::Hang]);
    let reader = tokio::spawn({
        let spans = Arc::clone(&spans);
        async move { spans.read(range(&spans, 10).start, 10).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(blob.requests().len(), before + 3);
    reader.abort();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any reads, in any order, at the same time, with an unsteady registry: always the tar's bytes.
    #[test]
    fn any_reads_give_the_tar(
        reads in prop::collection::vec((0usize..900_000, 1usize..200_000), 1..12),
        faults in prop::collection::vec(0usize..5, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("one");
        runtime.block_on(async {
            let (dir, layer) = (tempfile::tempdir().expect("a directory"), layer());
            let blob = Blob::new(layer.blob.clone());
            let spans = spans(dir.path(), &layer, blob.clone(), &settings());
            blob.next(faults.iter().map(|kind| match kind {
                0 => Fault::Fail(Cause::Unreachable),
                1 => Fault::Break(20_000),
                2 => Fault::Break(1),
                3 => Fault::Fail(Cause::Refused),
                _ => Fault::None,
            }));
            let mut want = layer.tar.clone();
            want.resize(1_200_000, 0);
            let all = reads.iter().map(|(offset, len)| spans.read(*offset as u64, *len));
            for ((offset, len), read) in reads.iter().zip(futures_util::future::join_all(all).await) {
                assert_eq!(read.expect("reads"), want[*offset..offset + len]);
            }
        });
    }
}

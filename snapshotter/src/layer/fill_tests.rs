//! Tests of filling a layer without mounting it: what isn't the layer, what is stopped, what memory there is.

use std::future::Future;
use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use spandrel_registry::{Digest, Repository};
use tempfile::TempDir;

use super::*;
use crate::fetch::Settings;
use crate::fetch::testing::{Blob as Source, Fault, noise, settings, tar};
use crate::image::testing::GZIP;
use crate::metrics::Metrics;

const MIB: usize = 1 << 20;

/// A layer of some pieces, with `behind` after its archive.
fn archive(behind: &[u8]) -> Vec<u8> {
    let mut tar = tar(&[("a", 9 * MIB), ("b", 10), ("c", 6 * MIB)]);
    tar.extend_from_slice(behind);
    tar
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(tar).expect("in memory");
    gzip.finish().expect("in memory")
}

struct Case {
    dir: TempDir,
    source: Arc<Source>,
    record: Record,
    engine: Arc<Engine>,
    stop: CancellationToken,
}

impl Case {
    /// A layer in `blob`, of which the image says that its tar is `claimed`.
    fn new(blob: Vec<u8>, claimed: &[u8], memory_budget: u64) -> Self {
        let repository = Repository { host: "registry.example".to_owned(), name: "test".to_owned() };
        let (digest, size) = (Digest::sha256(&blob), blob.len() as u64);
        let record = Record::new(&repository, &digest, size, GZIP, &Digest::sha256(claimed));
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            source: Source::new(blob),
            record,
            engine: Engine::new(&Settings { memory_budget, ..settings() }, Metrics::new()),
            stop: CancellationToken::new(),
        }
    }

    fn fill(&self) -> impl Future<Output = Result<Record, Error>> {
        let source = Arc::clone(&self.source) as Arc<dyn BlobSource>;
        fill(source, self.record.clone(), self.dir.path(), self.stop.clone(), &self.engine)
    }

    fn stream(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join(STREAM)).expect("it is there")
    }

    /// Nothing of a failed fill stays.
    fn assert_nothing_left(&self) {
        assert!(!self.dir.path().join(STREAM).exists());
        assert!(!self.dir.path().join(STREAM_NEW).exists());
    }
}

#[tokio::test]
async fn bytes_behind_the_archive_belong_to_the_diff_id() {
    let tar = archive(&noise(9, 3000));
    let case = Case::new(gzip(&tar), &tar, 64 << 20);
    let record = case.fill().await.expect("fills");
    assert!(record.verified);
    assert_eq!(record.stream_len, tar.len() as u64);
    assert!(case.stream().starts_with(&tar));

    let mut other = tar.clone();
    *other.last_mut().expect("it isn't empty") ^= 1;
    let case = Case::new(gzip(&tar), &other, 64 << 20);
    let error = case.fill().await.expect_err("another tar");
    assert!(matches!(&error, Error::Corrupt(what) if what.contains("diff ID")), "{error}");
    case.assert_nothing_left();
}

#[tokio::test]
async fn bytes_of_another_blob_are_refused_wherever_they_are() {
    let tar = archive(&[]);
    let blob = gzip(&tar);
    // In the header, in a file, in the checksum at the end.
    for at in [4, 5 * MIB, blob.len() - 6] {
        let case = Case::new(blob.clone(), &tar, 64 << 20);
        let mut bytes = blob.clone();
        bytes[at] ^= 0x10;
        let case = Case { source: Source::new(bytes), ..case };
        let error = case.fill().await.expect_err("another blob");
        assert!(matches!(error, Error::Corrupt(_)), "{at}: {error}");
        case.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_piece_that_breaks_is_not_a_download_that_begins_anew() {
    let tar = archive(&[]);
    let blob = gzip(&tar);
    let case = Case::new(blob.clone(), &tar, 64 << 20);
    case.source.next([Fault::None, Fault::Break(2 * MIB)]);
    case.fill().await.expect("fills");
    assert!(case.stream().starts_with(&tar));
    let requests = case.source.requests();
    let asked: u64 = requests.iter().map(|range| range.end - range.start).sum();
    assert!(
        asked < blob.len() as u64 + 4 * MIB as u64,
        "only what was missing is asked for again: {requests:?}"
    );
}

#[tokio::test]
async fn a_stop_ends_it_while_it_waits_for_memory() {
    let tar = archive(&[]);
    let case = Case::new(gzip(&tar), &tar, 8 << 20);
    // Somebody else of the host has all of it.
    let held = case.engine.memory(case.source.host(), 8 << 20).await;
    let mut filling = std::pin::pin!(case.fill());
    let patience = Duration::from_secs(60);
    tokio::select! {
        biased;
        _ = &mut filling => panic!("there is no memory"),
        () = std::future::ready(()) => {}
    }
    assert!(case.source.requests().is_empty(), "memory comes first");
    case.stop.cancel();
    let ended = tokio::time::timeout(patience, filling).await.expect("at once");
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    case.assert_nothing_left();
    drop(held);
    // What it waited for isn't lost.
    let all = case.engine.memory(case.source.host(), 8 << 20);
    drop(tokio::time::timeout(patience, all).await.expect("it is free"));
}

#[tokio::test]
async fn what_is_never_answered_ends_with_a_stop() {
    let tar = archive(&[]);
    let case = Case::new(gzip(&tar), &tar, 64 << 20);
    case.source.always(Fault::Hang);
    let stop = async {
        case.source.requested(2).await;
        case.stop.cancel();
    };
    let (filled, ()) = tokio::join!(case.fill(), stop);
    assert!(matches!(filled, Err(Error::Unavailable(_))), "{filled:?}");
    case.assert_nothing_left();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    /// However little memory there is for several layers at once: each is filled with its bytes.
    #[test]
    fn layers_are_filled_beside_one_another(
        lens in prop::collection::vec(1usize..6 * MIB, 2..4),
        memory in 1u64..32,
    ) {
        // The clock isn't paused: it would stand still while a blocking task waits for its pieces.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let engine = Engine::new(&Settings { memory_budget: memory << 20, ..settings() }, Metrics::new());
            let cases: Vec<(Case, Vec<u8>)> = lens.iter().map(|len| {
                let tar = tar(&[("file", *len)]);
                let case = Case { engine: Arc::clone(&engine), ..Case::new(gzip(&tar), &tar, 1) };
                (case, tar)
            }).collect();
            let filled = futures_util::future::join_all(cases.iter().map(|(case, _)| case.fill())).await;
            for (filled, (case, tar)) in filled.into_iter().zip(&cases) {
                filled.expect("fills");
                assert!(case.stream().starts_with(tar));
            }
        });
    }
}

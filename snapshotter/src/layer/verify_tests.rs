//! Tests of comparing whole layers: spans are put into the stream as they would have come.

use std::ops::Range;

use spandrel_registry::Repository;

use super::*;
use crate::fetch::testing::{Blob, Fault, TestLayer, indexed, noise, settings, spans, tar};

/// A layer of several spans with `behind` after its archive.
fn layer(behind: &[u8]) -> TestLayer {
    let mut tar = tar(&[("a", 300_000), ("b", 10), ("c", 500_000)]);
    tar.extend_from_slice(behind);
    let layer = indexed(tar, 64 << 10);
    assert!(layer.ztoc.checkpoints.len() >= 8, "{}", layer.ztoc.checkpoints.len());
    layer
}

fn record(layer: &TestLayer, diff_id: &Digest) -> Record {
    let repository = Repository { host: "registry.example".to_owned(), name: "test".to_owned() };
    let (digest, size) = (Digest::sha256(&layer.blob), layer.blob.len() as u64);
    Record::new(&repository, &digest, size, crate::image::testing::GZIP, diff_id)
}

/// Puts spans into the stream.
fn put(spans: &Spans, layer: &TestLayer, ids: Range<u32>) {
    for id in ids {
        let at = spans.table().get(SpanId(id)).expect("there is one").uncompressed;
        let index = |at: u64| usize::try_from(at).expect("small");
        let bytes = &layer.tar[index(at.start)..index(at.end)];
        spans.files().stream.write(at.start, bytes).expect("written");
        spans.files().bitmap.set(id, crc32fast::hash(bytes)).expect("written");
    }
}

struct Case {
    _dir: tempfile::TempDir,
    spans: Arc<Spans>,
    blob: Arc<Blob>,
    record: Record,
    turns: Semaphore,
}

impl Case {
    /// The layer with nothing of it there, of which the image says that its tar is `claimed`.
    fn new(layer: &TestLayer, claimed: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let blob = Blob::new(layer.blob.clone());
        let spans = spans(dir.path(), layer, Arc::clone(&blob) as _, &settings());
        let record = record(layer, &Digest::sha256(claimed));
        Self { _dir: dir, spans, blob, record, turns: Semaphore::new(AT_ONCE) }
    }

    fn all(&self) -> u32 {
        self.spans.progress().1
    }

    async fn verdict(&self) -> Result<Result<(), String>, Error> {
        let source = Arc::clone(&self.blob) as Arc<dyn BlobSource>;
        whole_stream(&self.spans, &self.record, source, &self.turns).await
    }
}

#[tokio::test(start_paused = true)]
async fn padding_is_proven_without_a_request() {
    for len in [0, 512, 5 * 512, 10_240, MAX_ZEROS / 512 * 512] {
        let layer = layer(&vec![0; len]);
        let case = Case::new(&layer, &layer.tar);
        put(&case.spans, &layer, 0..case.all());
        assert_eq!(case.verdict().await, Ok(Ok(())), "{len}");
        assert!(case.blob.requests().is_empty(), "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_the_archive_counts() {
    let mut block = vec![0; 512];
    block[100] = 1;
    for behind in [noise(7, 700), block, vec![0; 100]] {
        let honest = layer(&behind);
        let case = Case::new(&honest, &honest.tar);
        put(&case.spans, &honest, 0..case.all());
        assert_eq!(case.verdict().await, Ok(Ok(())));
        assert!(!case.blob.requests().is_empty(), "it had to be looked at");

        let mut other = honest.tar.clone();
        *other.last_mut().expect("it isn't empty") ^= 1;
        let case = Case::new(&honest, &other);
        put(&case.spans, &honest, 0..case.all());
        let verdict = case.verdict().await.expect("it can be known");
        assert!(verdict.is_err_and(|what| what.contains("diff ID")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_is_not_known() {
    let layer = layer(&noise(7, 700));
    let case = Case::new(&layer, &layer.tar);
    put(&case.spans, &layer, 0..case.all());
    case.blob.next([Fault::Fail(crate::fetch::Cause::Unreachable)]);
    assert!(matches!(case.verdict().await, Err(Error::Unavailable(_))));
    assert_eq!(case.verdict().await, Ok(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn one_layer_is_read_through_at_a_time_and_its_turn_ends() {
    let layer = layer(&noise(7, 700));
    let case = Case::new(&layer, &layer.tar);
    put(&case.spans, &layer, 0..case.all());
    // The look at what lies behind the archive is never answered.
    case.blob.next([Fault::Hang]);
    let since = tokio::time::Instant::now();
    let first = async {
        let verdict = case.verdict().await;
        assert!(matches!(verdict, Err(Error::Unavailable(_))), "{verdict:?}");
    };
    let second = async {
        case.blob.requested(1).await;
        assert_eq!(case.verdict().await, Ok(Ok(())));
        assert_eq!(since.elapsed().as_secs(), TAIL_PATIENCE.as_secs(), "it waited for its turn");
    };
    tokio::join!(first, second);
}

//! Doubles for the tests of fetching and of layers: a blob in memory that fails as it is told to, and layers to fill.

use std::collections::VecDeque;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, SpanTable, Ztoc};
use tokio::sync::{Semaphore, watch};

use super::source::{BlobSource, Cause, Chunks, SourceError};
use super::{Background, Engine, Files, Headers, Settings, Spans};
use crate::layer::bitmap::Bitmap;
use crate::layer::stream::Stream;
use crate::metrics::Metrics;

/// Length of an answer's pieces: odd, so that spans end within them.
const CHUNK_LEN: usize = 997;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It fails.
    Fail(Cause),
    /// The answer breaks off after so many bytes.
    Break(usize),
    /// The byte at this place of the answer is wrong.
    Flip(usize),
    /// It is never answered.
    Hang,
    /// It is answered when the semaphore lets it.
    Hold(Arc<Semaphore>),
    /// Whoever asks panics.
    Panic,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Fault>,
    /// For requests beyond `next`.
    always: Fault,
    requests: Vec<Range<u64>>,
}

/// A blob in memory.
#[derive(Debug)]
pub(crate) struct Blob {
    bytes: Bytes,
    script: Mutex<Script>,
    count: watch::Sender<usize>,
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        let script = Script { next: VecDeque::new(), always: Fault::None, requests: Vec::new() };
        Arc::new(Self { bytes: bytes.into(), script: Mutex::new(script), count: watch::Sender::new(0) })
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next requests go wrong like this, one after the other.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script().next.extend(faults);
    }

    /// All requests go wrong like this, but for those that [`Blob::next`] is about.
    pub(crate) fn always(&self, fault: Fault) {
        self.script().always = fault;
    }

    /// The ranges that were asked for.
    pub(crate) fn requests(&self) -> Vec<Range<u64>> {
        self.script().requests.clone()
    }

    /// Waits until there were `count` requests.
    pub(crate) async fn requested(&self, count: usize) {
        self.count.subscribe().wait_for(|have| *have >= count).await.expect("never closed");
    }
}

#[async_trait]
impl BlobSource for Blob {
    async fn open(&self, range: Range<u64>) -> Result<Box<dyn Chunks>, SourceError> {
        let fault = {
            let mut script = self.script();
            script.requests.push(range.clone());
            script.next.pop_front().unwrap_or_else(|| script.always.clone())
        };
        self.count.send_modify(|count| *count += 1);
        let index = |at: u64| usize::try_from(at).expect("small");
        let mut answer = self.bytes[index(range.start)..index(range.end)].to_vec();
        let mut then = None;
        match fault {
            Fault::None => {}
            Fault::Fail(cause) => return Err(SourceError { cause, text: format!("{cause:?}, as told to") }),
            Fault::Break(len) => {
                answer.truncate(len);
                let text = "broke off, as told to".to_owned();
                then = Some(SourceError { cause: Cause::Unreachable, text });
            }
            Fault::Flip(at) => answer[at] ^= 0x10,
            Fault::Hang => std::future::pending().await,
            Fault::Panic => panic!("as told to"),
            Fault::Hold(gate) => gate.acquire().await.expect("open").forget(),
        }
        Ok(Box::new(Answer { rest: answer.into(), then }))
    }
}

struct Answer {
    rest: Bytes,
    then: Option<SourceError>,
}

#[async_trait]
impl Chunks for Answer {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.rest.is_empty() {
            return self.then.take().map_or(Ok(None), Err);
        }
        let len = self.rest.len().min(CHUNK_LEN);
        Ok(Some(self.rest.split_to(len)))
    }
}

/// A layer with everything that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct TestLayer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub ztoc: Ztoc,
    pub ztoc_bytes: Vec<u8>,
}

/// Bytes that compress to about a half, always the same for one `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push(b'a' + u8::try_from(state % 16).expect("small"));
    }
    bytes
}

/// A tar of regular files with these names and lengths.
pub(crate) fn tar(files: &[(&str, usize)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (seed, (name, len)) in (1u64..).zip(files) {
        let mut header = tar::Header::new_ustar();
        header.set_size(*len as u64);
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_uid(1000);
        header.set_gid(100);
        builder.append_data(&mut header, name, noise(seed, *len).as_slice()).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

/// `tar` as a gzip blob with a zTOC of `span_size`.
pub(crate) fn indexed(tar: Vec<u8>, span_size: u64) -> TestLayer {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&tar).expect("in memory");
    let blob = gzip.finish().expect("in memory");
    let options = BuildOptions { span_size, ..BuildOptions::default() };
    let ztoc = build(blob.as_slice(), Compression::Gzip, &options).expect("a tar").ztoc;
    TestLayer { tar, blob, ztoc_bytes: ztoc.encode(), ztoc }
}

/// `tar` as it is, as a blob with a zTOC of `span_size`: its spans end anywhere, also within headers.
pub(crate) fn indexed_plain(tar: Vec<u8>, span_size: u64) -> TestLayer {
    let options = BuildOptions { span_size, ..BuildOptions::default() };
    let ztoc = build(tar.as_slice(), Compression::Uncompressed, &options).expect("a tar").ztoc;
    TestLayer { blob: tar.clone(), tar, ztoc_bytes: ztoc.encode(), ztoc }
}

/// Settings that no test waits for, unless its clock is paused.
pub(crate) fn settings() -> Settings {
    Settings {
        max_fetches: 8,
        memory_budget: 64 << 20,
        read_timeout: Duration::from_secs(300),
        failure_memory: Duration::from_secs(2),
        background: Background::Off,
        background_rate: None,
    }
}

/// The spans of `layer` with files in `dir`, which are made when they aren't there.
pub(crate) fn spans(
    dir: &Path,
    layer: &TestLayer,
    source: Arc<dyn BlobSource>,
    settings: &Settings,
) -> Arc<Spans> {
    spans_checked(dir, layer, None, source, settings)
}

/// As [`spans`], with tar headers compared with an index.
pub(crate) fn spans_checked(
    dir: &Path,
    layer: &TestLayer,
    headers: Option<Headers>,
    source: Arc<dyn BlobSource>,
    settings: &Settings,
) -> Arc<Spans> {
    let (ztoc, windows) = Ztoc::decode_without_windows(&layer.ztoc_bytes).expect("ours");
    let table = SpanTable::new(&ztoc).expect("ours");
    let path = dir.join("ztoc");
    std::fs::write(&path, &layer.ztoc_bytes).expect("written");
    let stream = dir.join("stream");
    if !stream.exists() {
        Stream::create(&stream, table.stream_len()).expect("made");
    }
    let files = Files {
        stream: Stream::open(&stream, table.stream_len()).expect("opens"),
        bitmap: Bitmap::open(&dir.join("bitmap"), u32::try_from(table.len()).expect("few")).expect("opens"),
        ztoc: std::fs::File::open(path).expect("opens").into(),
        windows,
    };
    Spans::new("layer test".to_owned(), table, files, headers, source, &Engine::new(settings, Metrics::new()))
}

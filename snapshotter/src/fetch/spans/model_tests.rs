//! Any sequence of reads, failures, cancellations, restarts and spans that are given back, compared with a plain array of
//! bytes: every read gets the right bytes, or an error that was injected; nothing is fetched that is there or on its way; no
//! budget is exceeded; in the end everything can be read and nothing is left over.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use spandrel_ztoc::SpanId;
use tokio::task::JoinHandle;

use super::*;
use crate::Error;
use crate::fetch::source::{BlobSource, Cause, Chunks, SourceError};
use crate::fetch::testing::{TestLayer, indexed, settings, spans, tar};
use crate::fetch::{Background, Settings};

/// Bytes of decoded spans in memory at a time: five or six spans.
const MEMORY: u64 = 512 << 10;

/// Requests at a time.
const REQUESTS: usize = 3;

/// How long an answer takes to go on, each time.
const CHUNK_TIME: Duration = Duration::from_millis(3);

const CHUNK_LEN: usize = 20_011;

static LAYER: LazyLock<TestLayer> =
    LazyLock::new(|| indexed(tar(&[("a", 300_000), ("b", 10), ("c", 500_000)]), 64 << 10));

/// What somebody does.
#[derive(Debug, Clone)]
enum Act {
    /// Reads by the way that waits; the answer is looked at in the end.
    Read { offset: usize, len: usize },
    /// Reads by the way that doesn't.
    ReadPresent { offset: usize, len: usize },
    /// Lets time pass.
    Pause { ms: u64 },
    /// Spans are given back.
    GiveBack { first: u32, count: u32 },
    /// A new age begins.
    Age,
    /// A reader goes away.
    Cancel { reader: usize },
    /// The next request goes wrong.
    Fault(Fault),
    /// It is mounted: what nobody reads is fetched.
    Mount,
    /// It is unmounted, and that can't wait.
    Interrupt,
    /// The daemon is started anew.
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unreachable,
    Busy,
    Break(usize),
    Flip(usize),
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Unreachable),
        Just(Fault::Busy),
        (0usize..60_000).prop_map(Fault::Break),
        (0usize..20_000).prop_map(Fault::Flip),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let place = || (0usize..820_000, prop_oneof![1usize..5000, 1usize..300_000]);
    prop_oneof![
        6 => place().prop_map(|(offset, len)| Act::Read { offset, len }),
        4 => place().prop_map(|(offset, len)| Act::ReadPresent { offset, len: len.min(70_000) }),
        6 => (0u64..60).prop_map(|ms| Act::Pause { ms }),
        5 => (0u32..12, 1u32..12).prop_map(|(first, count)| Act::GiveBack { first, count }),
        1 => Just(Act::Age),
        2 => (0usize..8).prop_map(|reader| Act::Cancel { reader }),
        3 => any_fault().prop_map(Act::Fault),
        1 => Just(Act::Mount),
        1 => Just(Act::Interrupt),
        1 => Just(Act::Restart),
    ]
}

/// The registry, which looks what it is asked for.
#[derive(Debug)]
struct Watched {
    blob: Bytes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those who ask.
    spans: Weak<Spans>,
    faults: VecDeque<Fault>,
    /// Ranges that are being answered.
    active: Vec<Range<u64>>,
    /// What was asked for that should not have been.
    wrong: Vec<String>,
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }

    /// Looks at a request for `range`.
    fn look(&self, range: &Range<u64>) {
        let mut state = self.state();
        let Some(spans) = state.spans.upgrade() else { return };
        let mut wrong = Vec::new();
        for id in 0..spans.progress().1 {
            let span = spans.table().get(SpanId(id)).expect("there is one").compressed;
            if range.start <= span.start && span.end <= range.end {
                if spans.files.bitmap.holds(id) {
                    wrong.push(format!("span {id} is on the disk and is fetched"));
                }
                let tower = spans.tower();
                if tower.has_come(id) || tower.is_leaving(id) {
                    wrong.push(format!("span {id} has come, or is just going, and is fetched"));
                }
            }
        }
        let overlaps = |other: &&Range<u64>| other.start < range.end && range.start < other.end;
        // The same once more is a request that was late.
        if let Some(other) = state.active.iter().find(|other| overlaps(other) && *other != range) {
            wrong.push(format!("{range:?} is fetched, and so is {other:?}"));
        }
        let mut ranges = state.active.clone();
        ranges.push(range.clone());
        ranges.sort_by_key(|range| range.start);
        ranges.dedup();
        if ranges.len() > REQUESTS {
            wrong.push(format!("{} requests at a time", ranges.len()));
        }
        let used = spans.engine.used_memory();
        if used > MEMORY {
            wrong.push(format!("{used} bytes of memory are in use"));
        }
        state.active.push(range.clone());
        state.wrong.extend(wrong);
    }

    fn ended(&self, range: &Range<u64>) {
        let mut state = self.state();
        if let Some(index) = state.active.iter().position(|active| active == range) {
            state.active.swap_remove(index);
        }
    }
}

/// A request; ends when it is dropped.
struct Active(Arc<Watched>, Range<u64>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.ended(&self.1);
    }
}

/// What [`Watched`] is to the spans.
#[derive(Debug)]
struct Source(Arc<Watched>);

#[async_trait]
impl BlobSource for Source {
    async fn open(&self, range: Range<u64>) -> Result<Box<dyn Chunks>, SourceError> {
        self.0.look(&range);
        let active = Active(Arc::clone(&self.0), range.clone());
        let fault = self.0.state().faults.pop_front();
        tokio::time::sleep(CHUNK_TIME).await;
        let error = |cause| SourceError { cause, text: "as told to".to_owned() };
        let index = |at: u64| usize::try_from(at).expect("small");
        let mut answer = self.0.blob[index(range.start)..index(range.end)].to_vec();
        let mut then = None;
        match fault {
            None => {}
            Some(Fault::Unreachable) => return Err(error(Cause::Unreachable)),
            Some(Fault::Busy) => return Err(error(Cause::Busy)),
            Some(Fault::Break(len)) => {
                answer.truncate(len);
                then = Some(error(Cause::Unreachable));
            }
            Some(Fault::Flip(at)) => {
                let at = at % answer.len();
                answer[at] ^= 0x10;
            }
        }
        Ok(Box::new(Answer { rest: answer.into(), then, _active: active }))
    }
}

struct Answer {
    rest: Bytes,
    then: Option<SourceError>,
    _active: Active,
}

#[async_trait]
impl Chunks for Answer {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        tokio::time::sleep(CHUNK_TIME).await;
        if self.rest.is_empty() {
            return self.then.take().map_or(Ok(None), Err);
        }
        let len = self.rest.len().min(CHUNK_LEN);
        Ok(Some(self.rest.split_to(len)))
    }
}

struct Reader {
    offset: usize,
    task: JoinHandle<Result<Vec<u8>, Error>>,
}

struct World<'a> {
    dir: &'a Path,
    layer: &'a TestLayer,
    /// The stream as it must be, zeros behind its end.
    want: Vec<u8>,
    registry: Arc<Watched>,
    spans: Arc<Spans>,
    readers: Vec<Reader>,
    /// Whether a reader may get an error.
    injected: bool,
}

impl<'a> World<'a> {
    fn new(dir: &'a Path, layer: &'a TestLayer) -> Self {
        let registry =
            Arc::new(Watched { blob: layer.blob.clone().into(), state: Mutex::new(State::default()) });
        let spans = Self::open(dir, layer, &registry);
        let mut want = layer.tar.clone();
        want.resize(1_200_000, 0);
        Self { dir, layer, want, registry, spans, readers: Vec::new(), injected: false }
    }

    fn open(dir: &Path, layer: &TestLayer, registry: &Arc<Watched>) -> Arc<Spans> {
        let settings = Settings {
            memory_budget: MEMORY,
            max_fetches: REQUESTS,
            background: Background::Stream,
            ..settings()
        };
        let spans = spans(dir, layer, Arc::new(Source(Arc::clone(registry))), &settings);
        spans.give_back_strays().expect("looks");
        registry.state().spans = Arc::downgrade(&spans);
        spans
    }

    async fn act(&mut self, act: &Act) {
        match *act {
            Act::Read { offset, len } => {
                let spans = Arc::clone(&self.spans);
                let task = tokio::spawn(async move { spans.read(offset as u64, len).await });
                self.readers.push(Reader { offset, task });
            }
            Act::ReadPresent { offset, len } => {
                let mut bytes = vec![1; len];
                if self.spans.read_present(offset as u64, &mut bytes) {
                    assert!(bytes == self.want[offset..offset + len], "{act:?}");
                }
            }
            Act::Pause { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Act::GiveBack { first, count } => {
                let all = self.spans.progress().1;
                let ids: Vec<u32> = (first..(first + count).min(all)).collect();
                self.spans.give_back(&ids).expect("given back");
            }
            Act::Age => self.spans.engine.ledger.next_age(),
            Act::Cancel { reader } => {
                if reader < self.readers.len() {
                    self.readers.swap_remove(reader).task.abort();
                }
            }
            Act::Fault(fault) => {
                // Twice wrong in one span is an error for whoever reads it.
                self.injected |= matches!(fault, Fault::Flip(_));
                self.registry.state().faults.push_back(fault);
            }
            Act::Mount => self.spans.complete_in_background(),
            Act::Interrupt => {
                self.injected = true;
                self.spans.interrupt();
            }
            Act::Restart => {
                self.all_read().await;
                self.spans.close();
                self.spans.written().await;
                self.spans.engine.tasks.wait().await;
                self.spans = Self::open(self.dir, self.layer, &self.registry);
            }
        }
    }

    /// Waits for all readers and looks at what they got.
    async fn all_read(&mut self) {
        for reader in std::mem::take(&mut self.readers) {
            match reader.task.await.expect("ran") {
                Ok(bytes) => {
                    let want = &self.want[reader.offset..reader.offset + bytes.len()];
                    assert!(bytes == want, "wrong bytes from {}", reader.offset);
                }
                Err(error) => assert!(self.injected, "nothing was wrong: {error}"),
            }
        }
    }

    /// Nothing goes wrong any more.
    async fn end(mut self) {
        self.all_read().await;
        self.registry.state().faults.clear();
        // Longer than a failed span goes on failing.
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.spans.engine.tasks.wait().await;
        let len = self.layer.tar.len();
        assert!(self.spans.read(0, len).await.expect("all can be had") == self.layer.tar);
        self.spans.engine.tasks.wait().await;
        let mut bytes = vec![1; len];
        assert!(self.spans.read_present(0, &mut bytes) && bytes == self.layer.tar);
        assert!(self.spans.tower().flying().is_empty(), "nothing is on its way");
        assert_eq!(self.spans.engine.free_memory(), MEMORY, "all memory was given back");
        let state = self.registry.state();
        assert!(state.active.is_empty(), "{:?}", state.active);
        assert!(state.wrong.is_empty(), "{:#?}", state.wrong);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_reads_are_right(acts in prop::collection::vec(any_act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("one");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a directory");
            let mut world = World::new(dir.path(), &LAYER);
            for act in &acts {
                world.act(act).await;
            }
            world.end().await;
        });
    }
}

//! The spans of one lazy layer: which are there, and how those that aren't come.
//!
//! A span comes in a *flight*: one for each span at a time, whoever asks. When it has come it is handed to those who wait,
//! and then written to the stream; no reply waits for the disk. Which spans are asked for when, and with which others, is
//! the planner's to say; `worker` asks for them; `room` gives back what they take on the disk.

mod files;
mod room;

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use spandrel_soci::prefetch::SpanRange;
use spandrel_ztoc::{Entry, Span, SpanId, SpanTable, WINDOW_LEN};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

pub(crate) use self::files::Files;
use super::engine::{Engine, blocking};
use super::flight::{Flights, Known, Outcome, SpanBytes, Tower, Waiter, landed};
use super::headers::{Headers, Unaccepted};
use super::limits::ABANDONED_TRIES;
use super::planner::LayerId;
use super::source::{BlobSource, SourceError};
use crate::Error;
use crate::layer::bitmap::Presence;

/// No span: nothing was read yet.
const NOWHERE: u32 = u32::MAX;

/// The spans of one layer.
#[derive(Debug)]
pub(crate) struct Spans {
    /// What the layer is called in errors: its digest and repository.
    name: String,
    /// What the planner calls it.
    id: LayerId,
    table: Arc<SpanTable>,
    files: Arc<Files>,
    /// What the index says of the tar headers, where that is to be checked.
    headers: Option<Headers>,
    source: Arc<dyn BlobSource>,
    engine: Arc<Engine>,
    flights: Flights,
    /// The span that was read last.
    at: AtomicU32,
    /// Ends the flights that are under way; a new one follows unless the layer is closed.
    interrupt: Mutex<CancellationToken>,
    closed: AtomicBool,
    /// Whether what nobody has asked for is fetched, too.
    background: AtomicBool,
    /// Why this layer isn't to be believed.
    refuted: OnceLock<String>,
    /// Cancelled when that comes out.
    doubt: CancellationToken,
    /// Notified when the last span has come.
    complete: Notify,
    disk_trouble: AtomicBool,
    /// Notified when something that went on has ended.
    less_to_do: Notify,
    /// Whether the layer is to be completed by itself: it is mounted.
    completing: AtomicBool,
    /// Whether spans of it were given back since, so that it isn't after all.
    thinned: AtomicBool,
    /// How many rely on all spans being there.
    kept_whole: AtomicU32,
    /// What writes to the files.
    writes: TaskTracker,
}

impl Drop for Spans {
    fn drop(&mut self) {
        self.engine.remove(self.id);
    }
}

/// Of the spans that a read is about.
struct Asked {
    /// Those that are in the stream.
    present: Vec<u32>,
    /// Those that are on their way.
    waiters: Vec<(u32, Waiter)>,
}

impl Spans {
    /// The spans of `table`. To be called within a tokio runtime, where the fetching goes on.
    pub(crate) fn new(
        name: String,
        table: SpanTable,
        files: Files,
        headers: Option<Headers>,
        source: Arc<dyn BlobSource>,
        engine: &Arc<Engine>,
    ) -> Arc<Self> {
        let (table, files) = (Arc::new(table), Arc::new(files));
        let host = source.host().to_owned();
        let writes = TaskTracker::new();
        // A closed tracker still gives tokens; it can be waited for.
        writes.close();
        // What was there before a restart is looked at before it is fetched again.
        let (bitmap, spans) = (Arc::clone(&files), Arc::clone(&table));
        let here = move |id| bitmap.bitmap.get(id) != Presence::Missing;
        engine.add(&host, spans, here, |id| {
            Arc::new(Self {
                name,
                id,
                table,
                files,
                headers,
                source,
                engine: Arc::clone(engine),
                flights: Flights::default(),
                at: AtomicU32::new(NOWHERE),
                interrupt: Mutex::default(),
                closed: AtomicBool::new(false),
                background: AtomicBool::new(false),
                refuted: OnceLock::new(),
                doubt: CancellationToken::new(),
                complete: Notify::new(),
                disk_trouble: AtomicBool::new(false),
                less_to_do: Notify::new(),
                completing: AtomicBool::new(false),
                thinned: AtomicBool::new(false),
                kept_whole: AtomicU32::new(0),
                writes,
            })
        })
    }

    /// What the layer is called in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where its bytes come from.
    pub(super) fn source(&self) -> &dyn BlobSource {
        &*self.source
    }

    /// Where the work goes on.
    pub(crate) fn runtime(&self) -> &Handle {
        self.engine.runtime()
    }

    /// Where the spans lie.
    pub(crate) fn table(&self) -> &SpanTable {
        &self.table
    }

    /// The files.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// How many spans are known to be present, and how many there are. Spans that lie behind the tar's end, in the padding
    /// of its blob, hold nothing of the stream: nobody reads them.
    pub(crate) fn progress(&self) -> (u32, u32) {
        (self.files.bitmap.present(), self.table.covering(0..self.table.stream_len()).end)
    }

    /// Compares the layer's entries with the index, all of them.
    ///
    /// # Errors
    /// Says where they differ, or why that isn't known.
    pub(crate) fn compare_all(&self, entries: &[Entry]) -> Result<(), Unaccepted> {
        self.headers.as_ref().map_or(Ok(()), |headers| headers.compare_all(entries))
    }

    /// Waits until every span has been written to the stream.
    pub(crate) async fn completed(&self) {
        loop {
            let mut next = std::pin::pin!(self.complete.notified());
            next.as_mut().enable();
            let (present, all) = self.progress();
            if present == all {
                return;
            }
            next.await;
        }
    }

    /// The window of span `id`, from the zTOC's file; empty where it has none.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn window(&self, id: SpanId) -> Result<Vec<u8>, Error> {
        let Some(place) = self.files.windows.get(id) else { return Ok(Vec::new()) };
        let mut window = vec![0; WINDOW_LEN];
        let read = self.files.ztoc.get().and_then(|ztoc| ztoc.read_exact_at(&mut window, place.start));
        match read {
            Ok(()) => Ok(window),
            Err(error) => Err(Error::Internal(format!("{}: read the zTOC: {error}", self.name))),
        }
    }

    /// Why the layer isn't to be believed, if that has come out.
    pub(crate) fn refuted(&self) -> Option<Error> {
        self.refuted.get().map(|what| Error::Corrupt(format!("{}: {what}", self.name)))
    }

    /// Whether something goes on that needs no reader, or will.
    pub(crate) fn is_busy(&self) -> bool {
        let all = self.table.covering(0..self.table.stream_len());
        let comes = self.background.load(Ordering::Acquire) && all.into_iter().any(|id| self.is_missing(id));
        comes || !self.tower().is_empty()
    }

    /// Waits until something that went on has ended, from when this is polled first.
    pub(crate) fn less_to_do(&self) -> Notified<'_> {
        self.less_to_do.notified()
    }

    /// Something that went on has ended.
    pub(crate) fn ended(&self) {
        self.less_to_do.notify_waiters();
    }

    /// The files are deleted, or others take their places: whoever reads on means these.
    pub(crate) fn hold_files(&self) {
        self.files.stream.hold();
        self.files.bitmap.hold();
        self.files.ztoc.hold();
        self.headers.iter().for_each(Headers::hold);
    }

    /// From now on every read of the layer fails with `what`.
    pub(crate) fn refute(&self, what: &str) {
        if self.refuted.set(what.to_owned()).is_ok() {
            error!(
                layer = self.name,
                what, "this layer isn't what its image says: every read of it fails from now on"
            );
            self.doubt.cancel();
        }
    }

    /// Waits until it comes out that the layer isn't to be believed; says why.
    pub(crate) async fn doubted(&self) -> String {
        self.doubt.cancelled().await;
        self.refuted.get().cloned().unwrap_or_default()
    }

    /// What nobody has asked for may be fetched, too, from now on, while the disk has room for it.
    pub(crate) fn complete_in_background(&self) {
        self.completing.store(true, Ordering::Relaxed);
        self.thinned.store(false, Ordering::Relaxed);
        self.weigh_background();
    }

    /// Has these runs of spans (both ends included) fetched, in this order, as far as they are missing. Gives how many that are.
    ///
    /// # Errors
    /// When more spans are listed than the layer has: such a list is of another layer, or means harm.
    pub(crate) fn prefetch(&self, runs: &[SpanRange]) -> Result<usize, Error> {
        let all = self.table.len() as u64;
        let listed: u64 = runs.iter().map(|run| u64::from(run.end.saturating_sub(run.start)) + 1).sum();
        if listed > all {
            let what = format!("{}: {listed} spans are listed, and it has {all}", self.name);
            return Err(Error::Corrupt(what));
        }
        if self.closed.load(Ordering::Acquire) || self.refuted.get().is_some() {
            return Ok(0);
        }
        Ok(self.engine.prefetch(self.id, runs.iter().flat_map(|run| run.start..=run.end)))
    }

    fn set_background(&self, on: bool) {
        let on = on && self.engine.completes_layers;
        self.background.store(on, Ordering::Release);
        self.engine.background(self.id, on);
        if !on {
            self.less_to_do.notify_waiters();
        }
    }

    /// It isn't fetched any more but for those who read it.
    pub(super) fn no_background(&self, error: &SourceError) {
        warn!(layer = self.name, %error, "it isn't completed until it is mounted again");
        self.completing.store(false, Ordering::Relaxed);
        self.set_background(false);
    }

    /// The disk has room again for what nobody has asked for, or no more.
    pub(crate) fn weigh_background(&self) {
        let on = self.completing.load(Ordering::Relaxed)
            && !self.thinned.load(Ordering::Relaxed)
            && !self.engine.ledger.is_tight();
        self.set_background(on);
    }

    /// Fills `bytes` from `offset` of the stream without waiting for anything but the disk, and says whether it could; not when
    /// something of it is missing (or must be checked first).
    pub(crate) fn read_present(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let bitmap = &self.files.bitmap;
        let seen = bitmap.seen();
        let ids = self.table.covering(offset..end(offset, bytes.len()));
        if self.refuted.get().is_some() || !ids.clone().all(|id| bitmap.get(id) == Presence::Present) {
            return false;
        }
        match self.files.read(ids.clone(), offset, bytes) {
            // Something was given back meanwhile, perhaps these spans: the slow way finds out.
            Ok(()) if !bitmap.unchanged(seen) => false,
            Ok(()) => {
                self.touch(ids.clone());
                if let Some(at) = self.moved_to(&ids) {
                    self.engine.demand(self.id, &[], &[], Some(at));
                }
                true
            }
            Err(error) => {
                // A bad sector: the registry has these bytes too.
                warn!(layer = self.name, %error, offset, "the stream can't be read: its spans are fetched anew");
                ids.for_each(|id| self.distrust(id));
                false
            }
        }
    }

    /// Somebody uses these spans.
    fn touch(&self, ids: impl Iterator<Item = u32>) {
        let age = self.engine.ledger.age();
        ids.for_each(|id| self.files.bitmap.touch(id, age));
    }

    /// Where a reader has come to with a read of these spans, if it has gone on.
    fn moved_to(&self, ids: &Range<u32>) -> Option<u32> {
        let last = ids.end.checked_sub(1)?;
        (self.at.swap(last, Ordering::Relaxed) != last).then_some(last)
    }

    /// A span that was there isn't to be had from the disk.
    fn distrust(&self, id: u32) {
        // That the file can't be written either changes nothing: it isn't believed now.
        self.files.bitmap.clear(id).ok();
        self.engine.lost(self.id, id);
    }

    /// Reads `len` bytes from `offset` of the stream, waiting for what isn't there. What lies behind the stream's end is
    /// zero.
    ///
    /// # Errors
    /// When something of it can't be had in time, or isn't what the index says.
    pub(crate) async fn read(self: &Arc<Self>, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        if let Some(error) = self.refuted() {
            return Err(error);
        }
        let wanted = offset..end(offset, len);
        let mut distrusted = false;
        let (mut bytes, waiters) = loop {
            let seen = self.files.bitmap.seen();
            let asked = self.want(self.table.covering(wanted.clone()))?;
            if asked.present.is_empty() {
                break (vec![0; len], asked.waiters);
            }
            match self.read_files(vec![0; len], &asked.present, &wanted).await {
                // Something was given back meanwhile, perhaps what was read: once more.
                Ok(_) if !self.files.bitmap.unchanged(seen) => {}
                Ok(bytes) => {
                    self.touch(asked.present.into_iter());
                    break (bytes, asked.waiters);
                }
                Err(error) if distrusted => return Err(error),
                Err(error) => {
                    warn!(layer = self.name, %error, offset, "the stream can't be read: its spans are fetched anew");
                    asked.present.into_iter().for_each(|id| self.distrust(id));
                    distrusted = true;
                }
            }
        };
        let mut flying: FuturesUnordered<_> =
            waiters.into_iter().map(|(id, waiter)| self.arrival(id, waiter)).collect();
        // Each span's bytes are copied when they come, and let go: nobody holds one while waiting for another.
        while let Some((id, outcome)) = flying.next().await {
            let span = self.span(id)?;
            copy(&span.uncompressed, &outcome?.bytes, &wanted, &mut bytes);
        }
        Ok(bytes)
    }

    /// Waits for a span that is on its way, as long as a read may wait.
    async fn arrival(self: &Arc<Self>, id: u32, waiter: Waiter) -> (u32, Outcome) {
        let deadline = Instant::now() + self.engine.read_timeout;
        let mut waiter = Some(waiter);
        for _ in 0..ABANDONED_TRIES {
            let seen = self.files.bitmap.seen();
            let flight = match waiter.take() {
                Some(waiter) => waiter,
                None => match self.want(id..id + 1) {
                    Ok(asked) => match asked.waiters.into_iter().next() {
                        Some((_, waiter)) => waiter,
                        // It has been written meanwhile.
                        None => match self.from_stream(id).await {
                            // And perhaps given back again.
                            Ok(_) if !self.files.bitmap.unchanged(seen) => continue,
                            outcome => return (id, outcome),
                        },
                    },
                    Err(error) => return (id, Err(error)),
                },
            };
            match tokio::time::timeout_at(deadline, landed(flight)).await {
                Ok(Some(outcome)) => return (id, outcome),
                // Who flew it is gone without a word: it is asked for anew.
                Ok(None) => {}
                Err(_) => return (id, Err(self.give_up(id))),
            }
        }
        (id, Err(Error::Internal(format!("{}: fetches of span {id} end without an answer", self.name))))
    }

    /// A span that is in the stream, as if it had come just now.
    async fn from_stream(self: &Arc<Self>, id: u32) -> Outcome {
        let span = self.span(id)?;
        let len = memory_len(span.uncompressed.end - span.uncompressed.start)?;
        let memory = self.engine.memory(self.source.host(), len as u64).await;
        let bytes = self.read_files(vec![0; len], &[id], &span.uncompressed).await?;
        Ok(Arc::new(SpanBytes { bytes, _memory: memory }))
    }

    /// The time of a read is over.
    fn give_up(&self, id: u32) -> Error {
        self.engine.metrics.error("read-timeout");
        let waited = self.engine.read_timeout.as_secs();
        let what = self.tower().last_trouble(id).unwrap_or_else(|| "no answer".to_owned());
        let error = Error::Unavailable(format!("{}: gave up after {waited} s: {what}", self.name));
        warn!(layer = self.name, span = id, %error, "reads of this span fail");
        self.fail(&[id], &error);
        error
    }

    /// Fails everything that waits for this layer now, with EIO in the end; for an unmount that can't wait.
    pub(crate) fn interrupt(&self) {
        {
            let mut current = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
            current.cancel();
            if !self.closed.load(Ordering::Acquire) {
                *current = CancellationToken::new();
            }
        }
        self.engine.forget(self.id);
        let flying = self.tower().flying();
        self.fail(&flying, &self.unmounted());
    }

    /// Is cancelled at the next interruption.
    pub(super) fn interrupted(&self) -> CancellationToken {
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No span is fetched any more: what waits fails, and so does whoever comes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.set_background(false);
        self.interrupt();
    }

    /// The flights, looked at and changed in one go.
    pub(super) fn tower(&self) -> Tower<'_> {
        self.flights.tower()
    }

    pub(super) fn span(&self, id: u32) -> Result<Span, Error> {
        self.table.get(SpanId(id)).ok_or_else(|| Error::Internal(format!("{} has no span {id}", self.name)))
    }

    /// Whether the stream doesn't have a span, as far as is known.
    pub(super) fn is_missing(&self, id: u32) -> bool {
        self.files.bitmap.get(id) == Presence::Missing
    }

    fn disk(&self, what: &str, error: &io::Error) -> Error {
        Error::Internal(format!("{}: {what} the stream: {error}", self.name))
    }

    /// Reads those of `ids` that are present, as far as `wanted` goes.
    async fn read_files(
        self: &Arc<Self>,
        mut bytes: Vec<u8>,
        ids: &[u32],
        wanted: &Range<u64>,
    ) -> Result<Vec<u8>, Error> {
        let parts =
            ids.iter().map(|id| self.span(*id).map(|span| (*id, overlap(&span.uncompressed, wanted))));
        let parts: Vec<(u32, Range<u64>)> = parts.collect::<Result<_, _>>()?;
        let (files, start) = (Arc::clone(&self.files), wanted.start);
        let read = blocking(move || {
            for (id, part) in parts {
                let part_bytes = &mut bytes[index(part.start - start)..index(part.end - start)];
                let read = files.read(id..id + 1, part.start, part_bytes);
                read.map_err(|e| Error::Internal(e.to_string()))?;
            }
            Ok(bytes)
        });
        read.await.map_err(|error| Error::Internal(format!("{}: read the stream: {error}", self.name)))
    }

    /// Which of `ids` are present, and the others on their way: those that nobody has asked for yet are asked for.
    fn want(self: &Arc<Self>, ids: Range<u32>) -> Result<Asked, Error> {
        let at = self.moved_to(&ids);
        let mut asked = Asked { present: Vec::new(), waiters: Vec::new() };
        let (mut missing, mut flying, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        let now = Instant::now();
        {
            let mut tower = self.tower();
            // Nothing may fail any more once a span has taken off: nobody would fly it.
            for id in ids.clone() {
                if let Known::Failed(error) = tower.known(id, now) {
                    return Err(error);
                }
                self.span(id)?;
            }
            for id in ids {
                match tower.known(id, now) {
                    Known::Flying(waiter) => {
                        asked.waiters.push((id, waiter));
                        flying.push(id);
                    }
                    Known::Failed(error) => return Err(error), // not under this lock, at this time
                    Known::Nothing => match self.files.bitmap.get(id) {
                        Presence::Present => asked.present.push(id),
                        _ if self.closed.load(Ordering::Acquire) => return Err(self.unmounted()),
                        presence => {
                            asked.waiters.push((id, tower.take_off(id)));
                            match presence {
                                Presence::Unverified(crc) => checks.push((id, crc)),
                                _ => missing.push(id),
                            }
                        }
                    },
                }
            }
        }
        self.engine.demand(self.id, &missing, &flying, at);
        for (id, crc) in checks {
            let this = Arc::clone(self);
            let check = async move { this.check(id, crc).await };
            self.engine.tasks.spawn_on(check, self.runtime());
        }
        Ok(asked)
    }

    /// Asks again for those of `ids` that somebody waits for.
    pub(super) fn want_again(self: &Arc<Self>, ids: &[u32]) {
        let flying: Vec<u32> = {
            let tower = self.tower();
            ids.iter().copied().filter(|id| tower.is_flying(*id)).collect()
        };
        if !flying.is_empty() {
            self.engine.demand(self.id, &flying, &[], None);
        }
    }

    /// Looks at span `id`, which was present before a restart: either its bytes have the checksum `crc`, or it is fetched.
    async fn check(self: Arc<Self>, id: u32, crc: u32) {
        let interrupted = self.interrupted();
        let read = async {
            let span = self.span(id)?;
            let len = span.uncompressed.end - span.uncompressed.start;
            let memory = self.engine.memory(self.source.host(), len).await;
            let (this, len) = (Arc::clone(&self), memory_len(len)?);
            blocking(move || {
                let mut bytes = vec![0; len];
                this.files
                    .stream
                    .read(span.uncompressed.start, &mut bytes)
                    .map_err(|e| this.disk("read", &e))?;
                if crc32fast::hash(&bytes) != crc {
                    return Err(Error::Corrupt(format!("{}: span {id} was written in part only", this.name)));
                }
                Ok((span, SpanBytes { bytes, _memory: memory }))
            })
            .await
        };
        let read = tokio::select! {
            biased;
            // Its flight has been failed.
            () = interrupted.cancelled() => return,
            read = read => read,
        };
        match read {
            Ok((span, bytes)) => match self.accept(&span, &bytes.bytes) {
                Ok(()) => {
                    self.files.bitmap.verified(id);
                    let landed = {
                        let mut tower = self.tower();
                        tower.arrived(id, Arc::new(bytes));
                        tower.land(id)
                    };
                    drop(landed);
                    self.ended();
                    self.notice_completion();
                }
                Err(error) => self.fail(&[id], &error),
            },
            Err(error) => {
                debug!(layer = self.name, id, %error, "a span from before the restart is fetched anew");
                self.distrust(id);
                self.want_again(&[id]);
            }
        }
    }

    fn unmounted(&self) -> Error {
        Error::Unavailable(format!("{}: it is being unmounted", self.name))
    }

    /// These spans have failed, and fail for a moment all who ask.
    pub(super) fn fail(&self, ids: &[u32], error: &Error) {
        let until = Instant::now() + self.engine.failure_memory;
        let mut tower = self.tower();
        for id in ids {
            tower.fail(*id, error, until);
        }
        drop(tower);
        self.ended();
    }

    /// Nobody flies these any more.
    pub(super) fn abandon(&self, ids: &[u32]) {
        if !ids.is_empty() {
            let mut tower = self.tower();
            ids.iter().for_each(|id| tower.abandon(*id));
            drop(tower);
            self.ended();
        }
    }

    /// Compares a span's tar headers with the index, where that is to be done.
    pub(super) fn accept(&self, span: &Span, bytes: &[u8]) -> Result<(), Error> {
        let Some(headers) = &self.headers else { return Ok(()) };
        headers.accept(span.uncompressed.start, bytes).map_err(|why| match why {
            Unaccepted::Differs(what) => {
                self.engine.metrics.error("index-mismatch");
                self.refute(&what);
                Error::Corrupt(format!("{}: {what}", self.name))
            }
            Unaccepted::Unread(what) => {
                self.engine.metrics.error("disk");
                Error::Internal(format!("{}: {what}", self.name))
            }
        })
    }

    /// A span has come: those who wait get it, then it is written.
    pub(super) fn land(self: &Arc<Self>, span: &Span, bytes: SpanBytes) {
        let id = span.id.0;
        let bytes = Arc::new(bytes);
        self.tower().arrived(id, Arc::clone(&bytes));
        // Who asked for it uses it; what comes unasked is at least worth more than what nobody has used for long.
        self.touch(std::iter::once(id));
        let Some(leave) = self.leave_to_write() else {
            // The files may be another's by now.
            let landed = self.tower().land(id);
            drop(landed);
            return;
        };
        let (this, start) = (Arc::clone(self), span.uncompressed.start);
        let write = move || {
            let _leave = leave;
            let len = bytes.bytes.len() as u64;
            let written = this.files.stream.write(start, &bytes.bytes).and_then(|()| {
                // Before anybody finds it present: he is to look in the page cache.
                this.files.bitmap.set_fresh(id, true);
                this.files.bitmap.set(id, crc32fast::hash(&bytes.bytes))
            });
            let ledger = &this.engine.ledger;
            match &written {
                Ok(()) => ledger.wrote(len),
                Err(error) => {
                    // What was written of it is of no use to anybody.
                    this.file_range(id).map(|range| this.files.stream.punch(range));
                    if is_full(error) {
                        ledger.short(len);
                    }
                    this.engine.lost(this.id, id);
                }
            }
            // Bit first, then the flight's end: whoever comes in between finds one or the other.
            let landed = this.tower().land(id);
            drop((landed, bytes));
            this.ended();
            match written {
                Ok(()) => {
                    this.disk_trouble.store(false, Ordering::Relaxed);
                    this.notice_completion();
                    // Last: the disk may make it wait, and by now nobody else does, nor memory.
                    this.wrote(id, len);
                }
                // The readers have their bytes; the next ones fetch again.
                Err(error) => {
                    this.engine.metrics.error(if is_full(&error) { "no-space" } else { "disk" });
                    if !this.disk_trouble.swap(true, Ordering::Relaxed) {
                        warn!(layer = this.name, %error, "spans can't be kept: they are fetched anew for each read");
                        // What nobody reads would come in vain.
                        this.set_background(false);
                    }
                }
            }
        };
        self.engine.tasks.spawn_blocking_on(write, self.runtime());
    }

    fn notice_completion(&self) {
        let (present, all) = self.progress();
        if present == all {
            self.complete.notify_waiters();
        }
    }

    /// The windows of `spans`.
    pub(super) async fn windows(self: &Arc<Self>, spans: &[Span]) -> Result<Vec<Vec<u8>>, Error> {
        let ids: Vec<SpanId> = spans.iter().map(|span| span.id).collect();
        let this = Arc::clone(self);
        blocking(move || ids.into_iter().map(|id| this.window(id)).collect()).await
    }
}

/// Whether a write failed for lack of room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Where a read of `len` bytes from `offset` ends.
fn end(offset: u64, len: usize) -> u64 {
    offset.saturating_add(len as u64)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}

/// Copies what `from`, at `at` of the stream, has of `wanted` into `to`, which is all of it.
fn copy(at: &Range<u64>, from: &[u8], wanted: &Range<u64>, to: &mut [u8]) {
    let part = overlap(at, wanted);
    to[index(part.start - wanted.start)..index(part.end - wanted.start)]
        .copy_from_slice(&from[index(part.start - at.start)..index(part.end - at.start)]);
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset within bytes in memory")
}

pub(super) fn memory_len(len: u64) -> Result<usize, Error> {
    usize::try_from(len).map_err(|_| Error::Internal(format!("{len} bytes don't fit in memory")))
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;

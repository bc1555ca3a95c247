//! The spans of one lazy layer: which are there, and how those that aren't come.
//!
//! A span comes in a *flight*: one for each span at a time, whoever asks. Its bytes are hashed and decoded while they
//! arrive, checked as a whole, handed to those who wait, and then written to the stream; no reply waits for the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use sha2::{Digest as _, Sha256};
use spandrel_ztoc::{Entry, Sha256Digest, Span, SpanDecoder, SpanId, SpanTable, WINDOW_LEN, WindowMap};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::flight::{Flights, Known, Outcome, Pilot, SpanBytes, Waiter, landed};
use super::headers::Headers;
use super::limits::{CORRUPT_TRIES, LAYER_FETCHES, MAX_BACKOFF, MIN_BACKOFF};
use super::plan;
use super::shared::{Memory, Shared, blocking};
use super::source::{BlobSource, Cause, SourceError};
use super::split::Splitter;
use crate::Error;
use crate::layer::bitmap::{Bitmap, Presence};
use crate::layer::stream::Stream;

/// What a lazy layer has on the disk.
#[derive(Debug)]
pub(crate) struct Files {
    /// The stream.
    pub stream: Stream,
    /// Which spans are in it.
    pub bitmap: Bitmap,
    /// The zTOC, whose windows are read when they are needed.
    pub ztoc: File,
    /// Where they lie in it.
    pub windows: WindowMap,
}

/// The spans of one layer.
#[derive(Debug)]
pub(crate) struct Spans {
    /// What the layer is called in errors: its digest and repository.
    name: String,
    table: SpanTable,
    files: Arc<Files>,
    /// What the index says of the tar headers, where that is to be checked.
    headers: Option<Headers>,
    source: Arc<dyn BlobSource>,
    shared: Arc<Shared>,
    fetches: Semaphore,
    flights: Flights,
    /// Ends the flights that are under way; a new one follows unless the layer is closed.
    interrupt: Mutex<CancellationToken>,
    closed: AtomicBool,
    /// Why this layer isn't to be believed.
    refuted: OnceLock<String>,
    /// Cancelled when that comes out.
    doubt: CancellationToken,
    /// Notified when the last span has come.
    complete: Notify,
    disk_trouble: AtomicBool,
    runtime: Handle,
}

/// What goes wrong in one try.
#[derive(Debug)]
enum Trouble {
    /// Worth another try, now or later.
    Source(SourceError),
    /// No try will help.
    Final(Error),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// Flights that one request is for.
struct Batch {
    /// Neighbours, in order; those that have landed are taken out.
    left: Mutex<BTreeMap<u32, Pilot>>,
    interrupt: CancellationToken,
}

impl Batch {
    fn ids(&self) -> Vec<u32> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn take(&self, id: u32) -> Option<Pilot> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

impl Spans {
    /// The spans of `table`. To be called within a tokio runtime, where the fetching goes on.
    pub(crate) fn new(
        name: String,
        table: SpanTable,
        files: Files,
        headers: Option<Headers>,
        source: Arc<dyn BlobSource>,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            table,
            files: Arc::new(files),
            headers,
            source,
            shared,
            fetches: Semaphore::new(LAYER_FETCHES),
            flights: Flights::default(),
            interrupt: Mutex::default(),
            closed: AtomicBool::new(false),
            refuted: OnceLock::new(),
            doubt: CancellationToken::new(),
            complete: Notify::new(),
            disk_trouble: AtomicBool::new(false),
            runtime: Handle::current(),
        })
    }

    /// Where the work goes on.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
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
    /// Says where they differ.
    pub(crate) fn compare_all(&self, entries: &[Entry]) -> Result<(), String> {
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
        match self.files.ztoc.read_exact_at(&mut window, place.start) {
            Ok(()) => Ok(window),
            Err(error) => Err(Error::Internal(format!("{}: read the zTOC: {error}", self.name))),
        }
    }

    /// Why the layer isn't to be believed, if that has come out.
    pub(crate) fn refuted(&self) -> Option<Error> {
        self.refuted.get().map(|what| Error::Corrupt(format!("{}: {what}", self.name)))
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

    /// Reads from the stream what is there without waiting for anything but the disk; `None` when something of it is
    /// missing (or must be checked first).
    pub(crate) fn read_present(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let present = |id| self.files.bitmap.get(id) == Presence::Present;
        if self.refuted.get().is_some() || !self.table.covering(offset..end(offset, len)).all(present) {
            return None;
        }
        let mut bytes = vec![0; len];
        match self.files.stream.read(offset, &mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) => {
                // A bad sector: the registry has these bytes too.
                warn!(layer = self.name, %error, offset, "the stream can't be read: its spans are fetched anew");
                for id in self.table.covering(offset..end(offset, len)) {
                    self.files.bitmap.clear(id).ok();
                }
                None
            }
        }
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
        let (mut bytes, mut flying) = loop {
            let (present, flying) = self.want(self.table.covering(wanted.clone()), "demand")?;
            if present.is_empty() {
                break (vec![0; len], flying);
            }
            match self.read_files(vec![0; len], &present, &wanted).await {
                Ok(bytes) => break (bytes, flying),
                Err(error) if distrusted => return Err(error),
                Err(error) => {
                    warn!(layer = self.name, %error, offset, "the stream can't be read: its spans are fetched anew");
                    present.into_iter().for_each(|id| drop(self.files.bitmap.clear(id)));
                    distrusted = true;
                }
            }
        };
        // Each span's bytes are copied when they come, and let go: nobody holds one while waiting for another.
        while let Some((id, outcome)) = flying.next().await {
            let span = self.span(id)?;
            copy(&span.uncompressed, &outcome?.bytes, &wanted, &mut bytes);
        }
        Ok(bytes)
    }

    /// Fails everything that waits for this layer now, with EIO in the end; for an unmount that can't wait.
    pub(crate) fn interrupt(&self) {
        let mut current = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        current.cancel();
        if !self.closed.load(Ordering::Acquire) {
            *current = CancellationToken::new();
        }
    }

    /// No span is fetched any more: what waits fails, and so does whoever comes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.interrupt();
    }

    fn span(&self, id: u32) -> Result<Span, Error> {
        self.table.get(SpanId(id)).ok_or_else(|| Error::Internal(format!("{} has no span {id}", self.name)))
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
        let parts = ids.iter().map(|id| self.span(*id).map(|span| overlap(&span.uncompressed, wanted)));
        let parts: Vec<Range<u64>> = parts.collect::<Result<_, _>>()?;
        let (files, start) = (Arc::clone(&self.files), wanted.start);
        let read = blocking(move || {
            for part in parts {
                let part_bytes = &mut bytes[index(part.start - start)..index(part.end - start)];
                files.stream.read(part.start, part_bytes).map_err(|e| Error::Internal(e.to_string()))?;
            }
            Ok(bytes)
        });
        read.await.map_err(|error| Error::Internal(format!("{}: read the stream: {error}", self.name)))
    }

    /// Which of `ids` are present, and the others on their way: those that nobody has asked for yet take off.
    #[expect(clippy::type_complexity, reason = "two parts of one answer, taken apart at once")]
    fn want(
        self: &Arc<Self>,
        ids: Range<u32>,
        cause: &'static str,
    ) -> Result<(Vec<u32>, FuturesUnordered<impl Future<Output = (u32, Outcome)> + use<>>), Error> {
        let mut present = Vec::new();
        let mut waiters: Vec<(u32, Waiter)> = Vec::new();
        let mut missing: Vec<Span> = Vec::new();
        let mut checks: Vec<(u32, u32, Pilot)> = Vec::new();
        let mut pilots: BTreeMap<u32, Pilot> = BTreeMap::new();
        let now = Instant::now();
        {
            let mut tower = self.flights.tower();
            // Nothing may fail any more once a span has taken off: nobody would fly it.
            for id in ids.clone() {
                if let Known::Failed(error) = tower.known(id, now) {
                    return Err(error);
                }
                self.span(id)?;
            }
            for id in ids {
                match tower.known(id, now) {
                    Known::Flying(waiter) => waiters.push((id, waiter)),
                    Known::Failed(error) => return Err(error), // not under this lock, at this time
                    Known::Nothing => {
                        let presence = self.files.bitmap.get(id);
                        if presence == Presence::Present {
                            present.push(id);
                            continue;
                        }
                        let span = self.span(id)?;
                        let (pilot, waiter) = tower.take_off(id);
                        waiters.push((id, waiter));
                        if let Presence::Unverified(crc) = presence {
                            checks.push((id, crc, pilot));
                        } else {
                            missing.push(span);
                            pilots.insert(id, pilot);
                        }
                    }
                }
            }
        }
        let interrupt = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for group in plan::requests(&missing) {
            let ids = missing[group].iter().map(|span| span.id.0);
            let left: BTreeMap<u32, Pilot> = ids.filter_map(|id| pilots.remove_entry(&id)).collect();
            self.start(left, interrupt.clone(), cause);
        }
        for (id, crc, pilot) in checks {
            let (this, interrupt) = (Arc::clone(self), interrupt.clone());
            let check = async move { this.check(id, crc, pilot, interrupt, cause).await };
            self.shared.tasks.spawn_on(check, &self.runtime);
        }
        let flying = waiters.into_iter().map(|(id, waiter)| async move { (id, landed(waiter).await) });
        Ok((present, flying.collect()))
    }

    fn start(
        self: &Arc<Self>,
        left: BTreeMap<u32, Pilot>,
        interrupt: CancellationToken,
        cause: &'static str,
    ) {
        let this = Arc::clone(self);
        let batch = Batch { left: Mutex::new(left), interrupt };
        self.shared.tasks.spawn_on(async move { this.fly(&batch, cause).await }, &self.runtime);
    }

    /// Looks at span `id`, which was present before a restart: either its bytes have the checksum `crc`, or it is fetched.
    async fn check(
        self: Arc<Self>,
        id: u32,
        crc: u32,
        pilot: Pilot,
        interrupt: CancellationToken,
        cause: &'static str,
    ) {
        let read = async {
            let span = self.span(id)?;
            let len = span.uncompressed.end - span.uncompressed.start;
            let memory = self.shared.memory(self.source.host(), len).await;
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
                Ok((span, SpanBytes { bytes, _memory: Arc::new(memory) }))
            })
            .await
        };
        let read = tokio::select! {
            biased;
            () = interrupt.cancelled() => return self.fail(id, &pilot, &self.interrupted()),
            read = tokio::time::timeout(self.shared.read_timeout, read) => read,
        };
        let Ok(read) = read else {
            self.shared.metrics.error("read-timeout");
            let what = format!("{}: there was no memory for span {id} in time", self.name);
            return self.fail(id, &pilot, &Error::Unavailable(what));
        };
        match read {
            Ok((span, bytes)) => {
                let accepted = self.accept(&span, &bytes.bytes);
                if accepted.is_ok() {
                    self.files.bitmap.verified(id);
                    self.flights.tower().land(id);
                    self.notice_completion();
                    pilot.send_replace(Some(Ok(Arc::new(bytes))));
                } else {
                    self.fail(id, &pilot, &self.refuted().unwrap_or_else(|| Error::Internal(String::new())));
                }
            }
            Err(error) => {
                debug!(layer = self.name, id, %error, "a span from before the restart is fetched anew");
                self.files.bitmap.clear(id).ok();
                self.start(BTreeMap::from([(id, pilot)]), interrupt, cause);
            }
        }
    }

    /// Brings the spans of a batch, or fails them.
    async fn fly(self: &Arc<Self>, batch: &Batch, cause: &'static str) {
        let last = Mutex::new(None);
        let deadline = Instant::now() + self.shared.read_timeout;
        let ended = tokio::select! {
            biased;
            () = batch.interrupt.cancelled() => {
                Err(self.interrupted())
            }
            ended = tokio::time::timeout_at(deadline, self.tries(batch, cause, deadline, &last)) => {
                ended.unwrap_or_else(|_| {
                    let last: Option<SourceError> = last.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let waited = self.shared.read_timeout.as_secs();
                    let what = last.map_or("no answer".to_owned(), |error| error.text);
                    self.shared.metrics.error("read-timeout");
                    Err(Error::Unavailable(format!("{}: gave up after {waited} s: {what}", self.name)))
                })
            }
        };
        if let Err(error) = ended {
            warn!(layer = self.name, spans = ?batch.ids(), %error, "reads of these spans fail");
            for id in batch.ids() {
                if let Some(pilot) = batch.take(id) {
                    self.fail(id, &pilot, &error);
                }
            }
        }
    }

    fn interrupted(&self) -> Error {
        Error::Unavailable(format!("{}: it is being unmounted", self.name))
    }

    fn fail(&self, id: u32, pilot: &Pilot, error: &Error) {
        self.flights.tower().fail(id, error.clone(), Instant::now() + self.shared.failure_memory);
        pilot.send_replace(Some(Err(error.clone())));
    }

    /// Tries until all of the batch have landed, or no try will help.
    async fn tries(
        self: &Arc<Self>,
        batch: &Batch,
        cause: &'static str,
        deadline: Instant,
        last: &Mutex<Option<SourceError>>,
    ) -> Result<(), Error> {
        let mut backoff = MIN_BACKOFF;
        let mut corrupt = 0;
        loop {
            let landed_before = batch.ids().len();
            match self.try_once(batch, cause).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Source(error)) => {
                    self.shared.metrics.error(error.cause.class());
                    if error.cause == Cause::Corrupt {
                        corrupt += 1;
                        if corrupt >= CORRUPT_TRIES {
                            return Err(Error::Corrupt(format!("{}: {}", self.name, error.text)));
                        }
                    }
                    debug!(layer = self.name, %error, ?backoff, "a fetch failed and is tried again");
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    if batch.ids().len() < landed_before {
                        backoff = MIN_BACKOFF; // it made some way
                    }
                    // Not past the deadline: the registry may be back before it.
                    let left = deadline.saturating_duration_since(Instant::now());
                    tokio::time::sleep(backoff.min((left / 2).max(MIN_BACKOFF))).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    /// One request for what is left of the batch.
    async fn try_once(self: &Arc<Self>, batch: &Batch, cause: &'static str) -> Result<(), Trouble> {
        let spans: Vec<Span> = batch
            .ids()
            .into_iter()
            .map(|id| self.span(id))
            .collect::<Result<_, _>>()
            .map_err(Trouble::Final)?;
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Ok(()) };
        if let Some(span) = spans.iter().find(|span| span.compressed.is_empty()) {
            let what = format!("{}: span {} has no bytes in the blob", self.name, span.id.0);
            return Err(Trouble::Final(Error::Corrupt(what)));
        }
        let _turn = self.fetches.acquire().await.expect("this semaphore is never closed");
        // Of all that will be in memory, before there is a connection that could wait for it. The registry holds up its own
        // layers' spans that way, and not others'.
        let len: u64 = spans
            .iter()
            .map(|span| span.uncompressed.end - span.uncompressed.start + WINDOW_LEN as u64)
            .sum();
        let memory = Arc::new(self.shared.memory(self.source.host(), len).await);
        let windows = self.windows(&spans).await.map_err(Trouble::Final)?;
        let asked = Instant::now();
        let mut answer = self.source.open(first.compressed.start..last.compressed.end).await?;
        let _body = self.shared.body(self.source.host()).await;
        let mut splitter = Splitter::new(spans.iter().map(|span| span.compressed.clone()).collect());
        let mut work: Option<(usize, Work)> = None;
        while !splitter.is_done() {
            let Some(chunk) = answer.next().await? else {
                let text = "the answer ended early".to_owned();
                return Err(Trouble::Source(SourceError { cause: Cause::Unreachable, text }));
            };
            self.shared.metrics.fetched_bytes.inc_by(chunk.len() as u64);
            self.take(batch, cause, &spans, &windows, &mut splitter, &mut work, &chunk, &memory)?;
        }
        self.shared.metrics.fetch_seconds.observe(asked.elapsed().as_secs_f64());
        Ok(())
    }

    /// Takes the next bytes of an answer.
    #[expect(clippy::too_many_arguments, reason = "the state of one answer in progress")]
    fn take(
        self: &Arc<Self>,
        batch: &Batch,
        cause: &'static str,
        spans: &[Span],
        windows: &[Vec<u8>],
        splitter: &mut Splitter,
        work: &mut Option<(usize, Work)>,
        chunk: &Bytes,
        memory: &Arc<Memory>,
    ) -> Result<(), Trouble> {
        let mut used = 0;
        while let Some(piece) = splitter.next(chunk, &mut used) {
            let span = &spans[piece.span];
            let mut current = match work.take() {
                Some((index, current)) if index == piece.span => current,
                _ => Work::new(&self.table, span, &windows[piece.span], Arc::clone(memory))?,
            };
            current.push(piece.bytes);
            if piece.last {
                let bytes = current.finish(span)?;
                self.accept(span, &bytes.bytes).map_err(Trouble::Final)?;
                self.land(batch, cause, span, bytes);
            } else {
                *work = Some((piece.span, current));
            }
        }
        Ok(())
    }

    /// Compares a span's tar headers with the index, where that is to be done.
    fn accept(&self, span: &Span, bytes: &[u8]) -> Result<(), Error> {
        let Some(headers) = &self.headers else { return Ok(()) };
        headers.accept(span.uncompressed.start, bytes).map_err(|what| {
            self.shared.metrics.error("index-mismatch");
            self.refute(&what);
            Error::Corrupt(format!("{}: {what}", self.name))
        })
    }

    /// A span has come: those who wait get it, then it is written.
    fn land(self: &Arc<Self>, batch: &Batch, cause: &'static str, span: &Span, bytes: SpanBytes) {
        let id = span.id.0;
        let bytes = Arc::new(bytes);
        if let Some(pilot) = batch.take(id) {
            pilot.send_replace(Some(Ok(Arc::clone(&bytes))));
        }
        self.shared.metrics.fill(cause);
        let (this, start) = (Arc::clone(self), span.uncompressed.start);
        let write = move || {
            let written = this
                .files
                .stream
                .write(start, &bytes.bytes)
                .and_then(|()| this.files.bitmap.set(id, crc32fast::hash(&bytes.bytes)));
            // Bit first, then the flight's end: whoever comes in between finds one or the other.
            this.flights.tower().land(id);
            drop(bytes);
            match written {
                Ok(()) => {
                    this.disk_trouble.store(false, Ordering::Relaxed);
                    this.notice_completion();
                }
                // The readers have their bytes; the next ones fetch again.
                Err(error) => {
                    let full =
                        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                    this.shared.metrics.error(if full { "no-space" } else { "disk" });
                    if !this.disk_trouble.swap(true, Ordering::Relaxed) {
                        warn!(layer = this.name, %error, "spans can't be kept: they are fetched anew for each read");
                    }
                }
            }
        };
        self.shared.tasks.spawn_blocking_on(write, &self.runtime);
    }

    fn notice_completion(&self) {
        let (present, all) = self.progress();
        if present == all {
            self.complete.notify_waiters();
        }
    }

    /// The windows of `spans`.
    async fn windows(self: &Arc<Self>, spans: &[Span]) -> Result<Vec<Vec<u8>>, Error> {
        let ids: Vec<SpanId> = spans.iter().map(|span| span.id).collect();
        let this = Arc::clone(self);
        blocking(move || ids.into_iter().map(|id| this.window(id)).collect()).await
    }
}

/// A span that is arriving.
struct Work {
    hash: Sha256,
    decoder: SpanDecoder,
    /// What the decoder had to say, which counts only if the digest is right.
    broken: Option<String>,
    memory: Arc<Memory>,
}

impl Work {
    fn new(table: &SpanTable, span: &Span, window: &[u8], memory: Arc<Memory>) -> Result<Self, Trouble> {
        let len = memory_len(span.uncompressed.end - span.uncompressed.start).map_err(Trouble::Final)?;
        let decoder = SpanDecoder::new(table.compression(), span.bits, window, len)
            .map_err(|e| Trouble::Final(Error::Corrupt(e.to_string())))?;
        Ok(Self { hash: Sha256::new(), decoder, broken: None, memory })
    }

    fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        if self.broken.is_none() {
            self.broken = self.decoder.push(bytes).err().map(|e| e.to_string());
        }
    }

    /// The span's bytes, if they are what its digest says.
    fn finish(self, span: &Span) -> Result<SpanBytes, Trouble> {
        let corrupt = |text: String| Trouble::Source(SourceError { cause: Cause::Corrupt, text });
        let found = Sha256Digest(self.hash.finalize().into());
        let id = span.id.0;
        if found != span.digest {
            return Err(corrupt(format!("span {id} has the digest {found}, its index says {}", span.digest)));
        }
        // The right bytes, and yet not what the index says of them: the index is wrong, and stays so.
        let inconsistent = |what: String| {
            Trouble::Final(Error::Corrupt(format!("span {id} can't be decoded as its index says: {what}")))
        };
        if let Some(what) = self.broken {
            return Err(inconsistent(what));
        }
        let bytes = self.decoder.finish().map_err(|e| inconsistent(e.to_string()))?;
        Ok(SpanBytes { bytes, _memory: self.memory })
    }
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

fn memory_len(len: u64) -> Result<usize, Error> {
    usize::try_from(len).map_err(|_| Error::Internal(format!("{len} bytes don't fit in memory")))
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;

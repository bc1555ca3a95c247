//! Carries out one request for neighbouring spans of a layer: their bytes are hashed and decoded while they arrive, checked
//! as a whole, and handed on span by span.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use spandrel_ztoc::{Sha256Digest, Span, SpanDecoder, SpanTable};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::engine::{Engine, Memory};
use super::flight::{After, SpanBytes};
use super::planner::{Class, End, Order};
use super::source::{Cause, Chunks, SourceError};
use super::spans::{Spans, memory_len};
use super::split::Splitter;
use crate::Error;

/// What goes wrong in one try.
#[derive(Debug)]
pub(super) enum Trouble {
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

/// A span of a request, until it has come.
struct Wanted {
    span: Span,
    memory: Option<Memory>,
}

/// A request under way. However it ends, the planner is told, and no flight is left without one who flies it.
struct Request {
    spans: Arc<Spans>,
    engine: Arc<Engine>,
    order: Order,
    /// Those that haven't come.
    left: Vec<u32>,
    /// Whether some have.
    progress: bool,
    end: End,
    received: u64,
    /// Time in which bytes came, or could have.
    body: Duration,
}

impl Drop for Request {
    fn drop(&mut self) {
        // Only after a panic or an interruption: else they have been seen to.
        self.spans.abandon(&std::mem::take(&mut self.left));
        self.engine.ended(self.order.id, self.end, self.received, self.body);
    }
}

/// Carries out `order`, which is of the layer `spans`.
pub(super) async fn carry_out(spans: Arc<Spans>, engine: Arc<Engine>, order: Order) {
    let interrupted = spans.interrupted();
    let memory = engine.memory_of(&order);
    let wanted = spans.board(&order, memory);
    let left = order.spans.clone().collect();
    let (received, body) = (0, Duration::ZERO);
    let mut request = Request {
        spans: Arc::clone(&spans),
        engine,
        order,
        left,
        progress: false,
        end: End::Stopped,
        received,
        body,
    };
    if wanted.is_empty() {
        return request.rest();
    }
    let timeout = request.engine.read_timeout;
    let tried = tokio::select! {
        biased;
        // Its flights have been failed.
        () = interrupted.cancelled() => return,
        tried = tokio::time::timeout(timeout, request.fetch(wanted)) => tried,
    };
    let trouble = match tried {
        Ok(Ok(())) => return request.rest(),
        Ok(Err(trouble)) => trouble,
        Err(_) => {
            let text = format!("no answer within {} s", timeout.as_secs());
            Trouble::Source(SourceError { cause: Cause::Unreachable, text })
        }
    };
    request.failed(trouble).await;
}

impl Request {
    /// Everything that was asked for has come; what was not is for another request, if anybody waits for it.
    fn rest(mut self) {
        self.end = if self.received > 0 { End::Done } else { End::Stopped };
        let (spans, left) = (Arc::clone(&self.spans), std::mem::take(&mut self.left));
        drop(self);
        spans.want_again(&left);
    }

    /// Asks for the spans and takes what comes.
    async fn fetch(&mut self, mut wanted: Vec<Wanted>) -> Result<(), Trouble> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let range = first.span.compressed.start..last.span.compressed.end;
        if let Some(wanted) = wanted.iter().find(|wanted| wanted.span.compressed.is_empty()) {
            let what = format!("{}: span {} has no bytes in the blob", self.spans.name(), wanted.span.id.0);
            return Err(Trouble::Final(Error::Corrupt(what)));
        }
        let spans: Vec<Span> = wanted.iter().map(|wanted| wanted.span.clone()).collect();
        let asked = Instant::now();
        let windows = self.spans.windows(&spans);
        let (windows, answer) = tokio::join!(windows, self.open(range));
        let windows = windows.map_err(Trouble::Final)?;
        let mut answer = answer?;
        self.engine.first_byte(self.order.id, asked.elapsed());
        let mut splitter = Splitter::new(spans.iter().map(|span| span.compressed.clone()).collect());
        let mut work: Option<(usize, Work)> = None;
        let began = Instant::now();
        let mut paused = Duration::ZERO;
        while !splitter.is_done() {
            if self.order.class > Class::Demand {
                let since = Instant::now();
                self.engine.turn(self.order.id).await;
                paused += since.elapsed();
            }
            let Some(chunk) = answer.next().await? else {
                let text = "the answer ended early".to_owned();
                return Err(Trouble::Source(SourceError { cause: Cause::Unreachable, text }));
            };
            self.received += chunk.len() as u64;
            self.engine.received(self.order.id, chunk.len() as u64);
            self.take(&mut wanted, &windows, &mut splitter, &mut work, &chunk)?;
            self.body = began.elapsed().saturating_sub(paused);
        }
        self.engine.metrics.fetch_seconds.observe(asked.elapsed().as_secs_f64());
        Ok(())
    }

    /// Asks for a range; a second time where the first byte takes longer than it does nearly always, if somebody waits.
    async fn open(&self, range: std::ops::Range<u64>) -> Result<Box<dyn Chunks>, SourceError> {
        let source = self.spans.source();
        let first = source.open(range.clone());
        if self.order.class != Class::Demand {
            return first.await;
        }
        let Some(late) = self.engine.hedge_after(self.order.layer) else { return first.await };
        tokio::pin!(first);
        if let Ok(answer) = tokio::time::timeout(late, &mut first).await {
            return answer;
        }
        self.engine.hedged(self.order.layer);
        debug!(layer = self.spans.name(), ?range, ?late, "no first byte yet: asking once more");
        let second = source.open(range);
        tokio::pin!(second);
        // The first that has something to say wins; a failure waits for the other.
        tokio::select! {
            answer = &mut first => if answer.is_ok() { answer } else { second.await },
            answer = &mut second => if answer.is_ok() { answer } else { first.await },
        }
    }

    /// Takes the next bytes of an answer.
    fn take(
        &mut self,
        wanted: &mut [Wanted],
        windows: &[Vec<u8>],
        splitter: &mut Splitter,
        work: &mut Option<(usize, Work)>,
        chunk: &Bytes,
    ) -> Result<(), Trouble> {
        let mut used = 0;
        while let Some(piece) = splitter.next(chunk, &mut used) {
            let wanted = &mut wanted[piece.span];
            let mut current = match work.take() {
                Some((index, current)) if index == piece.span => current,
                _ => Work::new(self.spans.table(), &wanted.span, &windows[piece.span])?,
            };
            current.push(piece.bytes);
            if piece.last {
                let bytes = current.finish(&wanted.span)?;
                self.spans.accept(&wanted.span, &bytes).map_err(Trouble::Final)?;
                // Each span has its own: it is finished once.
                let Some(memory) = wanted.memory.take() else { continue };
                self.land(&wanted.span, SpanBytes { bytes, _memory: memory });
            } else {
                *work = Some((piece.span, current));
            }
        }
        Ok(())
    }

    fn land(&mut self, span: &Span, bytes: SpanBytes) {
        self.left.retain(|id| *id != span.id.0);
        self.progress = true;
        // First: its writing may fail, and then it is lost again.
        let class = self.engine.landed(self.order.id, span.id.0);
        self.spans.land(span, bytes);
        self.engine.metrics.fill(class.unwrap_or(self.order.class).name());
    }

    /// Does what is to be done when a try has failed.
    async fn failed(mut self, trouble: Trouble) {
        let (spans, engine) = (Arc::clone(&self.spans), Arc::clone(&self.engine));
        let left = std::mem::take(&mut self.left);
        let error = match trouble {
            Trouble::Final(error) => {
                drop(self);
                warn!(layer = spans.name(), ?left, %error, "reads of these spans fail");
                return spans.fail(&left, &error);
            }
            Trouble::Source(error) => error,
        };
        engine.metrics.error(error.cause.class());
        debug!(layer = spans.name(), %error, "a fetch failed");
        self.end = match error.cause {
            Cause::Busy => End::Busy,
            // The host did what it was asked to.
            Cause::Corrupt | Cause::Absent | Cause::Unsupported => End::Stopped,
            Cause::Refused | Cause::Unreachable => End::Failed,
        };
        let (mut again, mut hopeless, mut wait) = (Vec::new(), Vec::new(), Duration::ZERO);
        {
            let mut tower = spans.tower();
            for id in &left {
                match tower.trouble(*id, &error, self.progress) {
                    After::Nothing => {}
                    After::Again(after) => {
                        again.push(*id);
                        wait = wait.max(after);
                    }
                    After::Hopeless => hopeless.push(*id),
                }
            }
        }
        let lasting = self.end == End::Stopped;
        drop(self);
        if again.is_empty() && hopeless.is_empty() && lasting {
            // Nobody waits for it; whoever does will hear what is wrong.
            spans.no_background(&error);
        }
        if !hopeless.is_empty() {
            warn!(layer = spans.name(), spans = ?hopeless, %error, "reads of these spans fail");
            spans.fail(&hopeless, &Error::Corrupt(format!("{}: {}", spans.name(), error.text)));
        }
        if again.is_empty() {
            return;
        }
        let interrupted = spans.interrupted();
        tokio::select! {
            () = interrupted.cancelled() => {}
            () = tokio::time::sleep(wait) => spans.want_again(&again),
        }
    }
}

impl Spans {
    /// Takes over the spans of an order: those that aren't there, with their memory; those of them at the order's beginning
    /// that are neighbours.
    fn board(&self, order: &Order, memory: Vec<Memory>) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut tower = self.tower();
        let mut unused = Vec::new();
        for (id, memory) in order.spans.clone().zip(memory) {
            let follows = wanted.last().is_none_or(|last| last.span.id.0 + 1 == id);
            match self.span(id) {
                Ok(span)
                    if follows && !tower.has_come(id) && !tower.is_leaving(id) && self.is_missing(id) =>
                {
                    tower.take_off(id);
                    wanted.push(Wanted { span, memory: Some(memory) });
                }
                _ => unused.push(memory),
            }
        }
        drop(tower);
        drop(unused);
        wanted
    }
}

/// A span that is arriving.
struct Work {
    hash: Sha256,
    decoder: SpanDecoder,
    /// What the decoder had to say, which counts only if the digest is right.
    broken: Option<String>,
}

impl Work {
    fn new(table: &SpanTable, span: &Span, window: &[u8]) -> Result<Self, Trouble> {
        let len = memory_len(span.uncompressed.end - span.uncompressed.start).map_err(Trouble::Final)?;
        let decoder = SpanDecoder::new(table.compression(), span.bits, window, len)
            .map_err(|e| Trouble::Final(Error::Corrupt(e.to_string())))?;
        Ok(Self { hash: Sha256::new(), decoder, broken: None })
    }

    fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        if self.broken.is_none() {
            self.broken = self.decoder.push(bytes).err().map(|e| e.to_string());
        }
    }

    /// The span's bytes, if they are what its digest says.
    fn finish(self, span: &Span) -> Result<Vec<u8>, Trouble> {
        let found = Sha256Digest(self.hash.finalize().into());
        let id = span.id.0;
        if found != span.digest {
            let text = format!("span {id} has the digest {found}, its index says {}", span.digest);
            return Err(Trouble::Source(SourceError { cause: Cause::Corrupt, text }));
        }
        // The right bytes, and yet not what the index says of them: the index is wrong, and stays so.
        let inconsistent = |what: String| {
            Trouble::Final(Error::Corrupt(format!("span {id} can't be decoded as its index says: {what}")))
        };
        if let Some(what) = self.broken {
            return Err(inconsistent(what));
        }
        self.decoder.finish().map_err(|e| inconsistent(e.to_string()))
    }
}

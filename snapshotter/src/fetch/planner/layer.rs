//! What the planner knows of one layer: where its spans lie, and how far each has come.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use spandrel_ztoc::{Span, SpanId, SpanTable};

use super::streams::Streams;
use super::{Class, OrderId};

/// How far a span has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody wants it.
    Missing,
    /// It is in the queue, at this place.
    Queued(Class, u64),
    /// A request for it is under way.
    Flying(OrderId),
    /// It came, and is in memory or on the disk.
    Here,
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub host: Arc<str>,
    table: Arc<SpanTable>,
    states: Vec<State>,
    /// How many spans nobody wants and nobody has.
    pub missing: u32,
    /// Requests under way.
    pub running: usize,
    /// Whether it is fetched in the background, too.
    pub background: bool,
    /// When it was read last, as a place in the order of all such moments.
    pub last_touch: u64,
    /// Where the background goes on.
    cursor: u32,
    streams: Streams,
    /// Spans that came because somebody read them, or was about to.
    read: u32,
    /// Whether so many were that the rest is wanted too.
    promoted: bool,
}

/// Whoever reads so large a part of a layer, one in so many spans, reads most of the rest, too.
const READ_SHARE: u32 = 2;

impl Layer {
    pub(super) fn new(host: Arc<str>, table: Arc<SpanTable>, here: impl Fn(u32) -> bool) -> Self {
        // What lies behind the tar's end holds nothing of the stream: nobody reads it.
        let all = table.covering(0..table.stream_len()).end;
        let states: Vec<State> =
            (0..all).map(|span| if here(span) { State::Here } else { State::Missing }).collect();
        let missing = states.iter().filter(|state| **state == State::Missing).count();
        Self {
            host,
            table,
            missing: u32::try_from(missing).unwrap_or(u32::MAX),
            states,
            running: 0,
            background: false,
            last_touch: 0,
            cursor: 0,
            streams: Streams::default(),
            read: 0,
            promoted: false,
        }
    }

    /// One more span has come because somebody reads. Says, once, that so many have that the rest is wanted.
    pub(super) fn was_read(&mut self) -> bool {
        self.read += 1;
        !self.promoted && self.background && self.read >= self.len().div_ceil(READ_SHARE) && {
            self.promoted = true;
            true
        }
    }

    /// The spans that nobody wants and nobody has.
    pub(super) fn all_missing(&self) -> Vec<u32> {
        (0..self.len()).filter(|span| self.state(*span) == Some(State::Missing)).collect()
    }

    fn len(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    /// What is known of `span`; `None` when there is no such span.
    pub(super) fn state(&self, span: u32) -> Option<State> {
        self.states.get(span as usize).copied()
    }

    /// Changes what is known of `span`; gives what was known before.
    pub(super) fn set(&mut self, span: u32, state: State) -> Option<State> {
        let former = std::mem::replace(self.states.get_mut(span as usize)?, state);
        self.missing += u32::from(state == State::Missing);
        self.missing -= u32::from(former == State::Missing);
        Some(former)
    }

    /// Nothing is wanted.
    pub(super) fn unqueue(&mut self) {
        for span in 0..self.len() {
            if matches!(self.state(span), Some(State::Queued(..))) {
                self.set(span, State::Missing);
            }
        }
    }

    fn span(&self, span: u32) -> Option<Span> {
        self.table.get(SpanId(span))
    }

    /// Bytes of the blob that `spans` lie in.
    pub(super) fn compressed_len(&self, spans: &Range<u32>) -> u64 {
        match (self.span(spans.start), self.span(spans.end.saturating_sub(1))) {
            (Some(first), Some(last)) => last.compressed.end.saturating_sub(first.compressed.start),
            _ => 0,
        }
    }

    /// Bytes of stream that `spans` are.
    pub(super) fn uncompressed_len(&self, spans: &Range<u32>) -> u64 {
        match (self.span(spans.start), self.span(spans.end.saturating_sub(1))) {
            (Some(first), Some(last)) => last.uncompressed.end.saturating_sub(first.uncompressed.start),
            _ => 0,
        }
    }

    /// Mean length of a span in the blob, in bytes; at least 1.
    pub(super) fn mean_len(&self) -> u64 {
        (self.table.blob_len() / u64::from(self.len().max(1))).max(1)
    }

    /// The next span from `from` on that is in the queue, when all before it are missing and lie in `bridge` bytes at most.
    pub(super) fn next_queued(&self, from: u32, bridge: u64) -> Option<u32> {
        let mut span = from;
        loop {
            match self.state(span)? {
                State::Queued(..) => return Some(span),
                State::Missing if self.compressed_len(&(from..span + 1)) <= bridge => span += 1,
                _ => return None,
            }
        }
    }

    /// The next missing spans, from where the background has come to, at most so long together (but one at least).
    pub(super) fn next_missing(&self, compressed: u64, uncompressed: u64) -> Option<Range<u32>> {
        let missing = |span: &u32| self.state(*span) == Some(State::Missing);
        let first = (self.cursor..self.len()).find(missing).or_else(|| (0..self.cursor).find(missing))?;
        let mut run = first..first + 1;
        while missing(&run.end) {
            let longer = run.start..run.end + 1;
            if self.compressed_len(&longer) > compressed || self.uncompressed_len(&longer) > uncompressed {
                break;
            }
            run = longer;
        }
        Some(run)
    }

    /// A reader is at `span`: which spans it will want next, reading ahead by `window` of them at most.
    pub(super) fn touched(&mut self, span: u32, window: u32, touch: u64, now: Duration) -> Range<u32> {
        self.last_touch = touch;
        // Files that are used together lie together, as a rule: the background goes on where readers are.
        self.cursor = (span + 1).min(self.len());
        let ahead = self.streams.touched(span, window, now);
        ahead.start.min(self.len())..ahead.end.min(self.len())
    }
}

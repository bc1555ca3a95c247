//! Which spans of a layer are on their way, so that no two requests fetch one; and which failed a moment ago, so that the
//! kernel's asking again in small pieces isn't a request each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::Memory;
use super::limits::{CORRUPT_TRIES, MAX_BACKOFF, MIN_BACKOFF};
use super::source::{Cause, SourceError};
use crate::Error;

/// A span's bytes of stream, counted against the memory budget while anybody holds them.
#[derive(Debug)]
pub(crate) struct SpanBytes {
    pub bytes: Vec<u8>,
    pub _memory: Memory,
}

/// How it ended.
pub(super) type Outcome = Result<Arc<SpanBytes>, Error>;

/// A flight as those see it who wait for it.
pub(super) type Waiter = watch::Receiver<Option<Outcome>>;

/// A span on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pilot: watch::Sender<Option<Outcome>>,
    /// How long is waited before the next try.
    backoff: Duration,
    /// How often its bytes were wrong.
    corrupt: u32,
    /// What went wrong last.
    last: Option<SourceError>,
}

#[derive(Debug)]
enum Slot {
    Flying(Flight),
    Failed(Error, Instant),
    /// It is being given back: nobody fetches it until it is gone. Who comes waits, and is told nothing: it asks anew.
    Leaving(watch::Sender<Option<Outcome>>),
}

/// The flights of one layer.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<u32, Slot>>);

/// The flights, looked at and changed in one go.
pub(super) struct Tower<'a>(MutexGuard<'a, HashMap<u32, Slot>>);

/// What is known of a span that isn't simply there.
#[derive(Debug)]
pub(super) enum Known {
    /// It is on its way.
    Flying(Waiter),
    /// It failed a moment ago.
    Failed(Error),
    /// Nothing.
    Nothing,
}

/// What is to be done about a span that a request did not bring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nobody waits for it: nothing.
    Nothing,
    /// Another try, after this time.
    Again(Duration),
    /// Its bytes are wrong each time.
    Hopeless,
}

impl Flights {
    /// Holds the lock until dropped: not for long, and over no I/O.
    pub(super) fn tower(&self) -> Tower<'_> {
        // No code panics while holding it.
        Tower(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tower<'_> {
    pub(super) fn known(&mut self, id: u32, now: Instant) -> Known {
        match self.0.get(&id) {
            Some(Slot::Flying(flight)) => Known::Flying(flight.pilot.subscribe()),
            Some(Slot::Leaving(end)) => Known::Flying(end.subscribe()),
            Some(Slot::Failed(error, until)) if now < *until => Known::Failed(error.clone()),
            Some(Slot::Failed(..)) => {
                self.0.remove(&id);
                Known::Nothing
            }
            None => Known::Nothing,
        }
    }

    /// Span `id` takes off, unless it is on its way already.
    pub(super) fn take_off(&mut self, id: u32) -> Waiter {
        match self.0.get(&id) {
            Some(Slot::Flying(flight)) => return flight.pilot.subscribe(),
            Some(Slot::Leaving(end)) => return end.subscribe(),
            Some(Slot::Failed(..)) | None => {}
        }
        let (pilot, waiter) = watch::channel(None);
        let flight = Flight { pilot, backoff: MIN_BACKOFF, corrupt: 0, last: None };
        self.0.insert(id, Slot::Flying(flight));
        waiter
    }

    /// Its bytes are here: those who wait get them, and so does who comes before they are in the stream.
    pub(super) fn arrived(&mut self, id: u32, bytes: Arc<SpanBytes>) {
        if let Some(Slot::Flying(flight)) = self.0.get(&id) {
            flight.pilot.send_replace(Some(Ok(bytes)));
        }
    }

    /// Its bytes are in the stream, or could not be written there: the next one looks for itself. The flight is for the
    /// caller to drop when it doesn't hold the lock any more: memory goes back with it.
    #[must_use = "it is to be dropped after the lock"]
    pub(super) fn land(&mut self, id: u32) -> Option<Flight> {
        if !matches!(self.0.get(&id), Some(Slot::Flying(_))) {
            return None;
        }
        match self.0.remove(&id) {
            Some(Slot::Flying(flight)) => Some(flight),
            _ => None,
        }
    }

    /// Span `id`, which is in the stream, is to go; says whether it may, which it may not while it is on its way (it may not
    /// be written yet). Until [`Tower::left`] nobody fetches it.
    pub(super) fn leave(&mut self, id: u32) -> bool {
        if matches!(self.0.get(&id), Some(Slot::Flying(_) | Slot::Leaving(_))) {
            return false;
        }
        self.0.insert(id, Slot::Leaving(watch::Sender::new(None)));
        true
    }

    /// It is gone: those who wait ask anew.
    pub(super) fn left(&mut self, id: u32) {
        if self.is_leaving(id) {
            self.0.remove(&id);
        }
    }

    /// Whether it is being given back.
    pub(super) fn is_leaving(&self, id: u32) -> bool {
        matches!(self.0.get(&id), Some(Slot::Leaving(_)))
    }

    /// It failed, and fails all who ask until `until`.
    pub(super) fn fail(&mut self, id: u32, error: &Error, until: Instant) {
        // Whoever gives it back holds its place.
        if self.is_leaving(id) {
            return;
        }
        if let Some(Slot::Flying(flight)) = self.0.insert(id, Slot::Failed(error.clone(), until)) {
            flight.pilot.send_replace(Some(Err(error.clone())));
        }
    }

    /// A request that was to bring it has failed with `error`; `progress`: it brought other spans.
    pub(super) fn trouble(&mut self, id: u32, error: &SourceError, progress: bool) -> After {
        let Some(Slot::Flying(flight)) = self.0.get_mut(&id) else { return After::Nothing };
        // Under the lock by which waiters come: none is forgotten.
        if flight.pilot.receiver_count() == 0 {
            self.0.remove(&id);
            return After::Nothing;
        }
        if error.cause == Cause::Corrupt {
            flight.corrupt += 1;
            if flight.corrupt >= CORRUPT_TRIES {
                return After::Hopeless;
            }
        }
        flight.last = Some(error.clone());
        let wait = if progress { MIN_BACKOFF } else { flight.backoff };
        flight.backoff = (wait * 2).min(MAX_BACKOFF);
        After::Again(wait)
    }

    /// What went wrong last with a span that is on its way.
    pub(super) fn last_trouble(&self, id: u32) -> Option<String> {
        match self.0.get(&id) {
            Some(Slot::Flying(flight)) => flight.last.as_ref().map(|error| error.text.clone()),
            _ => None,
        }
    }

    /// Whether no span is on its way, or has come and is being written.
    pub(super) fn is_empty(&self) -> bool {
        !self.0.values().any(|slot| matches!(slot, Slot::Flying(_)))
    }

    /// The spans that are on their way and haven't come.
    pub(super) fn flying(&self) -> Vec<u32> {
        let waits = |slot: &Slot| matches!(slot, Slot::Flying(flight) if flight.pilot.borrow().is_none());
        self.0.iter().filter(|(_, slot)| waits(slot)).map(|(id, _)| *id).collect()
    }

    /// Whether a span is on its way and hasn't come.
    pub(super) fn is_flying(&self, id: u32) -> bool {
        matches!(self.0.get(&id), Some(Slot::Flying(flight)) if flight.pilot.borrow().is_none())
    }

    /// Whether a span has come and isn't in the stream yet.
    pub(super) fn has_come(&self, id: u32) -> bool {
        matches!(self.0.get(&id), Some(Slot::Flying(flight)) if flight.pilot.borrow().is_some())
    }

    /// Nobody flies it any more: those who wait ask anew.
    pub(super) fn abandon(&mut self, id: u32) {
        if self.is_flying(id) {
            self.0.remove(&id);
        }
    }
}

/// Waits for the end of a flight; `None` when it ended without a word, because a task has panicked.
pub(super) async fn landed(mut waiter: Waiter) -> Option<Outcome> {
    waiter.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
}

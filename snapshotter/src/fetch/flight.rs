//! Which spans of a layer are on their way, so that no two requests fetch one; and which failed a moment ago, so that the
//! kernel's asking again in small pieces isn't a request each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::Memory;
use crate::Error;

/// A span's bytes of stream, counted against the memory budget while anybody holds them.
#[derive(Debug)]
pub(crate) struct SpanBytes {
    pub bytes: Vec<u8>,
    pub _memory: Arc<Memory>,
}

/// How it ended.
pub(super) type Outcome = Result<Arc<SpanBytes>, Error>;

/// A flight as those see it who wait for it.
pub(super) type Waiter = watch::Receiver<Option<Outcome>>;

/// A flight as the one sees it who flies.
pub(super) type Pilot = watch::Sender<Option<Outcome>>;

#[derive(Debug)]
enum Slot {
    Flying(Waiter),
    Failed(Error, Instant),
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
            // Whoever flew it is gone without a word (a panic): the next one flies it anew.
            Some(Slot::Flying(waiter)) if waiter.has_changed().is_err() && waiter.borrow().is_none() => {
                self.0.remove(&id);
                Known::Nothing
            }
            Some(Slot::Flying(waiter)) => Known::Flying(waiter.clone()),
            Some(Slot::Failed(error, until)) if now < *until => Known::Failed(error.clone()),
            Some(Slot::Failed(..)) => {
                self.0.remove(&id);
                Known::Nothing
            }
            None => Known::Nothing,
        }
    }

    /// Span `id` takes off.
    pub(super) fn take_off(&mut self, id: u32) -> (Pilot, Waiter) {
        let (pilot, waiter) = watch::channel(None);
        self.0.insert(id, Slot::Flying(waiter.clone()));
        (pilot, waiter)
    }

    /// Its bytes are in the stream, or could not be written there: the next one looks for itself.
    pub(super) fn land(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// It failed, and fails all who ask until `until`.
    pub(super) fn fail(&mut self, id: u32, error: Error, until: Instant) {
        self.0.insert(id, Slot::Failed(error, until));
    }

    /// How many spans are on their way.
    #[cfg(test)]
    pub(super) fn flying(&self) -> usize {
        self.0.values().filter(|slot| matches!(slot, Slot::Flying(_))).count()
    }
}

/// Waits for the end of a flight.
pub(super) async fn landed(mut waiter: Waiter) -> Outcome {
    match waiter.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().expect("was waited for"),
        // Whoever flies always tells; this is for a task that panicked.
        Err(_) => Err(Error::Internal("a fetch ended without an answer".to_owned())),
    }
}

//! What was written lately is in the page cache: it is read from there without waiting for the disk, and it takes memory
//! twice once the kernel has read it for a mount. So what is no longer among the last written is to leave the cache, and
//! before that the disk begins with it, early enough that nobody waits for a long queue at once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Bytes written last with which the disk need not begin: some spans, so that what is written soon after each other
/// lies together there.
const UNBEGUN: u64 = 32 << 20;

/// Bytes written last that stay in the page cache: a start's first reads come soon after the bytes, and on a slow disk
/// would wait for them. For the whole node, whatever it has.
const KEPT: u64 = 128 << 20;

/// What was written lately, in order; `T` says what and where.
#[derive(Debug)]
pub(crate) struct Fresh<T>(Mutex<Queues<T>>);

#[derive(Debug)]
struct Queues<T> {
    unbegun: Queue<T>,
    begun: Queue<T>,
}

#[derive(Debug)]
struct Queue<T> {
    writes: VecDeque<(T, u64)>,
    len: u64,
}

impl<T> Queue<T> {
    const fn new() -> Self {
        Self { writes: VecDeque::new(), len: 0 }
    }

    fn push(&mut self, what: T, len: u64) {
        self.writes.push_back((what, len));
        self.len += len;
    }

    fn pop(&mut self) -> Option<(T, u64)> {
        let (what, len) = self.writes.pop_front()?;
        self.len -= len;
        Some((what, len))
    }
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Mutex::new(Queues { unbegun: Queue::new(), begun: Queue::new() }))
    }
}

/// What is to be done about an older write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The disk is to begin with it.
    Begin,
    /// It is to leave the page cache; the disk has had time for it.
    Drop,
}

impl<T: Clone> Fresh<T> {
    /// `len` bytes were written to `what`. Says what is to be done about writes, the older ones as a rule.
    pub(crate) fn wrote(&self, what: T, len: u64) -> Vec<(T, Due)> {
        // No code panics while holding it.
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.unbegun.push(what, len);
        let mut due = Vec::new();
        while queues.unbegun.len > UNBEGUN
            && let Some((what, len)) = queues.unbegun.pop()
        {
            due.push((what.clone(), Due::Begin));
            queues.begun.push(what, len);
        }
        while queues.unbegun.len + queues.begun.len > KEPT
            && let Some((what, _)) = queues.begun.pop()
        {
            due.push((what, Due::Drop));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_begun_and_then_dropped_in_order() {
        const LEN: u64 = 8 << 20;
        let fresh = Fresh::default();
        for number in 0..100 {
            let due = fresh.wrote(number, LEN);
            let begun = (number >= 4).then(|| (number - 4, Due::Begin));
            let dropped = (number >= 16).then(|| (number - 16, Due::Drop));
            assert_eq!(due, begun.into_iter().chain(dropped).collect::<Vec<(u64, Due)>>(), "{number}");
        }
    }

    #[test]
    fn what_is_longer_than_all_that_is_kept_goes_at_once() {
        let fresh = Fresh::default();
        assert_eq!(fresh.wrote('a', KEPT + 1), [('a', Due::Begin), ('a', Due::Drop)]);
        assert!(fresh.wrote('b', 1).is_empty());
    }
}

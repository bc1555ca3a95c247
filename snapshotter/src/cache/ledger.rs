//! What those who write to streams tell whoever keeps them within their room, and what he tells them. All of it is cheap:
//! reads and writes of spans pass here.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use tokio::sync::Notify;

/// How much is written before somebody looks at once, in bytes, until it is known how much room there is: what a disk writes
/// in a quarter of a second.
const FIRST_STEP: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Bytes written since the last look.
    written: AtomicU64,
    /// How many may be, before it is time for the next.
    step: AtomicU64,
    /// Bytes that could not be written since the last look for lack of room.
    short: AtomicU64,
    /// Whether what nobody reads is better not fetched.
    tight: AtomicBool,
    /// The age in which we are: what was used in the same is taken to be used at the same time.
    age: AtomicU16,
    due: Notify,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            written: AtomicU64::new(0),
            step: AtomicU64::new(FIRST_STEP),
            short: AtomicU64::new(0),
            tight: AtomicBool::new(false),
            // 0 is for what was not used since the start.
            age: AtomicU16::new(1),
            due: Notify::new(),
        }
    }
}

impl Ledger {
    /// So many bytes were written to a stream.
    pub(crate) fn wrote(&self, len: u64) {
        let step = self.step.load(Ordering::Relaxed);
        let before = self.written.fetch_add(len, Ordering::Relaxed);
        if before < step && before.saturating_add(len) >= step {
            self.due.notify_one();
        }
    }

    /// So many bytes could not be written: the disk is full.
    pub(crate) fn short(&self, len: u64) {
        self.short.fetch_add(len.max(1), Ordering::Relaxed);
        self.due.notify_one();
    }

    /// Something else makes a look worth while.
    pub(crate) fn poke(&self) {
        self.due.notify_one();
    }

    /// Waits until it is time to look.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// Somebody looks now: how much was written since the last time, and how much could not be.
    pub(crate) fn look(&self) -> (u64, u64) {
        (self.written.swap(0, Ordering::Relaxed), self.short.swap(0, Ordering::Relaxed))
    }

    /// From now on it is time after so many bytes.
    pub(crate) fn set_step(&self, step: u64) {
        self.step.store(step.max(1), Ordering::Relaxed);
    }

    /// Whether there is room only for what somebody reads.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// See [`Ledger::is_tight`]; says whether that is news.
    pub(crate) fn set_tight(&self, tight: bool) -> bool {
        self.tight.swap(tight, Ordering::Relaxed) != tight
    }

    /// The age in which we are. It may come round again: then what was not used for 65,535 ages counts as just used.
    pub(crate) fn age(&self) -> u16 {
        self.age.load(Ordering::Relaxed)
    }

    /// A new age begins.
    pub(crate) fn next_age(&self) {
        // One looks at a time; 0 has a meaning of its own.
        let next = self.age().wrapping_add(1).max(1);
        self.age.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn it_is_time_once_for_each_step_and_at_once_when_something_is_short() {
        let ledger = Ledger::default();
        ledger.set_step(100);
        let due = || ledger.due().now_or_never().is_some();
        for (len, want) in [(60, false), (39, false), (1, true), (500, false)] {
            ledger.wrote(len);
            assert_eq!(due(), want, "{len}");
        }
        assert_eq!(ledger.look(), (600, 0));
        ledger.wrote(1000);
        assert!(due());
        ledger.short(0);
        assert!(due() && !due());
        assert_eq!(ledger.look(), (1000, 1));
    }

    #[test]
    fn no_age_is_that_of_what_was_never_used() {
        let ledger = Ledger::default();
        let mut ages = std::collections::BTreeSet::new();
        for _ in 0..70_000 {
            ages.insert(ledger.age());
            ledger.next_age();
        }
        assert_eq!(ages.len(), 65_535);
        assert!(!ages.contains(&0));
    }
}

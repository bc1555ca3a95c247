//! What those who write to streams tell whoever keeps them within their room, and what he tells them. All of it is cheap:
//! reads and writes of spans pass here.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// How much is written before somebody looks at once, in bytes, until it is known how much room there is: what a disk writes
/// in a quarter of a second.
const FIRST_STEP: u64 = 64 << 20;

/// How many of those who ask for room have been seen to.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    /// All up to this one.
    ticket: u64,
    /// Whether there is some for the last of them.
    room: bool,
    /// Whether anybody will see to the next.
    attended: bool,
}

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
    /// How many have asked for room.
    asked: AtomicU64,
    served: watch::Sender<Served>,
}

/// What somebody finds who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Bytes written since the last look.
    pub written: u64,
    /// Bytes that could not be.
    pub short: u64,
    /// The last of those who ask for room.
    ticket: u64,
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
            asked: AtomicU64::new(0),
            served: watch::Sender::default(),
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

    /// Asks for room for so many bytes and waits until somebody has looked; says whether another try is worth while. At once,
    /// and no, where nobody looks.
    pub(crate) async fn make_room(&self, len: u64) -> bool {
        self.short.fetch_add(len.max(1), Ordering::Relaxed);
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.due.notify_one();
        let mut served = self.served.subscribe();
        let seen_to = |served: &Served| served.ticket >= ticket || !served.attended;
        served.wait_for(seen_to).await.is_ok_and(|served| served.ticket >= ticket && served.room)
    }

    /// Somebody looks from now on whenever it is due, or not any more.
    pub(crate) fn attend(&self, attended: bool) {
        self.served.send_modify(|served| served.attended = attended);
    }

    /// Something else makes a look worth while.
    pub(crate) fn poke(&self) {
        self.due.notify_one();
    }

    /// Waits until it is time to look.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// Somebody looks now. What is found out is for [`Ledger::looked`].
    pub(crate) fn look(&self) -> Look {
        // The tickets first: who has one has said before how much is short.
        let ticket = self.asked.load(Ordering::Acquire);
        let (written, short) =
            (self.written.swap(0, Ordering::Relaxed), self.short.swap(0, Ordering::Relaxed));
        Look { written, short, ticket }
    }

    /// What came of it: whether there is room now for what could not be written.
    pub(crate) fn looked(&self, look: Look, freed: bool) {
        self.served.send_modify(|served| (served.ticket, served.room) = (look.ticket, freed));
    }

    /// Whether anything was written, or could not be, since the last look.
    pub(crate) fn has_written(&self) -> bool {
        self.written.load(Ordering::Relaxed) > 0 || self.short.load(Ordering::Relaxed) > 0
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
        let looked = || {
            let look = ledger.look();
            (look.written, look.short)
        };
        assert_eq!(looked(), (600, 0));
        ledger.wrote(1000);
        assert!(due());
        ledger.short(0);
        assert!(due() && !due());
        assert_eq!(looked(), (1000, 1));
    }

    #[test]
    fn who_asks_for_room_waits_for_a_look_that_knows_of_it() {
        let ledger = Ledger::default();
        assert_eq!(ledger.make_room(5).now_or_never(), Some(false), "nobody looks");
        ledger.attend(true);
        let before = ledger.look();
        let mut asking = std::pin::pin!(ledger.make_room(7));
        assert_eq!((&mut asking).now_or_never(), None);
        ledger.looked(before, true);
        assert_eq!((&mut asking).now_or_never(), None, "that look had begun before");
        let look = ledger.look();
        assert_eq!(look.short, 7);
        ledger.looked(look, true);
        assert_eq!(asking.now_or_never(), Some(true));
        let mut asking = std::pin::pin!(ledger.make_room(7));
        assert_eq!((&mut asking).now_or_never(), None);
        ledger.attend(false);
        assert_eq!(asking.now_or_never(), Some(false));
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

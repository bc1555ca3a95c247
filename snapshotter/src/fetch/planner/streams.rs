//! Readers that go through a layer's stream in order, found by where they read. Files of one package lie together in a
//! tar, so that one who imports it, or copies a tree, is such a reader though it opens many files.

use std::ops::Range;
use std::time::Duration;

/// Readers that are told apart in one layer. Beyond it the one that has not read for longest is forgotten.
const MAX_STREAMS: usize = 8;

/// A reader that goes on this many spans further, at most, is taken for the same: it has left out a file.
const MAX_LEAP: u32 = 2;

#[derive(Debug)]
struct Stream {
    /// The span it is at.
    at: u32,
    /// What has been read ahead for it ends before this span.
    ahead: u32,
    /// By how many spans it is read ahead: none before it has gone on once.
    window: u32,
    used: Duration,
}

/// The readers of one layer.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: Vec<Stream>,
    /// By how many halvings windows begin smaller than they might: one for each reader that left most of what was fetched
    /// for it unread, one less for each that took it.
    caution: u32,
}

impl Streams {
    /// A reader is at `span`. Gives the spans that it will want next, by `most` at most; perhaps none.
    pub(super) fn touched(&mut self, span: u32, most: u32, now: Duration) -> Range<u32> {
        let most = (most >> self.caution.min(31)).max(1);
        let found = self
            .all
            .iter_mut()
            .find(|stream| (stream.at..=stream.ahead.max(stream.at + 1) + MAX_LEAP).contains(&span));
        let Some(stream) = found else {
            self.begin(span, now);
            return 0..0;
        };
        stream.used = now;
        if span == stream.at {
            return 0..0;
        }
        if span + 1 >= stream.ahead && stream.window >= most {
            self.caution = self.caution.saturating_sub(1);
        }
        stream.at = span;
        stream.window = (stream.window * 2).clamp(1, most);
        let start = stream.ahead.max(span + 1);
        let end = (span + 1).saturating_add(stream.window);
        stream.ahead = stream.ahead.max(end);
        start..end.max(start)
    }

    fn begin(&mut self, span: u32, now: Duration) {
        if self.all.len() >= MAX_STREAMS
            && let Some(oldest) = (0..self.all.len()).min_by_key(|index| self.all[*index].used)
        {
            let gone = self.all.swap_remove(oldest);
            let unread = gone.ahead.saturating_sub(gone.at + 1);
            if gone.window > 0 && unread * 2 > gone.window {
                self.caution = (self.caution + 1).min(8);
            }
        }
        self.all.push(Stream { at: span, ahead: span + 1, window: 0, used: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::ZERO;

    #[test]
    fn a_reader_that_goes_on_is_read_ahead_for() {
        let mut streams = Streams::default();
        let mut seen = Vec::new();
        for span in 10..20 {
            seen.push(streams.touched(span, 8, MOMENT));
            assert!(streams.touched(span, 8, MOMENT).is_empty(), "the same span again");
        }
        // Window 0, 1, 2, 4, 8 and no longer: never a span twice.
        assert_eq!(seen[..3], [0..0, 12..13, 13..15]);
        assert!(seen.windows(2).skip(1).all(|two| two[1].start == two[0].end), "{seen:?}");
        assert_eq!(seen.last().map(|last| last.end), Some(19 + 1 + 8));
    }

    #[test]
    fn who_jumps_about_is_left_alone() {
        let mut streams = Streams::default();
        for span in [5, 90, 40, 7000, 300, 20, 2000, 1, 600, 800, 1000] {
            assert!(streams.touched(span, 8, MOMENT).is_empty(), "{span}");
        }
    }

    #[test]
    fn several_readers_are_told_apart() {
        let mut streams = Streams::default();
        for step in 0..5 {
            for reader in [0, 1000, 2000] {
                let ahead = streams.touched(reader + step, 4, MOMENT);
                assert_eq!(ahead.is_empty(), step == 0, "{reader} {step}: {ahead:?}");
            }
        }
    }

    #[test]
    fn what_goes_unread_makes_cautious() {
        let mut streams = Streams::default();
        for reader in 0..30 {
            for step in 0..4 {
                streams.touched(reader * 1000 + step, 8, Duration::from_secs(u64::from(reader)));
            }
        }
        assert!(streams.caution > 0);
        let ahead = streams.touched(500_000, 8, MOMENT).len() + streams.touched(500_001, 8, MOMENT).len();
        assert!(ahead <= 1, "{ahead}");
    }
}

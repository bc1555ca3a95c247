//! How far a run is, and how long it will take: one line for each measurement, on standard error.

use std::time::{Duration, Instant};

/// Counts measurements.
#[derive(Debug)]
pub struct Progress {
    all: usize,
    done: usize,
    /// Measurements of this process, and when it began: what was there before says nothing about this machine's pace.
    here: u32,
    begun: Instant,
}

impl Progress {
    /// Of `all` measurements `done` were made before.
    pub fn new(all: usize, done: usize) -> Self {
        Self { all, done, here: 0, begun: Instant::now() }
    }

    /// Does what has to be done once before a measurement, such as making an image: it says nothing about the pace.
    pub fn aside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let done = work();
        self.begun += begin.elapsed();
        done
    }

    /// One more is done; says what it was, what came out, and how long the rest will take at this pace.
    pub fn step(&mut self, what: &str, result: &str) {
        self.done += 1;
        self.here += 1;
        let left = u32::try_from(self.all.saturating_sub(self.done)).unwrap_or(u32::MAX);
        let time = (self.begun.elapsed() / self.here).saturating_mul(left);
        crate::say(&format!("[{}/{}] {what}: {result} ({})", self.done, self.all, remaining(left, time)));
    }
}

/// How many measurements are left, and the time that they will take.
fn remaining(left: u32, time: Duration) -> String {
    const MINUTE: u64 = 60;
    match time.as_secs() {
        _ if left == 0 => "done".to_owned(),
        0 => "1 s left".to_owned(),
        seconds if seconds < 2 * MINUTE => format!("{seconds} s left"),
        seconds => format!("{} min left", seconds.div_ceil(MINUTE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_short() {
        for (seconds, text) in [(0, "1 s left"), (119, "119 s left"), (121, "3 min left")] {
            assert_eq!(remaining(1, Duration::from_secs(seconds)), text);
        }
        assert_eq!(remaining(0, Duration::from_secs(9)), "done");
    }
}

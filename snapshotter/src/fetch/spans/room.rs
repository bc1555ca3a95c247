//! Gives the room back that spans take on the disk.
//!
//! A span that goes holds its place among the flights meanwhile, so that nobody fetches it, and readers are kept from its hole
//! as `layer::bitmap` says. Its bit is cleared on the disk, for good, before its bytes go: after a crash at any point a
//! span is either there, or said to be missing, and if the disk did not do as it said, the checksum beside the bit
//! doesn't fit.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Spans;
use crate::layer::bitmap::Held;
use crate::layer::stream::padded;

/// While it lives no span of the layer is given back.
#[derive(Debug)]
pub(crate) struct KeptWhole(Arc<Spans>);

impl Drop for KeptWhole {
    fn drop(&mut self) {
        self.0.kept_whole.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Spans {
    /// Keeps all spans where they are, if all are there.
    pub(crate) fn keep_whole(self: &Arc<Self>) -> Option<KeptWhole> {
        {
            // Under the lock under which spans are withdrawn: none is, once this has been said.
            let _tower = self.tower();
            self.kept_whole.fetch_add(1, Ordering::AcqRel);
        }
        let kept = KeptWhole(Arc::clone(self));
        let (present, all) = self.progress();
        (present == all).then_some(kept)
    }

    /// Whether anybody does.
    pub(crate) fn is_kept_whole(&self) -> bool {
        self.kept_whole.load(Ordering::Acquire) > 0
    }

    /// Waits until nothing is written any more. Only after [`Spans::close`]: nothing new is begun then.
    pub(crate) async fn written(&self) {
        self.writes.wait().await;
    }

    /// Leave to write to the files, until it is dropped; `None` when the layer is closed.
    pub(super) fn leave_to_write(&self) -> Option<TaskTrackerToken> {
        let token = self.writes.token();
        // Against the one in `close`: either this sees that it is closed, or who waits afterwards sees the token.
        fence(Ordering::SeqCst);
        (!self.closed.load(Ordering::Relaxed)).then_some(token)
    }

    /// What lies on the disk, with the length of each in bytes.
    pub(crate) fn held(&self) -> Vec<(Held, u64)> {
        let len = |held: &Held| {
            self.span(held.id).map_or(0, |span| span.uncompressed.end - span.uncompressed.start)
        };
        self.files.bitmap.held().map(|held| (held, len(&held))).collect()
    }

    /// Gives back the room of those of `ids`, in order, that nobody is just fetching or checking. They aren't fetched again
    /// until somebody reads them. Waits for the disk.
    ///
    /// # Errors
    /// What the disk says; what could not be given back is fetched anew all the same.
    pub(crate) fn give_back(&self, ids: &[u32]) -> io::Result<u64> {
        let Some(_leave) = self.leave_to_write() else { return Ok(0) };
        // Else they would come again at once.
        self.thinned.store(true, Ordering::Relaxed);
        self.set_background(false);
        let mut leaving = Vec::with_capacity(ids.len());
        {
            let mut tower = self.tower();
            if self.kept_whole.load(Ordering::Acquire) > 0 {
                return Ok(0);
            }
            let held = |id: &u32| self.files.bitmap.holds(*id);
            leaving.extend(ids.iter().copied().filter(|id| held(id) && tower.leave(*id)));
            // Before the lock goes: whoever asks now finds them leaving, and whoever has found them present looks again.
            self.files.bitmap.withdraw(&leaving);
        }
        let given = self.files.bitmap.forget(&leaving).and_then(|()| {
            let runs = self.runs(&leaving);
            runs.into_iter().try_fold(0, |sum, run| Ok(sum + self.files.stream.punch(run)?))
        });
        for id in &leaving {
            self.engine.lost(self.id, *id);
        }
        {
            let mut tower = self.tower();
            leaving.iter().for_each(|id| tower.left(*id));
        }
        self.ended();
        given
    }

    /// The stretches of the stream's file that `ids`, in order, lie in.
    fn runs(&self, ids: &[u32]) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for range in ids.iter().filter_map(|id| self.file_range(*id)) {
            match runs.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => runs.push(range),
            }
        }
        runs
    }

    /// Where span `id` lies in the stream's file: to the file's end, padding included, if it is the last one.
    pub(super) fn file_range(&self, id: u32) -> Option<Range<u64>> {
        let mut range = self.span(id).ok()?.uncompressed;
        if range.end == self.table.stream_len() {
            range.end = padded(range.end);
        }
        Some(range)
    }

    /// Makes holes of what the stream has between its spans: of spans that were being given back, or were written, when the
    /// daemon or the machine died. Only while nobody fetches or reads anything.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn give_back_strays(&self) -> io::Result<u64> {
        let held: u64 = self.held().iter().map(|(_, len)| len).sum();
        if self.files.stream.allocated()? <= held {
            return Ok(0);
        }
        let missing: Vec<u32> = (0..self.progress().1).filter(|id| !self.files.bitmap.holds(*id)).collect();
        self.runs(&missing).into_iter().try_fold(0, |sum, run| Ok(sum + self.files.stream.punch(run)?))
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;

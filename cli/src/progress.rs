//! Progress bars on standard error: one a layer, with its rate, and below them one for all that is to be done. Only on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use spandrel_registry::Digest;

/// How many digits of a digest a bar shows: as docker does.
const DIGITS: usize = 12;

/// The bars of one command. Without a terminal, or asked to be quiet, there are none, and everything else is the same.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The bars of what is under way.
    by_digest: BTreeMap<Digest, ProgressBar>,
    /// Below all others, once something is expected.
    total: Option<ProgressBar>,
    /// What is to be done of what is expected, in bytes.
    left: BTreeMap<Digest, u64>,
    /// What was expected and is done: it isn't counted again.
    done: BTreeSet<Digest>,
}

impl Progress {
    /// No bars yet.
    pub fn new(quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// Work on a blob of `size` bytes begins: `what` is done with it.
    pub fn start(&self, digest: &Digest, size: u64, what: &str) {
        let short: String = digest.hex().chars().take(DIGITS).collect();
        self.start_named(digest, size, format!("{what} {short}"));
    }

    /// Something of `size` bytes begins that `key` stands for here, and `label` for the reader.
    pub fn start_named(&self, key: &Digest, size: u64, label: String) {
        let bar = ProgressBar::new(size);
        let mut state = self.lock();
        let bar = match &state.total {
            Some(total) => self.bars.insert_before(total, bar),
            None => self.bars.add(bar),
        };
        let bar = bar.with_style(style()).with_prefix(label);
        state.by_digest.insert(key.clone(), bar);
    }

    /// These blobs (digest, bytes) are to be done, in whatever way: they are counted in all, each once.
    pub fn expect(&self, blobs: impl IntoIterator<Item = (Digest, u64)>) {
        let mut state = self.lock();
        for (digest, size) in blobs {
            if !state.done.contains(&digest) && state.left.insert(digest, size).is_none() {
                let new = || self.bars.add(ProgressBar::new(0)).with_style(style()).with_prefix("in all");
                state.total.get_or_insert_with(new).inc_length(size);
            }
        }
    }

    /// So many more bytes of it have come.
    pub fn advance(&self, digest: &Digest, len: u64) {
        let mut state = self.lock();
        if let Some(bar) = state.by_digest.get(digest) {
            bar.inc(len);
        }
        // What comes again after a break counts once.
        let Some(left) = state.left.get_mut(digest) else { return };
        let counted = len.min(*left);
        *left -= counted;
        if let Some(total) = &state.total {
            total.inc(counted);
        }
    }

    /// It is done, or needn't be: its bar goes.
    pub fn finish(&self, digest: &Digest) {
        let mut state = self.lock();
        if let Some(bar) = state.by_digest.remove(digest) {
            bar.finish_and_clear();
        }
        if let Some(left) = state.left.remove(digest) {
            state.done.insert(digest.clone());
            if let Some(total) = &state.total {
                total.inc(left);
            }
        }
    }

    /// How many bytes are done of all that was expected.
    pub fn total(&self) -> (u64, u64) {
        let state = self.lock();
        let total = state.total.as_ref();
        total.map_or((0, 0), |total| (total.position(), total.length().unwrap_or(0)))
    }

    /// Writes something while the bars are out of the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bars.suspend(write)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Bars have no invariant that a panic could break.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix} [{wide_bar}] {binary_bytes:>11} of {binary_total_bytes:>11}  {binary_bytes_per_sec:>13}  {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ")
}

impl Drop for Progress {
    /// A command that fails or is interrupted leaves no bars on the screen.
    fn drop(&mut self) {
        let state = self.lock();
        for bar in state.by_digest.values().chain(&state.total) {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_when_each_is_done_however_that_came_about() {
        let progress = Progress::new(true);
        let [one, two, three] = [1, 2, 3].map(|nth| Digest::sha256(&[nth]));
        // Without anything expected there is nothing in all.
        progress.start(&one, 10, "pull");
        progress.advance(&one, 10);
        assert_eq!(progress.total(), (0, 0));
        progress.finish(&one);

        progress.expect([(one.clone(), 10), (two.clone(), 20), (two.clone(), 20)]);
        progress.start(&one, 10, "copy");
        progress.advance(&one, 4);
        assert_eq!(progress.total(), (4, 30));
        // Broken off, and begun anew.
        progress.advance(&one, 10);
        assert_eq!(progress.total(), (10, 30));
        progress.finish(&one);
        // It was there already, which was heard twice.
        progress.finish(&two);
        progress.finish(&two);
        assert_eq!(progress.total(), (30, 30));
        // Another image has it too.
        progress.expect([(two.clone(), 20), (three.clone(), 5)]);
        progress.finish(&two);
        assert_eq!(progress.total(), (30, 35));
        progress.finish(&three);
        assert_eq!(progress.total(), (35, 35));
    }
}

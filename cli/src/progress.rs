//! Progress bars on standard error: one a layer, with its rate, and only on a terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use spandrel_registry::Digest;

/// How many digits of a digest a bar shows: as docker does.
const DIGITS: usize = 12;

/// The bars of one command. Without a terminal, or asked to be quiet, there are none, and everything else is the same.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    by_digest: Mutex<BTreeMap<Digest, ProgressBar>>,
}

impl Progress {
    /// No bars yet.
    pub fn new(quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), by_digest: Mutex::default() }
    }

    /// Work on a blob of `size` bytes begins: `what` is done with it.
    pub fn start(&self, digest: &Digest, size: u64, what: &str) {
        let short: String = digest.hex().chars().take(DIGITS).collect();
        self.start_named(digest, size, format!("{what} {short}"));
    }

    /// Something of `size` bytes begins that `key` stands for here, and `label` for the reader.
    pub fn start_named(&self, key: &Digest, size: u64, label: String) {
        let style = ProgressStyle::with_template(
            "{prefix} [{wide_bar}] {binary_bytes:>11} of {binary_total_bytes:>11}  {binary_bytes_per_sec:>13}  {eta:>4}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
        let bar = self.bars.add(ProgressBar::new(size)).with_style(style).with_prefix(label);
        self.lock().insert(key.clone(), bar);
    }

    /// So many more bytes of it have come.
    pub fn advance(&self, digest: &Digest, len: u64) {
        if let Some(bar) = self.lock().get(digest) {
            bar.inc(len);
        }
    }

    /// It is done: its bar goes.
    pub fn finish(&self, digest: &Digest) {
        if let Some(bar) = self.lock().remove(digest) {
            bar.finish_and_clear();
        }
    }

    /// Writes something while the bars are out of the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bars.suspend(write)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, ProgressBar>> {
        // Bars have no invariant that a panic could break.
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress {
    /// A command that fails or is interrupted leaves no bars on the screen.
    fn drop(&mut self) {
        for bar in self.lock().values() {
            bar.finish_and_clear();
        }
    }
}

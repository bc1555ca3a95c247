//! Reading a file whose spans are on the disk: through EROFS, FUSE and a daemon's process, beside the same file on the
//! disk's own file system.
//!
//! Needs root, FUSE and EROFS, and says so where they aren't.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use rustix::fs::Advice;
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;

use crate::device_child::{self, FILE, MOUNT, PLAIN, ROOT};

/// How much is read at once in order, in bytes.
const READ_LEN: usize = 1 << 20;
/// How much is read at once here and there, in bytes: a page.
const PAGE_LEN: usize = 4096;
/// How many pages are read here and there each time.
const PAGES: usize = 256;

pub fn bench(criterion: &mut Criterion) {
    if !require::root() || !require::fuse() || !require::erofs() {
        return;
    }
    let Some(node) = Node::start() else { return };
    let ours = Cached::open(&node.dir.join(MOUNT).join(FILE), vec![]);
    let below = Cached::open(&node.dir.join(MOUNT).join(FILE), vec![stream(&node.dir)]);
    let plain = Cached::open(&node.dir.join(PLAIN), vec![]);

    let mut group = crate::bytes(criterion, "device-sequential", ours.len);
    for (name, file, state) in [
        ("spandrel: in the page cache", &ours, State::Cached),
        ("ext4: in the page cache", &plain, State::Cached),
        ("spandrel: in the daemon's stream, which is in memory", &ours, State::Dropped),
        ("spandrel: in the daemon's stream on the disk", &below, State::Dropped),
        ("ext4: on the disk", &plain, State::Dropped),
    ] {
        let mut buf = vec![0; READ_LEN];
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| file.time(times, state, |file| file.in_order(&mut buf)));
        });
    }
    group.finish();

    let mut group = crate::elements(criterion, "device-pages", PAGES);
    let mut random = Random::new(6);
    let pages = u64::try_from(ours.len / PAGE_LEN).expect("few pages");
    let offsets: Vec<u64> = (0..PAGES).map(|_| random.below(pages) * PAGE_LEN as u64).collect();
    for (name, file, state) in [
        ("spandrel: in the page cache", &ours, State::Cached),
        ("ext4: in the page cache", &plain, State::Cached),
        ("spandrel: in the daemon's stream, which is in memory", &ours, State::Dropped),
        ("spandrel: in the daemon's stream on the disk", &below, State::Dropped),
        ("ext4: on the disk", &plain, State::Dropped),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| file.time(times, state, |file| file.pages(&offsets)));
        });
    }
    group.finish();
}

/// Whether the file's pages are in the page cache when a measurement begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Cached,
    Dropped,
}

/// A file that is read, and those below it whose pages are dropped with its own.
struct Cached {
    file: File,
    len: usize,
    below: Vec<File>,
}

impl Cached {
    fn open(path: &Path, below: Vec<File>) -> Self {
        let file = File::open(path).expect("the node has written it");
        let len = usize::try_from(file.metadata().expect("is open").len()).expect("small");
        // Only clean pages can be dropped. (The file itself has none to be written: EROFS is never written to.)
        below.iter().for_each(|file| file.sync_all().expect("a disk"));
        Self { file, len, below }
    }

    /// How long `times` readings take, each begun with the file in `state`.
    fn time(&self, times: u64, state: State, mut read: impl FnMut(&Self)) -> Duration {
        let mut all = Duration::ZERO;
        for _ in 0..times {
            match state {
                State::Cached => self.in_order(&mut vec![0; READ_LEN]),
                State::Dropped => {
                    for file in self.below.iter().chain([&self.file]) {
                        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).expect("an ordinary file");
                    }
                }
            }
            let start = Instant::now();
            read(self);
            all += start.elapsed();
        }
        all
    }

    fn in_order(&self, buf: &mut [u8]) {
        for offset in (0..self.len).step_by(buf.len()) {
            let len = buf.len().min(self.len - offset);
            self.file.read_exact_at(&mut buf[..len], offset as u64).expect("all of it is there");
        }
    }

    fn pages(&self, offsets: &[u64]) {
        let mut page = [0; PAGE_LEN];
        for offset in offsets {
            self.file.read_exact_at(&mut page, *offset).expect("all of it is there");
        }
    }
}

/// The stream file of the only layer.
fn stream(dir: &Path) -> File {
    let layers = dir.join(ROOT).join("layers");
    let layer =
        std::fs::read_dir(&layers).expect("the node's root").next().expect("one layer").expect("readable");
    File::open(layer.path().join("stream")).expect("the layer has been filled")
}

/// The node's process.
struct Node {
    child: Child,
    dir: PathBuf,
}

impl Node {
    fn start() -> Option<Self> {
        let mut command = device_child::command();
        // A group of its own: an interrupt at the terminal must leave it the time to unmount.
        let spawned = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("this very program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it was asked for");
        BufReader::new(out).read_line(&mut line).expect("text");
        let node = Self { child, dir: PathBuf::from(line.trim_end()) };
        if line.is_empty() {
            require::missing("a node that can mount layers", "the lines above say what isn't there");
            return None;
        }
        Some(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The end of its input tells it to go.
        drop(self.child.stdin.take());
        self.child.wait().expect("it is ours");
    }
}

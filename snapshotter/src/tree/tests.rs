//! The tree as the kernel uses it: what it asks for, what it keeps, what it gives up. (What it sees is compared with EROFS in
//! tests/tables, and with containers in tests/e2e.)

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::mount::{UnmountFlags, mount_bind, unmount as take_away};
use spandrel_erofs::{Inode, Kind, OpaqueXattr, Options, Source};
use spandrel_fixtures::require;
use tempfile::TempDir;

use super::*;
use crate::device::ReadReply;
use crate::layer::tests::apart;

/// Longest for what should come soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Length of a file in the layer, in bytes: not of whole blocks.
const LEN: u64 = 300_001;

/// Files that can be read, and their directory's names in order.
const FILES: u64 = 400;

/// Reads that nobody answers.
const READS: u64 = 1000;

/// Where files that nobody ever answers for begin in the stream.
const STUCK: u64 = 1 << 30;

/// `files/000` to `files/399`, `link` and `stuck`.
struct Layer;

impl Source for Layer {
    fn len(&self) -> u32 {
        u32::try_from(FILES).expect("few") + 4
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let kind = match id {
            0 | 1 => Kind::Directory { opaque: false },
            2 => Kind::Symlink(b"files/000"),
            3 => Kind::File { offset: STUCK, size: 512 << 20 },
            file => Kind::File { offset: 512 * 600 * u64::from(file - 4), size: LEN },
        };
        Inode { kind, mode: 0o755, uid: 0, gid: 0, mtime: 1, mtime_nsec: 0, nlink: 1 }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        match id {
            0 => {
                for (name, id) in [("files", 1), ("link", 2), ("stuck", 3)] {
                    each(name.as_bytes(), id);
                }
            }
            1 => {
                for number in 0..FILES {
                    each(format!("{number:03}").as_bytes(), u32::try_from(number).expect("few") + 4);
                }
            }
            _ => {}
        }
    }

    fn xattrs(&self, _: u32, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

/// Answers with the offset of each byte, or keeps those that ask for what is stuck waiting.
#[derive(Default)]
struct Held(Mutex<Vec<ReadReply>>);

impl Held {
    fn waiting(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    fn fail_all(&self) {
        for reply in self.0.lock().expect("not poisoned").drain(..) {
            reply.fail(&Error::Unavailable("the test is over".to_owned()));
        }
    }
}

fn byte(at: u64) -> u8 {
    (at % 251).to_le_bytes()[0]
}

impl Backing for Held {
    fn read(&self, offset: u64, len: usize, reply: ReadReply) {
        if offset >= STUCK {
            return self.0.lock().expect("not poisoned").push(reply);
        }
        reply.data(&(offset..).take(len).map(byte).collect::<Vec<u8>>());
    }
}

/// A tree with the layer in it, bind-mounted.
struct Bench {
    tree: Tree,
    held: Arc<Held>,
    target: PathBuf,
    _dir: TempDir,
}

impl Bench {
    async fn new() -> Option<Self> {
        if !require::root() || !require::fuse() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let options = TreeOptions { dir: dir.path().join("tree"), threads: 2 };
        let tree = Tree::mount(&options, Metrics::new()).expect("FUSE mounts");
        let target = dir.path().join("target");
        fs::create_dir(&target).expect("made");
        let bench = Self { tree, held: Arc::default(), target, _dir: dir };
        bench.mount().await;
        Some(bench)
    }

    async fn mount(&self) {
        let stream_len = STUCK + (512 << 20);
        let options = Options { device_len: stream_len, opaque: OpaqueXattr::Trusted };
        let table = self.target.with_file_name("table");
        fs::write(&table, spandrel_erofs::write(&Layer, &options).expect("a table")).expect("written");
        let backing = Arc::clone(&self.held) as Arc<dyn Backing>;
        let source = self.tree.add("layer", &self.target, &table, stream_len, backing).await.expect("added");
        let target = self.target.clone();
        apart(move || mount_bind(&source, &target).expect("mounted")).await;
    }

    /// Number of the layer's folder.
    fn number(&self) -> u64 {
        self.tree.targets()[&self.target]
    }

    async fn unmount(&self) {
        take_away(&self.target, UnmountFlags::DETACH).expect("unmounted");
        self.tree.remove(&self.target).await.expect("removed");
    }

    /// Waits until nothing is left of the layers.
    async fn empty(&self) {
        // FORGETs come in the kernel's own time.
        let gone = async {
            while !self.tree.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("all is forgotten");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.held.fail_all();
        while take_away(&self.target, UnmountFlags::DETACH).is_ok() {}
        self.tree.unmount();
    }
}

/// Looks at everything but what is in files; says how many names there are.
fn look(root: &Path) -> usize {
    let files = fs::read_dir(root.join("files")).expect("lists");
    let lens = files.map(|entry| entry.expect("an entry").metadata().expect("stats").len());
    let count = lens.inspect(|len| assert_eq!(*len, LEN)).count();
    assert_eq!(fs::read_link(root.join("link")).expect("a link"), Path::new("files/000"));
    assert!(!root.join("nothing").exists() && !root.join("files/nothing").exists());
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_once_is_never_asked_again() {
    let Some(bench) = Bench::new().await else { return };
    let see = async || {
        let (before, target) = (bench.tree.requests(), bench.target.clone());
        let count = apart(move || look(&target)).await;
        assert_eq!(count as u64, FILES);
        bench.tree.requests() - before
    };
    // Attributes come with the names: far fewer requests than names.
    let first = see().await;
    assert!((5..FILES / 3).contains(&first), "{first} requests");
    assert_eq!(see().await, 0);

    // Pages stay when the file is closed, though it was never opened here.
    let read = async || {
        let (before, file) = (bench.tree.requests(), bench.target.join("link"));
        let bytes = apart(move || fs::read(file).expect("reads")).await;
        assert!(bytes.iter().copied().eq((0..LEN).map(byte)));
        bench.tree.requests() - before
    };
    assert!(read().await >= 1);
    assert_eq!(read().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_where_it_ends() {
    let Some(bench) = Bench::new().await else { return };
    let file = bench.target.join("files/007");
    let seen = apart(move || {
        let file = File::open(file).expect("opens");
        let read = |at, len| {
            let mut bytes = vec![0xff; len];
            let count = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, at).expect("reads");
            bytes.truncate(count);
            bytes
        };
        // Behind its end another file lies in the stream.
        (read(LEN - 10, 100), read(LEN, 10), read(LEN + 4096, 10), read(0, 1))
    });
    let (tail, end, behind, first) = seen.await;
    let begin = 512 * 600 * 7;
    assert!(tail.iter().copied().eq((begin + LEN - 10..begin + LEN).map(byte)), "{tail:?}");
    assert_eq!((end, behind, first), (vec![], vec![], vec![byte(begin)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_nobody_answers_hold_up_no_other() {
    let Some(bench) = Bench::new().await else { return };
    // A thousand reads ahead, each at its own place of the file; two threads serve. Nobody waits for them: what waited for
    // answers of this process could be neither stopped nor ended while it is stopped.
    let file = bench.target.join("stuck");
    apart(move || {
        let file = File::open(file).expect("opens");
        for number in 0..READS {
            let len = std::num::NonZeroU64::new(4096);
            fadvise(&file, number * (400 << 10), len, Advice::WillNeed).expect("is begun");
        }
    })
    .await;
    let stuck = async {
        while (bench.held.waiting() as u64) < READS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stuck).await.expect("a thousand wait");
    let (target, other) = (bench.target.clone(), bench.target.join("files/123"));
    let bytes = apart(move || {
        look(&target);
        fs::read(other).expect("reads")
    });
    let bytes = tokio::time::timeout(PATIENCE, bytes).await.expect("nobody is in the way");
    assert!(bytes.iter().copied().eq((512 * 600 * 123..).map(byte).take(bytes.len())));
    assert_eq!(bytes.len() as u64, LEN);
    assert!(bench.held.waiting() as u64 >= READS, "they wait still");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_layer_that_nobody_has_mounted() {
    let Some(bench) = Bench::new().await else { return };
    for _ in 0..3 {
        let target = bench.target.clone();
        apart(move || {
            look(&target);
            fs::read(target.join("files/001")).expect("reads");
        })
        .await;
        assert_eq!(bench.tree.len(), 1);
        bench.unmount().await;
        bench.empty().await;
        assert!(bench.tree.layer_at(&bench.target).is_none());
        bench.mount().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_it_mounted_elsewhere_goes_on() {
    let Some(bench) = Bench::new().await else { return };
    let other = bench.target.with_file_name("other");
    fs::create_dir(&other).expect("made");
    let (from, to) = (bench.target.clone(), other.clone());
    apart(move || mount_bind(&from, &to).expect("mounted")).await;
    let mut file = File::open(bench.target.join("files/002")).expect("opens");
    bench.unmount().await;
    // The same place has the layer anew, with other inodes.
    bench.mount().await;
    assert_eq!(bench.tree.len(), 2);
    let (there, anew) = (other.clone(), bench.target.clone());
    apart(move || {
        assert_eq!(look(&there), look(&anew));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("reads");
        assert!(bytes.iter().copied().eq((512 * 600 * 2..).map(byte).take(bytes.len())));
        assert_eq!(fs::read(there.join("files/003")).expect("reads").len() as u64, LEN);
        take_away(&there, UnmountFlags::DETACH).expect("unmounted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_is_not_made_to_wait_for_reads_that_are_under_way() {
    let Some(bench) = Bench::new().await else { return };
    let inside = bench.tree.dir().join(bench.number().to_string()).join(LAYER);
    let (target, file) = (bench.target.clone(), bench.target.join("stuck"));
    apart(move || {
        let file = File::open(file).expect("opens");
        fadvise(&file, 0, std::num::NonZeroU64::new(4096), Advice::WillNeed).expect("is begun");
        drop(file);
        take_away(&target, UnmountFlags::NOFOLLOW).expect("nobody has it open");
    })
    .await;
    let begun = async {
        while bench.held.waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("it waits");
    let known = async || {
        let inside = inside.clone();
        apart(move || inside.try_exists().expect("is answered")).await
    };
    let mut removal = std::pin::pin!(bench.tree.remove(&bench.target));
    assert!(tokio::time::timeout(Duration::from_millis(100), removal.as_mut()).await.is_err());
    assert!(known().await, "the kernel keeps it while it is read");
    bench.held.fail_all();
    tokio::time::timeout(PATIENCE, removal).await.expect("ends").expect("removed");
    assert!(!known().await);
    bench.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_refused_and_a_damaged_inode_is_an_io_error() {
    let Some(bench) = Bench::new().await else { return };
    let table = bench.target.with_file_name("table");
    let whole = fs::read(&table).expect("reads");
    let other = bench.target.with_file_name("other");
    fs::create_dir(&other).expect("made");
    let damaged = bench.target.with_file_name("damaged");
    fs::write(&damaged, &whole[..whole.len() - 4096]).expect("written");
    let backing = Arc::clone(&bench.held) as Arc<dyn Backing>;
    let error = bench.tree.add("damaged", &other, &damaged, STUCK, backing).await.expect_err("is cut");
    assert!(matches!(&error, Error::Corrupt(what) if what.contains("damaged")), "{error}");
    let backing = Arc::clone(&bench.held) as Arc<dyn Backing>;
    let missing = bench.tree.add("missing", &other, Path::new("/nonexistent"), STUCK, backing).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");

    // The disk gives other bytes than it was given; what lies beyond the table's first block isn't checked at the start.
    let mut bytes = whole;
    bytes[2048..].fill(0xff);
    fs::write(&table, bytes).expect("written"); // the same file: it is open
    let target = bench.target.clone();
    let error =
        apart(move || fs::read_dir(target.join("files")).and_then(|mut all| all.next().expect("one")));
    let error = error.await.map(|entry| entry.path()).expect_err("damaged");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

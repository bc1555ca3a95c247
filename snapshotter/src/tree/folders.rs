//! Which layers the tree has, their inodes' numbers, and how much of each the kernel knows.
//!
//! A folder has a range of inode numbers of its own: its own number, then one for each that its table may have. No number is
//! used twice. A table of 5 MB takes 160,000 of them: for thousands of mounts they stay below 2^32, where 32-bit programs
//! can have them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fuser::INodeNo;
use spandrel_erofs::read::{Nid, ReadAt, Table};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Error;
use crate::device::Backing;
use crate::layer::files;

/// First number of a folder; the tree's root has the one before.
const FIRST: u64 = 2;

/// A table on the disk.
#[derive(Debug)]
pub(super) struct TableFile(File);

impl ReadAt for TableFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// A mounted layer.
pub(super) struct Folder {
    /// What the daemon calls it.
    pub(super) name: String,
    pub(super) table: Table<TableFile>,
    /// Length of its stream in bytes: no file lies behind it.
    pub(super) stream_len: u64,
    pub(super) backing: Arc<dyn Backing>,
    /// Its own number.
    base: u64,
    /// Whether its name still leads to it.
    listed: AtomicBool,
    /// How often the kernel was told of an inode of it, less how often it forgot one.
    known: AtomicU64,
    /// Reads that are under way.
    reads: Mutex<TaskTracker>,
    /// Closed (dropped) with it.
    _alive: watch::Sender<()>,
    alive: watch::Receiver<()>,
}

impl Folder {
    /// Opens the table in the file `path`.
    pub(super) fn open(
        name: String,
        path: &Path,
        stream_len: u64,
        backing: Arc<dyn Backing>,
    ) -> Result<Self, Error> {
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(|error| files::failed("open", path, &error))?;
        let table = Table::open(TableFile(file), len)
            .map_err(|error| Error::Corrupt(format!("{}: {error}", path.display())))?;
        let (sender, alive) = watch::channel(());
        Ok(Self {
            name,
            table,
            stream_len,
            backing,
            base: 0,
            listed: AtomicBool::new(true),
            known: AtomicU64::new(0),
            reads: Mutex::default(),
            _alive: sender,
            alive,
        })
    }

    /// Number of its own directory.
    pub(super) fn own(&self) -> INodeNo {
        INodeNo(self.base)
    }

    /// Number of an inode of its table.
    pub(super) fn ino(&self, nid: Nid) -> INodeNo {
        INodeNo(self.base + 1 + nid)
    }

    /// Whether its name still leads to it.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// The kernel is about to be told of `count` inodes of it, one of which it knows: so it doesn't go meanwhile.
    pub(super) fn tell(&self, count: u64) {
        self.known.fetch_add(count, Ordering::AcqRel);
    }

    /// A read is under way as long as the token is there.
    pub(super) fn reading(&self) -> TaskTrackerToken {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).token()
    }

    /// The reads that are under way now, to be waited for; later ones aren't among them.
    pub(super) fn reads(&self) -> TaskTracker {
        let mut current = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = std::mem::take(&mut *current);
        reads.close();
        reads
    }

    /// The last of its numbers.
    fn last(&self) -> u64 {
        self.base + self.table.nid_end()
    }
}

/// What one inode number is.
pub(super) enum Place {
    /// The tree's root.
    Root,
    /// A folder's own directory, with its layer in it.
    Folder(Arc<Folder>),
    /// An inode of a layer.
    Layer(Arc<Folder>, Nid),
}

/// All layers of the tree.
#[derive(Default)]
pub(super) struct Folders {
    map: RwLock<Map>,
    requests: AtomicU64,
}

#[derive(Default)]
struct Map {
    /// By their own number.
    folders: BTreeMap<u64, Arc<Folder>>,
    /// Behind the last number that was ever used; 0 for none.
    end: u64,
}

impl Folders {
    /// Adds a layer, and says its number.
    pub(super) fn add(&self, mut folder: Folder) -> u64 {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        folder.base = map.end.max(FIRST);
        map.end = folder.last() + 1;
        let base = folder.base;
        map.folders.insert(base, Arc::new(folder));
        base
    }

    /// The layer of that number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Folder>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).folders.get(&number).cloned()
    }

    /// What changes when one of the folders called `name` is gone; `None` when there is none.
    pub(super) fn alive(&self, name: &str) -> Option<watch::Receiver<()>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.folders.values().find(|folder| folder.name == name).map(|folder| folder.alive.clone())
    }

    /// Takes the layer's name away, and returns its folder; `None` when there was none. It goes when the kernel knows nothing
    /// of it.
    pub(super) fn unlist(&self, number: u64) -> Option<Arc<Folder>> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let folder = Arc::clone(map.folders.get(&number)?);
        if !folder.listed.swap(false, Ordering::AcqRel) {
            return None;
        }
        if folder.known.load(Ordering::Acquire) == 0 {
            map.folders.remove(&number);
        }
        Some(folder)
    }

    /// What `ino` is; `None` for what there is no more.
    pub(super) fn find(&self, ino: INodeNo) -> Option<Place> {
        if ino == INodeNo::ROOT {
            return Some(Place::Root);
        }
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let (&base, folder) = map.folders.range(..=ino.0).next_back()?;
        if ino.0 > folder.last() {
            return None;
        }
        let folder = Arc::clone(folder);
        Some(if ino.0 == base { Place::Folder(folder) } else { Place::Layer(folder, ino.0 - base - 1) })
    }

    /// The folder called `name`, of which the kernel is about to be told.
    pub(super) fn tell_named(&self, name: &str) -> Option<Arc<Folder>> {
        let number: u64 = name.parse().ok()?;
        // Under the lock: it isn't taken away meanwhile.
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let folder = map.folders.get(&number).filter(|folder| folder.is_listed())?;
        folder.tell(1);
        Some(Arc::clone(folder))
    }

    /// The kernel has forgotten `count` times what it was told of `ino`.
    pub(super) fn forget(&self, ino: INodeNo, count: u64) {
        let Some(Place::Folder(folder) | Place::Layer(folder, _)) = self.find(ino) else { return };
        if folder.known.fetch_sub(count, Ordering::AcqRel) != count || folder.is_listed() {
            return;
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if folder.known.load(Ordering::Acquire) == 0 {
            map.folders.remove(&folder.base);
        }
    }

    /// How many there are, those without a name too.
    pub(super) fn len(&self) -> usize {
        self.map.read().unwrap_or_else(PoisonError::into_inner).folders.len()
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A request has come.
    pub(super) fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

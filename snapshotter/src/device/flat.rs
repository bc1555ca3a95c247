//! The flat directory as the FUSE library sees it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, Request,
};
use tokio::sync::watch;
use tracing::debug;

use super::errno::errno;
use super::session::limits;
use super::{Backing, ReadReply};
use crate::Error;
use crate::metrics::Metrics;

/// Names, lengths and contents never change while they last, so the kernel may keep what it was told.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// One file.
struct Node {
    name: String,
    len: u64,
    backing: Arc<dyn Backing>,
    /// How many times the kernel has it open.
    opens: u64,
    /// Whether its name still leads to it.
    listed: bool,
    /// Told when the kernel has closed it, and closed (dropped) when the node goes.
    closing: watch::Sender<()>,
    alive: watch::Receiver<()>,
}

#[derive(Default)]
struct Nodes {
    by_ino: BTreeMap<u64, Node>,
    by_name: BTreeMap<String, u64>,
    last_ino: u64,
}

/// The directory.
pub(super) struct Flat {
    nodes: RwLock<Nodes>,
    requests: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Flat {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let nodes = Nodes { last_ino: INodeNo::ROOT.0, ..Nodes::default() };
        Self { nodes: RwLock::new(nodes), requests: AtomicU64::new(0), metrics }
    }

    pub(super) fn add(&self, name: &str, len: u64, backing: Arc<dyn Backing>) -> Result<(), Error> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if nodes.by_name.contains_key(name) {
            return Err(Error::AlreadyExists(format!("device file {name}")));
        }
        // A number is never used twice: the kernel may still know the old file.
        nodes.last_ino += 1;
        let ino = nodes.last_ino;
        let (sender, alive) = watch::channel(());
        let node =
            Node { name: name.to_owned(), len, backing, opens: 0, listed: true, closing: sender, alive };
        nodes.by_ino.insert(ino, node);
        nodes.by_name.insert(name.to_owned(), ino);
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).by_name.contains_key(name)
    }

    /// Takes the name away. What it returns is ready when the kernel has the file open no more; `None` when there was no
    /// such file.
    pub(super) fn unlist(&self, name: &str) -> Option<impl Future<Output = ()> + use<>> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let ino = nodes.by_name.remove(name)?;
        let node = nodes.by_ino.get_mut(&ino)?;
        node.listed = false;
        let mut alive = node.alive.clone();
        if node.opens == 0 {
            nodes.by_ino.remove(&ino);
        }
        // The sender is dropped with its node.
        Some(async move { while alive.changed().await.is_ok() {} })
    }

    /// Waits until the kernel doesn't have the file of this name open.
    pub(super) async fn released(&self, name: &str) {
        loop {
            let mut alive = {
                let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
                let node = nodes.by_name.get(name).and_then(|ino| nodes.by_ino.get(ino));
                match node.filter(|node| node.opens > 0) {
                    Some(node) => node.alive.clone(),
                    None => return,
                }
            };
            // An error means that it is gone: it is looked for again.
            alive.changed().await.ok();
        }
    }

    /// Takes the file away unless the kernel has it open; says whether there is none of this name now.
    pub(super) fn unlist_closed(&self, name: &str) -> bool {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(ino) = nodes.by_name.get(name).copied() else { return true };
        let gone = match nodes.by_ino.get(&ino) {
            Some(node) if node.opens > 0 => return false,
            Some(_) => nodes.by_ino.remove(&ino),
            None => None,
        };
        nodes.by_name.remove(name);
        drop(nodes);
        // What it read from is closed here, under no lock.
        drop(gone);
        true
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count(&self, operation: &'static str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.metrics.fuse_request(operation);
    }

    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        if ino == INodeNo::ROOT {
            return Some(attr(ino, FileType::Directory, 0o500, 0));
        }
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.by_ino.get(&ino.0).map(|node| attr(ino, FileType::RegularFile, 0o400, node.len))
    }
}

fn attr(ino: INodeNo, kind: FileType, perm: u16, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// What the library calls; it wants to own its filesystem.
pub(super) struct Handle(pub(super) Arc<Flat>);

impl Filesystem for Handle {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
        limits(config)?;
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| refused("the kernel's FUSE has no asynchronous direct I/O (FUSE_ASYNC_DIO)"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.count("lookup");
        let ino = (parent == INodeNo::ROOT).then_some(()).and_then(|()| {
            let nodes = self.0.nodes.read().unwrap_or_else(PoisonError::into_inner);
            nodes.by_name.get(name.to_str()?).copied()
        });
        match ino.and_then(|ino| self.0.attr(INodeNo(ino))) {
            Some(attr) => reply.entry(&FOREVER, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.count("getattr");
        match self.0.attr(ino) {
            Some(attr) => reply.attr(&FOREVER, &attr),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.count("open");
        let mut nodes = self.0.nodes.write().unwrap_or_else(PoisonError::into_inner);
        match nodes.by_ino.get_mut(&ino.0).filter(|node| node.listed) {
            Some(node) => {
                node.opens += 1;
                // Direct: EROFS caches what it reads, and a second copy in this filesystem's page cache helps nobody.
                reply.opened(FileHandle(ino.0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
            None => reply.error(Errno::ESTALE),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.count("read");
        let found = {
            let nodes = self.0.nodes.read().unwrap_or_else(PoisonError::into_inner);
            nodes.by_ino.get(&ino.0).map(|node| (Arc::clone(&node.backing), node.len))
        };
        let Some((backing, len)) = found else { return reply.error(Errno::ESTALE) };
        // A direct read isn't cut by the kernel; whoever reads to the end wants to be told that it has come.
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let size = left.min(size as usize);
        if size == 0 {
            return reply.data(&[]);
        }
        let metrics = Arc::clone(&self.0.metrics);
        let answer = ReadReply::new(size, move |bytes| match bytes {
            Ok(bytes) => {
                reply.data(bytes);
                metrics.served_bytes.inc_by(bytes.len() as u64);
            }
            Err(error) => {
                metrics.fuse_errors.inc();
                reply.error(errno(error));
            }
        });
        backing.read(offset, size, answer);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.count("release");
        let gone = {
            let mut nodes = self.0.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let last = nodes.by_ino.get_mut(&ino.0).is_some_and(|node| {
                node.opens = node.opens.saturating_sub(1);
                if node.opens == 0 {
                    node.closing.send_replace(());
                }
                node.opens == 0 && !node.listed
            });
            if last { nodes.by_ino.remove(&ino.0) } else { None }
        };
        reply.ok();
        if let Some(node) = gone {
            debug!(name = node.name, "the kernel has closed a removed layer's device file");
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.0.count("readdir");
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let nodes = self.0.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let dots = [(ino.0, ".", FileType::Directory), (ino.0, "..", FileType::Directory)];
        let files = nodes.by_name.iter().map(|(name, ino)| (*ino, name.as_str(), FileType::RegularFile));
        // `offset` is the number of entries that were given already.
        for (next, (ino, name, kind)) in (1u64..).zip(dots.into_iter().chain(files)) {
            if next > offset && reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

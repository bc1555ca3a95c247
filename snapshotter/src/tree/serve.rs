//! The tree as the FUSE library sees it.
//!
//! Files and directories are never opened here: the kernel is told once that it needn't ask, and keeps what it has read. So
//! a request says all that there is to know of it, and there are few: one for each name that is looked up first, some for
//! each directory that is listed first, reads of what isn't in the page cache, and extended attributes, which FUSE has no
//! cache for.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectoryPlus, ReplyEntry, ReplyOpen, ReplyXattr,
    Request,
};
use spandrel_erofs::read::{Node, NodeKind};

use super::LAYER;
use super::folders::{Folder, Folders, Place};
use crate::device::{ReadReply, errno, limits};
use crate::metrics::Metrics;

/// A layer never changes, so the kernel may keep what it was told; also that a name isn't there.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Unit of a table's data, and what `stat` says of it, in bytes.
const BLOCK_LEN: u32 = 512;

/// What the library calls.
pub(super) struct Handle {
    folders: Arc<Folders>,
    metrics: Arc<Metrics>,
}

impl Handle {
    pub(super) fn new(folders: Arc<Folders>, metrics: Arc<Metrics>) -> Self {
        Self { folders, metrics }
    }

    fn count(&self, operation: &'static str) {
        self.folders.count();
        self.metrics.fuse_request(operation);
    }

    /// The inode of a layer that has this number.
    fn node(&self, ino: INodeNo) -> Result<(Arc<Folder>, Node), Errno> {
        match self.folders.find(ino) {
            Some(Place::Layer(folder, nid)) => {
                let node = folder.table.node(nid).map_err(|error| broken(&error))?;
                Ok((folder, node))
            }
            // The tree's own directories are neither files nor links, and have no attributes.
            Some(Place::Root | Place::Folder(_)) => Err(Errno::EINVAL),
            None => Err(Errno::ESTALE),
        }
    }

    /// What `name` in `parent` is; `None` when a layer has no such name. The kernel counts as told.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<FileAttr>, Errno> {
        match self.folders.find(parent).ok_or(Errno::ESTALE)? {
            Place::Root => {
                let folder = name.to_str().and_then(|name| self.folders.tell_named(name));
                folder.map(|folder| Some(own(folder.own()))).ok_or(Errno::ENOENT)
            }
            Place::Folder(folder) if folder.is_listed() && name == LAYER => {
                let root = folder.table.root().map_err(|error| broken(&error))?;
                folder.tell(1);
                Ok(Some(attr(&folder, &root)))
            }
            Place::Folder(_) => Err(Errno::ENOENT),
            Place::Layer(folder, nid) => {
                let found = || {
                    let parent = folder.table.node(nid)?;
                    let found = folder.table.find(&parent, name.as_bytes())?;
                    found.map(|nid| folder.table.node(nid)).transpose()
                };
                let Some(node) = found().map_err(|error| broken(&error))? else { return Ok(None) };
                folder.tell(1);
                Ok(Some(attr(&folder, &node)))
            }
        }
    }

    /// Adds to `reply` the entries of the directory `ino` behind the one that `offset` names.
    fn list(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), Errno> {
        let (folder, nid) = match self.folders.find(ino).ok_or(Errno::ESTALE)? {
            Place::Layer(folder, nid) => (folder, nid),
            // Names of the tree's own directories come and go, and the kernel would keep them: they are found by name only.
            Place::Root | Place::Folder(_) => return Ok(()),
        };
        let mut told = 0;
        let listed = folder.table.node(nid).and_then(|directory| {
            folder.table.entries(&directory, offset, |entry| {
                let node = folder.table.node(entry.nid)?;
                let (ino, attr) = (folder.ino(entry.nid), attr(&folder, &node));
                let name = OsStr::from_bytes(entry.name);
                if reply.add(ino, entry.next, name, &FOREVER, &attr, Generation(0)) {
                    return Ok(ControlFlow::Break(()));
                }
                // Of these two the kernel takes the name and no more.
                if !matches!(entry.name, b"." | b"..") {
                    told += 1;
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        // Also where it breaks off: the answer is an error then, and nobody is told.
        listed.map_err(|error| broken(&error))?;
        folder.tell(told);
        Ok(())
    }

    /// The names of an inode's attributes, each with a NUL behind it. That of an opaque directory is among them for everybody:
    /// with mounts that map user IDs the kernel doesn't say who asks. Overlayfs lists it to nobody.
    fn names(&self, ino: INodeNo) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        self.attributes(ino, |name, _| {
            names.extend_from_slice(name);
            names.push(0);
        })?;
        Ok(names)
    }

    fn attributes(&self, ino: INodeNo, each: impl FnMut(&[u8], &[u8])) -> Result<(), Errno> {
        if matches!(self.folders.find(ino), Some(Place::Root | Place::Folder(_))) {
            return Ok(());
        }
        let (folder, node) = self.node(ino)?;
        folder.table.xattrs(&node, each).map_err(|error| broken(&error))
    }
}

/// A table that was all right when it was opened isn't any more, or can't be read.
fn broken(error: &spandrel_erofs::Error) -> Errno {
    tracing::error!(%error, "a mounted layer's table can't be used");
    Errno::EIO
}

/// The attributes of a directory of the tree's own.
fn own(ino: INodeNo) -> FileAttr {
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o500,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_LEN,
        flags: 0,
    }
}

/// The attributes of an inode, as the kernel's EROFS shows them.
fn attr(folder: &Folder, node: &Node) -> FileAttr {
    let (kind, rdev) = match node.kind {
        NodeKind::File { .. } => (FileType::RegularFile, 0),
        NodeKind::Directory => (FileType::Directory, 0),
        NodeKind::Symlink => (FileType::Symlink, 0),
        NodeKind::Char(number) => (FileType::CharDevice, number),
        NodeKind::Block(number) => (FileType::BlockDevice, number),
        NodeKind::Fifo => (FileType::NamedPipe, 0),
    };
    // None is before 1970: containerd sets no such time, and the table's writer has none.
    let seconds = u64::try_from(node.mtime).unwrap_or_default();
    let time = UNIX_EPOCH.checked_add(Duration::new(seconds, node.mtime_nsec)).unwrap_or(UNIX_EPOCH);
    FileAttr {
        ino: folder.ino(node.nid),
        size: node.size,
        blocks: node.size.div_ceil(u64::from(BLOCK_LEN)),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.mode,
        nlink: node.nlink,
        uid: node.uid,
        gid: node.gid,
        rdev,
        blksize: BLOCK_LEN,
        flags: 0,
    }
}

/// Answers with an extended attribute or a list of their names.
fn reply_xattr(found: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match found {
        Err(error) => reply.error(error),
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
    }
}

impl Filesystem for Handle {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        limits(config)?;
        for (flag, what) in [
            (InitFlags::FUSE_DO_READDIRPLUS, "FUSE_DO_READDIRPLUS"),
            (InitFlags::FUSE_ASYNC_READ, "FUSE_ASYNC_READ"),
            (InitFlags::FUSE_PARALLEL_DIROPS, "FUSE_PARALLEL_DIROPS"),
            (InitFlags::FUSE_CACHE_SYMLINKS, "FUSE_CACHE_SYMLINKS"),
            (InitFlags::FUSE_NO_OPEN_SUPPORT, "FUSE_NO_OPEN_SUPPORT"),
            (InitFlags::FUSE_NO_OPENDIR_SUPPORT, "FUSE_NO_OPENDIR_SUPPORT (Linux 5.1)"),
        ] {
            let refused =
                |_| io::Error::new(io::ErrorKind::Unsupported, format!("the kernel's FUSE has no {what}"));
            config.add_capabilities(flag).map_err(refused)?;
        }
        for (flag, what) in [
            // Access control lists count, as they do where the kernel mounts the table.
            (InitFlags::FUSE_POSIX_ACL, "access control lists of layers aren't obeyed"),
            // Pods with user namespaces have their layers so.
            (InitFlags::FUSE_ALLOW_IDMAP, "layers can't be mounted with other user IDs (Linux 6.12)"),
        ] {
            if config.add_capabilities(flag).is_err() {
                tracing::info!("this kernel's FUSE lacks a feature: {what}");
            }
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count("lookup");
        match self.find(parent, name) {
            Ok(Some(attr)) => reply.entry(&FOREVER, &attr, Generation(0)),
            // An entry without an inode: an error would be asked for again.
            Ok(None) => reply.entry(&FOREVER, &own(INodeNo(0)), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.folders.forget(ino, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.count("getattr");
        let attr = match self.folders.find(ino) {
            Some(Place::Root | Place::Folder(_)) => Ok(own(ino)),
            _ => self.node(ino).map(|(folder, node)| attr(&folder, &node)),
        };
        match attr {
            Ok(attr) => reply.attr(&FOREVER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.count("readlink");
        let target = self
            .node(ino)
            .and_then(|(folder, node)| folder.table.target(&node).map_err(|error| broken(&error)));
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.count("open");
        // From now on the kernel doesn't ask, and keeps pages beyond a file's closing.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.count("opendir");
        // As for files; and it keeps what it has listed.
        reply.error(Errno::ENOSYS);
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
        self.count("read");
        let (folder, node) = match self.node(ino) {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        let NodeKind::File { offset: begin } = node.kind else { return reply.error(Errno::EINVAL) };
        // A page may go on behind a file's end, and the stream does, with something else.
        let left = usize::try_from(node.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let size = left.min(size as usize);
        if size == 0 {
            return reply.data(&[]);
        }
        if begin.saturating_add(node.size) > folder.stream_len {
            let what = format!("inode {} lies behind the stream's end", node.nid);
            return reply.error(broken(&spandrel_erofs::Error::Damaged(what)));
        }
        let (metrics, reading) = (Arc::clone(&self.metrics), folder.reading());
        let answer = ReadReply::new(size, move |bytes| {
            match bytes {
                Ok(bytes) => {
                    reply.data(bytes);
                    metrics.served_bytes.inc_by(bytes.len() as u64);
                }
                Err(error) => {
                    metrics.fuse_errors.inc();
                    reply.error(errno(error));
                }
            }
            drop(reading); // the kernel has the answer
        });
        folder.backing.read(begin + offset, size, answer);
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.count("readdirplus");
        match self.list(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.count("getxattr");
        let mut found = None;
        let looked = self.attributes(ino, |have, value| {
            if have == name.as_bytes() {
                found = Some(value.to_vec());
            }
        });
        reply_xattr(looked.and_then(|()| found.ok_or(Errno::ENODATA)), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.count("listxattr");
        reply_xattr(self.names(ino), size, reply);
    }
}

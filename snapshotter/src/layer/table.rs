//! Joins the inode tree of a layer to the writer of its table.

use spandrel_erofs::{Inode, Kind, OpaqueXattr, Options, Source};
use spandrel_ztoc::tree::{InodeKind, Tree};

use crate::Error;

struct Inodes<'a>(&'a Tree);

impl Source for Inodes<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.inodes.len()).unwrap_or(u32::MAX)
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let inode = &self.0.inodes[id as usize];
        let kind = match &inode.kind {
            InodeKind::File { offset, size } => Kind::File { offset: *offset, size: *size },
            InodeKind::Directory { opaque, .. } => Kind::Directory { opaque: *opaque },
            InodeKind::Symlink(target) => Kind::Symlink(target),
            InodeKind::Char(major, minor) => Kind::Char(*major, *minor),
            InodeKind::Block(major, minor) => Kind::Block(*major, *minor),
            InodeKind::Fifo => Kind::Fifo,
            InodeKind::Whiteout => Kind::Whiteout,
        };
        Inode {
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime.seconds,
            mtime_nsec: inode.mtime.nanoseconds,
            nlink: inode.nlink,
        }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        if let InodeKind::Directory { children, .. } = &self.0.inodes[id as usize].kind {
            for (name, child) in children {
                each(name, *child);
            }
        }
    }

    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.0.inodes[id as usize].xattrs {
            each(name, value);
        }
    }
}

/// The table of `tree`, whose data lie in a stream of `stream_len` bytes.
pub(crate) fn build(tree: &Tree, stream_len: u64) -> Result<Vec<u8>, Error> {
    let options = Options { device_len: stream_len, opaque: OpaqueXattr::Trusted };
    spandrel_erofs::write(&Inodes(tree), &options).map_err(|e| Error::Internal(e.to_string()))
}

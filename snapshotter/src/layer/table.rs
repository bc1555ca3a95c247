//! A layer's table: joins the inode tree that `spandrel-ztoc` makes of a table of contents to the writer of EROFS images.

use spandrel_erofs::{Inode, Kind, OpaqueXattr, Options, Source};
use spandrel_ztoc::Timestamp;
use spandrel_ztoc::tree::{self, InodeKind, Tree};

use crate::Error;

/// The table of `tree`, whose data lie in a stream of `stream_len` bytes. The device it is mounted with must be as long in whole
/// blocks of 512 bytes.
///
/// # Errors
/// When the tree has what EROFS can't hold: [`Error::InvalidArgument`], which says what, without the layer's name. Such a
/// layer is unpacked into a directory.
pub fn build(tree: &Tree, stream_len: u64) -> Result<Vec<u8>, Error> {
    // Containers' overlays are mounted by root in the first user namespace: the attribute of `trusted` is the one they know.
    let options = Options { device_len: stream_len, opaque: OpaqueXattr::Trusted };
    spandrel_erofs::write(&Inodes(tree), &options)
        .map_err(|error| Error::InvalidArgument(format!("the layer can't be in a table: {error}")))
}

/// The root's number.
const ROOT: u32 = 0;

/// Latest time that containerd sets, which counts nanoseconds in 63 bits: in the year 2262.
const LATEST: Timestamp = Timestamp { seconds: 9_223_372_036, nanoseconds: 854_775_807 };

/// The time that containerd sets: 1970 for those before it, and for those after [`LATEST`].
fn bounded(time: Timestamp) -> Timestamp {
    if time < Timestamp::default() || time > LATEST { Timestamp::default() } else { time }
}

struct Inodes<'a>(&'a Tree);

impl Inodes<'_> {
    fn get(&self, id: u32) -> &tree::Inode {
        &self.0.inodes[id as usize]
    }
}

impl Source for Inodes<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.inodes.len()).expect("a tree numbers its inodes in 32 bits")
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let inode = self.get(id);
        let kind = match &inode.kind {
            InodeKind::File { offset, size } => Kind::File { offset: *offset, size: *size },
            InodeKind::Directory { opaque, .. } => Kind::Directory { opaque: *opaque },
            InodeKind::Symlink(target) => Kind::Symlink(target),
            InodeKind::Char(major, minor) => Kind::Char(*major, *minor),
            InodeKind::Block(major, minor) => Kind::Block(*major, *minor),
            InodeKind::Fifo => Kind::Fifo,
            InodeKind::Whiteout => Kind::Whiteout,
        };
        // containerd passes over entries for the root (`./`), and images rely on it: one packed from a private directory
        // would shut out all users but root.
        let (mode, uid, gid) = if id == ROOT { (0o755, 0, 0) } else { (inode.mode, inode.uid, inode.gid) };
        let mtime = bounded(inode.mtime);
        Inode {
            kind,
            mode,
            uid,
            gid,
            mtime: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
            nlink: inode.nlink,
        }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        if let InodeKind::Directory { children, .. } = &self.get(id).kind {
            children.iter().for_each(|(name, &child)| each(name, child));
        }
    }

    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8])) {
        // Nor does it set what only the system's administrator may: a layer must not tell overlayfs where to look.
        let kept = |(name, _): &&(Vec<u8>, Vec<u8>)| id != ROOT && !name.starts_with(b"trusted.");
        self.get(id).xattrs.iter().filter(kept).for_each(|(name, value)| each(name, value));
    }
}

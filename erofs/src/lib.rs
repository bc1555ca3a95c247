//! Writes a metadata-only EROFS image, a layer's *table*: the kernel mounts it with the layer's stream as its device. Where it
//! can't, [`read`] answers from the table what the kernel would.
//!
//! `docs/tables.md` describes the image to the byte. What a layer's entries mean as a file system is `spandrel-ztoc`'s to
//! say; joining its tree to a [`Source`], and mounting, are the snapshotter's.
#![forbid(unsafe_code)]

mod crc32c;
mod dirs;
mod error;
mod format;
mod image;
pub mod limits;
pub mod read;
mod walk;
mod xattr;

pub use error::Error;

/// An inode as the writer asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Inode<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits, setuid, setgid, sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Modification time, nanoseconds after `mtime`.
    pub mtime_nsec: u32,
    /// Number of names, 1 or more.
    pub nlink: u32,
}

/// What an inode is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A regular file: where its bytes lie in the device (a multiple of 512) and how many there are.
    File {
        /// Offset in the device, in bytes. Means nothing when `size` is 0.
        offset: u64,
        /// Length in bytes.
        size: u64,
    },
    /// A directory; `opaque` hides what lower layers have in it.
    Directory {
        /// Whether the opaque attribute is written.
        opaque: bool,
    },
    /// A symbolic link and its target.
    Symlink(&'a [u8]),
    /// A character device, major and minor number.
    Char(u32, u32),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// An overlayfs whiteout: a character device 0:0.
    Whiteout,
}

/// Where the writer takes its inodes from. Inodes are numbered from 0, the root, without gaps; those that no name leads
/// to are left out of the image. It has to give the same answers each time that it is asked.
pub trait Source {
    /// How many inodes there are.
    fn len(&self) -> u32;
    /// Whether there is none (never: there is a root).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Inode `id`.
    fn inode(&self, id: u32) -> Inode<'_>;
    /// Calls `each` with every name in directory `id`, sorted bytewise, and the inode it names. Without `.` and `..`.
    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32));
    /// Calls `each` with every extended attribute of inode `id`: name with prefix, value.
    ///
    /// Attributes of namespaces that Linux has no other file system keep (`com.apple.…`) are left out of the image, as
    /// unpacking leaves them out; so is one that marks a directory opaque where the writer marks it itself.
    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8]));
}

/// How to write a table.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of the device (the stream), in bytes.
    ///
    /// The kernel reads whole blocks of 512 bytes, also the last: where a stream ends within one, the file that is the
    /// device has to go on with zeros to its end, or reading the stream's last file fails with EIO.
    pub device_len: u64,
    /// Which attribute marks an opaque directory.
    pub opaque: OpaqueXattr,
}

/// The two forms in which overlayfs knows an opaque directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpaqueXattr {
    /// `trusted.overlay.opaque`: the ordinary one.
    Trusted,
    /// `user.overlay.opaque`: for overlay mounts with `userxattr`.
    User,
}

/// Writes the table of `source`: the same bytes for the same input.
///
/// # Errors
/// When a name, size or number doesn't fit the format, or `source` is no tree.
pub fn write(source: &impl Source, options: &Options) -> Result<Vec<u8>, Error> {
    walk::walk(source, options)
}

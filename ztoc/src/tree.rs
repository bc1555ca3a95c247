//! The inode tree that a table of contents means: names cleaned, last entry wins, hard links resolved, whiteouts and
//! missing parents made; resolved here once, for the EROFS table and for the FUSE fallback.
//!
//! Where the format leaves a question open, containerd answers it, which unpacks entries one after the other into a
//! directory: what it would have at the end is the tree. It is made in `grow`.

mod grow;

use std::collections::BTreeMap;

use crate::model::{Entry, Timestamp};

/// Number of an inode within its tree; the root is 0.
pub type InodeId = u32;

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: InodeKind,
    /// Permission bits, setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub mtime: Timestamp,
    /// How many names it has; for a directory 2 and one for each directory in it.
    pub nlink: u32,
    /// Extended attributes, name (with its prefix, as `security.capability`) and value, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A regular file: its bytes in the stream; `offset` is a multiple of 512.
    File {
        /// Where they begin.
        offset: u64,
        /// How many there are.
        size: u64,
    },
    /// A directory.
    Directory {
        /// Its names.
        children: BTreeMap<Vec<u8>, InodeId>,
        /// Whether it hides what lower layers have in it (`.wh..wh..opq`).
        opaque: bool,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device, major and minor number.
    Char(u32, u32),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// Hides a name of lower layers (`.wh.NAME`): overlayfs wants a character device 0:0.
    Whiteout,
}

/// The inodes of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// All inodes; the first is the root.
    pub inodes: Vec<Inode>,
    /// Directories that no entry describes, only names within them; ascending, never the root. What they are like is for the
    /// layers below to say: containerd gives such a directory the attributes it has there. Here they have mode 755 and
    /// belong to root, as where no layer below has them.
    pub implied: Vec<InodeId>,
}

/// Why entries make no tree that a table can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A hard link's target isn't in the layer before it.
    #[error("hard link {name:?} points to {target:?}, which isn't earlier in the layer")]
    HardlinkTarget {
        /// Name of the link, lossily as text.
        name: String,
        /// What it points to, lossily as text.
        target: String,
    },
    /// A name or link target is longer than the file system can hold.
    #[error("{what} of {len} bytes, the limit is {limit}")]
    TooLong {
        /// `name`, `path` or `link target`.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The longest there can be.
        limit: usize,
    },
    /// A name has a NUL, which no file system takes.
    #[error("the {what} {text:?} has a NUL")]
    Nul {
        /// `name`, `link target` or `name of an extended attribute`.
        what: &'static str,
        /// It, lossily as text.
        text: String,
    },
    /// There is more than there may be.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there may be (see `limits`).
        limit: u64,
    },
    /// A file's data doesn't begin at a multiple of 512, or ends past the stream.
    #[error(
        "the data of {name:?} lies at {offset}, {size} bytes: not in a stream of {stream_len} bytes by blocks of 512"
    )]
    Misplaced {
        /// The file's name, lossily as text.
        name: String,
        /// Offset of its data.
        offset: u64,
        /// Length of its data.
        size: u64,
        /// Length of the stream.
        stream_len: u64,
    },
}

impl Tree {
    /// The tree that `entries` mean, whose data lie in a stream of `stream_len` bytes.
    ///
    /// An entry below something that is no directory (and no symbolic link to one) is left out: containerd fails there, GNU
    /// tar and SOCI go on without it. Nothing called `.wh.*` is in a tree: such names say what is hidden. Inodes are numbered
    /// as they are found from the root, those of one directory one after the other by name; each has a name.
    ///
    /// # Errors
    /// [`TreeError`] says which entry can't be held.
    pub fn new(entries: &[Entry], stream_len: u64) -> Result<Self, TreeError> {
        let mut growth = grow::Growth::new(stream_len);
        entries.iter().try_for_each(|entry| growth.add(entry))?;
        Ok(growth.finish())
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;

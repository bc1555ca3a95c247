//! File systems as lists that can be compared: a folder on disk, and a tree made of a table of contents.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use spandrel_ztoc::Sha256Digest;
use spandrel_ztoc::tree::{InodeKind, Tree};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// `None` where it is none of the layer's: for a directory that no entry names.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) nlink: u64,
    /// Name, value in hexadecimal.
    pub(crate) xattrs: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Length and digest of the content.
    File(u64, Sha256Digest),
    Directory,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Path from the root (which is empty) and what is there.
pub(crate) type Listing = BTreeMap<Vec<u8>, Node>;

/// What a directory that no entry names has for its time.
const YEAR_ONE: i64 = -62_135_596_800;

/// A tree of a layer whose stream is read by `read`.
pub(crate) fn of_tree(tree: &Tree, read: impl Fn(std::ops::Range<u64>) -> Vec<u8>) -> Listing {
    let mut listing = Listing::new();
    let mut left = vec![(Vec::new(), 0)];
    while let Some((path, id)) = left.pop() {
        let inode = &tree.inodes[id as usize];
        let mut xattrs: Vec<_> = inode
            .xattrs
            .iter()
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), hex(value)))
            .collect();
        let what = match &inode.kind {
            InodeKind::File { offset, size } => {
                What::File(*size, Sha256Digest::of(&read(*offset..offset + size)))
            }
            InodeKind::Directory { children, opaque } => {
                for (name, &child) in children {
                    left.push((join(&path, name), child));
                }
                if *opaque {
                    xattrs.push(("trusted.overlay.opaque".to_owned(), hex(b"y")));
                    xattrs.sort();
                }
                What::Directory
            }
            InodeKind::Symlink(target) => What::Symlink(target.clone()),
            InodeKind::Char(major, minor) => What::Char(*major, *minor),
            InodeKind::Block(major, minor) => What::Block(*major, *minor),
            InodeKind::Fifo => What::Fifo,
            InodeKind::Whiteout => What::Char(0, 0),
        };
        let (seconds, nanoseconds) = (inode.mtime.seconds, inode.mtime.nanoseconds);
        let node = Node {
            what,
            mode: u32::from(inode.mode),
            owner: (inode.uid, inode.gid),
            mtime: (seconds != YEAR_ONE).then_some((seconds, nanoseconds)),
            nlink: u64::from(inode.nlink),
            xattrs,
        };
        listing.insert(path, node);
    }
    listing
}

/// A folder on disk.
pub(crate) fn of_folder(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let full = root.join(OsStr::from_bytes(&path));
        let metadata = full.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let what = if kind.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                left.push(join(&path, entry.unwrap().file_name().as_bytes()));
            }
            What::Directory
        } else if kind.is_symlink() {
            What::Symlink(fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            What::Char(major, minor)
        } else if kind.is_block_device() {
            What::Block(major, minor)
        } else if kind.is_fifo() {
            What::Fifo
        } else {
            What::File(metadata.len(), Sha256Digest::of(&fs::read(&full).unwrap()))
        };
        let node = Node {
            what,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: Some((metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap())),
            nlink: metadata.nlink(),
            xattrs: xattrs(&full),
        };
        listing.insert(path, node);
    }
    listing
}

fn xattrs(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0_u8; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut xattrs: Vec<_> = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (String::from_utf8_lossy(name).into_owned(), hex(&value[..len]))
        })
        .collect();
    xattrs.sort();
    xattrs
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` where two listings are the same but for times that are none of the layer's; else the first differences.
pub(crate) fn difference(ours: &Listing, theirs: &Listing) -> Option<String> {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter_map(|path| {
            let mut pair = (ours.get(path).cloned(), theirs.get(path).cloned());
            if let (Some(Node { mtime: None, .. }), Some(theirs)) = &mut pair {
                theirs.mtime = None;
            }
            let (ours, theirs) = pair;
            let path = String::from_utf8_lossy(path);
            (ours != theirs).then(|| format!("/{path}:\n  ours   {ours:?}\n  theirs {theirs:?}"))
        })
        .take(5)
        .collect();
    (!differences.is_empty()).then(|| differences.join("\n"))
}

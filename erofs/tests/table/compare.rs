//! Everything that can be seen of a tree of files, for comparison.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::model::{Tree, What};

/// What is seen of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub rdev: u64,
    pub nlink: u64,
    /// Of files and links.
    pub size: u64,
    /// Target of a link, or digest of a file's content.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same inode.
    pub same_as: Vec<u8>,
}

/// Every name below `root` with what is seen of it; the root's own is empty.
pub fn see(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    see_one(root, Vec::new(), &mut inodes, &mut all);
    all
}

fn see_one(
    path: &Path,
    name: Vec<u8>,
    inodes: &mut BTreeMap<(u64, u64), Vec<u8>>,
    all: &mut BTreeMap<Vec<u8>, Seen>,
) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("stat {}: {e}", path.display()));
    let same_as = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone()).clone();
    let seen = Seen {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        rdev: meta.rdev(),
        nlink: meta.nlink(),
        size: if meta.is_dir() { 0 } else { meta.size() },
        content: content(path, &meta),
        xattrs: xattrs(path),
        same_as,
    };
    all.insert(name.clone(), seen);
    if meta.is_dir() {
        // Sorted, so that the first name of an inode is the same on both sides.
        let mut entries: Vec<_> =
            fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry")).collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let kind = entry.file_type().expect("a type");
            let below = [name.as_slice(), b"/", entry.file_name().as_bytes()].concat();
            see_one(&entry.path(), below.clone(), inodes, all);
            // What the directory says of the type is what the inode says.
            let meta = fs::symlink_metadata(entry.path()).expect("it is there");
            assert_eq!(kind, meta.file_type(), "{}", String::from_utf8_lossy(&below));
        }
    }
}

fn content(path: &Path, meta: &Metadata) -> Vec<u8> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        fs::read_link(path).expect("a target").as_os_str().as_bytes().to_vec()
    } else if kind.is_file() {
        let content = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        assert_eq!(content.len() as u64, meta.size(), "{}", path.display());
        Sha256::digest(content).to_vec()
    } else {
        assert!(kind.is_dir() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device());
        Vec::new()
    }
}

pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(path, name, &mut value)
                .unwrap_or_else(|e| panic!("{} of {}: {e}", String::from_utf8_lossy(name), path.display()));
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Panics at the first difference, naming it.
pub fn assert_same(got: &Path, want: &Path) {
    same(&see(got), &see(want));
}

fn same(got: &BTreeMap<Vec<u8>, Seen>, want: &BTreeMap<Vec<u8>, Seen>) {
    for (name, want) in want {
        assert_eq!(got.get(name), Some(want), "{}", String::from_utf8_lossy(name));
    }
    for name in got.keys() {
        assert!(want.contains_key(name), "{} should not be there", String::from_utf8_lossy(name));
    }
}

/// What should be seen of `tree`.
pub fn expected(tree: &Tree) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    expect_one(tree, 0, Vec::new(), &mut BTreeMap::new(), &mut all);
    all
}

fn expect_one(
    tree: &Tree,
    id: u32,
    name: Vec<u8>,
    inodes: &mut BTreeMap<u32, Vec<u8>>,
    all: &mut BTreeMap<Vec<u8>, Seen>,
) {
    let node = &tree.nodes[id as usize];
    let mut xattrs: BTreeMap<_, _> = node.xattrs.iter().cloned().collect();
    let (kind, device, content) = match &node.what {
        What::File(content) => (0o100_000, (0, 0), Sha256::digest(content).to_vec()),
        What::Placed { .. } => panic!("its content isn't known"),
        What::Directory { opaque, .. } => {
            if *opaque {
                xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
            }
            (0o040_000, (0, 0), Vec::new())
        }
        What::Symlink(target) => (0o120_000, (0, 0), target.clone()),
        What::Char(major, minor) => (0o020_000, (*major, *minor), Vec::new()),
        What::Block(major, minor) => (0o060_000, (*major, *minor), Vec::new()),
        What::Fifo => (0o010_000, (0, 0), Vec::new()),
        What::Whiteout => (0o020_000, (0, 0), Vec::new()),
    };
    let seen = Seen {
        mode: kind | u32::from(node.mode),
        owner: (node.uid, node.gid),
        mtime: (node.mtime.0, i64::from(node.mtime.1)),
        rdev: rustix::fs::makedev(device.0, device.1),
        nlink: u64::from(node.nlink),
        size: match &node.what {
            What::File(content) | What::Symlink(content) => content.len() as u64,
            _ => 0,
        },
        content,
        xattrs,
        same_as: inodes.entry(id).or_insert_with(|| name.clone()).clone(),
    };
    all.insert(name.clone(), seen);
    if let What::Directory { names, .. } = &node.what {
        for (below, &child) in names {
            expect_one(tree, child, [name.as_slice(), b"/", below].concat(), inodes, all);
        }
    }
}

/// Panics at the first name of the mounted `tree` that isn't as it should be.
pub fn assert_like(got: &Path, tree: &Tree) {
    same(&see(got), &expected(tree));
}

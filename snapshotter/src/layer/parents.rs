//! Directories that a layer names only by what is in them (`tmp/x` without `tmp/`): containerd makes such a directory with
//! what the uppermost layer below has of it, and so it is looked up here, where those layers are mounted. Which directories
//! they are, the tree says; writing the table is `table`'s.
//!
//! Only metadata is asked for, which the kernel answers from tables: never the network. Where layers are mounted from the FUSE
//! tree, the daemon would be asking itself: then their tables are looked into without the kernel.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, fgetxattr, flistxattr, fstat, open, openat2};
use rustix::io::Errno;
use spandrel_ztoc::Timestamp;
use spandrel_ztoc::tree::{Inode, InodeId, InodeKind, Tree};

use super::files;
use crate::Error;
use crate::tree::{self, LookUp};

/// Most lookups for one layer: a second's work or two. No real layer has need of so many, but one may be made that has a
/// directory without an entry for each of its inodes, above a hundred layers.
const MAX_LOOKUPS: usize = 1 << 20;

/// Longest list of names of attributes, and longest value, in bytes: the kernel's own limits.
const MAX_XATTR_LEN: usize = 64 << 10;

/// Attributes that are the mount's and not the layer's: with SELinux, all files of a mount have its label.
const LABEL: &[u8] = b"security.selinux";

/// Whether an attribute goes with a directory. Those of `trusted.` are overlayfs's own: containerd doesn't copy them.
fn is_kept(name: &[u8]) -> bool {
    name != LABEL && !name.starts_with(b"trusted.")
}

/// What a directory is like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attributes {
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What one layer says of a directory.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is so here.
    Directory(Attributes),
    /// Nothing: the layers below are to be asked.
    Nothing,
    /// There is something else in its place, or it is hidden: layers below don't matter.
    Replaced,
}

/// A layer below.
enum Lower {
    /// A directory that the kernel answers for.
    Directory(OwnedFd),
    /// One that is mounted from the tree.
    Layer(tree::Layer),
}

impl Lower {
    fn look_up(&self, path: &[u8]) -> io::Result<Found> {
        match self {
            Self::Directory(root) => look_up(root.as_fd(), path),
            Self::Layer(layer) => layer.look_up(path).map(Found::from).map_err(io::Error::other),
        }
    }
}

impl From<LookUp> for Found {
    fn from(found: LookUp) -> Self {
        match found {
            LookUp::Directory { mode, uid, gid, mtime: (seconds, nanoseconds), mut xattrs } => {
                xattrs.retain(|(name, _)| is_kept(name));
                xattrs.sort();
                let mtime = Timestamp { seconds, nanoseconds };
                Self::Directory(Attributes { mode, uid, gid, mtime, xattrs })
            }
            LookUp::Nothing => Self::Nothing,
            LookUp::Other => Self::Replaced,
        }
    }
}

/// Gives the implied directories of `tree` the attributes that they have in `lowers`, the uppermost first. Those that aren't
/// there stay as they are. `mounted` is the tree that layers are mounted from, if they are.
///
/// # Errors
/// When a directory of `lowers` can't be opened, or reading one fails in a way that says nothing of the layer.
pub(super) fn describe(
    tree: &mut Tree,
    lowers: &[PathBuf],
    mounted: Option<&tree::Tree>,
) -> Result<(), Error> {
    let opened: Vec<Lower> = lowers
        .iter()
        .map(|lower| {
            if let Some(layer) = mounted.and_then(|mounted| mounted.layer_at(lower)) {
                return Ok(Lower::Layer(layer));
            }
            open(lower, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map(Lower::Directory)
                .map_err(|error| files::failed("open", lower, &error.into()))
        })
        .collect::<Result<_, _>>()?;
    let mut left = MAX_LOOKUPS;
    for (id, path) in implied(tree) {
        for (lower, there) in lowers.iter().zip(&opened) {
            left = left.saturating_sub(1);
            if left == 0 {
                tracing::warn!(
                    directories = tree.implied.len(),
                    layers = lowers.len(),
                    "too many directories without an entry: not all are looked up in the layers below"
                );
                return Ok(());
            }
            let found = there.look_up(&path).map_err(|error| {
                let path = lower.join(String::from_utf8_lossy(&path).as_ref());
                files::failed("look up", &path, &error)
            })?;
            match found {
                Found::Directory(attributes) => set(&mut tree.inodes[id as usize], attributes),
                Found::Nothing => continue,
                Found::Replaced => {}
            }
            break;
        }
    }
    Ok(())
}

/// The implied directories and their paths from the root, parents before what is in them.
fn implied(tree: &Tree) -> Vec<(InodeId, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left: Vec<(InodeId, Vec<u8>)> = vec![(0, Vec::new())];
    while let Some((id, path)) = left.pop() {
        let InodeKind::Directory { children, .. } = &tree.inodes[id as usize].kind else { continue };
        for (name, &child) in children {
            if matches!(tree.inodes[child as usize].kind, InodeKind::Directory { .. }) {
                let path = if path.is_empty() { name.clone() } else { [&path[..], b"/", name].concat() };
                left.push((child, path));
            }
        }
        if tree.implied.binary_search(&id).is_ok() {
            found.push((id, path));
        }
    }
    found
}

fn set(inode: &mut Inode, found: Attributes) {
    let Attributes { mode, uid, gid, mtime, xattrs } = found;
    inode.mode = mode;
    inode.uid = uid;
    inode.gid = gid;
    // containerd's is the time at which it unpacked: that of the last file it put there.
    inode.mtime = mtime;
    inode.xattrs = xattrs;
}

/// What the layer at `root` has at `path`. Symbolic links are followed within the layer, as containerd follows them; it
/// doesn't care whether a directory on the way is opaque, and neither is that asked here.
fn look_up(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Found> {
    let path = CString::new(path)?; // a tree's names have no NUL
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, &path, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Found::Directory(attributes(directory.as_fd())?)),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        // A whiteout, too, is no directory. Where something on the way is none, or links lead nowhere, containerd fails.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(Found::Replaced),
        Err(error) => Err(error.into()),
    }
}

fn attributes(directory: BorrowedFd<'_>) -> io::Result<Attributes> {
    let stat = fstat(directory)?;
    let mut names = vec![0; MAX_XATTR_LEN];
    let len = match flistxattr(directory, &mut names) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; MAX_XATTR_LEN];
    let mut xattrs = Vec::new();
    for name in names[..len].split(|&byte| byte == 0) {
        if name.is_empty() || !is_kept(name) {
            continue;
        }
        match fgetxattr(directory, name, &mut value) {
            Ok(len) => xattrs.push((name.to_vec(), value[..len].to_vec())),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    xattrs.sort();
    Ok(Attributes {
        mode: u16::try_from(stat.st_mode & 0o7777).expect("has twelve bits"),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
        xattrs,
    })
}

#[cfg(test)]
#[path = "parents_tests.rs"]
mod tests;

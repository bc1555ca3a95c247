//! Changes a directory tree without ever leaving it, whatever names and links a tar has: every path is resolved by the kernel
//! with the tree's root as its root (`openat2`), and what is changed is a name in a directory that is held open.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::header::{Header, Kind, Times};

/// Mode of directories that no entry describes, as containerd makes them.
const DIR_MODE: u32 = 0o755;

/// Longest path that is taken, in bytes.
const MAX_PATH: usize = 4096;

/// Attributes of a file that have room in one block of 4 KiB, in bytes with what the file system adds to each.
const SMALL_XATTRS: usize = 3 << 10;

/// The tree.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
}

/// A name in a directory of the tree; there may be nothing there.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    parent: Arc<OwnedFd>,
    name: Vec<u8>,
    _root: std::marker::PhantomData<&'a Root>,
}

/// The components of a name, cleaned: no `.`, and no `..` that isn't taken back.
fn clean(name: &[u8]) -> io::Result<Vec<&[u8]>> {
    if name.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

impl Root {
    /// Makes the directory `path`, which isn't there, and opens it as a tree.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir(path)?;
        rustix::fs::chmod(path, Mode::from_raw_mode(DIR_MODE))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::open(path, flags, Mode::empty())? })
    }

    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(
            &self.dir,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn place(&self, parent: OwnedFd, name: &[u8]) -> Place<'_> {
        Place { parent: Arc::new(parent), name: name.to_vec(), _root: std::marker::PhantomData }
    }

    /// The place called `name`, if its directory is there; `None` for the root itself, too.
    pub(super) fn find(&self, name: &[u8]) -> io::Result<Option<Place<'_>>> {
        let parts = clean(name)?;
        let Some((last, parents)) = parts.split_last() else { return Ok(None) };
        match self.open(&join(parents)) {
            Ok(parent) => Ok(Some(self.place(parent, last))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The place called `name`; directories on the way that aren't there are made. `None` for the root itself.
    pub(super) fn make_parents(&self, name: &[u8]) -> io::Result<Option<Place<'_>>> {
        if let Some(place) = self.find(name)? {
            return Ok(Some(place));
        }
        let parts = clean(name)?;
        let Some((last, parents)) = parts.split_last() else { return Ok(None) };
        let mut parent = self.open(b".")?;
        for (index, part) in parents.iter().enumerate() {
            let path = join(&parents[..=index]);
            parent = match self.open(&path) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, *part, Mode::from_raw_mode(DIR_MODE))?;
                    let made = self.open(&path)?;
                    // Whatever the umask is.
                    rustix::fs::chmodat(&parent, *part, Mode::from_raw_mode(DIR_MODE), AtFlags::empty())?;
                    made
                }
                opened => opened?,
            };
        }
        Ok(Some(self.place(parent, last)))
    }
}

fn mode(header: &Header) -> Mode {
    Mode::from_raw_mode(header.mode & 0o7777)
}

impl Place<'_> {
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn rename(&mut self, name: &[u8]) {
        self.name = name.to_vec();
    }

    fn kind(&self) -> Option<FileType> {
        let stat = rustix::fs::statat(&*self.parent, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == Some(FileType::Directory)
    }

    /// A path to it that leads through the open directory; only its last component can be a link.
    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        path.push(OsStr::from_bytes(&self.name));
        path
    }

    /// Takes away what is there, with everything in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.kind() {
            None => Ok(()),
            // Follows no link below the path that it is given.
            Some(FileType::Directory) => fs::remove_dir_all(self.path()),
            Some(_) => Ok(rustix::fs::unlinkat(&*self.parent, self.name.as_slice(), AtFlags::empty())?),
        }
    }

    pub(super) fn make_directory(&self) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&*self.parent, self.name.as_slice(), Mode::from_raw_mode(0o700))?)
    }

    pub(super) fn make_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.parent, self.name.as_slice(), flags, Mode::from_raw_mode(0o600))?.into())
    }

    pub(super) fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &*self.parent, self.name.as_slice())?)
    }

    pub(super) fn make_node(&self, header: &Header) -> io::Result<()> {
        let (kind, device) = match header.kind {
            Kind::Char => (FileType::CharacterDevice, rustix::fs::makedev(header.major, header.minor)),
            Kind::Block => (FileType::BlockDevice, rustix::fs::makedev(header.major, header.minor)),
            _ => (FileType::Fifo, 0),
        };
        Ok(rustix::fs::mknodat(
            &*self.parent,
            self.name.as_slice(),
            kind,
            Mode::from_raw_mode(0o600),
            device,
        )?)
    }

    /// Hides the name from lower layers: a character device 0:0, as overlayfs has it.
    pub(super) fn make_whiteout(&self, header: &Header) -> io::Result<()> {
        let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
        rustix::fs::mknodat(&*self.parent, self.name.as_slice(), kind, mode, rustix::fs::makedev(0, 0))?;
        self.set_owner(header)
    }

    /// Hides everything that lower layers have in the directory that this place is in.
    pub(super) fn make_parent_opaque(&self) -> io::Result<()> {
        let dir = format!("/proc/self/fd/{}/.", self.parent.as_raw_fd());
        Ok(rustix::fs::setxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
    }

    /// Makes it another name of `target`, which is there. A symbolic link is linked itself.
    pub(super) fn link_to(&self, root: &Root, target: &[u8]) -> io::Result<()> {
        let place = root.find(target)?.ok_or(Errno::NOENT)?;
        let (from, to) = (place.name.as_slice(), self.name.as_slice());
        Ok(rustix::fs::linkat(&*place.parent, from, &*self.parent, to, AtFlags::empty())?)
    }

    pub(super) fn set_owner(&self, header: &Header) -> io::Result<()> {
        let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
        Ok(rustix::fs::chownat(
            &*self.parent,
            self.name.as_slice(),
            owner.0,
            owner.1,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Sets the mode; a symbolic link (which a hard link may lead to) has none.
    pub(super) fn set_mode(&self, header: &Header) -> io::Result<()> {
        if self.kind() == Some(FileType::Symlink) {
            return Ok(());
        }
        Ok(rustix::fs::chmodat(&*self.parent, self.name.as_slice(), mode(header), AtFlags::empty())?)
    }

    pub(super) fn set_xattrs(&self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let total: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        // Nor does containerd set what only the system's administrator may: a layer must not tell overlayfs where to look.
        for (name, value) in xattrs.iter().filter(|(name, _)| !name.starts_with(b"trusted.")) {
            match rustix::fs::lsetxattr(self.path(), name.as_slice(), value, XattrFlags::empty()) {
                // containerd passes over what the file system can't hold, and user.* where only files may have it.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM) if name.starts_with(b"user.") => {}
                // Attributes that fit in a block of any file system find no room only where there is none at all.
                Err(error @ (Errno::NOSPC | Errno::DQUOT)) if total <= SMALL_XATTRS => {
                    return Err(error.into());
                }
                Err(error) if super::is_ours(&error.into()) => return Err(error.into()),
                Err(error) => {
                    return Err(io::Error::other(format!(
                        "xattr {}: {error}",
                        String::from_utf8_lossy(name)
                    )));
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_times(&self, times: Times) -> io::Result<()> {
        let spec =
            |(seconds, nanoseconds): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access: spec(times.accessed), last_modification: spec(times.modified) };
        Ok(rustix::fs::utimensat(&*self.parent, self.name.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

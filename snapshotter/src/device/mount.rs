//! Mounts a FUSE filesystem by the new mount API. The published FUSE library may unmount a foreign filesystem at
//! the same path when its session ends, so it is handed a descriptor and never mounts or unmounts.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::Error;

/// Longest read that the kernel sends in one request, in bytes: EROFS's read-ahead window is as long.
pub(crate) const MAX_READ: u32 = 1 << 20;

/// More mounts than were ever stacked on one directory; keeps the loop below from running for ever.
const MAX_STACKED: usize = 64;

/// Who may use a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only root.
    Root,
    /// All users, as far as owners and modes let them.
    Everybody,
}

/// Mounts a FUSE filesystem at `dir` and returns its `/dev/fuse` descriptor; the kernel's INIT request waits on it.
pub(crate) fn mount(dir: &Path, access: Access) -> Result<OwnedFd, Error> {
    // What a killed daemon left is a dead mount, on which even stat fails: so before anything else.
    unmount(dir);
    fs::create_dir_all(dir).map_err(|e| internal(dir, "create the directory", &e))?;
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| internal(dir, "open /dev/fuse (is the kernel module fuse loaded?)", &e.into()))?;
    let mount = || -> rustix::io::Result<()> {
        let fs = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", "spandrel")?;
        fsconfig_set_string(&fs, "subtype", "spandrel")?;
        fsconfig_set_string(&fs, "fd", fuse.as_raw_fd().to_string())?;
        fsconfig_set_string(&fs, "rootmode", "40000")?;
        // Of the device only root may open a layer's stream: EROFS opens it once, as root, and reads for everybody.
        if access == Access::Everybody {
            fsconfig_set_flag(&fs, "allow_other")?;
        }
        fsconfig_set_string(&fs, "user_id", "0")?;
        fsconfig_set_string(&fs, "group_id", "0")?;
        fsconfig_set_flag(&fs, "default_permissions")?;
        fsconfig_set_string(&fs, "max_read", MAX_READ.to_string())?;
        fsconfig_set_flag(&fs, "ro")?;
        fsconfig_create(&fs)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(&mount, "", CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    mount().map_err(|e| internal(dir, "mount FUSE", &e.into()))?;
    Ok(fuse)
}

/// Takes away everything that is mounted at `dir`, lazily; says nothing when there is nothing.
pub(crate) fn unmount(dir: &Path) {
    for _ in 0..MAX_STACKED {
        if rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

fn internal(dir: &Path, what: &str, error: &io::Error) -> Error {
    Error::Internal(format!("FUSE at {}: {what}: {error}", dir.display()))
}

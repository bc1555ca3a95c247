//! The system calls behind the helper's operations.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::protocol::Op;

/// Read-ahead of a layer's mount, in KiB: one window is then one request to the device or the tree. More would lock more
/// pages at a time, which are charged to the reader's cgroup, and cgroups may be small.
const READ_AHEAD_KIB: u32 = 1024;

/// More mounts than were ever stacked on one directory; keeps the loop from running for ever.
const MAX_STACKED: usize = 64;

/// Longest text that is taken from the kernel about one mount, in messages.
const MAX_KERNEL_LINES: usize = 32;

/// Does what `op` says. The error is the step that failed and all that the kernel says about it.
pub(super) fn perform(op: &Op) -> Result<(), String> {
    match op {
        Op::Erofs { table, device, target, directio } => erofs(table, device, target, *directio),
        Op::Overlay { lowers, target } => overlay(lowers.iter().map(|path| path.as_path()), target),
        Op::Bind { source, target } => bind(source, target),
        Op::Folder { source, target } => folder(source, target),
        Op::Unmount { target } => unmount(target),
    }
}

fn erofs(table: &Path, device: &Path, target: &Path, directio: bool) -> Result<(), String> {
    let what = format!("mount the layer table {} at {}", table.display(), target.display());
    let fs = Context::new("erofs", &what)?;
    fs.set("source", table.as_os_str())?;
    fs.set("device", device.as_os_str())?;
    if directio {
        fs.flag("directio")?;
    }
    fs.flag("ro")?;
    let before = erofs_mounts();
    // Neither nosuid nor nodev: what a container may do with its files is its own mounts' to say.
    let mount = fs.mount(MountAttrFlags::empty())?;
    // Before anybody can read from it.
    if let Err(error) = before.and_then(|before| set_read_ahead(&before)) {
        // Slower (eight times the requests), not wrong.
        tracing::warn!(%error, "cannot set the read-ahead of {}", target.display());
    }
    fs.attach(&mount, target)
}

fn overlay<'a>(lowers: impl Iterator<Item = &'a Path>, target: &Path) -> Result<(), String> {
    let what = format!("mount an overlay at {}", target.display());
    let fs = Context::new("overlay", &what)?;
    let lowers: Vec<&[u8]> = lowers.map(|path| path.as_os_str().as_bytes()).collect();
    fs.set("source", OsStr::new("overlay"))?;
    fs.set("lowerdir", OsStr::from_bytes(&lowers.join(&b':')))?;
    fs.flag("ro")?;
    // At a directory of the host's, where every user may come by: an image's set-user-ID programs and device nodes are for
    // containers.
    let mount = fs.mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    fs.attach(&mount, target)
}

fn bind(source: &Path, target: &Path) -> Result<(), String> {
    let failed = |e: Errno| format!("bind-mount {} at {}: {e}", source.display(), target.display());
    rustix::mount::mount_bind(source, target).map_err(failed)?;
    // The read-only flag of a bind mount needs a second step.
    let flags = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(target, flags, "").map_err(|error| {
        // A writable one must not stay.
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        failed(error)
    })
}

fn folder(source: &Path, target: &Path) -> Result<(), String> {
    bind(source, target)?;
    // FUSE itself allows 128 KiB; all folders are of one filesystem, which is set anew each time.
    if let Err(error) = set_own_read_ahead(target) {
        tracing::warn!(%error, "cannot set the read-ahead of {}", target.display());
    }
    Ok(())
}

fn unmount(target: &Path) -> Result<(), String> {
    for _ in 0..MAX_STACKED {
        let plain = rustix::mount::unmount(target, UnmountFlags::NOFOLLOW);
        let done = match plain {
            Err(Errno::BUSY) => rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW),
            other => other,
        };
        match done {
            Ok(()) => {}
            // Nothing (more) is mounted here.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(format!("unmount {}: {e}", target.display())),
        }
    }
    Err(format!("unmount {}: there are over {MAX_STACKED} mounts", target.display()))
}

/// Whether something is mounted at `path` itself. Asks the kernel, never what is mounted.
pub fn is_mount_point(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Where the kernel lists what has a read-ahead, EROFS mounts by a running number: `erofs-17`.
const BACKING_DEVICES: &str = "/sys/class/bdi";

/// The EROFS mounts that the kernel lists.
fn erofs_mounts() -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(BACKING_DEVICES)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b"erofs-") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Sets the read-ahead of the mount that has come since `before`. The kernel doesn't say which one that is; those that came
/// at the same time are our own other threads', which want the same.
fn set_read_ahead(before: &[OsString]) -> io::Result<()> {
    let new: Vec<OsString> = erofs_mounts()?.into_iter().filter(|name| !before.contains(name)).collect();
    if new.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the kernel lists no new EROFS mount"));
    }
    for name in new {
        let path = Path::new(BACKING_DEVICES).join(name).join("read_ahead_kb");
        match fs::write(path, READ_AHEAD_KIB.to_string()) {
            // Somebody else's that is gone again.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Sets the read-ahead of the filesystem that is mounted at `target`, whose device number is also its name there.
fn set_own_read_ahead(target: &Path) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, target, flags, StatxFlags::empty())?;
    let name = format!("{}:{}", found.stx_dev_major, found.stx_dev_minor);
    let path = Path::new(BACKING_DEVICES).join(name).join("read_ahead_kb");
    let want = READ_AHEAD_KIB.to_string();
    if fs::read_to_string(&path)?.trim_end() == want {
        return Ok(());
    }
    fs::write(path, want)
}

/// A mount in the making, which knows what the kernel has to say about it.
struct Context<'a> {
    fd: OwnedFd,
    what: &'a str,
}

impl<'a> Context<'a> {
    fn new(fs: &str, what: &'a str) -> Result<Self, String> {
        match fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { fd, what }),
            Err(Errno::NODEV) => Err(format!("{what}: this kernel has no {fs} file system (module {fs})")),
            Err(e) => Err(format!("{what}: fsopen: {e}")),
        }
    }

    fn set(&self, key: &str, value: &OsStr) -> Result<(), String> {
        fsconfig_set_string(&self.fd, key, value).map_err(|e| self.failed(key, e))
    }

    fn flag(&self, key: &str) -> Result<(), String> {
        fsconfig_set_flag(&self.fd, key).map_err(|e| self.failed(key, e))
    }

    /// Read-only, with further `attributes`.
    fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd, String> {
        fsconfig_create(&self.fd).map_err(|e| self.failed("create", e))?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY | attributes)
            .map_err(|e| self.failed("fsmount", e))
    }

    fn attach(&self, mount: &OwnedFd, target: &Path) -> Result<(), String> {
        move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| self.failed("move_mount", e))
    }

    /// The error of a step, with the lines that the kernel has written about this mount.
    fn failed(&self, step: &str, error: Errno) -> String {
        let mut text = format!("{}: {step}: {error}", self.what);
        let mut line = [0; 1024];
        for _ in 0..MAX_KERNEL_LINES {
            match rustix::io::read(self.fd.as_fd(), &mut line) {
                Ok(len) if len > 0 => {
                    let line = String::from_utf8_lossy(&line[..len]);
                    text.push_str("; ");
                    text.push_str(line.trim_end());
                }
                _ => break,
            }
        }
        text
    }
}

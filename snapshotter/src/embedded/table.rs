//! The kernel's mount table: whether a mount is still there, and which ones a killed process left.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::Error;

/// The table, as this process sees it.
const TABLE: &str = "/proc/self/mountinfo";

/// How often to look whether anybody still waits; news of mounts come at once.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("the table of mounts can't be read: {error}"))
}

/// Number of the topmost mount at `path`.
pub(super) fn mount_id(path: &Path) -> Result<u64, Error> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID)
        .map(|found| found.stx_mnt_id)
        .map_err(|error| Error::Internal(format!("{}: {error}", path.display())))
}

/// Waits until the mount of that number has gone from this process's table.
///
/// # Errors
/// When the table can't be read or watched.
pub(super) async fn unmounted(id: u64) -> Result<(), Error> {
    let (sender, gone) = oneshot::channel();
    let watch = move || {
        let result = watch(id, || sender.is_closed()).map_err(|error| failed(&error));
        // Nobody waits any more when the process ends.
        let _ = sender.send(result);
    };
    std::thread::Builder::new().name("mounts".to_owned()).spawn(watch).map_err(|error| failed(&error))?;
    gone.await.unwrap_or_else(|error| Err(failed(&error)))
}

/// Returns when the mount has gone, or soon after `enough` says so.
fn watch(id: u64, enough: impl Fn() -> bool) -> io::Result<()> {
    // The kernel marks the open table as having "priority" news whenever a mount comes or goes.
    let table = File::open(TABLE)?;
    let line = format!("{id} ");
    while !enough() {
        if !std::fs::read_to_string(TABLE)?.lines().any(|have| have.starts_with(&line)) {
            return Ok(());
        }
        match poll(&mut [PollFd::new(&table, PollFlags::PRI | PollFlags::ERR)], Some(&LOOK_EVERY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is mounted below `root`, and at `dir` if it is an overlay of what is; in the order in which it can be unmounted.
pub(super) fn left_over(root: &Path, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let table = std::fs::read(TABLE).map_err(|error| failed(&error))?;
    Ok(left_over_in(&table, root, dir))
}

fn left_over_in(table: &[u8], root: &Path, dir: &Path) -> Vec<PathBuf> {
    let lowers = [b"lowerdir=", root.as_os_str().as_bytes(), b"/"].concat();
    let ours = |line: &&[u8]| {
        let target = line.split(|&byte| byte == b' ').nth(4).map(unescaped)?;
        let overlay = target == dir && line.windows(lowers.len()).any(|window| window == lowers);
        (overlay || target.starts_with(root)).then_some(target)
    };
    // Later mounts may stand on earlier ones.
    let mut targets: Vec<PathBuf> =
        table.split(|&byte| byte == b'\n').filter_map(|line| ours(&line)).collect();
    targets.reverse();
    targets
}

/// A path of the table: white space and backslashes are written in octal.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let decoded = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_left_over() {
        let table = br"20 1 8:1 / / rw shared:1 - ext4 /dev/sda rw
21 20 0:30 / /var/m/abc/device ro - fuse.spandrel spandrel ro
22 20 0:31 / /var/m/abc/lowers/0 ro - erofs /x ro
23 20 0:32 / /mnt/my\040image ro - overlay overlay ro,lowerdir=/var/m/abc/lowers/0:/var/m/abc/lowers/empty
24 20 0:33 / /mnt/my\040image ro - tmpfs none rw
25 20 0:34 / /mnt/other ro - overlay overlay ro,lowerdir=/var/m/abc/lowers/0
26 20 0:35 / /var/m/abcd/device ro - fuse.spandrel spandrel ro
";
        let targets = left_over_in(table, Path::new("/var/m/abc"), Path::new("/mnt/my image"));
        let want = ["/mnt/my image", "/var/m/abc/lowers/0", "/var/m/abc/device"].map(PathBuf::from);
        assert_eq!(targets, want);
    }

    #[test]
    fn escapes_are_those_of_the_kernel() {
        for (field, want) in [
            (&br"/a\040b"[..], "/a b"),
            (br"/a\134b", "/a\\b"),
            (br"/a\012b", "/a\nb"),
            (br"/a\9", "/a\\9"),
            (br"/a\", "/a\\"),
            (b"", ""),
        ] {
            assert_eq!(unescaped(field), Path::new(want), "{}", field.escape_ascii());
        }
    }
}

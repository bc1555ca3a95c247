//! The root directory: whether its file system will do, and that only one process works in it. What lies in it is others'.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::Error;

/// What `statfs` calls ext2, ext3 and ext4.
const EXT4: u64 = 0xef53;
/// What `statfs` calls xfs.
const XFS: u64 = 0x5846_5342;

/// File systems that people try, to name them.
const NAMES: [(u64, &str); 8] = [
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x6969, "NFS"),
    (0xf2f5_2010, "f2fs"),
    (0x6573_5546, "FUSE"),
    (0x8584_58f6, "ramfs"),
];

/// The file that is locked.
pub(crate) const LOCK: &str = "lock";

/// A root that was used has one of these: of the last, `spandrel mount` writes a log before it takes the root.
const OURS: [&str; 3] = [LOCK, "snapshots.redb", "log"];

/// A fresh file system isn't empty.
const LOST_AND_FOUND: &str = "lost+found";

/// What the error says when another process has the root.
pub(crate) const TAKEN: &str = "another process has it";

/// How often a lock file may vanish while it is being locked, by processes that end just then.
const LOCK_TRIES: usize = 10;

/// The root of a running daemon. No other process gets it while this lives.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Locked; the lock goes with the descriptor, also when the process is killed.
    _lock: File,
}

impl Root {
    /// Makes `path` where it is missing, checks its file system, and takes it for this process.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] when the file system won't do or another process has the root, [`Error::Internal`]
    /// when it can't be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |what: &str, error: &io::Error| {
            Error::Internal(format!("root {}: {what}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("cannot be made", &error))?;
        // Mount points are compared with the kernel's table, which has no symbolic links in it.
        let path = &fs::canonicalize(path).map_err(|error| failed("cannot be read", &error))?;
        check_file_system(path)?;
        check_ours(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| failed("its mode cannot be set", &error))?;
        for _ in 0..LOCK_TRIES {
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(path.join(LOCK))
                .map_err(|error| failed("cannot open the file lock", &error))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::FailedPrecondition(format!(
                        "root {}: {TAKEN}: stop that one, or choose another root",
                        path.display()
                    )));
                }
                Err(error) => return Err(failed("cannot be locked", &error.into())),
            }
            // Who had it before may have deleted it: then it isn't the one that the next process will find.
            let ours = lock.metadata().map_err(|error| failed("cannot read the file lock", &error))?.ino();
            if fs::symlink_metadata(path.join(LOCK)).is_ok_and(|found| found.ino() == ours) {
                return Ok(Self { path: path.clone(), _lock: lock });
            }
        }
        Err(Error::Unavailable(format!("root {}: its lock file goes again and again", path.display())))
    }

    /// Where it is, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses a directory that has something else in it: it would be closed to all users but root.
fn check_ours(path: &Path) -> Result<(), Error> {
    let failed =
        |error: io::Error| Error::Internal(format!("root {}: cannot be read: {error}", path.display()));
    let mut other = None;
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        // Files only: /var has a directory `log` and a link `lock`.
        if OURS.iter().any(|ours| name == *ours) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            return Ok(());
        }
        if name != LOST_AND_FOUND {
            other = Some(name);
        }
    }
    match other {
        None => Ok(()),
        Some(name) => Err(Error::FailedPrecondition(format!(
            "root {}: holds {name:?} and nothing of ours: name an empty directory, or one that isn't there yet",
            path.display()
        ))),
    }
}

fn check_file_system(path: &Path) -> Result<(), Error> {
    let found = rustix::fs::statfs(path)
        .map_err(|error| Error::Internal(format!("root {}: statfs: {error}", path.display())))?;
    // A negative number is the sign of a 32-bit magic.
    let magic = found.f_type.cast_unsigned() & 0xffff_ffff;
    if matches!(magic, EXT4 | XFS) {
        return Ok(());
    }
    let name = NAMES.iter().find(|(known, _)| *known == magic);
    let name =
        name.map_or_else(|| format!("a file system of type {magic:#x}"), |(_, name)| (*name).to_owned());
    Err(Error::FailedPrecondition(format!(
        "root {}: lies on {name}, but the kernel mounts layer tables only from files on ext4 or xfs: put the root on such a \
         file system (--root DIR, or `root` in the configuration)",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("tempdir");
        let path = dir.path().join("a/b");
        let root = Root::open(&path).expect("opened");
        assert_eq!(fs::metadata(root.path()).expect("metadata").permissions().mode() & 0o777, 0o700);
        let second = Root::open(&path).expect_err("taken");
        assert!(
            matches!(&second, Error::FailedPrecondition(text) if text.contains("another process")),
            "{second}"
        );
        drop(root);
        Root::open(&path).expect("free again");
    }

    #[test]
    fn somebody_elses_directory_is_left_alone() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("tempdir");
        let path = dir.path().join("var");
        fs::create_dir_all(path.join("spool")).expect("mkdir");
        fs::create_dir(path.join("log")).expect("mkdir");
        std::os::unix::fs::symlink("spool", path.join("lock")).expect("a link");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("mode");
        let error = Root::open(&path).expect_err("refused");
        assert!(
            matches!(&error, Error::FailedPrecondition(text) if text.contains("nothing of ours")),
            "{error}"
        );
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o755);
        for dir in ["spool", "log"] {
            fs::remove_dir(path.join(dir)).expect("rmdir");
        }
        fs::remove_file(path.join("lock")).expect("removed");
        fs::create_dir(path.join("lost+found")).expect("mkdir");
        Root::open(&path).expect("a fresh file system's");
    }

    #[test]
    fn a_root_in_memory_is_refused_by_name() {
        let path = format!("/dev/shm/spandrel-root-{}", std::process::id());
        let error = Root::open(Path::new(&path)).expect_err("refused");
        fs::remove_dir(&path).expect("removed");
        let Error::FailedPrecondition(text) = &error else { panic!("{error:?}") };
        assert!(text.contains("tmpfs") && text.contains("ext4 or xfs"), "{text}");
    }
}

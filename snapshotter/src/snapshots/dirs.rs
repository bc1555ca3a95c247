//! The directories of snapshots: `snapshots/<number>/{fs,work,table-<layer>}`, made aside and renamed into place, renamed away and
//! deleted later. Which numbers there are is `store`'s to say; what is mounted on `fs` is `lowers`'.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use crate::Error;
use crate::layer::LayerKey;

/// Modes of `fs` and `work`, as containerd's overlayfs snapshotter makes them.
const FS_MODE: u32 = 0o755;
const WORK_MODE: u32 = 0o711;

/// Nobody but root looks into the root directory.
const PRIVATE: u32 = 0o700;

/// Directories of snapshots below one root.
#[derive(Debug)]
pub struct Dirs {
    snapshots: PathBuf,
    /// Directories in the making; the same file system as `snapshots`, so that they can be renamed.
    tmp: PathBuf,
    /// Directories on their way out.
    trash: PathBuf,
    /// Makes names in `tmp` and `trash`; both are emptied at start.
    next: AtomicU64,
}

/// A directory in the making; deleted unless it is put in place.
#[derive(Debug)]
pub struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone when it was put in place; else swept at the next start if this fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let text = format!("{what} {}", path.display());
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace(format!("{text}: {error}")),
        _ => Error::Internal(format!("{text}: {error}")),
    }
}

/// Makes `path` with exactly `mode`, whatever the umask is.
fn make(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new().mode(mode).create(path).map_err(failed("cannot create", path))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("cannot set the mode of", path))
}

fn make_private(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path).map_err(failed("cannot create", path))?;
    fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(failed("cannot set the mode of", path))
}

/// Whether something is mounted at `path` itself (a bind mount too). Never asks the network.
pub fn is_mount_point(path: &Path) -> bool {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(rustix::fs::CWD, name, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Dirs {
    /// Makes what is missing below `root`, an absolute path, and throws away what a former process left unfinished.
    ///
    /// # Errors
    /// When that can't be done.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let dirs = Self {
            snapshots: root.join("snapshots"),
            tmp: root.join("tmp"),
            trash: root.join("trash"),
            next: AtomicU64::new(1),
        };
        make_private(root)?;
        for dir in [&dirs.snapshots, &dirs.tmp, &dirs.trash] {
            make_private(dir)?;
        }
        for entry in fs::read_dir(&dirs.tmp).map_err(failed("cannot read", &dirs.tmp))? {
            let path = entry.map_err(failed("cannot read", &dirs.tmp))?.path();
            fs::remove_dir_all(&path).map_err(failed("cannot remove", &path))?;
        }
        Ok(dirs)
    }

    /// Where all snapshots lie.
    pub fn snapshots(&self) -> &Path {
        &self.snapshots
    }

    /// Files of a snapshot, or where its layer is mounted.
    pub fn fs(&self, number: u64) -> PathBuf {
        self.dir(number).join("fs")
    }

    /// The table of `layer` as it is above what this snapshot stands on; only of layers that depend on that. Named by the
    /// layer, so that another layer's is never taken for it.
    pub fn table(&self, number: u64, layer: &LayerKey) -> PathBuf {
        self.dir(number).join(format!("table-{}", layer.0))
    }

    /// Overlayfs's work directory of an active snapshot.
    pub fn work(&self, number: u64) -> PathBuf {
        self.dir(number).join("work")
    }

    fn dir(&self, number: u64) -> PathBuf {
        self.snapshots.join(number.to_string())
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a directory aside; with a work directory for an active snapshot.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn draft(&self, work: bool) -> Result<Draft, Error> {
        let draft = Draft(self.tmp.join(self.next().to_string()));
        make(&draft.0, PRIVATE)?;
        make(&draft.0.join("fs"), FS_MODE)?;
        if work {
            make(&draft.0.join("work"), WORK_MODE)?;
        }
        Ok(draft)
    }

    /// Puts `draft` in place as snapshot `number`. Its root gets the owner that the root of snapshot `parent` has, as
    /// containerd does it.
    ///
    /// # Errors
    /// When the parent's directory is missing or something can't be changed.
    pub fn place(&self, draft: &Draft, number: u64, parent: Option<u64>) -> Result<(), Error> {
        if let Some(parent) = parent {
            let parent = self.fs(parent);
            let owner = fs::symlink_metadata(&parent).map_err(failed("cannot read", &parent))?;
            let path = draft.0.join("fs");
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))
                .map_err(failed("cannot set the owner of", &path))?;
        }
        // Left by a transaction that failed after this very step.
        self.discard(number)?;
        let path = self.dir(number);
        fs::rename(&draft.0, &path).map_err(failed("cannot put in place", &path))
    }

    /// Renames the directory of snapshot `number` into the trash; says whether there was one.
    ///
    /// # Errors
    /// When something is mounted there (deleting would go through the mount), or it can't be renamed.
    pub fn discard(&self, number: u64) -> Result<bool, Error> {
        self.discard_named(&number.to_string())
    }

    fn discard_named(&self, name: &str) -> Result<bool, Error> {
        let path = self.snapshots.join(name);
        if is_mount_point(&path.join("fs")) {
            return Err(Error::Internal(format!("{} still has a mount", path.display())));
        }
        let away = self.trash.join(format!("{name}.{}", self.next()));
        match fs::rename(&path, &away) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("cannot remove", &path)(error)),
        }
    }

    /// Renames every directory away whose number isn't among `numbers`. To be called while no snapshot can be created.
    pub fn discard_orphans(&self, numbers: &HashSet<u64>) -> Result<(), Error> {
        for entry in fs::read_dir(&self.snapshots).map_err(failed("cannot read", &self.snapshots))? {
            let name = entry.map_err(failed("cannot read", &self.snapshots))?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.parse().is_ok_and(|number: u64| numbers.contains(&number)) {
                continue;
            }
            if let Err(error) = self.discard_named(name) {
                tracing::warn!(directory = name, %error, "a directory without a snapshot stays");
            }
        }
        Ok(())
    }

    /// Deletes what is in the trash. May take long.
    pub fn empty_trash(&self) {
        let Ok(entries) = fs::read_dir(&self.trash) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if is_mount_point(&path.join("fs")) {
                tracing::warn!(path = %path.display(), "something is mounted in it: it stays until the next start");
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                // Another call got there first.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be deleted"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").mode() & 0o7777
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_snapshot_gets_containerds_modes_and_its_parents_owner() {
        let root = tempfile::tempdir().expect("tempdir");
        let dirs = Dirs::open(root.path()).expect("dirs");
        dirs.place(&dirs.draft(true).expect("draft"), 1, None).expect("placed");
        std::os::unix::fs::chown(dirs.fs(1), Some(7), Some(8)).expect("chown");
        dirs.place(&dirs.draft(false).expect("draft"), 2, Some(1)).expect("placed");
        assert_eq!((mode(root.path()), mode(dirs.snapshots())), (0o700, 0o700));
        assert_eq!((mode(&dirs.fs(1)), mode(&dirs.work(1)), mode(&dirs.fs(2))), (0o755, 0o711, 0o755));
        let owner = fs::metadata(dirs.fs(2)).expect("metadata");
        assert_eq!((owner.uid(), owner.gid()), (7, 8));
        assert!(!dirs.work(2).exists());
    }

    #[test]
    fn what_isnt_put_in_place_disappears() {
        let root = tempfile::tempdir().expect("tempdir");
        let dirs = Dirs::open(root.path()).expect("dirs");
        let missing_parent = dirs.place(&dirs.draft(true).expect("draft"), 1, Some(9));
        assert!(matches!(missing_parent, Err(Error::Internal(_))), "{missing_parent:?}");
        assert_eq!(names(&root.path().join("tmp")), [""; 0]);
        std::mem::forget(dirs.draft(true).expect("draft")); // as a kill -9 leaves it
        Dirs::open(root.path()).expect("dirs");
        assert_eq!(names(&root.path().join("tmp")), [""; 0]);
    }

    #[test]
    fn orphans_go_and_others_stay() {
        let root = tempfile::tempdir().expect("tempdir");
        let dirs = Dirs::open(root.path()).expect("dirs");
        for number in 1..=3 {
            dirs.place(&dirs.draft(true).expect("draft"), number, None).expect("placed");
        }
        fs::create_dir(dirs.snapshots().join("strange")).expect("mkdir");
        dirs.discard_orphans(&HashSet::from([2])).expect("swept");
        assert_eq!(names(dirs.snapshots()), ["2"]);
        assert_eq!(names(&root.path().join("trash")).len(), 3);
        dirs.empty_trash();
        assert_eq!(names(&root.path().join("trash")), [""; 0]);
        assert!(dirs.discard(2).expect("discarded"));
        assert!(!dirs.discard(2).expect("nothing there"));
    }

    #[test]
    fn only_the_mount_itself_is_a_mount_point() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
        assert!(!is_mount_point(Path::new("/nonexistent")));
    }
}

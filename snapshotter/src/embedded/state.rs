//! The folder of a mount: named by the mounted directory, so that it is found by that; taken by one process; gone when the
//! mount has gone. `mount.json` in it says what is mounted where.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::image::Image;
use super::table;
use crate::Error;
use crate::config;
use crate::root::{self, Root};

/// Where the folders of all mounts lie unless something else is asked for.
pub const DEFAULT_FOLDER: &str = "/var/lib/spandrel/mounts";

/// Hexadecimal digits of the directory's hash in a folder's name: short, for the sockets and mounts below it.
const NAME_LEN: usize = 16;

/// What a file in the folder says about the mount.
const RECORD: &str = "mount.json";

/// Where a process in the background writes its log.
const LOG: &str = "log";

/// How often to look whether a mount's process has ended: nothing else tells, and it takes some 100 ms.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is mounted where, for whoever looks.
#[derive(Debug, Serialize)]
struct Record<'a> {
    /// The directory.
    dir: &'a Path,
    /// The image, as it was asked for.
    reference: &'a str,
    /// Digest of its manifest.
    manifest: &'a str,
    /// The process that serves it.
    pid: u32,
}

/// The folder of one mount.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    dir: PathBuf,
}

impl State {
    /// The folder of a mount at `dir`, whether there is one or not.
    fn locate(folder: &Path, dir: &Path) -> Result<Self, Error> {
        let dir = fs::canonicalize(dir)
            .map_err(|error| Error::InvalidArgument(format!("directory {}: {error}", dir.display())))?;
        let hash: String =
            Sha256::digest(dir.as_os_str().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(&hash[..NAME_LEN]);
        Ok(Self { path, dir })
    }

    /// Takes the folder for a mount at `dir`; what a killed process left in it and at `dir` is taken away.
    ///
    /// # Errors
    /// When `dir` is no directory or has a mount of ours already, or the folder can't be had.
    pub(super) fn open(folder: &Path, dir: &Path) -> Result<(Self, Root), Error> {
        // First: on what a killed process left even `stat` may fail.
        let mut state = Self::locate(folder, dir)?;
        config::check_root(&state.path).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let root = match Root::open(&state.path) {
            Err(Error::FailedPrecondition(text)) if text.contains(root::TAKEN) => {
                let dir = state.dir.display();
                return Err(Error::AlreadyExists(format!(
                    "{dir}: an image of spandrel's; `spandrel unmount {dir}` ends it"
                )));
            }
            root => root?,
        };
        state.path = root.path().to_path_buf();
        state.clean()?;
        if !state.dir.is_dir() {
            state.remove(root);
            return Err(Error::InvalidArgument(format!("{} is no directory", dir.display())));
        }
        Ok((state, root))
    }

    /// The folder of a mount at `dir` that another process has.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(folder: &Path, dir: &Path) -> Result<Self, Error> {
        let state = Self::locate(folder, dir)?;
        if state.path.join(RECORD).exists() {
            return Ok(state);
        }
        Err(Error::NotFound(format!("{}: an image that spandrel mounted", state.dir.display())))
    }

    /// Where the log of a mount at `dir` goes when it is served in the background.
    ///
    /// # Errors
    /// When there is no `dir`.
    pub(super) fn log(folder: &Path, dir: &Path) -> Result<PathBuf, Error> {
        Ok(Self::locate(folder, dir)?.path.join(LOG))
    }

    /// The mounted directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts and deletes what is there of a killed process, whose device died with it.
    fn clean(&self) -> Result<(), Error> {
        for target in table::left_over(&self.path, &self.dir)? {
            rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|error| Error::Internal(format!("unmount {}: {error}", target.display())))?;
        }
        self.empty()
    }

    fn empty(&self) -> Result<(), Error> {
        let failed = |error| Error::Internal(format!("{}: {error}", self.path.display()));
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name();
            if name.is_some_and(|name| name == root::LOCK || name == LOG) {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Says what is mounted, for whoever looks.
    pub(super) fn write(&self, image: &Image) -> Result<(), Error> {
        let record = Record {
            dir: &self.dir,
            reference: &image.reference,
            manifest: image.manifest.as_str(),
            pid: std::process::id(),
        };
        let path = self.path.join(RECORD);
        let json = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string());
        json.and_then(|json| fs::write(&path, json).map_err(|error| error.to_string()))
            .map_err(|error| Error::Internal(format!("{}: {error}", path.display())))
    }

    /// Deletes the folder. What can't be deleted is deleted by the next mount at the same directory.
    pub(super) fn remove(&self, root: Root) {
        let removed = self.empty().and_then(|()| {
            fs::remove_dir_all(&self.path)
                .map_err(|error| Error::Internal(format!("{}: {error}", self.path.display())))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "the folder of the mount stays");
        }
        drop(root); // until here nobody else could have it
    }

    /// Waits until the process that has the folder has removed it.
    pub(super) fn wait_for_end(&self, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        while self.path.join(root::LOCK).exists() {
            if Instant::now() > deadline {
                return Err(Error::Unavailable(format!(
                    "{} is unmounted, but the process that served it still runs ({})",
                    self.dir.display(),
                    self.path.display()
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

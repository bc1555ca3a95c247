//! The database's file: opened again after an error, and with room kept for it, so that a disk that fills up never takes the
//! records with it. What is in it is `store`'s.
//!
//! redb refuses everything after the first write that fails until the file is opened again; and on a full disk it is just the
//! removal of a snapshot that would make room.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Bound, Deref};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::Error;

/// Room behind the file's end that is kept at least, in bytes. A removal rewrites some dozen pages of 4 KiB, and pages are
/// free again two commits later; the file grows by doubling, so that longer files keep as much as they are long.
const MIN_ROOM: u64 = 4 << 20;

/// How often one call opens the file anew when it fails again at once.
const TRIES: usize = 2;

/// redb's many errors, by what its callers can do.
pub(super) fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    match &error {
        redb::Error::Io(io)
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            Error::NoSpace(format!(
                "the snapshot database can't be written: {error}: make room on the root's file system"
            ))
        }
        redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            Error::Unavailable(format!(
                "the snapshot database could not be read or written ({error}); the next call opens it again: look at the disk \
                 of the root if this stays"
            ))
        }
        _ => Error::Internal(format!("the snapshot database failed: {error}")),
    }
}

/// The database.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` where opening it again has failed.
    open: RwLock<Option<Open>>,
}

/// An open database, with whether its file has failed.
#[derive(Debug)]
struct Open {
    redb: redb::Database,
    broken: Arc<AtomicBool>,
}

/// The database while somebody works with it: it isn't closed meanwhile.
pub(super) struct InUse<'a>(RwLockReadGuard<'a, Option<Open>>);

impl Deref for InUse<'_> {
    type Target = redb::Database;

    fn deref(&self) -> &redb::Database {
        &self.0.as_ref().expect("only made of an open one").redb
    }
}

impl Database {
    /// Opens the file `path`, or makes it.
    ///
    /// # Errors
    /// When another process has it open, or it can't be read.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_path_buf(), open: RwLock::new(Some(open(path)?)) })
    }

    /// The database, opened again if its file has failed.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) fn get(&self) -> Result<InUse<'_>, Error> {
        for _ in 0..TRIES {
            let current = self.open.read().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(Open::works) {
                return Ok(InUse(current));
            }
            drop(current);
            let mut current = self.open.write().unwrap_or_else(PoisonError::into_inner);
            if !current.as_ref().is_some_and(Open::works) {
                // It is locked until it is closed.
                drop(current.take());
                *current = Some(open(&self.path)?);
                tracing::warn!(path = %self.path.display(), "the snapshot database had failed and is open again");
            }
        }
        Err(Error::Unavailable(format!("{} fails again and again: look at its disk", self.path.display())))
    }

    /// From now on its file fails, as a bad disk does.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        let current = self.open.read().expect("no test panics while holding it");
        current.as_ref().expect("it is open").broken.store(true, Ordering::Release);
    }
}

impl Open {
    fn works(&self) -> bool {
        !self.broken.load(Ordering::Acquire)
    }
}

fn open(path: &Path) -> Result<Open, Error> {
    let failed = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => Error::FailedPrecondition(format!(
            "{} is open in another process: a daemon with this root is running already",
            path.display()
        )),
        DatabaseError::Storage(error) => match failed(error) {
            Error::Internal(text) => Error::Internal(format!("{} can't be opened: {text}", path.display())),
            error => error,
        },
        error => Error::Internal(format!("{} can't be opened: {error}", path.display())),
    };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| failed(error.into()))?;
    let same = file.try_clone().map_err(|error| failed(error.into()))?;
    let broken = Arc::new(AtomicBool::new(false));
    let backend =
        Backend { inner: FileBackend::new(file).map_err(failed)?, file: same, broken: Arc::clone(&broken) };
    backend.keep_room();
    let redb = redb::Builder::new().create_with_backend(backend).map_err(failed)?;
    Ok(Open { redb, broken })
}

/// The file, with room kept for it, and a note when it fails.
#[derive(Debug)]
struct Backend {
    inner: FileBackend,
    file: File,
    broken: Arc<AtomicBool>,
}

impl Backend {
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        result
    }

    /// Takes the blocks that the file will need next, where there are any: what isn't written yet has none of its own.
    fn keep_room(&self) {
        let Ok(len) = self.inner.len() else { return };
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len + len.max(MIN_ROOM)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => tracing::warn!(%error, "no room can be kept for the snapshot database"),
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.inner.set_len(len))?;
        self.keep_room();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

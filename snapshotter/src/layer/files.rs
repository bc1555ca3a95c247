//! Small files of the daemon: read with a limit, replaced so that a power cut leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use crate::Error;

/// An I/O error on `path`, with what was tried.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let text = format!("{what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace(text),
        io::ErrorKind::NotFound => Error::NotFound(text),
        io::ErrorKind::InvalidData => Error::Corrupt(text),
        _ => Error::Internal(text),
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|e| failed("read", path, &e))
}

/// Writes a file durably: aside, flushed, then renamed to `path`, and the rename flushed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let aside = path.with_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    };
    write().map_err(|e| failed("write", path, &e))
}

/// Flushes the directory that holds `path`, so that a new name in it lasts.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Notes that the directory `dir` was used now.
pub(crate) fn touch(dir: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    futimens(&File::open(dir)?, &times).map_err(io::Error::from)
}

/// Deletes a directory with everything in it; that it isn't there is fine.
pub(crate) fn delete(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("delete", dir, &e)),
        _ => Ok(()),
    }
}

/// Bytes allocated and inodes used by `dir` and everything below it. What vanishes meanwhile isn't counted.
pub(crate) fn allocated(dir: &Path) -> io::Result<(u64, u64)> {
    let (mut size, mut inodes) = (0, 0);
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        size += metadata.blocks() * 512;
        inodes += 1;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok((size, inodes))
}

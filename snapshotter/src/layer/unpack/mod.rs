//! Unpacks a layer into an ordinary directory, as containerd's overlayfs snapshotter would hold it: for the rare layers
//! that a table can't describe (sparse files above all).
//!
//! `header` reads tar headers, `sparse` the maps of sparse files, `place` changes the directory without ever leaving it.

mod header;
mod place;
mod sparse;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::files;
use crate::Error;
use header::{Entry, Kind, Reader, Times};
use place::{Place, Root};

/// Name of the directory that a layer was unpacked into.
pub(super) const DIR: &str = "fs";

/// Where it is unpacked before it is complete.
const DIR_NEW: &str = "fs.new";

/// How much of a file is copied at a time, in bytes.
const COPY_LEN: usize = 1 << 20;

/// Prefix of names that hide something of lower layers.
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything that lower layers have in the directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of names that mean something to AUFS only.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Unpacks the tar in the file `stream`, of `len` bytes, into the directory [`DIR`] in `dir`, and deletes the stream: it is
/// needed no more.
///
/// # Errors
/// [`Error::Corrupt`] when the tar makes no sense or containerd would refuse it too, [`Error::NoSpace`], and
/// [`Error::Unavailable`] when `stop` was cancelled.
pub(super) fn unpack(stream: &Path, len: u64, dir: &Path, stop: &CancellationToken) -> Result<(), Error> {
    let (new, done) = (dir.join(DIR_NEW), dir.join(DIR));
    files::delete(&new)?;
    files::delete(&done)?;
    let result = unpack_into(stream, len, &new, stop);
    if let Err(error) = result {
        files::delete(&new)?;
        return Err(error);
    }
    let flush = || -> io::Result<()> {
        // Nothing of it is trusted by a checksum later on: so all of it has to be on the disk.
        rustix::fs::syncfs(File::open(&new)?)?;
        fs::rename(&new, &done)?;
        files::sync_parent(&done)?;
        fs::remove_file(stream)
    };
    flush().map_err(|e| files::failed("write", &done, &e))
}

/// `error` with what it is about.
pub(super) fn named(error: Error, name: &str) -> Error {
    let text = |what: String| format!("{name}: {what}");
    match error {
        Error::NoSpace(what) => Error::NoSpace(text(what)),
        Error::Corrupt(what) => Error::Corrupt(text(what)),
        Error::Unavailable(what) => Error::Unavailable(text(what)),
        other => Error::Internal(text(other.to_string())),
    }
}

fn unpack_into(stream: &Path, len: u64, dir: &Path, stop: &CancellationToken) -> Result<(), Error> {
    let tar = File::open(stream).map_err(|e| files::failed("open", stream, &e))?;
    let root = Root::create(dir).map_err(|e| files::failed("make", dir, &e))?;
    let mut reader = Reader::new(&tar, len);
    // Making files in a directory changes its times: they are set at the end.
    let mut directories: Vec<(Vec<u8>, Times)> = Vec::new();
    while let Some(entry) = reader.next()? {
        if stop.is_cancelled() {
            return Err(Error::Unavailable("stopped".to_owned()));
        }
        let applied = apply(&root, &tar, &entry, &mut directories);
        applied.map_err(|error| {
            let name = String::from_utf8_lossy(&entry.header.name);
            let what = format!("unpack {name:?}: {error}");
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace(what),
                _ if is_ours(&error) => Error::Internal(what),
                _ => Error::Corrupt(what),
            }
        })?;
    }
    for (name, times) in directories {
        // Something else may be there by now.
        if let Some(place) = root.find(&name).ok().flatten() {
            place.set_times(times).ok();
        }
    }
    Ok(())
}

/// Whether it is the machine's trouble, and not something that the layer asks for.
fn is_ours(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| {
        let code = Errno::from_raw_os_error(code);
        [Errno::IO, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::ROFS, Errno::INTR, Errno::AGAIN]
            .contains(&code)
    })
}

fn apply(root: &Root, tar: &File, entry: &Entry, directories: &mut Vec<(Vec<u8>, Times)>) -> io::Result<()> {
    let header = &entry.header;
    // The root itself is the snapshot's, not the layer's: containerd leaves it alone too.
    let Some(place) = root.make_parents(&header.name)? else { return Ok(()) };
    if place.name() == OPAQUE {
        return place.make_parent_opaque();
    }
    if place.name().starts_with(WHITEOUT_META) {
        return Ok(());
    }
    if let Some(hidden) = place.name().strip_prefix(WHITEOUT) {
        return match hidden {
            b"" | b"." | b".." => Ok(()),
            hidden => {
                let place = place.beside(hidden);
                place.remove()?;
                place.make_whiteout(header)
            }
        };
    }
    let merges = header.kind == Kind::Directory && place.is_directory();
    if !merges {
        place.remove()?;
    }
    match header.kind {
        Kind::Directory if merges => {}
        Kind::Directory => place.make_directory()?,
        Kind::Regular => copy(tar, entry, &place.make_file()?)?,
        Kind::Hardlink => place.link_to(root, &header.linkname)?,
        Kind::Symlink => place.make_symlink(&header.linkname)?,
        Kind::Char | Kind::Block | Kind::Fifo => place.make_node(header)?,
    }
    place.set_owner(header)?;
    place.set_xattrs(&header.xattrs)?;
    if header.kind != Kind::Symlink {
        place.set_mode(header)?;
    }
    let times = header.times();
    place.set_times(times)?;
    if header.kind == Kind::Directory {
        // No more of it than is needed: there may be millions.
        directories.push((header.name.clone(), times));
    }
    Ok(())
}

/// Writes a file's data; what lies between the pieces of a sparse file stays a hole.
fn copy(tar: &File, entry: &Entry, file: &File) -> io::Result<()> {
    let mut buffer = vec![0; COPY_LEN];
    let mut from = entry.data;
    for piece in &entry.pieces {
        let (mut at, mut left) = (piece.offset, piece.len);
        while left > 0 {
            let len = usize::try_from(left).map_or(COPY_LEN, |left| left.min(COPY_LEN));
            tar.read_exact_at(&mut buffer[..len], from)?;
            file.write_all_at(&buffer[..len], at)?;
            let len = len as u64;
            (from, at, left) = (from + len, at + len, left - len);
        }
    }
    file.set_len(entry.header.size)
}

impl Place<'_> {
    /// The name `name` in the same directory.
    fn beside(&self, name: &[u8]) -> Self {
        let mut place = self.clone();
        place.rename(name);
        place
    }
}

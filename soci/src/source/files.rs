//! The files of an image on disk, by their path within it: in a folder, or in a tar archive, which is read where it lies. A tar's
//! names are found once, by reading its headers; what is in the files is the callers'.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::BlobStream;
use super::file::read_range;
use crate::Error;
use crate::index::limit;
use crate::limits::{MAX_ARCHIVE_FILES, MAX_ARCHIVE_HEADERS_LEN, MAX_ARCHIVE_LINKS};

/// The files of an image.
#[derive(Debug, Clone)]
pub(super) enum Files {
    /// Below this folder.
    Folder(PathBuf),
    /// In the archive at this path.
    Archive(PathBuf, Arc<BTreeMap<String, Member>>),
}

/// A member of an archive.
#[derive(Debug, Clone)]
pub(super) enum Member {
    /// Where its bytes lie in the archive.
    File(Range<u64>),
    /// The member that it stands for.
    Link(String),
}

/// Where a file's bytes lie.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    range: Range<u64>,
}

impl Files {
    /// The files of the archive at `path`.
    pub(super) fn archive(path: &Path) -> Result<Self, Error> {
        let failed = |error| failed(path, error);
        let file = File::open(path).map_err(failed)?;
        Ok(Self::Archive(path.to_owned(), Arc::new(members(path, file)?)))
    }

    /// Where they are, for messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Archive(path, _) => path,
        }
    }

    /// Where the bytes of `name` lie; it is a path of plain components.
    pub(super) fn place(&self, name: &str) -> Result<Place, Error> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let found = std::fs::metadata(&path).map_err(|error| failed(&path, error))?;
                if !found.is_file() {
                    // Opening a pipe would wait for ever.
                    let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
                    return Err(failed(&path, error));
                }
                Ok(Place { path, range: 0..found.len() })
            }
            Self::Archive(path, members) => {
                let mut wanted = clean(name);
                for _ in 0..MAX_ARCHIVE_LINKS {
                    match members.get(&wanted) {
                        Some(Member::File(range)) => {
                            return Ok(Place { path: path.clone(), range: range.clone() });
                        }
                        Some(Member::Link(target)) => wanted.clone_from(target),
                        None => break,
                    }
                }
                let text = format!("it has no file {name}");
                Err(failed(path, io::Error::new(io::ErrorKind::NotFound, text)))
            }
        }
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// A whole file of at most `most` bytes.
    pub(super) async fn whole(&self, name: &str, most: u64) -> Result<Bytes, Error> {
        let (files, name) = (self.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let place = files.place(&name)?;
            limit(&format!("length of {name} in {}", files.path().display()), place.len(), most)?;
            let mut bytes = Vec::new();
            place
                .open()
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .map_err(|e| failed(&place.path, e))?;
            Ok(bytes.into())
        });
        read.await.map_err(|error| Error::Worker(error.to_string()))?
    }
}

impl Place {
    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Reads all of it.
    pub(super) fn open(&self) -> io::Result<impl io::Read + use<>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.range.start))?;
        Ok(file.take(self.len()))
    }

    /// A part of it, as it is wanted.
    pub(super) async fn stream(&self, part: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        let (start, end) =
            (self.range.start.saturating_add(part.start), self.range.start.saturating_add(part.end));
        if end > self.range.end || start > end {
            let text = format!("bytes {}..{} are asked for of {}", part.start, part.end, self.len());
            return Err(failed(&self.path, io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        read_range(&self.path, start..end).await
    }
}

/// An archive of which only headers and what belongs to them are read, and so much at most: a name may claim any length.
struct Headers {
    file: File,
    left: u64,
}

impl io::Read for Headers {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = format!("its headers have over {MAX_ARCHIVE_HEADERS_LEN} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let read = self.file.read(&mut buf[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl io::Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The members of a tar, by their cleaned names.
fn members(path: &Path, file: File) -> Result<BTreeMap<String, Member>, Error> {
    let failed = |error| failed(path, error);
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(Headers { file, left: MAX_ARCHIVE_HEADERS_LEN });
    for entry in archive.entries_with_seek().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let kind = entry.header().entry_type();
        let member = match link {
            _ if kind.is_file() => {
                let start = entry.raw_file_position();
                Member::File(start..start.saturating_add(entry.size()))
            }
            Some(target) if kind.is_hard_link() => Member::Link(clean(&target)),
            // A symbolic link is relative to where it is: docker saves a layer once, and points to it from the other image.
            Some(target) if kind.is_symlink() => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Member::Link(clean(&format!("{folder}/{target}")))
            }
            _ => continue,
        };
        members.insert(name, member);
        limit(&format!("number of files in {}", path.display()), members.len() as u64, MAX_ARCHIVE_FILES)?;
    }
    Ok(members)
}

/// A path without `.`, `..` and empty components; `..` doesn't lead above the root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { what: "reading", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("index.json")).status();
        assert!(made.expect("mkfifo runs").success());
        let error = Files::Folder(dir.path().to_owned()).place("index.json").expect_err("a pipe");
        assert!(error.to_string().contains("no regular file"), "{error}");
    }

    #[test]
    fn a_name_that_is_longer_than_any_is_not_read_to_its_end() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        std::fs::write(&path, header.as_bytes()).expect("written");
        // It is all there: zeros that take no room.
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_len((1 << 40) + 4096).expect("a sparse file");
        let error = Files::archive(&path).expect_err("too long");
        assert!(error.to_string().contains("its headers have over"), "{error}");
    }
}

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
use crate::limits::{MAX_ARCHIVE_FILES, MAX_ARCHIVE_LINKS};

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
                let len = std::fs::metadata(&path).map_err(|error| failed(&path, error))?.len();
                Ok(Place { path, range: 0..len })
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

/// The members of a tar, by their cleaned names.
fn members(path: &Path, file: File) -> Result<BTreeMap<String, Member>, Error> {
    let failed = |error| failed(path, error);
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
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

//! An OCI image layout on disk: blobs by digest, and `index.json`. What the entries mean is `store`'s.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use spandrel_registry::manifest::{Annotations, Index};
use spandrel_registry::{Digest, media_type};

use crate::{Error, gojson};

/// Longest `index.json` that is read, in bytes: some ten thousand indexes.
const MAX_INDEX_LEN: u64 = 64 << 20;

/// What the file `oci-layout` says.
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// Mode of files: whoever may use the tool's store may read it, there is nothing secret in it.
const FILE_MODE: u32 = 0o644;

/// A layout in a directory that may not be there yet.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

/// The right to change a layout, until dropped.
#[derive(Debug)]
pub(super) struct Change<'a> {
    layout: &'a Layout,
    _lock: File,
}

impl Layout {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Where files are written before they get their place.
    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// What `index.json` says; nothing when it isn't there.
    pub(super) fn index(&self) -> Result<Index, Error> {
        let path = self.dir.join("index.json");
        let bytes = match read(&path, MAX_INDEX_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                return Ok(Index {
                    schema_version: 2,
                    media_type: Some(media_type::OCI_INDEX.to_owned()),
                    artifact_type: None,
                    manifests: Vec::new(),
                    subject: None,
                    annotations: Annotations::new(),
                    extra: serde_json::Map::new(),
                });
            }
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Store {
            path: self.dir.clone(),
            what: format!(
                "index.json can't be read: {error}; move the directory away, and make the indexes anew with `spandrel create`"
            ),
        })
    }

    /// A blob of at most `limit` bytes, checked against its digest.
    pub(super) fn blob(&self, digest: &Digest, limit: u64) -> Result<Bytes, Error> {
        let bytes = read(&self.blob_path(digest), limit)?;
        let got = match digest.algorithm() {
            "sha256" => Digest::sha256(&bytes),
            // Nothing that was put here has another.
            _ => digest.clone(),
        };
        if got != *digest {
            let what = format!(
                "blob {digest} was changed: its bytes have the digest {got}; remove its index and make it anew"
            );
            return Err(Error::Store { path: self.dir.clone(), what });
        }
        Ok(bytes.into())
    }

    /// Waits until nobody else changes the layout, and makes it where it isn't there.
    pub(super) fn change(&self) -> Result<Change<'_>, Error> {
        let tmp = self.tmp();
        fs::create_dir_all(&tmp).map_err(|error| failed("making", &tmp, error))?;
        let path = self.dir.join(".lock");
        let lock = File::create(&path).map_err(|error| failed("writing", &path, error))?;
        lock.lock().map_err(|error| failed("locking", &path, error))?;
        // Whoever left something here was killed: we have the lock.
        for entry in fs::read_dir(&tmp).map_err(|error| failed("reading", &tmp, error))?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let change = Change { layout: self, _lock: lock };
        let layout = self.dir.join("oci-layout");
        if !layout.exists() {
            change.write(&layout, OCI_LAYOUT)?;
        }
        Ok(change)
    }
}

impl Change<'_> {
    /// Puts a blob in its place, unless it is there.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let path = self.layout.blob_path(digest);
        // Whole when it is there: it was renamed.
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(());
        }
        self.write(&path, bytes)
    }

    /// Removes a blob; that it is gone already is fine.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.layout.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", &path, error)),
            _ => Ok(()),
        }
    }

    /// Writes a new `index.json` in the old one's place.
    pub(super) fn replace_index(&self, index: &Index) -> Result<(), Error> {
        self.write(&self.layout.dir.join("index.json"), &gojson::to_vec(index))
    }

    /// Writes a file so that it is whole or not there, also when the power fails.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(&self.layout.dir);
        let write = || {
            fs::create_dir_all(parent)?;
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(FILE_MODE))
                .tempfile_in(self.layout.tmp())?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(parent)?.sync_all()
        };
        write().map_err(|error| failed("writing", path, error))
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { what, path: path.to_owned(), source }
}

/// A whole file of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes));
    read.map_err(|error| failed("reading", path, error))?;
    crate::index::limit(&format!("length of {}", path.display()), bytes.len() as u64, limit)?;
    Ok(bytes)
}

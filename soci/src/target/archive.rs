//! An OCI image layout in a tar archive as a target of images: one file, named when it is whole.
//!
//! The same image gives the same bytes: blobs have places that were given to them before the first one came, in whatever order they
//! come, and headers say nothing of when and by whom.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use spandrel_registry::{Digest, FetchedManifest};
use tempfile::NamedTempFile;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::layout::{OCI_LAYOUT, copy, failed, listed, named};
use super::{Content, ImageTarget, InMemory, Put, descriptor_of_referrer};
use crate::Error;
use crate::source::blob_path;

/// Length of a block of a tar, in bytes.
const BLOCK: u64 = 512;

/// An archive in the making.
#[derive(Debug)]
pub struct ArchiveTarget {
    path: PathBuf,
    tag: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Takes the place of what is at `path` when it is whole.
    temporary: Option<NamedTempFile>,
    /// Where the next file goes.
    end: u64,
    /// The files' places, by name.
    files: BTreeMap<String, Spot>,
    /// Indexes of version 1.
    referrers: Vec<FetchedManifest>,
}

/// A file's place.
#[derive(Debug, Clone, Copy)]
struct Spot {
    /// Where its header begins, in bytes.
    offset: u64,
    /// Whether somebody writes it, or has.
    taken: bool,
    /// Whether it is whole.
    written: bool,
}

impl State {
    /// The place of a file, which it has already or gets behind all others.
    fn spot(&mut self, name: &str, size: u64) -> &mut Spot {
        let end = &mut self.end;
        self.files.entry(name.to_owned()).or_insert_with(|| {
            let spot = Spot { offset: *end, taken: false, written: false };
            // What a manifest claims may be anything: the write fails then.
            let len = size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
            *end = end.saturating_add(BLOCK).saturating_add(len);
            spot
        })
    }
}

impl ArchiveTarget {
    /// The archive that will be at `path`; `tag` is the image's in it, if any.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn new(path: impl Into<PathBuf>, tag: Option<String>) -> Result<Self, Error> {
        let path = path.into();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // As any other new file: the umask says who may read it.
        let temporary = tempfile::Builder::new()
            .prefix(".tmp-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|error| failed("writing", &path, error))?;
        let state =
            State { temporary: Some(temporary), end: 0, files: BTreeMap::new(), referrers: Vec::new() };
        Ok(Self { path, tag, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: io::Error) -> Error {
        failed("writing", &self.path, error)
    }

    /// Nobody adds to an archive that has its name.
    fn finished(&self) -> Error {
        Error::Worker(format!("{} is finished already", self.path.display()))
    }

    /// Writes a file at its place, unless that was done.
    async fn add(
        &self,
        name: &str,
        digest: Option<&Digest>,
        size: u64,
        content: &dyn Content,
    ) -> Result<Put, Error> {
        let header = header(name, size).map_err(|error| self.failed(error))?;
        let (offset, file) = {
            let mut state = self.lock();
            let spot = state.spot(name, size);
            if spot.taken {
                return Ok(Put::Exists);
            }
            spot.taken = true;
            let offset = spot.offset;
            let file = state.temporary.as_ref().ok_or_else(|| self.finished())?.reopen();
            (offset, file.map_err(|error| self.failed(error))?)
        };
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(offset)).await.map_err(|error| self.failed(error))?;
        file.write_all(header.as_bytes()).await.map_err(|error| self.failed(error))?;
        let len = copy(&mut *content.open().await?, digest, &mut file, &self.path).await?;
        if len != size {
            let what = format!("{name} has {len} bytes, where its manifest says {size}");
            return Err(Error::Image { image: self.name(), what });
        }
        self.lock().spot(name, size).written = true;
        Ok(Put::Sent)
    }

    async fn add_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.add(name, None, size, &InMemory(bytes.into())).await.map(drop)
    }
}

/// The header of a file that anybody could have written at any time.
fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    // A header has no room for the name of a blob with a SHA-512.
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

#[async_trait]
impl ImageTarget for ArchiveTarget {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn expect(&self, blobs: &[(Digest, u64)]) {
        let mut state = self.lock();
        for (digest, size) in blobs {
            state.spot(&blob_path(digest), *size);
        }
    }

    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error> {
        self.add(&blob_path(digest), Some(digest), size, content).await
    }

    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error> {
        let content = InMemory(manifest.bytes.clone());
        self.put_blob(&manifest.digest, manifest.bytes.len() as u64, &content).await
    }

    async fn put_referrer(&self, manifest: &FetchedManifest) -> Result<(), Error> {
        self.put_manifest(manifest).await?;
        self.lock().referrers.push(manifest.clone());
        Ok(())
    }

    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error> {
        self.put_manifest(root).await?;
        let mut entries: Vec<_> = self.lock().referrers.iter().map(descriptor_of_referrer).collect();
        entries.push(named(root, self.tag.as_deref()));
        let mut index = b"{\"schemaVersion\":2}".to_vec();
        for entry in &entries {
            index = listed(&index, entry, |_| false).map_err(|error| Error::Worker(error.to_string()))?;
        }
        self.add_bytes("index.json", index).await?;
        self.add_bytes("oci-layout", OCI_LAYOUT.to_vec()).await?;
        let (temporary, end) = {
            let mut state = self.lock();
            if let Some((name, _)) = state.files.iter().find(|(_, spot)| !spot.written) {
                return Err(Error::Worker(format!("{name} was never put into {}", self.path.display())));
            }
            (state.temporary.take().ok_or_else(|| self.finished())?, state.end)
        };
        // What fills files' last blocks is what was never written: zeros, as the two blocks that end the archive.
        let finish = || {
            temporary.as_file().set_len(end + 2 * BLOCK)?;
            temporary.as_file().sync_all()?;
            temporary.persist(&self.path).map_err(|error| error.error).map(drop)
        };
        finish().map_err(|error| self.failed(error))
    }
}

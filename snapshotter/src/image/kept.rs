//! Manifests and blobs of images (indexes and zTOCs above all) that were fetched once, on the disk by digest: a second
//! image that has some of them, a later pull and a restarted daemon ask the registry for what is new only.
//!
//! Nothing here is needed: what is lost, damaged or driven out is fetched again. So nothing is flushed to the disk, and what
//! is read is checked against its digest. What a registry lists (referrers) changes and isn't kept.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use spandrel_registry::{Digest, FetchedManifest, media_type};
use spandrel_soci::index::Version;
use spandrel_soci::source::{BlobSource, BlobStream, ImageSource};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::Error;
use crate::fetch::blocking;
use crate::layer::files;

/// Name of the directory below the root.
pub(crate) const DIR: &str = "ztocs";

/// Most bytes that are kept: zTOCs have about a hundredth of their layers, so these are of 25 GB of them.
pub(crate) const MAX_KEPT: u64 = 256 << 20;

/// The part of them that a single file may have: a longer one would drive out many others.
const MAX_SHARE: u64 = 8;

/// What a file takes at least, in bytes: a block. So the number of files is bounded, too.
const BLOCK: u64 = 4096;

/// What was fetched once.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    /// Most bytes.
    limit: u64,
    files: Mutex<Files>,
    /// Writes under way.
    tasks: TaskTracker,
}

/// What there is, by the hexadecimal digits of its digest.
#[derive(Debug, Default)]
struct Files {
    by_name: HashMap<String, Kind>,
    /// Names by their last use.
    by_use: BTreeMap<u64, String>,
    /// Bytes on the disk, all together.
    total: u64,
    /// Uses so far.
    uses: u64,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Length in bytes.
    len: u64,
    /// Its last use.
    used: u64,
}

/// What a file of `len` bytes takes on the disk.
fn cost(len: u64) -> u64 {
    len.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Files {
    fn add(&mut self, name: String, len: u64) {
        self.remove(&name);
        self.uses += 1;
        self.total += cost(len);
        self.by_use.insert(self.uses, name.clone());
        self.by_name.insert(name, Kind { len, used: self.uses });
    }

    fn remove(&mut self, name: &str) {
        if let Some(kind) = self.by_name.remove(name) {
            self.by_use.remove(&kind.used);
            self.total -= cost(kind.len);
        }
    }

    /// Its length, if it is there; it was used last now.
    fn touch(&mut self, name: &str) -> Option<u64> {
        let len = self.by_name.get(name)?.len;
        self.add(name.to_owned(), len);
        Some(len)
    }

    /// Takes out what was used longest ago until no more than `limit` bytes are left.
    fn drive_out(&mut self, limit: u64) -> Vec<String> {
        let mut out = Vec::new();
        while self.total > limit
            && let Some((_, name)) = self.by_use.first_key_value()
        {
            let name = name.clone();
            self.remove(&name);
            out.push(name);
        }
        out
    }
}

impl Kept {
    /// What is in `dir`, which is made where it is missing; it may have `limit` bytes.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub(crate) fn open(dir: &Path, limit: u64) -> Result<Arc<Self>, Error> {
        fs::create_dir_all(dir).map_err(|e| files::failed("make", dir, &e))?;
        let mut found = inventory(dir).unwrap_or_else(|error| {
            warn!(dir = %dir.display(), %error, "what was kept of indexes can't be listed");
            Vec::new()
        });
        found.sort();
        let mut files = Files::default();
        for (_, name, len) in found {
            files.add(name, len);
        }
        let out = files.drive_out(limit);
        let kept = Self { dir: dir.to_owned(), limit, files: Mutex::new(files), tasks: TaskTracker::new() };
        // A closed tracker still takes tasks; it can be waited for.
        kept.tasks.close();
        out.iter().for_each(|name| kept.delete(name));
        Ok(Arc::new(kept))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No code panics while holding it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).ok(); // it is as good as gone
    }

    /// What has this digest, if it is here; of exactly `len` bytes, if that is given.
    async fn get(&self, digest: &Digest, len: Option<u64>) -> Option<Bytes> {
        let name = digest.hex();
        let found = self.files().touch(name)?;
        if len.is_some_and(|len| len != found) {
            return None; // whoever says how long it is errs: the registry is to say so
        }
        let (path, wanted) = (self.dir.join(name), digest.clone());
        let read = blocking(move || {
            let bytes = files::read(&path, found)?;
            if !wanted.matches(&bytes) {
                return Err(Error::Corrupt(format!("{} has another digest", path.display())));
            }
            // After a restart it is known, too, what was used last. Where that fails, it is only known worse.
            File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok();
            Ok(bytes)
        });
        match read.await {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                if !matches!(error, Error::NotFound(_)) {
                    warn!(%digest, %error, "what was kept is damaged: it is fetched again");
                }
                self.files().remove(name);
                self.delete(name);
                None
            }
        }
    }

    /// Keeps `bytes`, which have this digest; whoever needs them doesn't wait for it.
    fn put(self: &Arc<Self>, digest: &Digest, bytes: &Bytes) {
        let len = bytes.len() as u64;
        if cost(len) > self.limit / MAX_SHARE || self.files().by_name.contains_key(digest.hex()) {
            return;
        }
        let (this, digest, bytes) = (Arc::clone(self), digest.clone(), bytes.clone());
        self.tasks.spawn_blocking(move || {
            let name = digest.hex();
            if let Err(error) = this.write(name, &bytes) {
                debug!(%digest, %error, "it isn't kept");
                return;
            }
            let out = {
                let mut files = this.files();
                files.add(name.to_owned(), len);
                files.drive_out(this.limit)
            };
            out.iter().for_each(|name| this.delete(name));
        });
    }

    /// Writes a file aside and renames it: under its name there is never half of it, as long as the machine runs.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = {
            let mut files = self.files();
            files.uses += 1; // two may write the same
            self.dir.join(format!("{name}.{}.new", files.uses))
        };
        let done = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, self.dir.join(name)));
        if done.is_err() {
            fs::remove_file(&aside).ok(); // the next start tries again
        }
        done
    }

    /// Waits until everything is written.
    #[cfg(test)]
    pub(crate) async fn written(&self) {
        self.tasks.wait().await;
    }
}

/// Files in `dir` that a digest names, with the time of their last use, their name and their length. Others go.
fn inventory(dir: &Path) -> io::Result<Vec<(SystemTime, String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let is_hex = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let metadata = entry.metadata()?;
        if is_hex && matches!(name.len(), 64 | 128) && metadata.is_file() {
            found.push((metadata.modified()?, name, metadata.len()));
        } else {
            fs::remove_file(entry.path()).ok(); // left by a killed daemon
        }
    }
    Ok(found)
}

/// A source of images, with what was fetched once before it.
#[derive(Debug)]
pub(crate) struct KeptSource {
    source: Arc<dyn ImageSource>,
    kept: Arc<Kept>,
}

impl KeptSource {
    pub(crate) fn new(source: Arc<dyn ImageSource>, kept: Arc<Kept>) -> Self {
        Self { source, kept }
    }
}

/// The media type that a manifest says it has.
fn type_of(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(manifest).ok().and_then(|typed| typed.media_type);
    typed.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned())
}

#[async_trait]
impl ImageSource for KeptSource {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, spandrel_soci::Error> {
        // A tag names now this, now that.
        let Ok(digest) = part.parse::<Digest>() else { return self.source.manifest(part).await };
        if let Some(bytes) = self.kept.get(&digest, None).await {
            return Ok(FetchedManifest { media_type: type_of(&bytes), digest, bytes });
        }
        let fetched = self.source.manifest(part).await?;
        self.kept.put(&digest, &fetched.bytes);
        Ok(fetched)
    }

    async fn referrers(
        &self,
        subject: &Digest,
        version: Version,
    ) -> Result<Vec<Digest>, spandrel_soci::Error> {
        self.source.referrers(subject, version).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, spandrel_soci::Error> {
        if let Some(bytes) = self.kept.get(digest, Some(size)).await {
            return Ok(bytes);
        }
        let bytes = self.source.blob(digest, size).await?;
        self.kept.put(digest, &bytes);
        Ok(bytes)
    }

    async fn find_places(&self, blobs: &[Digest]) {
        self.source.find_places(blobs).await;
    }
}

#[async_trait]
impl BlobSource for KeptSource {
    fn name(&self) -> String {
        self.source.name()
    }

    async fn blob_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Box<dyn BlobStream>, spandrel_soci::Error> {
        self.source.blob_range(digest, range).await
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;

//! The tool's own store of artifacts: an OCI layout directory with the indexes and zTOCs it has built, and which image each
//! index is of. The daemon never reads it.
//!
//! It is what the image specification calls an image layout: `index.json` lists the SOCI indexes, each with its artifact
//! type, platform and three annotations of ours; blobs lie below `blobs/`. Every file is written beside its place, synced and
//! renamed, blobs before what names them: whatever stops the tool, what `index.json` names is there and whole. Those who
//! change it hold a lock; readers don't.

mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use spandrel_registry::Digest;
use spandrel_registry::manifest::{Descriptor, Platform};

use crate::Error;
use crate::build::{BuiltIndex, KnownZtocs};
use crate::index::annotation as index_annotation;
use crate::index::{CONFIG, IndexManifest, LayerZtoc, Version};
use crate::limits::{MAX_MANIFEST_LEN, MAX_PREFETCH_LEN};
use crate::prefetch::Artifact;
use crate::{platform, time};
use layout::Layout;

/// Annotations in `index.json`.
mod annotation {
    /// The image that the index is of, as it was named.
    pub(super) const IMAGE: &str = "dev.spandrel.image.ref";
    /// Digest of the image's manifest.
    pub(super) const IMAGE_DIGEST: &str = "dev.spandrel.image.digest";
    /// When the index was made.
    pub(super) const CREATED: &str = "org.opencontainers.image.created";
}

/// An index in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Digest of the index.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Its version.
    pub version: Version,
    /// The image it is of, as it was named when the index was made.
    pub image: String,
    /// Digest of that image's manifest.
    pub image_digest: Option<Digest>,
    /// What the image is for.
    pub platform: Platform,
    /// When it was made.
    pub created: SystemTime,
}

/// A zTOC in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZtocRecord {
    /// The zTOC, and the layer it is of.
    pub entry: LayerZtoc,
    /// The images whose indexes list it, as they were named.
    pub images: BTreeSet<String>,
}

/// A prefetch artifact in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefetchRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Digest of the layer that it is of. Two layers may have equal artifacts.
    pub layer: String,
    /// When the newest index that lists it was made.
    pub created: SystemTime,
}

/// A store.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
}

impl Store {
    /// The store in `dir`, which is made when something is first put there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { layout: Layout::new(dir.into()) }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.layout.dir()
    }

    /// All indexes, the newest first.
    ///
    /// # Errors
    /// When `index.json` is there and can't be read.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        let mut records: Vec<Record> = self.layout.index()?.manifests.iter().filter_map(record).collect();
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.digest.cmp(&b.digest)));
        Ok(records)
    }

    /// All zTOCs that indexes list, by digest.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn ztocs(&self) -> Result<Vec<ZtocRecord>, Error> {
        let mut ztocs: BTreeMap<Digest, ZtocRecord> = BTreeMap::new();
        for record in self.list()? {
            for entry in self.index(&record.digest)?.1.layers {
                let ztoc = ztocs
                    .entry(entry.ztoc.digest.clone())
                    .or_insert_with(|| ZtocRecord { entry, images: BTreeSet::new() });
                ztoc.images.insert(record.image.clone());
            }
        }
        Ok(ztocs.into_values().collect())
    }

    /// All prefetch artifacts that indexes list, the newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn prefetches(&self) -> Result<Vec<PrefetchRecord>, Error> {
        let mut found: Vec<PrefetchRecord> = Vec::new();
        for record in self.list()? {
            for entry in self.index(&record.digest)?.1.prefetch {
                let layer =
                    entry.annotations.get(index_annotation::LAYER_DIGEST).cloned().unwrap_or_default();
                if !found.iter().any(|other| other.digest == entry.digest && other.layer == layer) {
                    let (digest, size) = (entry.digest, entry.size);
                    found.push(PrefetchRecord { digest, size, layer, created: record.created });
                }
            }
        }
        Ok(found)
    }

    /// A prefetch artifact by its digest.
    ///
    /// # Errors
    /// When it isn't there, or isn't what its digest says.
    pub fn prefetch(&self, digest: &Digest) -> Result<Artifact, Error> {
        Artifact::parse(&self.layout.blob(digest, MAX_PREFETCH_LEN)?)
    }

    /// An index by its digest: its bytes and what they say.
    ///
    /// # Errors
    /// When it isn't there, or isn't what its digest says.
    pub fn index(&self, digest: &Digest) -> Result<(Bytes, IndexManifest), Error> {
        let bytes = self.layout.blob(digest, MAX_MANIFEST_LEN)?;
        let index = IndexManifest::parse(&bytes).map_err(|error| Error::Store {
            path: self.dir().to_owned(),
            what: format!("{digest} is no index: {error}"),
        })?;
        Ok((bytes, index))
    }

    /// A zTOC by its digest.
    ///
    /// # Errors
    /// When it isn't there, or isn't what its digest says.
    pub fn ztoc(&self, digest: &Digest) -> Result<Bytes, Error> {
        self.layout.blob(digest, spandrel_ztoc::limits::MAX_ZTOC_LEN)
    }

    /// An index with all its zTOCs, to be pushed.
    ///
    /// # Errors
    /// When a part isn't there, or isn't what its digest says.
    pub fn load(&self, digest: &Digest) -> Result<BuiltIndex, Error> {
        let (bytes, index) = self.index(digest)?;
        let mut ztocs = BTreeMap::new();
        for blob in index.layers.iter().map(|entry| &entry.ztoc).chain(&index.prefetch) {
            ztocs.insert(blob.digest.clone(), self.ztoc(&blob.digest)?);
        }
        Ok(BuiltIndex { index, bytes, digest: digest.clone(), ztocs, layers: Vec::new() })
    }

    /// Keeps an index and its zTOCs, made at `created` of the manifest `digest` of `image` on `platform`. One that is there
    /// already for this image gets the new time.
    ///
    /// # Errors
    /// When something can't be written; the store is then as it was, but for blobs that nothing names.
    pub fn add(
        &self,
        built: &BuiltIndex,
        image: &str,
        digest: &Digest,
        platform: &Platform,
        created: SystemTime,
    ) -> Result<(), Error> {
        let change = self.layout.change()?;
        for (digest, bytes) in &built.ztocs {
            change.put(digest, bytes)?;
        }
        change.put(&Digest::sha256(CONFIG), CONFIG)?;
        change.put(&built.digest, &built.bytes)?;
        let mut descriptor = built.descriptor();
        descriptor.platform = Some(platform.clone());
        let mut annotate = |name: &str, value: String| descriptor.annotations.insert(name.to_owned(), value);
        annotate(annotation::IMAGE, image.to_owned());
        annotate(annotation::CREATED, time::to_rfc3339(created));
        annotate(annotation::IMAGE_DIGEST, digest.to_string());
        let mut index = self.layout.index()?;
        let image = descriptor.annotations.get(annotation::IMAGE);
        index.manifests.retain(|other| {
            other.digest != descriptor.digest || other.annotations.get(annotation::IMAGE) != image
        });
        index.manifests.push(descriptor);
        change.replace_index(&index)
    }

    /// Forgets the indexes with these digests, and removes the blobs that nothing else in the store needs. Digests of which
    /// there is no index are given back.
    ///
    /// # Errors
    /// When the store can't be read or written. What was forgotten stays forgotten.
    pub fn remove(&self, digests: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, Error> {
        if self.layout.index()?.manifests.is_empty() {
            return Ok(digests.clone());
        }
        let change = self.layout.change()?;
        let mut index = self.layout.index()?;
        let (gone, kept): (Vec<_>, Vec<_>) =
            index.manifests.into_iter().partition(|descriptor| digests.contains(&descriptor.digest));
        index.manifests = kept;
        let needed = self.blobs_of(&index.manifests)?;
        let mut unneeded = self.blobs_of(&gone)?;
        unneeded.retain(|digest| !needed.contains(digest));
        change.replace_index(&index)?;
        for digest in unneeded {
            change.remove(&digest)?;
        }
        let had: BTreeSet<Digest> = gone.into_iter().map(|descriptor| descriptor.digest).collect();
        Ok(digests.difference(&had).cloned().collect())
    }

    /// The blobs that these indexes need. One that can't be read needs only itself: it must be possible to remove it.
    fn blobs_of(&self, indexes: &[Descriptor]) -> Result<BTreeSet<Digest>, Error> {
        let mut blobs = BTreeSet::new();
        for descriptor in indexes {
            blobs.insert(descriptor.digest.clone());
            match self.index(&descriptor.digest) {
                Ok((_, index)) => {
                    blobs.insert(Digest::sha256(CONFIG));
                    let parts = index.layers.into_iter().map(|entry| entry.ztoc).chain(index.prefetch);
                    blobs.extend(parts.map(|part| part.digest));
                }
                Err(error) => tracing::warn!(index = %descriptor.digest, %error, "an index can't be read"),
            }
        }
        Ok(blobs)
    }
}

impl KnownZtocs for Store {
    fn get(&self, layer: &Digest, span_size: u64, build_tool: &str) -> Option<Bytes> {
        let known = self.ztocs().inspect_err(|error| tracing::warn!(%error, "the store can't be read"));
        let fits = |entry: &LayerZtoc| entry.layer == *layer && entry.span_size == Some(span_size);
        known.ok()?.into_iter().filter(|ztoc| fits(&ztoc.entry)).find_map(|ztoc| {
            let bytes = self.ztoc(&ztoc.entry.ztoc.digest).ok()?;
            // The index doesn't say who built a zTOC, and one of another tool isn't the same.
            let (ztoc, _) = spandrel_ztoc::Ztoc::decode_without_windows(&bytes).ok()?;
            (ztoc.build_tool == build_tool.as_bytes()).then_some(bytes)
        })
    }
}

/// What an entry of `index.json` says, or `None` when it isn't one of ours.
fn record(descriptor: &Descriptor) -> Option<Record> {
    let text = |name: &str| descriptor.annotations.get(name);
    let version = [Version::V1, Version::V2]
        .into_iter()
        .find(|version| descriptor.artifact_type.as_deref() == Some(version.artifact_type()))?;
    Some(Record {
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        media_type: descriptor.media_type.clone(),
        version,
        image: text(annotation::IMAGE)?.clone(),
        image_digest: text(annotation::IMAGE_DIGEST).and_then(|digest| digest.parse().ok()),
        platform: descriptor.platform.clone().unwrap_or_else(platform::host),
        created: text(annotation::CREATED)
            .and_then(|created| time::from_rfc3339(created))
            .unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;

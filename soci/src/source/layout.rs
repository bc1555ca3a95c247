//! An OCI image layout as a source of images: a folder, or the same in a tar archive (skopeo's `oci:` and `oci-archive:`,
//! `docker buildx build --output type=oci`, docker save since 25).

use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::manifest::{Descriptor, Index, Manifest};
use spandrel_registry::{Digest, FetchedManifest};

use super::files::Files;
use super::{BlobSource, BlobStream, ImageSource};
use crate::Error;
use crate::index::{Version, limit};
use crate::limits::{MAX_LIST_LEN, MAX_MANIFEST_LEN, MAX_MANIFESTS};

/// Annotation in `index.json`: the tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation in `index.json`: the full name, as containerd and buildkit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image that `index.json` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its tag, where it has one.
    pub tag: Option<String>,
    /// Digest of its manifest or image index.
    pub digest: Digest,
}

/// A layout on disk. `index.json` is read when it is opened, everything else when it is asked for.
#[derive(Debug, Clone)]
pub struct LayoutSource {
    files: Files,
    index: Index,
}

impl LayoutSource {
    /// The layout in the folder `path`.
    ///
    /// # Errors
    /// When there is none, or its `index.json` can't be read.
    pub async fn folder(path: &Path) -> Result<Self, Error> {
        Self::of(Files::Folder(path.to_owned())).await
    }

    /// The layout in the tar archive at `path`.
    ///
    /// # Errors
    /// When there is none, or its `index.json` can't be read.
    pub async fn archive(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let files = tokio::task::spawn_blocking(move || Files::archive(&path)).await;
        Self::of(files.map_err(|error| Error::Worker(error.to_string()))??).await
    }

    /// The layout in these files.
    pub(super) async fn of(files: Files) -> Result<Self, Error> {
        let bytes = files.whole("index.json", MAX_LIST_LEN).await.map_err(|error| {
            if !error.is_not_found() {
                return error;
            }
            image(&files, "it is no OCI image layout: it has no index.json".to_owned())
        })?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| image(&files, format!("its index.json can't be read: {error}")))?;
        limit("number of images in index.json", index.manifests.len() as u64, MAX_MANIFESTS as u64)?;
        Ok(Self { files, index })
    }

    /// The images in it; SOCI indexes and other artifacts are left out.
    pub fn images(&self) -> Vec<Named> {
        let images = self.index.manifests.iter().filter(|entry| entry.artifact_type.is_none());
        images.map(|entry| Named { tag: tag(entry), digest: entry.digest.clone() }).collect()
    }

    /// The image with this tag, or the only one.
    ///
    /// # Errors
    /// When there is none, or there are several and none was asked for.
    pub fn root(&self, tag: Option<&str>) -> Result<Digest, Error> {
        let mut images = self.images();
        if let Some(tag) = tag {
            images.retain(|image| image.tag.as_deref() == Some(tag));
        }
        images.dedup_by(|a, b| a.digest == b.digest);
        match (&images[..], tag) {
            ([image], _) | ([image, ..], Some(_)) => Ok(image.digest.clone()),
            ([], Some(tag)) => {
                Err(Error::NotThere(format!("{}:{tag}; it has: {}", self.name(), self.tags())))
            }
            ([], None) => Err(Error::NotThere(format!("{}: it has no image", self.name()))),
            (_, None) => Err(image(
                &self.files,
                format!(
                    "it has several images: name one by its tag, as in PATH:TAG; it has: {}",
                    self.tags()
                ),
            )),
        }
    }

    fn tags(&self) -> String {
        let names = self.images().into_iter().map(|image| image.tag.unwrap_or(image.digest.to_string()));
        let names: Vec<String> = names.collect();
        if names.is_empty() { "no image at all".to_owned() } else { names.join(", ") }
    }
}

/// The tag of an entry: behind the last colon where it is a full name.
fn tag(entry: &Descriptor) -> Option<String> {
    let name = entry.annotations.get(REF_NAME).or_else(|| entry.annotations.get(CONTAINERD_NAME))?;
    Some(match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag.to_owned(),
        _ => name.clone(),
    })
}

/// Path of a blob within a layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

pub(super) fn image(files: &Files, what: String) -> Error {
    Error::Image { image: files.path().display().to_string(), what }
}

/// A small blob of these files, checked.
pub(super) async fn checked(files: &Files, name: &str, digest: &Digest, most: u64) -> Result<Bytes, Error> {
    let bytes = files.whole(name, most).await?;
    if !digest.matches(&bytes) {
        let got = Digest::sha256(&bytes);
        return Err(image(files, format!("{name} was changed: its bytes have the digest {got}")));
    }
    Ok(bytes)
}

#[async_trait]
impl BlobSource for LayoutSource {
    fn name(&self) -> String {
        self.files.path().display().to_string()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        self.files.place(&blob_path(digest))?.stream(range).await
    }
}

#[async_trait]
impl ImageSource for LayoutSource {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        let digest = match part.parse() {
            Ok(digest) => digest,
            Err(_) => self.root(Some(part))?,
        };
        let bytes = checked(&self.files, &blob_path(&digest), &digest, MAX_MANIFEST_LEN).await?;
        let listed = self.index.manifests.iter().find(|entry| entry.digest == digest);
        let media_type = listed.map(|entry| entry.media_type.clone()).unwrap_or_default();
        Ok(FetchedManifest { media_type, digest, bytes })
    }

    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error> {
        let wanted = Some(version.artifact_type());
        let mut found = Vec::new();
        for entry in self.index.manifests.iter().filter(|entry| entry.artifact_type.as_deref() == wanted) {
            let fetched = self.manifest(entry.digest.as_str()).await?;
            let refers = serde_json::from_slice::<Manifest>(&fetched.bytes)
                .is_ok_and(|manifest| manifest.subject.is_some_and(|other| other.digest == *subject));
            if refers {
                found.push(entry.digest.clone());
            }
        }
        Ok(found)
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.files.has(&blob_path(digest)))
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        checked(&self.files, &blob_path(digest), digest, size).await
    }
}

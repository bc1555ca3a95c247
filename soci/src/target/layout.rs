//! An OCI image layout in a folder as a target of images.
//!
//! Files are written beside their place, synced and renamed, and `index.json` last: whatever stops the tool, what it lists is there
//! and whole. Other images in the folder stay.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use spandrel_registry::{Digest, FetchedManifest, media_type};
use tokio::io::AsyncWriteExt as _;

use super::{Content, ImageTarget, InMemory, Put, descriptor_of, descriptor_of_referrer};
use crate::Error;
use crate::hash::Hasher;
use crate::json::{Members, Place};
use crate::source::{BlobStream, blob_path};
use spandrel_registry::manifest::Descriptor;

/// What the file `oci-layout` says.
pub(super) const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// Members of `index.json` in the specification's order.
const ORDER: [&str; 4] = ["schemaVersion", "mediaType", "manifests", "annotations"];

/// An image in a layout.
#[derive(Debug, Clone)]
pub struct LayoutTarget {
    dir: PathBuf,
    tag: Option<String>,
}

impl LayoutTarget {
    /// The image `tag` of the layout in `dir`, which is made where it isn't there. Without a tag, the image that has none.
    pub fn new(dir: impl Into<PathBuf>, tag: Option<String>) -> Self {
        Self { dir: dir.into(), tag }
    }

    /// Writes `bytes` in the place of what is there.
    async fn replace(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = self.dir.join(name);
        write(&path, None, &mut *InMemory(bytes.into()).open().await?).await
    }

    /// Lists an image or an index of version 1 in `index.json`.
    async fn list(&self, entry: Descriptor, gone: impl Fn(&Descriptor) -> bool + Send) -> Result<(), Error> {
        self.replace("oci-layout", OCI_LAYOUT.to_vec()).await?;
        let path = self.dir.join("index.json");
        let index = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => b"{\"schemaVersion\":2}".to_vec(),
            Err(error) => return Err(failed("reading", &path, error)),
        };
        let index = listed(&index, &entry, gone).map_err(|error| Error::Image {
            image: self.dir.display().to_string(),
            what: format!("its index.json can't be read: {error}"),
        })?;
        self.replace("index.json", index).await
    }
}

/// `index.json` with another entry, without those that are `gone`.
pub(super) fn listed(
    index: &[u8],
    entry: &Descriptor,
    gone: impl Fn(&Descriptor) -> bool,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut members = Members::parse(index)?;
    let mut entries: Vec<Members> = members.read("manifests")?.unwrap_or_default();
    let mut kept = Vec::new();
    for old in entries.drain(..) {
        if !gone(&serde_json::from_slice(&old.to_vec())?) {
            kept.push(old);
        }
    }
    kept.push(Members::parse(&crate::gojson::to_vec(entry))?);
    members.set("mediaType", &media_type::OCI_INDEX, Place::Order(&ORDER));
    members.set("manifests", &kept, Place::Order(&ORDER));
    Ok(members.to_vec())
}

/// The entry of an image in `index.json`.
pub(super) fn named(root: &FetchedManifest, tag: Option<&str>) -> Descriptor {
    let mut entry = descriptor_of(root);
    if let Some(tag) = tag {
        entry.annotations.insert(crate::source::REF_NAME.to_owned(), tag.to_owned());
    }
    entry
}

#[async_trait]
impl ImageTarget for LayoutTarget {
    fn name(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        format!("{}{tag}", self.dir.display())
    }

    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error> {
        let path = self.dir.join(blob_path(digest));
        // Whole when it is there: it was renamed.
        if tokio::fs::metadata(&path).await.is_ok_and(|found| found.len() == size) {
            return Ok(Put::Exists);
        }
        write(&path, Some(digest), &mut *content.open().await?).await?;
        Ok(Put::Sent)
    }

    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error> {
        let content = InMemory(manifest.bytes.clone());
        self.put_blob(&manifest.digest, manifest.bytes.len() as u64, &content).await
    }

    async fn put_referrer(&self, manifest: &FetchedManifest) -> Result<(), Error> {
        self.put_manifest(manifest).await?;
        self.list(descriptor_of_referrer(manifest), |other| other.digest == manifest.digest).await
    }

    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error> {
        self.put_manifest(root).await?;
        let tag = self.tag.as_deref();
        let mine = |other: &Descriptor| {
            let name = other.annotations.get(crate::source::REF_NAME).map(String::as_str);
            other.artifact_type.is_none() && name == tag
        };
        self.list(named(root, tag), mine).await
    }
}

/// Writes a file so that it is whole or not there, also when the power fails; checked where a digest is given.
async fn write(path: &Path, digest: Option<&Digest>, stream: &mut dyn BlobStream) -> Result<(), Error> {
    let failed = |error| failed("writing", path, error);
    let parent = path.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    // As any other new file: the umask says who may read it.
    let temporary = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(failed)?;
    let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(failed)?);
    copy(stream, digest, &mut file, path).await?;
    file.sync_all().await.map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    let folder = tokio::fs::File::open(parent).await.map_err(failed)?;
    folder.sync_all().await.map_err(failed)
}

/// Writes all of a stream to a file, and checks its digest. Gives its length.
pub(super) async fn copy(
    stream: &mut dyn BlobStream,
    digest: Option<&Digest>,
    file: &mut tokio::fs::File,
    path: &Path,
) -> Result<u64, Error> {
    let (mut hasher, mut len) = (digest.map(|digest| Hasher::new(digest.algorithm())), 0);
    while let Some(bytes) = stream.chunk().await? {
        if let Some(hasher) = &mut hasher {
            hasher.update(&bytes);
        }
        len += bytes.len() as u64;
        file.write_all(&bytes).await.map_err(|error| failed("writing", path, error))?;
    }
    file.flush().await.map_err(|error| failed("writing", path, error))?;
    if let (Some(hasher), Some(digest)) = (hasher, digest) {
        let got = hasher.finish();
        if got != digest.as_str() {
            return Err(Error::LayerDigest { layer: digest.to_string(), got });
        }
    }
    Ok(len)
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { what, path: path.to_owned(), source }
}

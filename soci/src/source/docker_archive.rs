//! What `docker save` writes as a source of an image. Its layers are plain tars without a manifest: one is made for them, and they
//! stay as they are, uncompressed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Map;
use spandrel_registry::manifest::{Annotations, Descriptor, Manifest};
use spandrel_registry::{Digest, FetchedManifest, media_type};
use spandrel_ztoc::unpack::LayerFormat;

use super::files::{Files, Place};
use super::layout::{LayoutSource, image};
use super::{BlobSource, BlobStream, ImageSource};
use crate::index::{Version, descriptor, limit};
use crate::limits::{MAX_CONFIG_LEN, MAX_LAYERS, MAX_LIST_LEN};
use crate::{Error, gojson, hash};

/// How many bytes tell a layer's format.
const MAGIC_LEN: usize = 4;

/// An archive with one image.
#[derive(Debug)]
pub struct DockerArchive {
    path: String,
    manifest: FetchedManifest,
    config: (Digest, Bytes),
    layers: BTreeMap<Digest, Place>,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// The part of a configuration that says what its layers are.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl DockerArchive {
    /// The image in the archive at `path`, and what to ask for to get its manifest. An archive that is an OCI layout too (docker's
    /// is since version 25) is read as one, since that has the image's own manifest.
    ///
    /// # Errors
    /// When it is no such archive, has several images, or a layer isn't what the configuration says.
    pub async fn open(path: &Path) -> Result<(Arc<dyn ImageSource>, String), Error> {
        let path = path.to_owned();
        let files = tokio::task::spawn_blocking(move || Files::archive(&path)).await;
        let files = files.map_err(|error| Error::Worker(error.to_string()))??;
        if files.has("oci-layout") && files.has("index.json") {
            let layout = LayoutSource::of(files).await?;
            let root = layout.root(None)?.to_string();
            return Ok((Arc::new(layout), root));
        }
        let archive = Self::read(&files).await?;
        let root = archive.manifest.digest.to_string();
        Ok((Arc::new(archive), root))
    }

    async fn read(files: &Files) -> Result<Self, Error> {
        let bad = |what: String| image(files, what);
        let list = files.whole("manifest.json", MAX_LIST_LEN).await.map_err(|error| {
            let nothing = "it is nothing that docker saved: it has neither manifest.json nor index.json";
            if error.is_not_found() { bad(nothing.to_owned()) } else { error }
        })?;
        let saved: Vec<Saved> = serde_json::from_slice(&list)
            .map_err(|error| bad(format!("its manifest.json can't be read: {error}")))?;
        let [saved] = &saved[..] else {
            let tags = saved.iter().flat_map(|saved| saved.repo_tags.iter().flatten().cloned());
            let tags = tags.collect::<Vec<_>>().join(", ");
            return Err(bad(format!("it has {} images ({tags}): save one at a time", saved.len())));
        };
        limit("number of layers of the image", saved.layers.len() as u64, MAX_LAYERS as u64)?;
        let config = files.whole(&saved.config, MAX_CONFIG_LEN).await?;
        let parsed: Config = serde_json::from_slice(&config)
            .map_err(|error| bad(format!("its configuration {} can't be read: {error}", saved.config)))?;
        if parsed.rootfs.diff_ids.len() != saved.layers.len() {
            let (has, says) = (saved.layers.len(), parsed.rootfs.diff_ids.len());
            return Err(bad(format!(
                "it has {has} layers, and its configuration says that there are {says}"
            )));
        }
        let (mut layers, mut descriptors) = (BTreeMap::new(), Vec::new());
        for (name, diff_id) in saved.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let place = files.place(name)?;
            let reading = place.clone();
            let read = tokio::task::spawn_blocking(move || layer(&reading)).await;
            let read = read.map_err(|error| Error::Worker(error.to_string()))?;
            let layer = read.map_err(|source| Error::File {
                what: "reading",
                path: files.path().to_owned(),
                source,
            })?;
            if layer.media_type == media_type::OCI_LAYER && layer.digest != *diff_id {
                let got = &layer.digest;
                return Err(bad(format!(
                    "its layer {name} was changed: it has the digest {got}, not {diff_id}"
                )));
            }
            layers.insert(layer.digest.clone(), place);
            descriptors.push(layer);
        }
        let config_digest = Digest::sha256(&config);
        let manifest = Bytes::from(gojson::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: descriptor(media_type::OCI_CONFIG, config_digest.clone(), config.len() as u64),
            layers: descriptors,
            subject: None,
            annotations: Annotations::new(),
            extra: Map::new(),
        }));
        Ok(Self {
            path: files.path().display().to_string(),
            manifest: FetchedManifest {
                media_type: media_type::OCI_MANIFEST.to_owned(),
                digest: Digest::sha256(&manifest),
                bytes: manifest,
            },
            config: (config_digest, config),
            layers,
        })
    }
}

/// What a layer is, which only its bytes say.
fn layer(place: &Place) -> std::io::Result<Descriptor> {
    use std::io::Read as _;
    let mut magic = Vec::new();
    place.open()?.take(MAGIC_LEN as u64).read_to_end(&mut magic)?;
    let media_type = match LayerFormat::of_first_bytes(&magic) {
        LayerFormat::Tar => media_type::OCI_LAYER,
        LayerFormat::Gzip => media_type::OCI_LAYER_GZIP,
        LayerFormat::Zstd => media_type::OCI_LAYER_ZSTD,
    };
    let (digest, len) = hash::sha256_of(place.open()?)?;
    Ok(descriptor(media_type, digest, len))
}

#[async_trait]
impl BlobSource for DockerArchive {
    fn name(&self) -> String {
        self.path.clone()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        if *digest == self.config.0 {
            return Ok(Box::new(super::Once::new(self.config.1.clone(), &range)));
        }
        let place = self.layers.get(digest).ok_or_else(|| self.missing(digest.as_str()))?;
        place.stream(range).await
    }
}

impl DockerArchive {
    fn missing(&self, what: &str) -> Error {
        Error::NotThere(format!("{}: {what}", self.path))
    }
}

#[async_trait]
impl ImageSource for DockerArchive {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        if part == self.manifest.digest.as_str() {
            Ok(self.manifest.clone())
        } else {
            Err(self.missing(part))
        }
    }

    async fn referrers(&self, _: &Digest, _: Version) -> Result<Vec<Digest>, Error> {
        Ok(Vec::new())
    }

    async fn blob(&self, digest: &Digest, _: u64) -> Result<Bytes, Error> {
        if *digest == self.config.0 { Ok(self.config.1.clone()) } else { Err(self.missing(digest.as_str())) }
    }
}

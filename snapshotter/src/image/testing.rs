//! An image in memory, for the tests of images and of layers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use spandrel_registry::manifest::Descriptor;
use spandrel_registry::{Digest, ErrorKind, FetchedManifest};
use spandrel_soci::index::{INDEX_V1, IndexManifest, LayerZtoc, PREFETCH, Version, annotation};
use spandrel_soci::source::{BlobSource, BlobStream, ImageSource};

use super::Present;
use crate::layer::LayerRequest;

/// Media type of a layer, gzip.
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A node that has no layer yet.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Present for Nothing {
    fn has_any(&self, _: &Digest) -> bool {
        false
    }

    fn has(&self, _: &Digest, _: &Digest) -> bool {
        false
    }
}

/// A layer as an image lists it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub media_type: &'static str,
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
    /// Its zTOC, if the index is to have one.
    pub ztoc: Option<Vec<u8>>,
    /// What the index lists of it to be prefetched, if anything.
    pub prefetch: Option<Vec<u8>>,
}

impl Listed {
    pub(crate) fn new(media_type: &'static str, blob: &[u8], tar: &[u8], ztoc: Option<&[u8]>) -> Self {
        Self {
            media_type,
            digest: Digest::sha256(blob),
            size: blob.len() as u64,
            diff_id: Digest::sha256(tar),
            ztoc: ztoc.map(<[u8]>::to_vec),
            prefetch: None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    content: BTreeMap<String, Vec<u8>>,
    referrers: Vec<Digest>,
    /// What requests fail with, by their kind.
    failures: BTreeMap<&'static str, ErrorKind>,
    asked: Vec<String>,
    /// Blobs whose places were to be found.
    places: Vec<Digest>,
    /// Whether the registry takes requests and never answers.
    hangs: bool,
}

/// A repository in memory with one image.
#[derive(Debug)]
pub(crate) struct MemoryImage {
    state: Mutex<State>,
    pub manifest: Digest,
    layers: Vec<Listed>,
}

impl MemoryImage {
    /// An image of `layers`, bottom first. Its index is of `version`; none where no layer has a zTOC.
    pub(crate) fn new(layers: Vec<Listed>, version: Version) -> std::sync::Arc<Self> {
        let mut state = State::default();
        let mut put = |bytes: Vec<u8>| {
            let digest = Digest::sha256(&bytes);
            let size = bytes.len() as u64;
            state.content.insert(digest.to_string(), bytes);
            (digest, size)
        };
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = serde_json::to_vec(&json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }))
            .expect("json");
        let (config, config_size) = put(config);
        let listed: Vec<_> = layers
            .iter()
            .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
            "layers": listed,
        });
        let ztocs: Vec<LayerZtoc> = layers
            .iter()
            .filter_map(|layer| {
                let (digest, size) = put(layer.ztoc.clone()?);
                Some(LayerZtoc {
                    layer: layer.digest.clone(),
                    layer_media_type: layer.media_type.to_owned(),
                    ztoc: descriptor("application/octet-stream", &digest, size),
                    span_size: None,
                    disable_xattrs: false,
                })
            })
            .collect();
        let lists = layers.iter().filter_map(|layer| Some((layer, layer.prefetch.clone()?)));
        let lists = lists.map(|(layer, list)| {
            let (digest, size) = put(list);
            let mut list = descriptor(PREFETCH, &digest, size);
            list.annotations.insert(annotation::LAYER_DIGEST.to_owned(), layer.digest.to_string());
            list
        });
        let lists = lists.collect();
        let has_index = !ztocs.is_empty();
        let mut index = IndexManifest {
            version,
            build_tool: "test".to_owned(),
            layers: ztocs,
            prefetch: lists,
            subject: None,
        };
        let mut referrers = Vec::new();
        if has_index && version == Version::V2 {
            let (digest, _) = put(index.to_bytes());
            manifest["annotations"] = json!({ "com.amazon.soci.index-digest": digest });
        }
        let bytes = serde_json::to_vec(&manifest).expect("json");
        let (manifest, size) = put(bytes);
        if has_index && version == Version::V1 {
            index.subject = Some(descriptor("application/vnd.oci.image.manifest.v1+json", &manifest, size));
            referrers.push(put(index.to_bytes()).0);
        }
        state.referrers = referrers;
        std::sync::Arc::new(Self { state: Mutex::new(state), manifest, layers })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests of `kind` (`manifest`, `referrers`, `blob`) fail from now on, or again work.
    pub(crate) fn fail(&self, kind: &'static str, with: Option<ErrorKind>) {
        match with {
            Some(with) => self.state().failures.insert(kind, with),
            None => self.state().failures.remove(kind),
        };
    }

    /// From now on the registry takes requests for manifests and never answers, or does again.
    pub(crate) fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// The index that the manifest names.
    pub(crate) fn index(&self) -> Option<Digest> {
        let manifest = self.state().content[self.manifest.as_str()].clone();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("json");
        manifest["annotations"]["com.amazon.soci.index-digest"].as_str()?.parse().ok()
    }

    /// Replaces the content called `digest` by something else, or takes it away.
    pub(crate) fn put(&self, digest: &Digest, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => self.state().content.insert(digest.to_string(), bytes),
            None => self.state().content.remove(digest.as_str()),
        };
    }

    /// What is called `digest`.
    pub(crate) fn content(&self, digest: &Digest) -> Vec<u8> {
        self.state().content[digest.as_str()].clone()
    }

    /// From now on just `index` refers to the image. What did so far.
    pub(crate) fn refer(&self, index: Option<Digest>) -> Option<Digest> {
        std::mem::replace(&mut self.state().referrers, index.into_iter().collect()).pop()
    }

    /// What was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Blobs whose places were to be found, in order.
    pub(crate) fn places(&self) -> Vec<Digest> {
        self.state().places.clone()
    }

    /// What containerd asks for its layer at `position`.
    pub(crate) fn request(&self, position: usize) -> LayerRequest {
        let chain_id = |upto: usize| {
            self.layers[..upto].iter().fold(String::new(), |below, layer| match below.as_str() {
                "" => layer.diff_id.to_string(),
                _ => Digest::sha256(format!("{below} {}", layer.diff_id).as_bytes()).to_string(),
            })
        };
        let labels = [
            ("containerd.io/snapshot/cri.image-ref", "registry.example/app:1".to_owned()),
            ("containerd.io/snapshot/cri.manifest-digest", self.manifest.to_string()),
            ("containerd.io/snapshot/cri.layer-digest", self.layers[position].digest.to_string()),
        ];
        LayerRequest {
            namespace: "default".to_owned(),
            chain_id: chain_id(position + 1),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            parent: chain_id(position),
        }
    }

    fn get(&self, kind: &'static str, what: &str) -> Result<Bytes, spandrel_soci::Error> {
        let mut state = self.state();
        state.asked.push(format!("{kind} {what}"));
        let error = |kind, message: &str| {
            spandrel_registry::Error { kind, what: format!("GET {what}"), message: message.to_owned() }.into()
        };
        if let Some(with) = state.failures.get(kind) {
            return Err(error(*with, "as told to"));
        }
        let bytes = state.content.get(what).ok_or_else(|| error(ErrorKind::NotFound, "no such thing"))?;
        if Digest::sha256(bytes).as_str() != what {
            return Err(error(ErrorKind::Corrupt, "another digest"));
        }
        Ok(bytes.clone().into())
    }
}

pub(crate) fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    serde_json::from_value(json!({ "mediaType": media_type, "digest": digest, "size": size }))
        .expect("a descriptor")
}

#[async_trait]
impl ImageSource for MemoryImage {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, spandrel_soci::Error> {
        let bytes = self.get("manifest", part)?;
        if self.state().hangs {
            return std::future::pending().await;
        }
        Ok(FetchedManifest { media_type: INDEX_V1.to_owned(), digest: Digest::sha256(&bytes), bytes })
    }

    async fn referrers(&self, _: &Digest, _: Version) -> Result<Vec<Digest>, spandrel_soci::Error> {
        match self.get("referrers", "") {
            Err(spandrel_soci::Error::Registry(error)) if error.kind == ErrorKind::NotFound => {
                Ok(self.state().referrers.clone())
            }
            Err(error) => Err(error),
            Ok(_) => Ok(Vec::new()),
        }
    }

    async fn blob(&self, digest: &Digest, _: u64) -> Result<Bytes, spandrel_soci::Error> {
        self.get("blob", digest.as_str())
    }

    async fn find_places(&self, blobs: &[Digest]) {
        self.state().places.extend_from_slice(blobs);
    }
}

#[async_trait]
impl BlobSource for MemoryImage {
    fn name(&self) -> String {
        "registry.example/app".to_owned()
    }

    async fn blob_range(
        &self,
        _: &Digest,
        _: std::ops::Range<u64>,
    ) -> Result<Box<dyn BlobStream>, spandrel_soci::Error> {
        Err(spandrel_soci::Error::Invalid("layers are read elsewhere".to_owned()))
    }
}

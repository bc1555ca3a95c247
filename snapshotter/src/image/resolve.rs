//! Puts an image together: manifest and configuration (from containerd, else from the registry by digest), its index, and
//! all zTOCs in one burst. Sizes come from the manifest: nothing is asked twice, and there is no HEAD request.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use spandrel_registry::manifest::{Descriptor, Manifest};
use spandrel_registry::{Digest, ErrorKind, Repository};
use spandrel_soci::find::{FindOptions, find_in, ztoc_bytes};
use spandrel_soci::source::ImageSource;
use tracing::{debug, info, warn};

use super::{Content, Image, ImageLayer, ImageOptions, LayerZtoc, Unresolved};
use crate::Error;
use crate::metrics::Metrics;

/// Longest image manifest, in bytes, as registries have it.
const MAX_MANIFEST_LEN: u64 = 4 << 20;

/// Longest image configuration, in bytes: build histories make some 100 KB.
const MAX_CONFIG_LEN: u64 = 8 << 20;

/// Longest zTOC that is taken into memory, in bytes; the largest seen has 16 MB.
const MAX_ZTOC_LEN: u64 = 256 << 20;

/// Longest that all zTOCs of an image are together, in bytes: they are in memory until their layers are made. What goes
/// beyond is left out, and its layers are filled in full.
const MAX_ZTOCS_LEN: u64 = 256 << 20;

/// Most layers of an image that is ours: overlayfs takes 500 lower directories.
const MAX_LAYERS: usize = 500;

/// zTOCs that are fetched at a time: all of nearly every image.
const ZTOCS_AT_ONCE: usize = 32;

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub repository: &'a Repository,
    pub manifest: &'a Digest,
    pub index: Option<&'a Digest>,
    pub namespace: &'a str,
}

/// Why something can't be had from a registry.
#[derive(Debug)]
pub(super) struct Failure {
    class: Class,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It isn't there.
    Absent,
    /// We may not have it.
    Refused,
    /// The registry doesn't answer.
    Unreachable,
    /// It isn't what it should be.
    Corrupt,
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self.class {
            Class::Corrupt => Error::Corrupt(self.text),
            _ => Error::Unavailable(self.text),
        }
    }

    fn reason(&self) -> &'static str {
        match self.class {
            Class::Absent => "absent",
            Class::Refused => "refused",
            Class::Unreachable => "unreachable",
            Class::Corrupt => "corrupt",
        }
    }

    /// Whether asking again later may help.
    fn is_passing(&self) -> bool {
        matches!(self.class, Class::Refused | Class::Unreachable)
    }
}

impl From<spandrel_soci::Error> for Failure {
    fn from(error: spandrel_soci::Error) -> Self {
        let class = match &error {
            spandrel_soci::Error::Registry(error) => match error.kind {
                ErrorKind::NotFound => Class::Absent,
                ErrorKind::Unauthorized => Class::Refused,
                ErrorKind::Corrupt => Class::Corrupt,
                _ => Class::Unreachable,
            },
            error if error.is_not_found() => Class::Absent,
            _ => Class::Corrupt,
        };
        Self { class, text: error.to_string() }
    }
}

/// The part of an image's configuration that matters here.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// Finds everything that is to be known of an image.
pub(super) async fn image(
    source: Arc<dyn ImageSource>,
    content: Option<&Content>,
    options: &ImageOptions,
    metrics: &Metrics,
    wanted: &Wanted<'_>,
) -> Result<Image, Unresolved> {
    let failed = |failure: Failure| Unresolved::Failed(failure.into_error());
    let bytes = manifest(&*source, content, wanted).await.map_err(failed)?;
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
        return Err(Unresolved::Ordinary("manifest-invalid"));
    };
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Unresolved::Ordinary("manifest-layers"));
    }
    // The index is looked for while the configuration is on its way.
    let (config, found) = tokio::join!(
        config(&*source, content, wanted, &manifest.config),
        index(&*source, options, wanted, &bytes)
    );
    let config = config.map_err(failed)?;
    let Ok(config) = serde_json::from_slice::<Config>(&config) else {
        return Err(Unresolved::Ordinary("config-invalid"));
    };
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Unresolved::Ordinary("config-invalid"));
    }
    let found = match found {
        Ok(found) => found,
        Err(failure) if failure.is_passing() => return Err(failed(failure)),
        Err(failure) => {
            warn!(manifest = %wanted.manifest, error = failure.text, "the index can't be used: layers are filled in full");
            metrics.error(if failure.class == Class::Absent { "index-absent" } else { "index-invalid" });
            None
        }
    };
    let wants = |layer: &&spandrel_soci::index::LayerZtoc| {
        manifest.layers.iter().any(|have| have.digest == layer.layer && have.size >= options.min_layer_size)
    };
    let listed = found.iter().flat_map(|found| &found.index.layers).filter(wants);
    let mut ztocs = ztocs(&*source, metrics, listed).await.map_err(failed)?;
    info!(
        repository = %wanted.repository,
        manifest = %wanted.manifest,
        index = found.as_ref().map(|found| found.digest.to_string()),
        layers = manifest.layers.len(),
        ztocs = ztocs.len(),
        "resolved an image"
    );
    let chain_ids = chain_ids(&diff_ids);
    let layers =
        manifest.layers.into_iter().zip(diff_ids).zip(chain_ids).map(|((layer, diff_id), chain_id)| {
            let ztoc = ztocs.get_mut(&layer.digest).map(|(descriptor, bytes)| LayerZtoc {
                descriptor: descriptor.clone(),
                // A layer that is in the image twice is one layer: it asks once.
                bytes: Mutex::new(bytes.take()),
                unfit: AtomicBool::new(false),
            });
            ImageLayer {
                digest: layer.digest,
                size: layer.size,
                media_type: layer.media_type,
                diff_id,
                chain_id,
                ztoc,
            }
        });
    Ok(Image { repository: wanted.repository.clone(), layers: layers.collect(), source })
}

async fn manifest(
    source: &dyn ImageSource,
    content: Option<&Content>,
    wanted: &Wanted<'_>,
) -> Result<Bytes, Failure> {
    if let Some(bytes) = local(content, wanted.namespace, wanted.manifest, MAX_MANIFEST_LEN).await {
        return Ok(bytes);
    }
    Ok(source.manifest(wanted.manifest.as_str()).await?.bytes)
}

async fn config(
    source: &dyn ImageSource,
    content: Option<&Content>,
    wanted: &Wanted<'_>,
    config: &Descriptor,
) -> Result<Bytes, Failure> {
    if config.size > MAX_CONFIG_LEN {
        let text = format!("the configuration of {} has {} bytes", wanted.manifest, config.size);
        return Err(Failure { class: Class::Corrupt, text });
    }
    if let Some(bytes) = local(content, wanted.namespace, &config.digest, MAX_CONFIG_LEN).await {
        return Ok(bytes);
    }
    Ok(source.blob(&config.digest, config.size).await?)
}

/// A blob from containerd's content store, if it has it.
async fn local(content: Option<&Content>, namespace: &str, digest: &Digest, limit: u64) -> Option<Bytes> {
    match content?.read(namespace, digest, limit).await {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            debug!(%digest, error, "asking the registry for it");
            None
        }
    }
}

async fn index(
    source: &dyn ImageSource,
    options: &ImageOptions,
    wanted: &Wanted<'_>,
    manifest: &[u8],
) -> Result<Option<spandrel_soci::find::Found>, Failure> {
    let find = FindOptions { label: wanted.index.cloned(), v1: options.v1, v2: options.v2 };
    Ok(find_in(source, wanted.manifest, manifest, &find).await?)
}

/// The zTOCs that `listed` names, by layer. Those that can't be used are left out: their layers are filled in full.
async fn ztocs(
    source: &dyn ImageSource,
    metrics: &Metrics,
    listed: impl Iterator<Item = &spandrel_soci::index::LayerZtoc>,
) -> Result<HashMap<Digest, (Descriptor, Option<Bytes>)>, Failure> {
    // Two layers have two zTOCs: one that is named for both fits one of them at most. So each is fetched once.
    let (mut layers, mut digests, mut total) = (HashSet::new(), HashSet::new(), 0_u64);
    let mut by_layer: Vec<(&Digest, &Descriptor)> = Vec::new();
    for listed in listed {
        let (layer, descriptor) = (&listed.layer, &listed.ztoc);
        if !layers.insert(layer) {
            continue;
        }
        let sum = total.saturating_add(descriptor.size);
        if sum > MAX_ZTOCS_LEN || !digests.insert(&descriptor.digest) {
            let ztoc = &descriptor.digest;
            warn!(%layer, %ztoc, sum, "a zTOC isn't fetched: the image's are too long, or it is another layer's");
            metrics.error("ztoc-invalid");
            continue;
        }
        total = sum;
        by_layer.push((layer, descriptor));
    }
    let fetches: Vec<_> = by_layer
        .into_iter()
        .map(|(layer, descriptor)| async move {
            match ztoc(source, descriptor).await {
                Ok(bytes) => Ok(Some((layer.clone(), (descriptor.clone(), Some(bytes))))),
                Err(failure) if failure.is_passing() => Err(failure),
                Err(failure) => {
                    let reason = failure.reason();
                    warn!(%layer, ztoc = %descriptor.digest, reason, error = failure.text, "a zTOC can't be used");
                    metrics.error("ztoc-invalid");
                    Ok(None)
                }
            }
        })
        .collect();
    stream::iter(fetches)
        .buffer_unordered(ZTOCS_AT_ONCE)
        .try_filter_map(|found| async move { Ok(found) })
        .try_collect()
        .await
}

/// One zTOC, checked against its digest.
pub(super) async fn ztoc(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Bytes, Failure> {
    if descriptor.size > MAX_ZTOC_LEN {
        let text =
            format!("zTOC {} has {} bytes, the limit is {MAX_ZTOC_LEN}", descriptor.digest, descriptor.size);
        return Err(Failure { class: Class::Corrupt, text });
    }
    Ok(ztoc_bytes(source, descriptor).await?)
}

/// The chain IDs of layers with these diff IDs, as the image specification has them.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.to_string(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()).to_string(),
        };
        chain.push(id);
    }
    chain
}

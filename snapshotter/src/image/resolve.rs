//! Puts an image together: manifest and configuration (from containerd, else from the registry by digest), its index, and
//! all zTOCs in one burst. Beside them the places of all layers are found, which the first reads would wait for. Sizes come
//! from the manifest: nothing is asked twice, there is no HEAD request, and nothing of what the node has is asked for.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use spandrel_registry::manifest::{Descriptor, Manifest};
use spandrel_registry::{Digest, Repository};
use spandrel_soci::find::{FindOptions, find_in, ztoc_bytes};
use spandrel_soci::source::ImageSource;
use tracing::{debug, info, warn};

use super::failure::{Class, Failure};
use super::{Content, Image, ImageLayer, ImageOptions, LayerZtoc, MAX_LAYERS, Present, Unresolved, decide};
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

/// zTOCs that are fetched at a time: all of nearly every image, so that one of a hundred layers takes as many round trips as
/// one of one.
const ZTOCS_AT_ONCE: usize = 128;

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub repository: &'a Repository,
    pub manifest: &'a Digest,
    pub index: Option<&'a Digest>,
    pub namespace: &'a str,
    pub present: &'a dyn Present,
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
    let bytes = manifest(&*source, content, wanted).await?;
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
        return Err(Unresolved::Ordinary("manifest-invalid"));
    };
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Unresolved::Ordinary("manifest-layers"));
    }
    find_places(&source, &manifest, wanted.present);
    // Index and zTOCs don't wait for the configuration.
    let (config, indexed) = tokio::try_join!(
        async { config(&*source, content, wanted, &manifest.config).await.map_err(Unresolved::from) },
        async {
            let found = index(&*source, options, metrics, wanted, &bytes).await?;
            let ztocs =
                ztocs(&*source, options, metrics, wanted.present, &manifest, found.index.as_ref()).await?;
            Ok((found, ztocs))
        }
    )?;
    let Ok(config) = serde_json::from_slice::<Config>(&config) else {
        return Err(Unresolved::Ordinary("config-invalid"));
    };
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Unresolved::Ordinary("config-invalid"));
    }
    let (found, mut ztocs) = indexed;
    let mut lists = lists(found.index.as_ref());
    info!(
        repository = %wanted.repository,
        manifest = %wanted.manifest,
        index = found.index.as_ref().map(|found| found.digest.to_string()),
        layers = manifest.layers.len(),
        ztocs = ztocs.by_layer.len(),
        "resolved an image"
    );
    let chain_ids = chain_ids(&diff_ids);
    let layers =
        manifest.layers.into_iter().zip(diff_ids).zip(chain_ids).map(|((layer, diff_id), chain_id)| {
            let ztoc = ztocs.by_layer.get_mut(&layer.digest).map(|(descriptor, bytes)| LayerZtoc {
                descriptor: descriptor.clone(),
                // A layer that is in the image twice is one layer: it asks once.
                bytes: Mutex::new(bytes.take()),
                unfit: AtomicBool::new(false),
            });
            // A list is of spans: without a zTOC it says nothing.
            let prefetch = ztoc.is_some().then(|| lists.remove(layer.digest.as_str())).flatten();
            ImageLayer {
                prefetch,
                digest: layer.digest,
                size: layer.size,
                media_type: layer.media_type,
                diff_id,
                chain_id,
                ztoc,
            }
        });
    let layers = layers.collect();
    let flaw = Class::sooner(found.flaw, ztocs.flaw);
    Ok(Image { repository: wanted.repository.clone(), layers, flaw, source })
}

/// Has the places of all layers found that the node hasn't and that are ours: lazy or not, they will be read. Nobody waits
/// for it, and it goes on when the image is resolved.
fn find_places(source: &Arc<dyn ImageSource>, manifest: &Manifest, present: &dyn Present) {
    let mut seen = HashSet::new();
    let layers = manifest.layers.iter().filter(|layer| {
        decide::foreign(&layer.media_type).is_none()
            && seen.insert(&layer.digest)
            && !present.has_any(&layer.digest)
    });
    let blobs: Vec<Digest> = layers.map(|layer| layer.digest.clone()).collect();
    if !blobs.is_empty() {
        let source = Arc::clone(source);
        tokio::spawn(async move { source.find_places(&blobs).await });
    }
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

/// What came of looking for the index.
struct FoundIndex {
    index: Option<spandrel_soci::find::Found>,
    /// Why there is none, where that may change.
    flaw: Option<Class>,
}

async fn index(
    source: &dyn ImageSource,
    options: &ImageOptions,
    metrics: &Metrics,
    wanted: &Wanted<'_>,
    manifest: &[u8],
) -> Result<FoundIndex, Failure> {
    let find = FindOptions { label: wanted.index.cloned(), v1: options.v1, v2: options.v2 };
    let found = find_in(source, wanted.manifest, manifest, &find).await.map_err(Failure::from);
    match found {
        Ok(Some(index)) => Ok(FoundIndex { index: Some(index), flaw: None }),
        // Nothing refers to the image, which may change. What the manifest doesn't name it never will.
        Ok(None) => Ok(FoundIndex { index: None, flaw: options.v1.then_some(Class::Absent) }),
        Err(failure) if failure.is_passing() => Err(failure),
        Err(failure) => {
            let class = failure.class.name();
            warn!(manifest = %wanted.manifest, class, error = failure.text, "the index can't be used: layers are filled in full");
            metrics.error(if failure.class == Class::Absent { "index-absent" } else { "index-invalid" });
            Ok(FoundIndex { index: None, flaw: Some(failure.class) })
        }
    }
}

/// zTOCs of an image.
struct FoundZtocs {
    /// By layer; without bytes where the layer is there.
    by_layer: HashMap<Digest, (Descriptor, Option<Bytes>)>,
    /// Why some lack, where that may change.
    flaw: Option<Class>,
}

/// The zTOCs that `found` names for layers of `manifest`. Those that can't be used are left out: their layers are filled in
/// full.
async fn ztocs(
    source: &dyn ImageSource,
    options: &ImageOptions,
    metrics: &Metrics,
    present: &dyn Present,
    manifest: &Manifest,
    found: Option<&spandrel_soci::find::Found>,
) -> Result<FoundZtocs, Failure> {
    let wants = |layer: &&spandrel_soci::index::LayerZtoc| {
        manifest.layers.iter().any(|have| have.digest == layer.layer && have.size >= options.min_layer_size)
    };
    // Two layers have two zTOCs: one that is named for both fits one of them at most. So each is fetched once.
    let (mut layers, mut digests, mut total) = (HashSet::new(), HashSet::new(), 0_u64);
    let mut by_layer: HashMap<Digest, (Descriptor, Option<Bytes>)> = HashMap::new();
    let mut wanted: Vec<(&Digest, &Descriptor)> = Vec::new();
    for listed in found.into_iter().flat_map(|found| &found.index.layers).filter(wants) {
        let (layer, descriptor) = (&listed.layer, &listed.ztoc);
        if !layers.insert(layer) {
            continue;
        }
        if present.has(layer, &descriptor.digest) {
            by_layer.insert(layer.clone(), (descriptor.clone(), None));
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
        wanted.push((layer, descriptor));
    }
    let fetches: Vec<_> = wanted
        .into_iter()
        .map(|(layer, descriptor)| async move {
            match ztoc(source, descriptor).await {
                Ok(bytes) => Ok((layer, Ok((descriptor.clone(), Some(bytes))))),
                Err(failure) if failure.is_passing() => Err(failure),
                Err(failure) => {
                    let class = failure.class.name();
                    warn!(%layer, ztoc = %descriptor.digest, class, error = failure.text, "a zTOC can't be used");
                    metrics.error("ztoc-invalid");
                    Ok((layer, Err(failure.class)))
                }
            }
        })
        .collect();
    let mut flaw = None;
    let mut fetches = stream::iter(fetches).buffer_unordered(ZTOCS_AT_ONCE);
    while let Some((layer, got)) = fetches.try_next().await? {
        match got {
            Ok(ztoc) => drop(by_layer.insert(layer.clone(), ztoc)),
            Err(class) => flaw = Class::sooner(flaw, Some(class)),
        }
    }
    Ok(FoundZtocs { by_layer, flaw })
}

/// Where the lists lie of what is to be prefetched, by layer; of several the first.
fn lists(found: Option<&spandrel_soci::find::Found>) -> HashMap<String, Descriptor> {
    let mut lists = HashMap::new();
    for list in found.into_iter().flat_map(|found| &found.index.prefetch) {
        if let Some(layer) = list.annotations.get(spandrel_soci::index::annotation::LAYER_DIGEST) {
            lists.entry(layer.clone()).or_insert_with(|| list.clone());
        }
    }
    lists
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

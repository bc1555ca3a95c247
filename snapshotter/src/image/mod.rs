//! What is known of an image: its layers, and which of them have a zTOC. Found once per image manifest, at the first
//! layer that containerd asks for, and remembered for a while.
//!
//! `content` reads containerd's content store, `resolve` puts an image together from manifest, configuration and index,
//! `decide` says what each layer is to become. Making layers of it is `layer`'s.

mod content;
mod decide;
mod resolve;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spandrel_registry::manifest::Descriptor;
use spandrel_registry::{Digest, Reference, Repository};
use spandrel_soci::source::ImageSource;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::layer::LayerRequest;
use crate::metrics::Metrics;

pub(crate) use content::Content;
pub(crate) use decide::{Plan, decide};
pub(crate) use resolve::chain_ids;

/// How long a failure to ask a registry answers for the image's lowest layer: a pull begins with that one, and a new pull is
/// to try again.
const FAILURE_MEMORY: Duration = Duration::from_secs(10);

/// How long it answers for the other layers, counted from the last one that asked: each would wait for the registry as long
/// as the first did, with containerd's lock held, and containerd asks for the next only when it has unpacked the one
/// before. Longer than unpacking one takes.
const PULL_MEMORY: Duration = Duration::from_secs(120);

/// Labels that say which layer of which image is meant.
const LABEL_REFERENCE: &str = "containerd.io/snapshot/cri.image-ref";
const LABEL_MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
const LABEL_LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
/// Names an index explicitly.
const LABEL_INDEX: &str = "containerd.io/snapshot/remote/soci.index.digest";

/// One layer of an image.
#[derive(Debug)]
pub(crate) struct ImageLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its length in bytes, as the manifest says.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Digest of its tar, as the image claims.
    pub diff_id: Digest,
    /// What containerd calls the snapshot of this layer on those below.
    pub chain_id: String,
    /// Its zTOC, where the index has one.
    pub ztoc: Option<LayerZtoc>,
}

/// A layer's zTOC.
#[derive(Debug)]
pub(crate) struct LayerZtoc {
    /// Where it lies.
    pub descriptor: Descriptor,
    /// Its bytes, until the layer was made of them.
    bytes: Mutex<Option<Bytes>>,
    /// Whether it turned out not to fit its layer.
    unfit: AtomicBool,
}

impl LayerZtoc {
    /// It doesn't fit the layer: nobody is to try again.
    pub(crate) fn reject(&self) {
        self.unfit.store(true, Ordering::Relaxed);
    }

    /// The layer is there already: its bytes aren't needed any more.
    pub(crate) fn forget_bytes(&self) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether it may be used.
    pub(crate) fn is_usable(&self) -> bool {
        !self.unfit.load(Ordering::Relaxed)
    }
}

/// An image.
#[derive(Debug)]
pub(crate) struct Image {
    /// Where it lies.
    pub repository: Repository,
    /// Its layers, bottom first.
    pub layers: Vec<ImageLayer>,
    source: Arc<dyn ImageSource>,
}

impl Image {
    /// The place of the layer that `request` means, or why there is none.
    pub(crate) fn position(&self, request: &LayerRequest) -> Result<usize, &'static str> {
        let position = self.layers.iter().position(|layer| layer.chain_id == request.chain_id);
        let position = position.ok_or("chain-id")?;
        match request.labels.get(LABEL_LAYER) {
            Some(digest) if *digest == self.layers[position].digest.as_str() => Ok(position),
            _ => Err("layer-digest"),
        }
    }

    /// The bytes of a layer's zTOC, checked against its digest. They are handed out once without asking the registry.
    ///
    /// # Errors
    /// When they have to be fetched again and can't.
    pub(crate) async fn ztoc_bytes(&self, ztoc: &LayerZtoc) -> Result<Bytes, Error> {
        let kept = ztoc.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(bytes) => Ok(bytes),
            None => Ok(resolve::ztoc(&*self.source, &ztoc.descriptor)
                .await
                .map_err(resolve::Failure::into_error)?),
        }
    }
}

/// Why there is no image.
#[derive(Debug, Clone)]
pub(crate) enum Unresolved {
    /// containerd is to deal with it; the reason is for the metric.
    Ordinary(&'static str),
    /// It can't be known now.
    Failed(Error),
}

/// Which image is meant: two hosts or repositories may have different indexes for one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    repository: Repository,
    manifest: Digest,
    index: Option<Digest>,
}

/// Where images are asked for; tests put doubles in its place.
pub(crate) type ImageSources = Box<dyn Fn(&Repository) -> Arc<dyn ImageSource> + Send + Sync>;

/// How images are looked for.
pub(crate) struct ImageOptions {
    /// Whether indexes of version 1 are used.
    pub v1: bool,
    /// Whether indexes of version 2 are used.
    pub v2: bool,
    /// Layers of fewer bytes need no zTOC.
    pub min_layer_size: u64,
    /// Longest that an image is looked for.
    pub deadline: Duration,
    /// How long an image is remembered after its last use, and at most since it was found.
    pub memory: Duration,
}

/// The images that were asked for lately.
pub(crate) struct Images {
    sources: ImageSources,
    content: Option<Content>,
    options: ImageOptions,
    metrics: Arc<Metrics>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("content", &self.content).finish_non_exhaustive()
    }
}

/// What came of looking for an image.
type Resolution = Result<Arc<Image>, Unresolved>;

/// One image; its lock is held while it is looked for, so that it is looked for once.
#[derive(Debug)]
struct Slot {
    state: tokio::sync::Mutex<Option<(Resolution, Instant)>>,
    used: Mutex<Instant>,
}

impl Images {
    /// No image is known yet.
    pub(crate) fn new(
        sources: ImageSources,
        content: Option<Content>,
        options: ImageOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { sources, content, options, metrics, slots: Mutex::default() }
    }

    /// The image that `request` is about. Whoever asks for one that is being looked for waits for that.
    ///
    /// # Errors
    /// See [`Unresolved`].
    pub(crate) async fn resolve(&self, request: &LayerRequest) -> Result<Arc<Image>, Unresolved> {
        let key = key(request)?;
        let slot = self.slot(&key);
        let mut state = slot.state.lock().await;
        if let Some((result, since)) = &mut *state {
            let begins = request.parent.is_empty();
            let fresh = match result {
                Ok(_) | Err(Unresolved::Ordinary(_)) => self.options.memory,
                Err(Unresolved::Failed(_)) if begins => FAILURE_MEMORY,
                Err(Unresolved::Failed(_)) => PULL_MEMORY,
            };
            if since.elapsed() < fresh {
                if !begins && matches!(result, Err(Unresolved::Failed(_))) {
                    *since = Instant::now();
                }
                return result.clone();
            }
        }
        let result = self.look_for(&key, &request.namespace).await;
        if let Err(Unresolved::Failed(error)) = &result {
            warn!(repository = %key.repository, manifest = %key.manifest, %error, "the image can't be resolved for now");
        }
        *state = Some((result.clone(), Instant::now()));
        result
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        // No code panics while holding it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of `key`; those that nobody has used for long go.
    fn slot(&self, key: &Key) -> Arc<Slot> {
        let now = Instant::now();
        let mut slots = self.slots();
        slots.retain(|_, slot| {
            let used = *slot.used.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::strong_count(slot) > 1 || now.duration_since(used) < self.options.memory
        });
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            Arc::new(Slot { state: tokio::sync::Mutex::new(None), used: Mutex::new(now) })
        });
        *slot.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Arc::clone(slot)
    }

    async fn look_for(&self, key: &Key, namespace: &str) -> Result<Arc<Image>, Unresolved> {
        let source = (self.sources)(&key.repository);
        let wanted = resolve::Wanted {
            repository: &key.repository,
            manifest: &key.manifest,
            index: key.index.as_ref(),
            namespace,
        };
        let found = resolve::image(source, self.content.as_ref(), &self.options, &self.metrics, &wanted);
        match tokio::time::timeout(self.options.deadline, found).await {
            Ok(found) => found.map(Arc::new),
            Err(_) => Err(Unresolved::Failed(Error::Unavailable(format!(
                "image {}@{}: its registry has not sent manifest and index within {:?}: look at the way to the registry, or \
                 allow more time (fetch.resolve_timeout)",
                key.repository, key.manifest, self.options.deadline
            )))),
        }
    }
}

fn key(request: &LayerRequest) -> Result<Key, Unresolved> {
    let label = |name: &str| request.labels.get(name).map(String::as_str).unwrap_or_default();
    let reference: Reference = label(LABEL_REFERENCE).parse().map_err(|error| {
        warn!(%error, "an image that containerd pulls has a reference that can't be read");
        Unresolved::Ordinary("image-reference")
    })?;
    let manifest = label(LABEL_MANIFEST).parse().map_err(|_| Unresolved::Ordinary("manifest-digest"))?;
    let index = match label(LABEL_INDEX) {
        "" => None,
        text => Some(text.parse().map_err(|_| Unresolved::Ordinary("index-digest"))?),
    };
    Ok(Key { repository: reference.repository, manifest, index })
}

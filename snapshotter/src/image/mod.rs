//! What is known of an image: its layers, and which of them have a zTOC. Found once per image manifest, at the first
//! layer that containerd asks for, and remembered for a while.
//!
//! `content` reads containerd's content store, `resolve` puts an image together from manifest, configuration and index,
//! `kept` has on the disk what was fetched of that once, `failure` says how long a failure is believed, `decide` what each
//! layer is to become. Making layers of it is `layer`'s.

mod content;
mod decide;
mod failure;
mod kept;
mod resolve;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spandrel_registry::manifest::Descriptor;
use spandrel_registry::{Digest, Reference, Repository};
use spandrel_soci::prefetch::{Artifact, SpanRange};
use spandrel_soci::source::ImageSource;
use tokio::time::Instant;
use tracing::warn;

use crate::Error;
use crate::layer::LayerRequest;
use crate::metrics::Metrics;

pub(crate) use content::Content;
pub(crate) use decide::{Plan, decide};
use failure::{Class, Failure};
use kept::KeptSource;
pub(crate) use kept::{DIR as KEPT_DIR, Kept, MAX_KEPT};
pub(crate) use resolve::chain_ids;

/// How long a failure answers for further layers of the pull that met it, counted from the last one that asked: each would
/// wait for the registry as long as the first did, with containerd's lock held, and containerd asks for the next only when
/// it has unpacked the one before. Longer than unpacking one takes. A new pull goes by the failure's class.
const PULL_MEMORY: Duration = Duration::from_secs(120);

/// Most layers of an image that is ours: overlayfs takes 500 lower directories.
const MAX_LAYERS: usize = 500;

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
    /// Where the list lies of what is to be prefetched of it, where the index has one.
    pub prefetch: Option<Descriptor>,
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
    /// Why it has no index, or lacks a zTOC, where that may change.
    flaw: Option<Class>,
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
            None => Ok(resolve::ztoc(&*self.source, &ztoc.descriptor).await.map_err(Failure::into_error)?),
        }
    }
}

impl Image {
    /// What is to be prefetched of a layer: runs of spans, by the list at `descriptor`.
    ///
    /// # Errors
    /// When it can't be had; [`Error::Corrupt`] when it is no such list.
    pub(crate) async fn prefetch_list(&self, descriptor: &Descriptor) -> Result<Vec<SpanRange>, Error> {
        let fetched = self.source.blob(&descriptor.digest, descriptor.size).await;
        let bytes = fetched.map_err(|error| Failure::from(error).into_error())?;
        let list = Artifact::parse(&bytes);
        list.map(|list| list.spans).map_err(|error| Error::Corrupt(error.to_string()))
    }
}

/// Why there is no image.
#[derive(Debug, Clone)]
pub(crate) enum Unresolved {
    /// containerd is to deal with it; the reason is for the metric.
    Ordinary(&'static str),
    /// It can't be known now.
    Failed(Class, Error),
}

impl From<Failure> for Unresolved {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.class, failure.into_error())
    }
}

/// What of an image's layers this node has already.
pub(crate) trait Present: Send + Sync {
    /// Whether it has the layer in any state, so that its blob needn't be looked for.
    fn has_any(&self, layer: &Digest) -> bool;

    /// Whether it has the layer as this zTOC describes it, or all of it, so that the zTOC isn't needed.
    fn has(&self, layer: &Digest, ztoc: &Digest) -> bool;
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
    kept: Option<Arc<Kept>>,
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
    state: tokio::sync::Mutex<Option<Known>>,
    used: Mutex<Instant>,
}

/// What came of looking for an image, and who was told.
#[derive(Debug)]
struct Known {
    result: Resolution,
    since: Instant,
    /// When it was last asked for.
    asked: Instant,
    /// Chain IDs of the layers that were asked for.
    layers: HashSet<String>,
}

impl Known {
    fn new(result: Resolution, layer: &str) -> Self {
        let now = Instant::now();
        Self { result, since: now, asked: now, layers: HashSet::from([layer.to_owned()]) }
    }

    /// Whether it answers `request`, too; what was found without a flaw does so for `memory`.
    fn answers(&mut self, request: &LayerRequest, memory: Duration) -> bool {
        let flaw = match &self.result {
            Ok(image) => image.flaw,
            Err(Unresolved::Ordinary(_)) => None,
            Err(Unresolved::Failed(class, _)) => Some(*class),
        };
        let limit = flaw.map_or(memory, |class| class.memory().min(memory));
        // A pull asks for each layer once, the lowest first: who asks for that one, or again, is a new pull.
        let goes_on = flaw.is_some()
            && !request.parent.is_empty()
            && self.layers.len() < MAX_LAYERS
            && self.layers.insert(request.chain_id.clone());
        let answers = self.since.elapsed() < limit || (goes_on && self.asked.elapsed() < PULL_MEMORY);
        self.asked = Instant::now();
        answers
    }
}

impl Images {
    /// No image is known yet.
    pub(crate) fn new(
        sources: ImageSources,
        content: Option<Content>,
        options: ImageOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { sources, content, kept: None, options, metrics, slots: Mutex::default() }
    }

    /// What is fetched by digest is kept there, and looked for there first.
    pub(crate) fn keeping(self, kept: Arc<Kept>) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// The image that `request` is about; zTOCs are fetched for layers that `present` doesn't have. Whoever asks for one that
    /// is being looked for waits for that.
    ///
    /// # Errors
    /// See [`Unresolved`].
    pub(crate) async fn resolve(
        &self,
        request: &LayerRequest,
        present: &dyn Present,
    ) -> Result<Arc<Image>, Unresolved> {
        let key = key(request)?;
        let slot = self.slot(&key);
        let mut state = slot.state.lock().await;
        if let Some(known) = &mut *state
            && known.answers(request, self.options.memory)
        {
            return known.result.clone();
        }
        let result = self.look_for(&key, &request.namespace, present).await;
        if let Err(Unresolved::Failed(class, error)) = &result {
            let class = class.name();
            warn!(repository = %key.repository, manifest = %key.manifest, class, %error, "the image can't be resolved for now");
        }
        *state = Some(Known::new(result.clone(), &request.chain_id));
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

    async fn look_for(
        &self,
        key: &Key,
        namespace: &str,
        present: &dyn Present,
    ) -> Result<Arc<Image>, Unresolved> {
        let mut source = (self.sources)(&key.repository);
        if let Some(kept) = &self.kept {
            source = Arc::new(KeptSource::new(source, Arc::clone(kept)));
        }
        let wanted = resolve::Wanted {
            repository: &key.repository,
            manifest: &key.manifest,
            index: key.index.as_ref(),
            namespace,
            present,
        };
        let found = resolve::image(source, self.content.as_ref(), &self.options, &self.metrics, &wanted);
        match tokio::time::timeout(self.options.deadline, found).await {
            Ok(found) => found.map(Arc::new),
            Err(_) => Err(Unresolved::from(Failure {
                class: Class::Unreachable,
                text: format!(
                    "image {}@{}: its registry has not sent manifest and index within {:?}: look at the way to the registry, or \
                     allow more time (fetch.resolve_timeout)",
                    key.repository, key.manifest, self.options.deadline
                ),
            })),
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

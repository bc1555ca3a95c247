//! Builds the zTOCs of an image's layers, all at once and in one pass each, and the index manifest that lists them.
//!
//! How one layer is indexed is `spandrel_ztoc::build`'s; where the results go is the caller's.

mod layer;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;
use tokio::sync::Semaphore;

pub use report::{LayerReport, Outcome, Skip};

use crate::Error;
use crate::image::Image;
use crate::index::{IndexManifest, LayerZtoc, PREFETCH, Version, ZTOC, annotation, descriptor};
use crate::prefetch::{self, Layer, Wanted};
use crate::source::ImageSource;

/// Smallest layer that gets a zTOC, in bytes as compressed: 10 MiB, as soci has it. Below, one GET of the whole layer is
/// as quick as the first range of it.
pub const DEFAULT_MIN_LAYER_SIZE: u64 = 10 << 20;

/// Memory for the layers that are indexed at once, in bytes: enough for as many layers of a GB as a small CI machine has cores.
pub const DEFAULT_MEMORY: u64 = 512 << 20;

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Version of the index manifest.
    pub version: Version,
    /// Bytes of stream after which a span ends at the next block boundary; not 0.
    pub span_size: u64,
    /// Smallest layer that gets a zTOC, in bytes as compressed.
    pub min_layer_size: u64,
    /// Whether layers that have neither extended attributes nor opaque directories are marked in the index.
    pub hint_xattrs: bool,
    /// The build tool identifier in zTOCs and index.
    pub build_tool: String,
    /// How many layers are worked on at once. Indexing one takes a core.
    pub parallel: NonZeroUsize,
    /// How much memory they may take, in bytes, by an estimate from their length. One layer is always worked on.
    pub memory: u64,
    /// Files whose spans are listed for prefetching.
    pub prefetch: Wanted,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            version: Version::V1,
            span_size: spandrel_ztoc::DEFAULT_SPAN_SIZE,
            min_layer_size: DEFAULT_MIN_LAYER_SIZE,
            hint_xattrs: false,
            build_tool: spandrel_ztoc::BUILD_TOOL.to_owned(),
            parallel: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory: DEFAULT_MEMORY,
            prefetch: Wanted::default(),
        }
    }
}

/// What memory is counted in, in bytes.
const MEMORY_UNIT: u64 = 1 << 20;

/// Most units that are counted: a TiB.
const MAX_UNITS: usize = 1 << 20;

/// What a layer takes besides its zTOC, in bytes: pieces on their way in and out, and its table of contents.
const BASE_MEMORY: u64 = 8 << 20;

/// What is told while it is going on.
#[derive(Debug, Clone)]
pub enum BuildEvent {
    /// Work on a layer begins.
    Start {
        /// Its digest.
        layer: Digest,
        /// Its length in bytes.
        size: u64,
    },
    /// So many more bytes of a layer have arrived.
    Bytes {
        /// Its digest.
        layer: Digest,
        /// How many.
        len: u64,
    },
    /// A layer is done or was skipped.
    Done(LayerReport),
    /// A prefetch artifact was made.
    Prefetch {
        /// Digest of the layer.
        layer: Digest,
        /// Digest of the artifact.
        artifact: Digest,
    },
    /// A file that is to be prefetched is in no layer that was indexed; as it was named.
    Missing(String),
}

/// Who is told. Called from several tasks at once, and must not wait.
pub type Tell = Arc<dyn Fn(BuildEvent) + Send + Sync>;

/// zTOCs that were built before, by layer, span size and build tool.
pub trait KnownZtocs: Send + Sync {
    /// The zTOC of `layer` that the same options gave, if it is kept.
    fn get(&self, layer: &Digest, span_size: u64, build_tool: &str) -> Option<Bytes>;

    /// Keeps a zTOC that was just built, for the next build. That it can't is no failure.
    fn keep(&self, _layer: &Digest, _span_size: u64, _build_tool: &str, _ztoc: &Bytes) {}
}

/// No zTOCs: everything is built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl KnownZtocs for Nothing {
    fn get(&self, _: &Digest, _: u64, _: &str) -> Option<Bytes> {
        None
    }
}

/// A built index, ready to be kept or pushed.
#[derive(Debug, Clone)]
pub struct BuiltIndex {
    /// What it says.
    pub index: IndexManifest,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// The zTOCs and prefetch artifacts that it lists.
    pub ztocs: BTreeMap<Digest, Bytes>,
    /// What became of each layer of the image, in its order.
    pub layers: Vec<LayerReport>,
}

impl BuiltIndex {
    /// An index of `version` from its parts.
    pub fn new(index: IndexManifest, ztocs: BTreeMap<Digest, Bytes>, layers: Vec<LayerReport>) -> Self {
        let bytes = Bytes::from(index.to_bytes());
        Self { digest: Digest::sha256(&bytes), index, bytes, ztocs, layers }
    }

    /// The same of version 1 for another manifest of the image, which it refers to.
    pub fn referring_to(&self, manifest: Descriptor) -> Self {
        let index = IndexManifest { version: Version::V1, subject: Some(manifest), ..self.index.clone() };
        Self::new(index, self.ztocs.clone(), self.layers.clone())
    }

    /// Its descriptor: media type, digest, size and artifact type.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = descriptor(
            spandrel_registry::media_type::OCI_MANIFEST,
            self.digest.clone(),
            self.bytes.len() as u64,
        );
        descriptor.artifact_type = Some(self.index.version.artifact_type().to_owned());
        descriptor
    }
}

/// Indexes an image: a zTOC for each layer that is large enough and can have one, and a manifest that lists them.
///
/// A layer that no zTOC can be built for is skipped and reported; it is filled in full by whoever mounts the image. A
/// layer whose bytes aren't what its digest says is an error: nothing that was read of it can be trusted.
///
/// # Errors
/// When a layer can't be had, or none got a zTOC ([`Error::EmptyIndex`]).
pub async fn build(
    source: Arc<dyn ImageSource>,
    image: &Image,
    options: &BuildOptions,
    known: &dyn KnownZtocs,
    tell: Tell,
) -> Result<BuiltIndex, Error> {
    let mut seen = BTreeSet::new();
    let layers: Vec<&Descriptor> =
        image.manifest.layers.iter().filter(|layer| layer.media_type != PREFETCH).collect();
    // A layer may be in an image twice; it is worked on once.
    let distinct = layers.iter().filter(|layer| seen.insert(layer.digest.clone()));
    let budget =
        Semaphore::new(usize::try_from(options.memory / MEMORY_UNIT).unwrap_or(0).clamp(1, MAX_UNITS));
    let (budget, most) = (&budget, budget.available_permits());
    let work = distinct.map(|layer| {
        let (source, tell, layer) = (Arc::clone(&source), Arc::clone(&tell), (*layer).clone());
        async move {
            let units = usize::try_from(memory(layer.size, options.span_size) / MEMORY_UNIT).unwrap_or(most);
            // Not more than there is: a layer that takes it all is worked on alone. It is never closed.
            let units = u32::try_from(units.clamp(1, most)).unwrap_or(1);
            let _permit = budget.acquire_many(units).await;
            let done = layer::index(source, &layer, options, known, &tell).await?;
            Ok::<_, Error>((layer.digest, done))
        }
    });
    // Collected first: what is left of the iterator would make the future not Send.
    let work: Vec<_> = work.collect();
    let done: BTreeMap<Digest, layer::Done> =
        futures_util::stream::iter(work).buffer_unordered(options.parallel.get()).try_collect().await?;

    let (mut entries, mut ztocs, mut reports) = (Vec::new(), BTreeMap::new(), Vec::new());
    for layer in layers {
        // Every layer was worked on, since no error came.
        let Some(done) = done.get(&layer.digest) else { continue };
        reports.push(LayerReport { outcome: done.outcome.clone(), ..LayerReport::new(layer) });
        let Some(bytes) = &done.ztoc else { continue };
        let digest = Digest::sha256(bytes);
        entries.push(LayerZtoc {
            layer: layer.digest.clone(),
            layer_media_type: layer.media_type.clone(),
            ztoc: descriptor(ZTOC, digest.clone(), bytes.len() as u64),
            span_size: Some(options.span_size),
            disable_xattrs: options.hint_xattrs && has_no_xattrs(bytes),
        });
        ztocs.insert(digest, bytes.clone());
    }
    if entries.is_empty() {
        return Err(Error::EmptyIndex);
    }
    let prefetch = list_prefetch(&entries, &mut ztocs, &options.prefetch, &tell)?;
    let index = IndexManifest {
        version: options.version,
        build_tool: options.build_tool.clone(),
        layers: entries,
        prefetch,
        subject: (options.version == Version::V1).then(|| image.descriptor()),
    };
    Ok(BuiltIndex::new(index, ztocs, reports))
}

/// The artifacts for the files that are wanted, which join the zTOCs, and their descriptors in the order of the layers.
fn list_prefetch(
    entries: &[LayerZtoc],
    ztocs: &mut BTreeMap<Digest, Bytes>,
    wanted: &Wanted,
    tell: &Tell,
) -> Result<Vec<Descriptor>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let listed = |entry: &LayerZtoc| ztocs.get(&entry.ztoc.digest).cloned();
    let bytes: Vec<_> = entries.iter().map(|entry| listed(entry).unwrap_or_default()).collect();
    let layers: Vec<_> =
        entries.iter().zip(&bytes).map(|(entry, ztoc)| Layer { digest: &entry.layer, ztoc }).collect();
    let found = prefetch::prefetch(&layers, wanted)?;
    let mut descriptors = Vec::new();
    for (entry, artifact) in entries.iter().zip(found.artifacts) {
        let Some(artifact) = artifact else { continue };
        let bytes = Bytes::from(artifact.to_bytes());
        let digest = Digest::sha256(&bytes);
        let mut descriptor = descriptor(PREFETCH, digest.clone(), bytes.len() as u64);
        descriptor.annotations.insert(annotation::LAYER_DIGEST.to_owned(), entry.layer.to_string());
        tell(BuildEvent::Prefetch { layer: entry.layer.clone(), artifact: digest.clone() });
        descriptors.push(descriptor);
        ztocs.insert(digest, bytes);
    }
    for path in found.missing {
        tell(BuildEvent::Missing(path));
    }
    Ok(descriptors)
}

/// How much memory indexing a layer of `size` bytes takes, in bytes, by what layers usually are: four times as long when inflated,
/// with a window of 32 KiB for each span. Windows are held three times while the zTOC is written: as they were found, in the
/// checkpoints' bytes, and in the zTOC's.
fn memory(size: u64, span_size: u64) -> u64 {
    let spans = size.saturating_mul(4) / span_size.max(1);
    BASE_MEMORY.saturating_add(spans.saturating_mul(3 * spandrel_ztoc::WINDOW_LEN as u64))
}

/// Whether a zTOC has neither extended attributes nor opaque directories, which overlayfs tells by one.
fn has_no_xattrs(ztoc: &[u8]) -> bool {
    let is_xattr = |(key, _): &(Vec<u8>, Vec<u8>)| key.starts_with(b"SCHILY.xattr.");
    let opaque = |name: &[u8]| name.rsplit(|byte| *byte == b'/').next() == Some(b".wh..wh..opq");
    // One that can't be read (it was just written) has no hint: that is always right.
    spandrel_ztoc::Ztoc::decode_without_windows(ztoc).is_ok_and(|(ztoc, _)| {
        !ztoc.entries.iter().any(|entry| entry.pax.iter().any(is_xattr) || opaque(&entry.name))
    })
}

#[cfg(test)]
#[path = "build/tests.rs"]
mod tests;

//! Makes an image name its own index (version 2), on its way from any source to any target.
//!
//! The image index goes last, behind everything that it names. Layers that are indexed are read once: what is read goes to the
//! target at the same time (`copy`). What is changed of manifests is `edit`'s.

mod copy;
pub mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use spandrel_registry::manifest::{Descriptor, Index, Platform};
use spandrel_registry::{Digest, FetchedManifest, media_type};

use crate::Error;
use crate::build::{BuildEvent, BuildOptions, BuiltIndex, KnownZtocs, build};
use crate::image::{Image, resolve};
use crate::index::{CONFIG, INDEX_V2, Version, limit};
use crate::limits::{MAX_INDEX_DEPTH, MAX_LAYERS, MAX_MANIFESTS, MAX_MANIFESTS_LEN};
use crate::platform::Platforms;
use crate::source::ImageSource;
use crate::target::{ImageTarget, InMemory, Put};
use copy::{Copier, Tee};
use edit::{Rewritten, SociEntry};

/// How many manifests are asked for at once: an image for a dozen platforms, with attestations, in some round trips.
const MANIFESTS_AHEAD: usize = 8;

/// What to make.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// The images that are indexed; all others of an index are copied as they are.
    pub platforms: Platforms,
    /// How they are indexed. The version is this module's to say.
    pub build: BuildOptions,
    /// Whether indexes of version 1 are made too, which refer to the converted manifests.
    pub v1: bool,
    /// Blobs that are copied at once, besides the layers that are indexed.
    pub parallel: NonZeroUsize,
}

/// What is told while it is going on.
#[derive(Debug, Clone)]
pub enum ConvertEvent {
    /// These blobs (digest, bytes) will be read, or found to be there: each is told of when it is.
    Expect(Vec<(Digest, u64)>),
    /// Of the indexing.
    Build(BuildEvent),
    /// A blob is copied that isn't indexed at the same time.
    Copy {
        /// Its digest.
        blob: Digest,
        /// Its length in bytes.
        size: u64,
    },
    /// So many more bytes of it were read.
    Bytes {
        /// Its digest.
        blob: Digest,
        /// How many.
        len: u64,
    },
    /// A blob is there.
    Copied {
        /// Its digest.
        blob: Digest,
        /// How it got there.
        put: Put,
    },
}

/// Who is told. Called from several tasks at once, and must not wait.
pub type Tell = Arc<dyn Fn(ConvertEvent) + Send + Sync>;

/// What was made.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The image index that the target's name stands for.
    pub root: FetchedManifest,
    /// The images that name an index.
    pub images: Vec<ConvertedImage>,
    /// The platforms whose images have no layer to be indexed; they stay as they were.
    pub without: Vec<Platform>,
}

/// An image that names its index.
#[derive(Debug, Clone)]
pub struct ConvertedImage {
    /// What it is for.
    pub platform: Platform,
    /// Digest of the manifest that it was made of.
    pub old: Digest,
    /// Digest of its manifest.
    pub digest: Digest,
    /// The index that it names.
    pub index: BuiltIndex,
    /// The index of version 1 that refers to it, where one was asked for.
    pub v1: Option<BuiltIndex>,
}

/// Converts the image that `part` (a tag or a digest) of `source` names, and puts it into `target`.
///
/// # Errors
/// When the image can't be read, no image of it has a layer to be indexed ([`Error::EmptyIndex`]), or the target refuses it. The
/// target's name stands for what it stood for before.
pub async fn convert(
    source: Arc<dyn ImageSource>,
    part: &str,
    target: Arc<dyn ImageTarget>,
    options: &ConvertOptions,
    known: &dyn KnownZtocs,
    tell: Tell,
) -> Result<Converted, Error> {
    let converted = convert_into(source, part, Arc::clone(&target), options, known, tell).await;
    if converted.is_err() {
        target.give_up().await;
    }
    converted
}

async fn convert_into(
    source: Arc<dyn ImageSource>,
    part: &str,
    target: Arc<dyn ImageTarget>,
    options: &ConvertOptions,
    known: &dyn KnownZtocs,
    tell: Tell,
) -> Result<Converted, Error> {
    if options.v1 && !target.takes_referrers() {
        return Err(Error::NoReferrers(target.name()));
    }
    let resolved = resolve(&*source, part, &options.platforms).await?;
    let work = Work {
        name: format!("{}@{}", source.name(), resolved.root.digest),
        copier: Arc::new(Copier::new(Arc::clone(&source), Arc::clone(&target), Arc::clone(&tell))),
        source,
        target,
        options,
    };
    let chosen: BTreeSet<&Digest> = resolved.images.iter().map(Image::digest).collect();
    let nodes = work.nodes(&resolved.root, &chosen).await?;
    let blobs = blobs(&nodes)?;
    work.target.expect(&blobs);
    work.copier.expect(&blobs);
    let (indexed, without) = work.build(&resolved.images, known, &tell).await?;
    work.copier.copy(&blobs, options.parallel).await?;
    work.finish(&resolved.root, nodes, indexed, without).await
}

/// What the steps share.
struct Work<'a> {
    /// The image, for messages.
    name: String,
    source: Arc<dyn ImageSource>,
    target: Arc<dyn ImageTarget>,
    copier: Arc<Copier>,
    options: &'a ConvertOptions,
}

/// A manifest or an index that goes to the target.
struct Node {
    fetched: FetchedManifest,
    /// What a manifest names, digest and bytes: its configuration and layers.
    blobs: Vec<(Digest, u64)>,
}

/// What of a manifest must be there before it.
#[derive(Deserialize)]
struct Parts {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of an artifact manifest.
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Work<'_> {
    /// Everything below `root` but the SOCI indexes that images name, children before their parents; and `root` itself where it
    /// is an image.
    async fn nodes(&self, root: &FetchedManifest, chosen: &BTreeSet<&Digest>) -> Result<Vec<Node>, Error> {
        let parts = self.parts(root)?;
        if parts.manifests.is_empty() {
            return Ok(vec![self.node(root.clone())?]);
        }
        let others = parts.manifests.into_iter().filter(|entry| !is_soci(entry));
        let mut nodes = Vec::new();
        self.below(others.collect(), chosen, 1, &mut nodes).await?;
        Ok(nodes)
    }

    /// Adds what these descriptors name, and all that is below it.
    async fn below(
        &self,
        entries: Vec<Descriptor>,
        needed: &BTreeSet<&Digest>,
        depth: usize,
        nodes: &mut Vec<Node>,
    ) -> Result<(), Error> {
        limit("depth of indexes within indexes", depth as u64, MAX_INDEX_DEPTH as u64)?;
        limit("number of manifests of an index", entries.len() as u64, MAX_MANIFESTS as u64)?;
        let fetches = entries.into_iter().map(|entry| {
            let source = Arc::clone(&self.source);
            async move {
                let digest = entry.digest;
                (source.manifest(digest.as_str()).await, digest)
            }
        });
        // Collected first: what is left of the iterator would make the future not Send.
        let fetches: Vec<_> = fetches.collect();
        let mut fetched = futures_util::stream::iter(fetches).buffered(MANIFESTS_AHEAD);
        while let Some((manifest, digest)) = fetched.next().await {
            let manifest = match manifest {
                Ok(manifest) => manifest,
                // A local copy of an image may have one platform of many: the index goes on listing all.
                Err(error) if error.is_not_found() && !needed.contains(&digest) => {
                    tracing::info!(manifest = %digest, image = self.name, "not in the source, so not copied");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if nodes.iter().any(|node| node.fetched.digest == digest) {
                continue;
            }
            let inner = self.parts(&manifest)?.manifests;
            if !inner.is_empty() {
                Box::pin(self.below(inner, needed, depth + 1, nodes)).await?;
            }
            let node = self.node(manifest)?;
            if needed.contains(&digest) || self.is_whole(&node).await? {
                nodes.push(node);
            } else {
                tracing::info!(manifest = %digest, image = self.name, "its layers aren't in the source, so not copied");
            }
            limit("number of manifests of the image", nodes.len() as u64, MAX_MANIFESTS as u64)?;
            let len = nodes.iter().map(|node| node.fetched.bytes.len() as u64).sum();
            limit("length of all manifests of the image", len, MAX_MANIFESTS_LEN)?;
        }
        Ok(())
    }

    /// Whether the source has all that a manifest names.
    async fn is_whole(&self, node: &Node) -> Result<bool, Error> {
        for (digest, _) in &node.blobs {
            if !self.source.has_blob(digest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn node(&self, mut fetched: FetchedManifest) -> Result<Node, Error> {
        let parts = self.parts(&fetched)?;
        fetched.media_type = media_type_of(&fetched, &parts);
        let all = parts.config.into_iter().chain(parts.layers).chain(parts.blobs);
        let blobs: Vec<_> = all.map(|blob| (blob.digest, blob.size)).collect();
        limit("number of blobs of a manifest", blobs.len() as u64, MAX_LAYERS as u64)?;
        Ok(Node { fetched, blobs })
    }

    /// What a manifest names.
    fn parts(&self, fetched: &FetchedManifest) -> Result<Parts, Error> {
        serde_json::from_slice(&fetched.bytes).map_err(|error| Error::Image {
            image: self.name.clone(),
            what: format!("its manifest {} can't be read: {error}", fetched.digest),
        })
    }

    /// The indexes of these images; and the platforms that have none. Layers that are read for it go to the target.
    async fn build<'i>(
        &self,
        images: &'i [Image],
        known: &dyn KnownZtocs,
        tell: &Tell,
    ) -> Result<(Vec<(&'i Image, BuiltIndex)>, Vec<Platform>), Error> {
        let options = BuildOptions { version: Version::V2, ..self.options.build.clone() };
        let tee: Arc<dyn ImageSource> = Arc::new(Tee::new(Arc::clone(&self.copier)));
        let (mut indexed, mut without) = (Vec::new(), Vec::new());
        for image in images {
            let tell = Arc::clone(tell);
            let tell: crate::build::Tell = Arc::new(move |event| tell(ConvertEvent::Build(event)));
            match build(Arc::clone(&tee), image, &options, known, tell).await {
                Ok(built) => indexed.push((image, built)),
                // One platform of several may well have small layers only.
                Err(Error::EmptyIndex) => without.push(image.platform.clone()),
                Err(error) => return Err(error),
            }
        }
        if indexed.is_empty() { Err(Error::EmptyIndex) } else { Ok((indexed, without)) }
    }

    /// Rewrites the manifests and puts all that was made into the target, the image index last.
    async fn finish(
        &self,
        root: &FetchedManifest,
        nodes: Vec<Node>,
        indexed: Vec<(&Image, BuiltIndex)>,
        without: Vec<Platform>,
    ) -> Result<Converted, Error> {
        let (mut rewritten, mut entries, mut images) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (image, index) in indexed {
            let new = edit::image(&self.name, &image.fetched.bytes, &index.digest)?;
            entries.push(SociEntry {
                old_image: image.digest().clone(),
                new_image: new.digest.clone(),
                digest: index.digest.clone(),
                size: index.bytes.len() as u64,
                platform: image.platform.clone(),
            });
            let digest = new.digest.clone();
            let v1 = self.options.v1.then(|| index.referring_to(descriptor_of(&new)));
            rewritten.insert(image.digest().clone(), new);
            images.push(ConvertedImage {
                platform: image.platform.clone(),
                old: image.digest().clone(),
                digest,
                index,
                v1,
            });
        }
        for node in &nodes {
            let (fetched, name) = (&node.fetched, &self.name);
            let new = edit::subject(name, &fetched.media_type, &fetched.bytes, &rewritten)?;
            if let Some(new) = new.filter(|_| !rewritten.contains_key(&fetched.digest)) {
                rewritten.insert(fetched.digest.clone(), new);
            }
        }
        let is_index = !self.parts(root)?.manifests.is_empty();
        let new_root = match (&entries[..], is_index) {
            (_, true) => edit::index(&self.name, &root.bytes, &rewritten, &entries)?,
            ([entry], false) => edit::index_of_one(&self.name, &rewritten[&entry.old_image], entry)?,
            _ => return Err(Error::EmptyIndex),
        };

        let kept = self.kept_indexes(root, &entries).await?;
        let old = blobs(&kept)?;
        self.target.expect(&old);
        self.copier.expect(&old);
        self.copier.copy(&old, self.options.parallel).await?;
        self.put_ztocs(&images).await?;
        for image in &images {
            self.target.put_manifest(&soci_index(&image.index)).await?;
        }
        for node in kept.iter().chain(&nodes) {
            let manifest = rewritten.get(&node.fetched.digest).map(fetched);
            self.target.put_manifest(manifest.as_ref().unwrap_or(&node.fetched)).await?;
        }
        for v1 in images.iter().filter_map(|image| image.v1.as_ref()) {
            self.target.put_referrer(&soci_index(v1)).await?;
        }
        let root = fetched(&new_root);
        self.target.finish(&root).await?;
        Ok(Converted { root, images, without })
    }

    /// The SOCI indexes that the image has and keeps: of images that weren't indexed anew.
    async fn kept_indexes(&self, root: &FetchedManifest, new: &[SociEntry]) -> Result<Vec<Node>, Error> {
        let index: Result<Index, _> = serde_json::from_slice(&root.bytes);
        let mut kept = index.map(|index| index.manifests).unwrap_or_default();
        kept.retain(|entry| is_soci(entry) && !new.iter().any(|new| edit::is_of(entry, new)));
        let mut nodes = Vec::new();
        self.below(kept, &BTreeSet::new(), 1, &mut nodes).await?;
        Ok(nodes)
    }

    /// Puts the zTOCs, prefetch artifacts and the empty configuration there.
    async fn put_ztocs(&self, images: &[ConvertedImage]) -> Result<(), Error> {
        let mut all: BTreeMap<Digest, Bytes> = BTreeMap::new();
        all.insert(Digest::sha256(CONFIG), Bytes::from_static(CONFIG));
        all.extend(images.iter().flat_map(|image| image.index.ztocs.clone()));
        let sizes: Vec<_> = all.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)).collect();
        self.target.expect(&sizes);
        let puts = all.into_iter().map(|(digest, bytes)| {
            let (target, size) = (Arc::clone(&self.target), bytes.len() as u64);
            async move { target.put_blob(&digest, size, &InMemory(bytes)).await.map(drop) }
        });
        let puts: Vec<_> = puts.collect();
        let parallel = self.options.parallel.get();
        futures_util::stream::iter(puts).buffer_unordered(parallel).try_collect().await
    }
}

/// Whether an image index's entry is a SOCI index that an image names.
fn is_soci(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref() == Some(INDEX_V2)
}

/// The blobs of these manifests, each once.
fn blobs(nodes: &[Node]) -> Result<Vec<(Digest, u64)>, Error> {
    let (mut sizes, mut blobs) = (BTreeMap::new(), Vec::new());
    for (digest, size) in nodes.iter().flat_map(|node| &node.blobs) {
        match sizes.insert(digest, size) {
            None => blobs.push((digest.clone(), *size)),
            Some(other) if other == size => {}
            Some(other) => {
                return Err(Error::Image {
                    image: digest.to_string(),
                    what: format!("manifests say that this blob has {other} bytes, and {size}"),
                });
            }
        }
    }
    Ok(blobs)
}

/// What a manifest says that it is, else what its place said, else what it looks like.
fn media_type_of(fetched: &FetchedManifest, parts: &Parts) -> String {
    match &parts.media_type {
        Some(said) => said.clone(),
        None if !fetched.media_type.is_empty() => fetched.media_type.clone(),
        None if parts.manifests.is_empty() => media_type::OCI_MANIFEST.to_owned(),
        None => media_type::OCI_INDEX.to_owned(),
    }
}

fn descriptor_of(new: &Rewritten) -> Descriptor {
    crate::index::descriptor(&new.media_type, new.digest.clone(), new.bytes.len() as u64)
}

fn fetched(new: &Rewritten) -> FetchedManifest {
    FetchedManifest {
        media_type: new.media_type.clone(),
        digest: new.digest.clone(),
        bytes: Bytes::from(new.bytes.clone()),
    }
}

fn soci_index(index: &BuiltIndex) -> FetchedManifest {
    FetchedManifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest: index.digest.clone(),
        bytes: index.bytes.clone(),
    }
}

#[cfg(test)]
#[path = "convert/tests.rs"]
mod tests;

//! Finds the index of an image (label, annotation, referrers), and gets the zTOCs that it lists.
//!
//! Which layers are then mounted lazily is the snapshotter's to say.

use bytes::Bytes;
use spandrel_registry::manifest::{Descriptor, Manifest};
use spandrel_registry::{Client, Digest, Repository};

use crate::Error;
use crate::index::{IndexManifest, Version, annotation, limit};
use crate::limits::{MAX_MANIFEST_LEN, MAX_REFERRERS_TRIED};
use crate::source::{ImageSource, RegistrySource};

/// How an index was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// A label named it.
    Label,
    /// The image manifest's annotation named it (version 2).
    Annotation,
    /// It refers to the image manifest (version 1).
    Referrer,
}

/// An index that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// How.
    pub by: FoundBy,
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub index: IndexManifest,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// The index named explicitly (label `containerd.io/snapshot/remote/soci.index.digest`).
    pub label: Option<Digest>,
    /// Whether version 1 indexes are looked for.
    pub v1: bool,
    /// Whether version 2 indexes are looked for.
    pub v2: bool,
}

impl Default for FindOptions {
    /// No label, and both versions.
    fn default() -> Self {
        Self { label: None, v1: true, v2: true }
    }
}

/// Finds the index of the image whose manifest has digest `image` and bytes `manifest`; `None` when it has none.
///
/// The label comes first and overrides `v1` and `v2`, then the manifest's annotation, then the referrers. An index that
/// is named but can't be had is an error and not "none": a referrer, which anybody can push, never stands in for an
/// index that the image itself names.
///
/// # Errors
/// When the registry can't be asked, or what it has is no index.
pub async fn find(
    client: &Client,
    repository: &Repository,
    image: &Digest,
    manifest: &[u8],
    options: &FindOptions,
) -> Result<Option<Found>, Error> {
    find_in(&RegistrySource::new(client.clone(), repository.clone()), image, manifest, options).await
}

/// As [`find`], in any source of images.
///
/// # Errors
/// As [`find`].
pub async fn find_in(
    source: &dyn ImageSource,
    image: &Digest,
    manifest: &[u8],
    options: &FindOptions,
) -> Result<Option<Found>, Error> {
    if let Some(digest) = &options.label {
        let index = get(source, digest, None).await?;
        return Ok(Some(Found { by: FoundBy::Label, digest: digest.clone(), index }));
    }
    if options.v2
        && let Some(digest) = annotated(source, image, manifest)?
    {
        let index = get(source, &digest, Some(Version::V2)).await?;
        return Ok(Some(Found { by: FoundBy::Annotation, digest, index }));
    }
    if options.v1 { referring(source, image).await } else { Ok(None) }
}

/// The zTOC that `layer` of an index names, as bytes: its length is checked before it is asked for, its digest after.
///
/// # Errors
/// When it is longer than any zTOC may be, isn't there, or isn't what its digest says.
pub async fn ztoc_bytes(source: &dyn ImageSource, ztoc: &Descriptor) -> Result<Bytes, Error> {
    limit(&format!("length of zTOC {}", ztoc.digest), ztoc.size, spandrel_ztoc::limits::MAX_ZTOC_LEN)?;
    source.blob(&ztoc.digest, ztoc.size).await
}

/// Digest of the index that an image manifest names.
fn annotated(source: &dyn ImageSource, image: &Digest, manifest: &[u8]) -> Result<Option<Digest>, Error> {
    let bad = |what: String| Error::Image { image: format!("{}@{image}", source.name()), what };
    limit(&format!("length of image manifest {image}"), manifest.len() as u64, MAX_MANIFEST_LEN)?;
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| bad(format!("its manifest can't be read: {error}")))?;
    let Some(digest) = manifest.annotations.get(annotation::INDEX_DIGEST) else { return Ok(None) };
    let digest =
        digest.parse().map_err(|error| bad(format!("annotation {}: {error}", annotation::INDEX_DIGEST)))?;
    Ok(Some(digest))
}

/// The first usable version 1 index that refers to `image`.
async fn referring(source: &dyn ImageSource, image: &Digest) -> Result<Option<Found>, Error> {
    let mut first_error = None;
    for digest in source.referrers(image, Version::V1).await?.into_iter().take(MAX_REFERRERS_TRIED) {
        let error = match get(source, &digest, Some(Version::V1)).await {
            Ok(index) => match &index.subject {
                Some(subject) if subject.digest != *image => {
                    invalid(source, &digest, &format!("its subject is {}, not {image}", subject.digest))
                }
                _ => return Ok(Some(Found { by: FoundBy::Referrer, digest, index })),
            },
            // A list of referrers may name what is gone by now, and anybody may have pushed rubbish.
            Err(error @ (Error::Invalid(_) | Error::Limit { .. })) => error,
            Err(error) if error.is_not_found() => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(image = %image, index = %digest, %error, "passing over an index that can't be used");
        first_error.get_or_insert(error);
    }
    first_error.map_or(Ok(None), Err)
}

/// Gets and reads an index, which must be of `version` when one is given.
async fn get(
    source: &dyn ImageSource,
    digest: &Digest,
    version: Option<Version>,
) -> Result<IndexManifest, Error> {
    let fetched = source.manifest(digest.as_str()).await?;
    let index = IndexManifest::parse(&fetched.bytes).map_err(|error| match error {
        Error::Invalid(what) => invalid(source, digest, &what),
        other => other,
    })?;
    match version {
        Some(version) if version != index.version => Err(invalid(
            source,
            digest,
            &format!("it is of version {}, where {} is expected", index.version.name(), version.name()),
        )),
        _ => Ok(index),
    }
}

fn invalid(source: &dyn ImageSource, digest: &Digest, what: &str) -> Error {
    Error::Invalid(format!("{}@{digest}: {what}", source.name()))
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;

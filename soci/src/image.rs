//! What a reference names: one image or an index of them, and which of those are meant.

use serde::Deserialize;
use serde::de::IgnoredAny;
use spandrel_registry::manifest::{Descriptor, Index, Manifest, Platform};
use spandrel_registry::{Digest, FetchedManifest, media_type};

use crate::Error;
use crate::index::{descriptor, limit};
use crate::limits::{MAX_CONFIG_LEN, MAX_LAYERS, MAX_MANIFEST_LEN, MAX_MANIFESTS};
use crate::platform::{self, Platforms};
use crate::source::ImageSource;

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it is for.
    pub platform: Platform,
    /// Its manifest, with the bytes that its digest is of.
    pub fetched: FetchedManifest,
    /// What the manifest says.
    pub manifest: Manifest,
}

impl Image {
    /// Digest of the manifest.
    pub fn digest(&self) -> &Digest {
        &self.fetched.digest
    }

    /// Media type, digest and size of the manifest: how an index of version 1 names it.
    pub fn descriptor(&self) -> Descriptor {
        descriptor(&self.fetched.media_type, self.fetched.digest.clone(), self.fetched.bytes.len() as u64)
    }
}

/// What a reference led to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What the reference names: the manifest itself, or the index that the images were chosen from.
    pub root: FetchedManifest,
    /// The images that were meant; at least one.
    pub images: Vec<Image>,
}

/// Finds the images that `part` (a tag or a digest) of `source` names for `platforms`.
///
/// Attestations, SOCI indexes and other artifacts in an index are no images and left out.
///
/// # Errors
/// When it isn't there, is no image, or isn't there for a platform that was asked for.
pub async fn resolve(source: &dyn ImageSource, part: &str, platforms: &Platforms) -> Result<Resolved, Error> {
    let name = name(source, part);
    let mut root = source.manifest(part).await?;
    let (kind, said) = kind(&name, &root)?;
    // The document's own word goes before the registry's header.
    root.media_type = said;
    let images = match kind {
        Kind::Image => vec![single(source, &name, root.clone(), platforms).await?],
        Kind::Index => {
            let index: Index = read(&name, &root.bytes)?;
            limit("number of manifests in the index", index.manifests.len() as u64, MAX_MANIFESTS as u64)?;
            let mut images: Vec<Image> = Vec::new();
            for (descriptor, platform) in chosen(source, &name, &index, platforms).await? {
                let fetched = source.manifest(descriptor.digest.as_str()).await?;
                let image = image(&name, fetched, platform)?;
                if !images.iter().any(|other| other.digest() == image.digest()) {
                    images.push(image);
                }
            }
            images
        }
    };
    Ok(Resolved { root, images })
}

fn name(source: &dyn ImageSource, part: &str) -> String {
    let separator = if part.contains(':') { '@' } else { ':' };
    format!("{}{separator}{part}", source.name())
}

enum Kind {
    Image,
    Index,
}

/// Members that tell an image from an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Whether it is an image or an index, and its media type.
fn kind(name: &str, fetched: &FetchedManifest) -> Result<(Kind, String), Error> {
    limit(&format!("length of manifest {name}"), fetched.bytes.len() as u64, MAX_MANIFEST_LEN)?;
    let shape: Shape = read(name, &fetched.bytes)?;
    let error = |what: &str| Error::Image { image: name.to_owned(), what: what.to_owned() };
    let said = |otherwise: &str| {
        let known = [
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_INDEX,
        ];
        let header = known.iter().find(|known| **known == fetched.media_type);
        shape.media_type.clone().unwrap_or_else(|| header.copied().unwrap_or(otherwise).to_owned())
    };
    match shape {
        // A document that is both would be read differently by different tools.
        Shape { config: Some(_), manifests: Some(_), .. }
        | Shape { layers: Some(_), manifests: Some(_), .. } => {
            Err(error("its manifest is an image and an index at once; nobody should trust it"))
        }
        Shape { manifests: Some(_), .. } => Ok((Kind::Index, said(media_type::OCI_INDEX))),
        Shape { config: Some(_), layers: Some(_), .. } => Ok((Kind::Image, said(media_type::OCI_MANIFEST))),
        Shape { fs_layers: Some(_), .. } => Err(error(
            "its manifest is of docker's schema 1, which isn't supported; push the image again with a current tool",
        )),
        _ => Err(error("its manifest is neither an image's nor an index")),
    }
}

fn read<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Image {
        image: name.to_owned(),
        what: format!("its manifest can't be read: {error}"),
    })
}

/// An image out of its manifest.
fn image(name: &str, mut fetched: FetchedManifest, platform: Platform) -> Result<Image, Error> {
    let name = format!("{name} ({})", fetched.digest);
    let (Kind::Image, said) = kind(&name, &fetched)? else {
        return Err(Error::Image { image: name, what: "it is an index within an index".to_owned() });
    };
    fetched.media_type = said;
    let manifest: Manifest = read(&name, &fetched.bytes)?;
    limit("number of layers of the image", manifest.layers.len() as u64, MAX_LAYERS as u64)?;
    let config = manifest.config.media_type.as_str();
    if config != media_type::OCI_CONFIG && config != media_type::DOCKER_CONFIG {
        let what = format!("it is no container image but an artifact with configuration {config:?}");
        return Err(Error::Image { image: name, what });
    }
    Ok(Image { platform, fetched, manifest })
}

/// The image that a reference names without an index.
async fn single(
    source: &dyn ImageSource,
    name: &str,
    fetched: FetchedManifest,
    platforms: &Platforms,
) -> Result<Image, Error> {
    let mut image = image(name, fetched, platform::host())?;
    image.platform = config_platform(source, name, &image.manifest.config).await?;
    if let Platforms::Listed(wanted) = platforms
        && let Some(missing) =
            wanted.iter().find(|wanted| platform::distance(wanted, &image.platform).is_none())
    {
        return Err(Error::NoPlatform {
            image: name.to_owned(),
            wanted: platform::name(missing),
            present: platform::name(&image.platform),
        });
    }
    Ok(image)
}

/// What an image's configuration says it is for.
async fn config_platform(
    source: &dyn ImageSource,
    name: &str,
    config: &Descriptor,
) -> Result<Platform, Error> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    limit(&format!("length of the configuration of {name}"), config.size, MAX_CONFIG_LEN)?;
    let bytes = source.blob(&config.digest, config.size).await?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| Error::Image {
        image: name.to_owned(),
        what: format!("its configuration {} can't be read: {error}", config.digest),
    })?;
    Ok(Platform {
        os: config.os,
        architecture: config.architecture,
        variant: config.variant,
        os_version: String::new(),
        os_features: Vec::new(),
    })
}

/// The manifests of an index that were meant, with their platforms.
async fn chosen<'a>(
    source: &dyn ImageSource,
    name: &str,
    index: &'a Index,
    platforms: &Platforms,
) -> Result<Vec<(&'a Descriptor, Platform)>, Error> {
    let mut candidates = Vec::new();
    for descriptor in index.manifests.iter().filter(|descriptor| may_be_image(descriptor)) {
        let platform = match &descriptor.platform {
            Some(platform) => platform.clone(),
            // Rare, and the only way to know.
            None => {
                let fetched = source.manifest(descriptor.digest.as_str()).await?;
                let image = image(name, fetched, platform::host())?;
                config_platform(source, name, &image.manifest.config).await?
            }
        };
        candidates.push((descriptor, platform));
    }
    let best = |wanted: &Platform| {
        // The first of equals, as containerd takes it.
        let fitting = candidates.iter().filter_map(|candidate| {
            platform::distance(wanted, &candidate.1).map(|distance| (distance, candidate))
        });
        fitting.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate.clone()).ok_or_else(
            || {
                let present: Vec<String> =
                    candidates.iter().map(|(_, platform)| platform::name(platform)).collect();
                let present =
                    if present.is_empty() { "no image at all".to_owned() } else { present.join(", ") };
                Error::NoPlatform { image: name.to_owned(), wanted: platform::name(wanted), present }
            },
        )
    };
    match platforms {
        Platforms::Default => Ok(vec![best(&platform::host())?]),
        Platforms::Listed(wanted) => wanted.iter().map(best).collect(),
        Platforms::All if candidates.is_empty() => {
            Err(Error::Image { image: name.to_owned(), what: "its index lists no image".to_owned() })
        }
        Platforms::All => Ok(candidates),
    }
}

/// Whether a manifest in an index can be an image: not an attestation, a SOCI index or another artifact.
fn may_be_image(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST)
        && descriptor.artifact_type.is_none()
        && !descriptor.annotations.contains_key("vnd.docker.reference.type")
        && !descriptor.platform.as_ref().is_some_and(platform::is_unknown)
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;

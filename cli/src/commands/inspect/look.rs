//! Collects what is to be known of an image: its indexes, and of each layer's zTOC whether it can be one.

use std::collections::{BTreeMap, BTreeSet};

use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;
use spandrel_soci::image::Image;
use spandrel_soci::index::{LayerZtoc, PREFETCH, Version};
use spandrel_soci::platform;
use spandrel_soci::source::{BlobSource as _, RegistrySource};
use spandrel_ztoc::Ztoc;
use spandrel_ztoc::unpack::LayerFormat;

use super::verdict::{Facts, How, Listed, State, decide, foreign};
use super::{OfIndex, OfLayer, OfPlatform, Start};
use crate::commands::blocking;
use crate::commands::indexes::{OfVersion, of_version, ztoc};
use crate::error::Error;
use crate::fit::fit;

/// How many spans and files a zTOC has, or why it isn't one of its layer.
type Checked = Result<(usize, usize), String>;

/// zTOCs that were looked at, by layer and their own digest.
type Known = BTreeMap<(Digest, Digest), Checked>;

/// Looks at an image.
///
/// # Errors
/// When the registry doesn't say what it has.
pub(super) async fn at(
    source: &RegistrySource,
    image: &Image,
    min_layer_size: u64,
    ecr: bool,
) -> Result<OfPlatform, Error> {
    let v2 = of_version(source, image, Version::V2).await?;
    let v1 = of_version(source, image, Version::V1).await?;
    // What soci may have put there isn't the image's.
    let layers: Vec<&Descriptor> =
        image.manifest.layers.iter().filter(|layer| layer.media_type != PREFETCH).collect();
    let mut known = Known::new();
    for index in [&v2, &v1] {
        for layer in &layers {
            check(source, layer, listed(index, &layer.digest), &mut known).await?;
        }
    }
    let repository = source.name();
    // A referrer never stands in for an index that the image names.
    let (taken, first) = if matches!(v2, OfVersion::None) { (&v1, false) } else { (&v2, true) };
    let layers_of: Vec<OfLayer> = layers
        .iter()
        .map(|layer| {
            let facts = Facts {
                media_type: &layer.media_type,
                size: layer.size,
                min_layer_size,
                v2: state(&v2, &layer.digest, &known),
                v1: state(&v1, &layer.digest, &known),
                ecr,
            };
            describe(layer, &facts, listed(taken, &layer.digest), &known)
        })
        .collect();
    Ok(OfPlatform {
        platform: platform::name(&image.platform),
        digest: image.digest().clone(),
        size: distinct(&layers_of).map(|layer| layer.size).fold(0, u64::saturating_add),
        start: start(taken, first, &layers_of, min_layer_size),
        indexes: vec![
            index(&v2, Version::V2, &repository, "none: the image names no index"),
            index(&v1, Version::V1, &repository, "none: no index refers to the image"),
        ],
        layers: layers_of,
    })
}

/// What an index says of a layer.
fn listed<'a>(index: &'a OfVersion, layer: &Digest) -> Option<&'a LayerZtoc> {
    match index {
        OfVersion::Found { found, .. } => found.index.ztoc_of(layer),
        _ => None,
    }
}

/// Looks at a zTOC, once for each layer that it is said to be of.
async fn check(
    source: &RegistrySource,
    layer: &Descriptor,
    listed: Option<&LayerZtoc>,
    known: &mut Known,
) -> Result<(), Error> {
    let Some(listed) = listed else { return Ok(()) };
    let key = (layer.digest.clone(), listed.ztoc.digest.clone());
    if known.contains_key(&key) {
        return Ok(());
    }
    let checked = match ztoc(source, &listed.ztoc).await? {
        Err(what) => Err(what),
        Ok(bytes) => {
            let layer = layer.clone();
            blocking(move || Ok(counts(&bytes, &layer))).await?
        }
    };
    known.insert(key, checked);
    Ok(())
}

/// Decodes a zTOC and looks whether it can be the layer's.
fn counts(bytes: &[u8], layer: &Descriptor) -> Checked {
    let (ztoc, _) = Ztoc::decode_without_windows(bytes).map_err(|error| error.to_string())?;
    fit(&ztoc, layer)?;
    Ok((ztoc.checkpoints.len(), ztoc.entries.len()))
}

fn state(index: &OfVersion, layer: &Digest, known: &Known) -> State {
    match index {
        OfVersion::None => State::None,
        OfVersion::Broken(what) => State::Broken(what.clone()),
        OfVersion::Found { .. } => {
            let checked =
                listed(index, layer).map(|listed| known.get(&(layer.clone(), listed.ztoc.digest.clone())));
            State::Found(match checked {
                Some(Some(Err(what))) => Listed::Bad(what.clone()),
                Some(_) => Listed::Good,
                None => Listed::Not,
            })
        }
    }
}

fn describe(layer: &Descriptor, facts: &Facts<'_>, listed: Option<&LayerZtoc>, known: &Known) -> OfLayer {
    let counts = listed.and_then(|listed| known.get(&(layer.digest.clone(), listed.ztoc.digest.clone())));
    let counts = counts.and_then(|checked| checked.as_ref().ok());
    let format = match (foreign(&layer.media_type), LayerFormat::of_media_type(&layer.media_type)) {
        (None, Some(LayerFormat::Gzip)) => "gzip".to_owned(),
        (None, Some(LayerFormat::Tar)) => "tar".to_owned(),
        (None, Some(LayerFormat::Zstd)) => "zstd".to_owned(),
        _ => layer.media_type.clone(),
    };
    let verdict = decide(facts);
    OfLayer {
        digest: layer.digest.clone(),
        media_type: layer.media_type.clone(),
        size: layer.size,
        format,
        ztoc: listed.map(|listed| listed.ztoc.digest.clone()),
        ztoc_size: listed.map(|listed| listed.ztoc.size),
        spans: counts.map(|(spans, _)| *spans),
        files: counts.map(|(_, files)| *files),
        spandrel: verdict.spandrel,
        soci: verdict.soci,
        fargate: verdict.fargate,
        reason: verdict.reason,
    }
}

fn index(index: &OfVersion, version: Version, repository: &str, none: &str) -> OfIndex {
    let mut of = OfIndex {
        manifest_version: version.name(),
        digest: None,
        size: None,
        repository: repository.to_owned(),
        build_tool: None,
        ztocs: None,
        error: None,
    };
    match index {
        OfVersion::None => of.error = Some(none.to_owned()),
        OfVersion::Broken(what) => of.error = Some(format!("can't be used: {what}")),
        OfVersion::Found { found, size } => {
            of.digest = Some(found.digest.clone());
            of.size = Some(*size);
            of.build_tool = Some(found.index.build_tool.clone());
            of.ztocs = Some(found.index.layers.len());
        }
    }
    of
}

/// The layers, each once: a layer may be in an image twice.
fn distinct(layers: &[OfLayer]) -> impl Iterator<Item = &OfLayer> {
    let mut seen = BTreeSet::new();
    layers.iter().filter(move |layer| seen.insert(&layer.digest))
}

/// What Spandrel's daemon asks for: what refers to the image, by the API and by the tag that stands in for it, unless the image
/// names its index; the index; and the zTOCs of layers that aren't small. Manifest and configuration are containerd's.
fn start(taken: &OfVersion, named: bool, layers: &[OfLayer], min_layer_size: u64) -> Start {
    let mut start = Start { requests: if named { 0 } else { 2 }, ..Start::default() };
    if let OfVersion::Found { size, .. } = taken {
        start.index_bytes = *size;
    }
    start.requests += usize::from(!matches!(taken, OfVersion::None));
    let mut ztocs = BTreeSet::new();
    for layer in distinct(layers) {
        if let (Some(ztoc), Some(size)) = (&layer.ztoc, layer.ztoc_size)
            && layer.size >= min_layer_size
            && ztocs.insert(ztoc)
        {
            start.requests += 1;
            start.index_bytes += size;
        }
        if layer.spandrel == How::Lazy {
            start.lazy_layers += 1;
        } else {
            start.whole_layers += 1;
            start.whole_bytes = start.whole_bytes.saturating_add(layer.size);
        }
    }
    start
}

//! `spandrel create`: indexes an image in a registry, keeps the index in the store, and pushes it if asked to.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use spandrel_registry::manifest::Platform;
use spandrel_registry::{Digest, Reference};
use spandrel_soci::build::{BuildEvent, BuiltIndex, LayerReport, Outcome, Tell, build};
use spandrel_soci::image::{Image, resolve};
use spandrel_soci::platform;
use spandrel_soci::source::ImageSource;

use super::{blocking, push};
use crate::args::{BuildArgs, Global, PlatformArgs, RegistryArgs, parse_reference};
use crate::error::Error;
use crate::progress::Progress;
use crate::{output, registry};

/// Index an image in a registry: a zTOC for each of its large layers, and a manifest (version 1) that lists them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    #[command(flatten)]
    platforms: PlatformArgs,
    #[command(flatten)]
    build: BuildArgs,
    /// Push the index into the image's repository
    #[arg(long)]
    push: bool,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = spandrel_soci::push::DEFAULT_PARALLEL)]
    max_concurrent_uploads: std::num::NonZeroUsize,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What was made, as JSON.
#[derive(Debug, Serialize)]
struct Created {
    image: String,
    indexes: Vec<CreatedIndex>,
}

#[derive(Debug, Serialize)]
struct CreatedIndex {
    platform: String,
    image_digest: Digest,
    digest: Digest,
    size: usize,
    pushed: bool,
    layers: Vec<CreatedLayer>,
}

/// What became of a layer, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct CreatedLayer {
    digest: Digest,
    media_type: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ztoc: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ztoc_size: Option<u64>,
    already_exists: bool,
    /// soci's line when it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

/// Does it.
///
/// # Errors
/// When the image can't be read, no layer of any platform can be indexed, or the index can't be kept or pushed.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let store = global.store();
    let source = registry::source(&args.registry, &args.image)?;
    let resolved = resolve(&source, args.image.manifest_part(), &args.platforms.platforms()).await?;
    let shared: Arc<dyn ImageSource> = Arc::new(source.clone());
    let (quiet, json) = (args.quiet, global.json);
    let progress = Arc::new(Progress::new(quiet));
    let layers = resolved.images.iter().flat_map(|image| &image.manifest.layers);
    progress.expect(layers.map(|layer| (layer.digest.clone(), layer.size)));
    let several = resolved.images.len() > 1;
    let mut created = Created { image: args.image.to_string(), indexes: Vec::new() };
    let known = args.build.known(global);
    let options = args.build.options()?;
    for image in &resolved.images {
        let tell = teller(Arc::clone(&progress), quiet || json);
        let built = match build(Arc::clone(&shared), image, &options, &*known, tell).await {
            // One platform of several may well have small layers only.
            Err(spandrel_soci::Error::EmptyIndex) if several => {
                output::note(&format!(
                    "no index for {}: no layer to be indexed",
                    platform::name(&image.platform)
                ));
                continue;
            }
            built => built?,
        };
        keep(global, &created.image, image.digest(), &image.platform, &built).await?;
        if !quiet && !json {
            let platform = platform::name(&image.platform);
            output::note(&format!("index {} for {platform} is in {}", built.digest, store.dir().display()));
        }
        if args.push {
            let how = push::How {
                parallel: args.max_concurrent_uploads,
                existing: push::Existing::Warn,
                quiet: quiet || json,
            };
            push::push(&source, &built, how).await?;
        }
        created.indexes.push(describe(image, &built, args.push));
    }
    if created.indexes.is_empty() {
        return Err(spandrel_soci::Error::EmptyIndex.into());
    }
    if json { output::print_json(&created) } else { Ok(()) }
}

/// Puts an index of the manifest `digest` of `image` into the store.
pub(super) async fn keep(
    global: &Global,
    image: &str,
    digest: &Digest,
    platform: &Platform,
    built: &BuiltIndex,
) -> Result<(), Error> {
    let (store, built, image) = (global.store(), built.clone(), image.to_owned());
    let (digest, platform) = (digest.clone(), platform.clone());
    blocking(move || Ok(store.add(&built, &image, &digest, &platform, SystemTime::now())?)).await
}

/// Turns events into bars and soci's lines.
pub(super) fn teller(progress: Arc<Progress>, silent: bool) -> Tell {
    Arc::new(move |event| match event {
        BuildEvent::Start { layer, size } => progress.start(&layer, size, "index"),
        BuildEvent::Bytes { layer, len } => progress.advance(&layer, len),
        BuildEvent::Prefetch { layer, artifact } if !silent => {
            let line = format!("Created prefetch artifact for layer {layer}: {artifact}\n");
            let _ = progress.aside(|| output::print(&line));
        }
        BuildEvent::Prefetch { .. } => {}
        // To standard error, and also when quiet: it may be a mistake in the list.
        BuildEvent::Missing(path) => {
            progress.aside(|| {
                output::note(&format!("[WARN] prefetch file {path} not found in any indexed layer"))
            });
        }
        BuildEvent::Done(report) => {
            progress.finish(&report.layer);
            say(&progress, silent, &report);
        }
    })
}

/// Prints soci's line about a layer.
pub(super) fn say(progress: &Progress, silent: bool, report: &LayerReport) {
    if !silent {
        // The index matters more than who reads about it.
        let _ = progress.aside(|| output::print(&format!("{report}\n")));
    }
}

fn describe(image: &Image, built: &BuiltIndex, pushed: bool) -> CreatedIndex {
    CreatedIndex {
        platform: platform::name(&image.platform),
        image_digest: image.digest().clone(),
        digest: built.digest.clone(),
        size: built.bytes.len(),
        pushed,
        layers: built.layers.iter().map(describe_layer).collect(),
    }
}

pub(super) fn describe_layer(report: &LayerReport) -> CreatedLayer {
    let (ztoc, already_exists) = match &report.outcome {
        Outcome::Built { ztoc, len } => (Some((ztoc.clone(), *len)), false),
        Outcome::Known { ztoc, len } => (Some((ztoc.clone(), *len)), true),
        Outcome::Skipped(_) => (None, false),
    };
    CreatedLayer {
        digest: report.layer.clone(),
        media_type: report.media_type.clone(),
        size: report.size,
        skipped: ztoc.is_none().then(|| report.to_string()),
        ztoc_size: ztoc.as_ref().map(|(_, len)| *len),
        ztoc: ztoc.map(|(digest, _)| digest),
        already_exists,
    }
}

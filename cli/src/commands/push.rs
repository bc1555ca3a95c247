//! `spandrel push`: an image's indexes from the store into its repository.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use serde::Serialize;
use spandrel_registry::manifest::Platform;
use spandrel_registry::{Digest, Reference};
use spandrel_soci::build::BuiltIndex;
use spandrel_soci::image::{Image, resolve};
use spandrel_soci::index::Version;
use spandrel_soci::platform::{self, Platforms};
use spandrel_soci::source::{ImageSource as _, RegistrySource};
use spandrel_soci::store::Record;

use super::blocking;
use crate::args::{Global, RegistryArgs, parse_platform, parse_reference};
use crate::error::Error;
use crate::{output, registry};

/// Push an image's indexes from the store into its repository: of each platform the newest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    /// Platform of the image, as in linux/arm64; may be given several times [default: all that the store has]
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform, conflicts_with = "all_platforms")]
    platform: Vec<Platform>,
    /// All platforms that the store has, which is the default
    #[arg(long)]
    all_platforms: bool,
    /// What to do where the image has an index in the registry already
    #[arg(long, value_enum, default_value_t = Existing::Warn, value_name = "HOW")]
    existing_index: Existing,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = spandrel_soci::push::DEFAULT_PARALLEL)]
    max_concurrent_uploads: NonZeroUsize,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What to do where the image has another index already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Existing {
    /// Say so, and push.
    Warn,
    /// Don't push.
    Skip,
    /// Push.
    Allow,
}

/// How to push.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Uploads at once.
    pub parallel: NonZeroUsize,
    /// What to do where there is another index.
    pub existing: Existing,
    /// Print nothing.
    pub quiet: bool,
}

/// What was pushed, as JSON.
#[derive(Debug, Serialize)]
struct Pushed {
    image: String,
    indexes: Vec<PushedIndex>,
}

#[derive(Debug, Serialize)]
struct PushedIndex {
    platform: String,
    image_digest: Option<Digest>,
    digest: Digest,
    size: u64,
    pushed: bool,
}

/// Does it.
///
/// # Errors
/// When the store has no index of what the reference names now, or the registry refuses it.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let store = global.store();
    let source = registry::source(&args.registry, &args.image)?;
    let name = args.image.to_string();
    let (listing, wanted) = (store.clone(), name.clone());
    let mut records = blocking(move || Ok(listing.list()?)).await?;
    // Indexes of version 2 are pushed with the image that names them, by `convert`.
    records.retain(|record| record.image == wanted && record.version == Version::V1);
    if records.is_empty() {
        let dir = store.dir().display();
        return Err(Error::NotFound(format!(
            "there is no index of {name} in {dir}; make one with `spandrel create {name}`"
        )));
    }
    let platforms =
        if args.platform.is_empty() { Platforms::All } else { Platforms::Listed(args.platform.clone()) };
    let resolved = resolve(&source, args.image.manifest_part(), &platforms).await?;
    let current: BTreeSet<&Digest> = resolved.images.iter().map(Image::digest).collect();
    let newest = newest(records, &current);
    if newest.is_empty() {
        return Err(Error::NotFound(format!(
            "the indexes of {name} in {} are of other platforms, or of what the tag named before; make one with \
             `spandrel create {name}`",
            store.dir().display()
        )));
    }
    let how = How {
        parallel: args.max_concurrent_uploads,
        existing: args.existing_index,
        quiet: args.quiet || global.json,
    };
    let mut pushed = Pushed { image: name, indexes: Vec::new() };
    for record in newest {
        let (loading, digest) = (store.clone(), record.digest.clone());
        let built = blocking(move || Ok(loading.load(&digest)?)).await?;
        pushed.indexes.push(PushedIndex {
            pushed: push(&source, &built, how).await?,
            platform: platform::name(&record.platform),
            image_digest: record.image_digest,
            digest: record.digest,
            size: record.size,
        });
    }
    if global.json { output::print_json(&pushed) } else { Ok(()) }
}

/// The newest record of each image that is current; records come the newest first.
fn newest(records: Vec<Record>, current: &BTreeSet<&Digest>) -> Vec<Record> {
    let mut seen = BTreeSet::new();
    let mut newest = records;
    newest.retain(|record| {
        record
            .image_digest
            .as_ref()
            .is_some_and(|image| current.contains(image) && seen.insert(image.clone()))
    });
    newest
}

/// Pushes an index unless there is another and it is to be skipped then; says whether it did. The lines are soci's.
///
/// # Errors
/// When the registry refuses it.
pub async fn push(source: &RegistrySource, built: &BuiltIndex, how: How) -> Result<bool, Error> {
    let say = |text: String| if how.quiet { Ok(()) } else { output::print(&text) };
    if how.existing != Existing::Allow
        && let Some(subject) = &built.index.subject
    {
        let others = source.referrers(&subject.digest, Version::V1).await?;
        if others.iter().any(|other| *other != built.digest) {
            if how.existing == Existing::Skip {
                say(format!("skipping soci index {}: the image has one already\n", built.digest))?;
                return Ok(false);
            }
            // To standard error, and also when quiet: readers take the first one, which may be the other.
            output::note(&format!(
                "[WARN] {}@{} has another soci index already; readers may take either",
                source.repository(),
                subject.digest
            ));
        }
    }
    say(format!("pushing soci index with digest: {}\n", built.digest))?;
    let pushed = |digest: &Digest, _: u64| {
        // What is pushed matters more than who reads about it.
        let _ = say(format!("successfully pushed artifact with digest: {digest}\n"));
    };
    spandrel_soci::push::push(source.client(), source.repository(), built, how.parallel, &pushed).await?;
    say(format!("successfully pushed artifact with digest: {}\n", built.digest))?;
    Ok(true)
}

//! `spandrel diff`: proves the indexes of an image against its layers.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use spandrel_registry::manifest::{Descriptor, Platform};
use spandrel_registry::{Digest, Reference};
use spandrel_soci::find::Found;
use spandrel_soci::image::{Image, resolve};
use spandrel_soci::index::{LayerZtoc, Version};
use spandrel_soci::platform::{self, Platforms};
use spandrel_soci::prove::{Differences, prove};
use spandrel_soci::source::RegistrySource;
use spandrel_ztoc::Ztoc;

use super::blocking;
use super::indexes::{OfVersion, of_version, ztoc};
use crate::args::{Global, RegistryArgs, parse_platform, parse_reference};
use crate::error::Error;
use crate::fit::fit;
use crate::progress::Progress;
use crate::{output, registry};

/// Prove an image's indexes: read its indexed layers again, and compare them with all that their zTOCs say.
///
/// The layers are downloaded whole and kept nowhere. The exit code is 6 when an index doesn't fit, 3 when there is none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    /// Platform of the image, as in linux/arm64; may be given several times [default: all that there are]
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform)]
    platform: Vec<Platform>,
    /// Print nothing but what differs, and errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What was found, as JSON.
#[derive(Debug, Serialize)]
struct Compared {
    image: String,
    digest: Digest,
    /// How many differences there are in all.
    differences: u64,
    indexes: Vec<ComparedIndex>,
}

#[derive(Debug, Serialize)]
struct ComparedIndex {
    platform: String,
    image_digest: Digest,
    manifest_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// Why it can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    layers: Vec<ComparedLayer>,
}

#[derive(Debug, Clone, Serialize)]
struct ComparedLayer {
    digest: Digest,
    ztoc: Digest,
    /// How many of the zTOC's were compared.
    spans: usize,
    files: usize,
    differences: u64,
    /// The first ones in words.
    named: Vec<String>,
}

/// Does it.
///
/// # Errors
/// [`Error::Differs`] when an index doesn't fit; when the image has none, or a layer can't be read.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let source = registry::source(&args.registry, &args.image)?;
    let platforms =
        if args.platform.is_empty() { Platforms::All } else { Platforms::Listed(args.platform.clone()) };
    let resolved = resolve(&source, args.image.manifest_part(), &platforms).await?;
    let name = args.image.to_string();
    let work = Work { source, progress: Progress::new(args.quiet), silent: global.json, quiet: args.quiet };
    let mut indexes = Vec::new();
    // An index of version 2 may be beside the same of version 1, with the same zTOCs: a layer is read once for each zTOC.
    let mut known: Vec<ComparedLayer> = Vec::new();
    for image in &resolved.images {
        let mut any = false;
        for version in [Version::V2, Version::V1] {
            let Some(compared) = work.index(image, version, &mut known).await? else { continue };
            any = true;
            indexes.push(compared);
        }
        if !any {
            output::note(&format!("no index for {}", platform::name(&image.platform)));
        }
    }
    if indexes.is_empty() {
        return Err(Error::NotFound(format!(
            "{name} has no index in its registry; make one with `spandrel create {name} --push`"
        )));
    }
    let of_index = |index: &ComparedIndex| {
        let of_layers: u64 = index.layers.iter().map(|layer| layer.differences).sum();
        of_layers + u64::from(index.error.is_some())
    };
    let differences = indexes.iter().map(of_index).sum();
    let digest = resolved.root.digest;
    if global.json {
        output::print_json(&Compared { image: name.clone(), digest, differences, indexes })?;
    }
    if differences == 0 { Ok(()) } else { Err(Error::Differs { image: name, differences }) }
}

/// What is the same for all that is compared.
struct Work {
    source: RegistrySource,
    progress: Progress,
    /// Nothing is printed on the way: JSON comes at the end.
    silent: bool,
    /// Only what differs is printed.
    quiet: bool,
}

impl Work {
    fn say(&self, text: &str) -> Result<(), Error> {
        if self.silent { Ok(()) } else { self.progress.aside(|| output::print(text)) }
    }

    /// Compares the image's index of `version`, where it has one.
    async fn index(
        &self,
        image: &Image,
        version: Version,
        known: &mut Vec<ComparedLayer>,
    ) -> Result<Option<ComparedIndex>, Error> {
        let platform = platform::name(&image.platform);
        let mut compared = ComparedIndex {
            image_digest: image.digest().clone(),
            manifest_version: version.name(),
            digest: None,
            error: None,
            layers: Vec::new(),
            platform: platform.clone(),
        };
        match of_version(&self.source, image, version).await? {
            OfVersion::None => return Ok(None),
            OfVersion::Broken(what) => {
                self.say(&format!("{platform}: index {}: {what}\n", version.name()))?;
                compared.error = Some(what);
            }
            OfVersion::Found { found, .. } => {
                let Found { digest, index, .. } = *found;
                if !self.quiet {
                    self.say(&format!("{platform}: index {} {digest}\n", version.name()))?;
                }
                let mut seen = BTreeSet::new();
                // Readers take the first entry for a layer.
                for listed in index.layers.iter().filter(|listed| seen.insert(&listed.layer)) {
                    compared.layers.push(self.layer(image, listed, known).await?);
                }
                compared.digest = Some(digest);
            }
        }
        Ok(Some(compared))
    }

    /// Compares a layer with the zTOC that is listed for it, and prints what was found.
    async fn layer(
        &self,
        image: &Image,
        listed: &LayerZtoc,
        known: &mut Vec<ComparedLayer>,
    ) -> Result<ComparedLayer, Error> {
        let before =
            known.iter().find(|layer| layer.digest == listed.layer && layer.ztoc == listed.ztoc.digest);
        let compared = match before {
            Some(before) => before.clone(),
            None => {
                let layer = image.manifest.layers.iter().find(|layer| layer.digest == listed.layer);
                let compared = self.compare(layer, listed).await?;
                known.push(compared.clone());
                compared
            }
        };
        let ComparedLayer { digest, ztoc, spans, files, differences, named } = &compared;
        match differences {
            0 if self.quiet => {}
            0 => {
                self.say(&format!("layer {digest}: ztoc {ztoc} is true ({spans} spans, {files} files)\n"))?
            }
            _ => {
                let mut text = format!("layer {digest}: ztoc {ztoc} differs:\n");
                named.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
                let more = differences.saturating_sub(named.len() as u64);
                if more > 0 {
                    text.push_str(&format!("    and {more} more\n"));
                }
                self.say(&text)?;
            }
        }
        Ok(compared)
    }

    /// Compares a layer of the image, if it is one, with a zTOC.
    async fn compare(&self, layer: Option<&Descriptor>, listed: &LayerZtoc) -> Result<ComparedLayer, Error> {
        let mut compared = ComparedLayer {
            digest: listed.layer.clone(),
            ztoc: listed.ztoc.digest.clone(),
            spans: 0,
            files: 0,
            differences: 1,
            named: Vec::new(),
        };
        let Some(layer) = layer else {
            compared.named.push("the image has no such layer".to_owned());
            return Ok(compared);
        };
        let ztoc = match ztoc(&self.source, &listed.ztoc).await? {
            Err(what) => Err(what),
            Ok(bytes) => {
                let layer = layer.clone();
                blocking(move || Ok(read(&bytes, &layer))).await?
            }
        };
        let ztoc = match ztoc {
            Ok(ztoc) => Arc::new(ztoc),
            Err(what) => {
                compared.named.push(what);
                return Ok(compared);
            }
        };
        (compared.spans, compared.files) = (ztoc.checkpoints.len(), ztoc.entries.len());
        self.progress.start(&layer.digest, layer.size, "read");
        let arrived = |len| self.progress.advance(&layer.digest, len);
        let Differences { count, named } = prove(&self.source, layer, ztoc, &arrived).await?;
        self.progress.finish(&layer.digest);
        (compared.differences, compared.named) = (count, named);
        Ok(compared)
    }
}

/// A zTOC that can be one of `layer`, or why it can't.
fn read(bytes: &[u8], layer: &Descriptor) -> Result<Ztoc, String> {
    let ztoc = Ztoc::decode(bytes).map_err(|error| error.to_string())?;
    fit(&ztoc, layer)?;
    Ok(ztoc)
}

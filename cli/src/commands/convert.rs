//! `spandrel convert`: an image from anywhere to anywhere, so that it names its own index.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Serialize;
use spandrel_registry::Digest;
use spandrel_soci::build::BuildEvent;
use spandrel_soci::convert::{ConvertEvent, ConvertOptions, Converted, ConvertedImage, Tell, convert};
use spandrel_soci::platform;

use super::create::{CreatedLayer, describe_layer, keep, say, teller};
use crate::args::{BuildArgs, Global, PlatformArgs, RegistryArgs};
use crate::error::Error;
use crate::place::{Format, Place};
use crate::progress::Progress;
use crate::{output, registry};

/// Copy an image so that it names its own index (version 2), which every reader of the image then finds.
///
/// SRC and DST are registry.example/app:1, oci-dir:PATH and oci-archive:PATH (with or without :TAG behind them), containerd:NAME
/// (an image in the containerd that --address and --namespace say) or (SRC only) docker-archive:PATH.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image
    #[arg(value_name = "SRC")]
    src: String,
    /// Where to put it, and under which name
    #[arg(value_name = "DST")]
    dst: String,
    #[command(flatten)]
    platforms: PlatformArgs,
    #[command(flatten)]
    build: BuildArgs,
    /// Make indexes of version 1 too, which refer to the converted images: for readers that know no others
    #[arg(long)]
    both: bool,
    /// SRC and DST are paths of OCI image layouts, as soci has it
    #[arg(long)]
    standalone: bool,
    /// What is written to DST in a standalone conversion
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::OciArchive, requires = "standalone")]
    format: Format,
    /// Blobs copied at once, besides the layers that are indexed
    #[arg(long, value_name = "N", default_value_t = spandrel_soci::push::DEFAULT_PARALLEL)]
    max_concurrent_uploads: NonZeroUsize,
    /// Credentials for the registry of SRC, where it isn't DST's
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    src_user: Option<String>,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What was made, as JSON.
#[derive(Debug, Serialize)]
struct Made {
    source: String,
    target: String,
    digest: Digest,
    size: usize,
    images: Vec<MadeImage>,
    without_index: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MadeImage {
    platform: String,
    source_digest: Digest,
    digest: Digest,
    index: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_v1: Option<Digest>,
    layers: Vec<CreatedLayer>,
}

/// Does it.
///
/// # Errors
/// When the image can't be read, no layer of any platform can be indexed, or DST can't be written.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let (src, dst) = places(&args)?;
    let user = args.src_user.as_ref();
    let (from, to) = registry::clients(&args.registry, user, src.reference(), dst.reference())?;
    let containerd = global.containerd();
    let (source, part) = src.source(from, &containerd).await?;
    let repository = src.reference().map(|src| src.repository.clone());
    let options = ConvertOptions {
        platforms: args.platforms.platforms(),
        build: args.build.options()?,
        v1: args.both,
        parallel: args.max_concurrent_uploads,
    };
    // Behind all that the command line may have got wrong: a target may hold something from now on.
    let target = dst.target(to, &containerd, repository).await?;
    let tell = tell(Arc::new(Progress::new(args.quiet)), args.quiet || global.json);
    let known = args.build.known(global);
    let converted = convert(source, &part, target, &options, &*known, tell).await?;
    let name = dst.to_string();
    for image in &converted.images {
        for index in [Some(&image.index), image.v1.as_ref()].into_iter().flatten() {
            keep(global, &name, &image.digest, &image.platform, index).await?;
        }
    }
    for platform in &converted.without {
        output::note(&format!("no index for {}: no layer to be indexed", platform::name(platform)));
    }
    if global.json {
        output::print_json(&made(&src, &dst, &converted))
    } else {
        if !args.quiet {
            output::note(&format!("{name} is {}", converted.root.digest));
        }
        Ok(())
    }
}

/// Where the image comes from and goes to.
fn places(args: &Args) -> Result<(Place, Place), Error> {
    if args.standalone {
        return Ok((Place::standalone_source(&args.src), Place::standalone_target(&args.dst, args.format)));
    }
    let parse = |text: &str| {
        text.parse::<Place>()
            .map_err(|what| Error::Usage(format!("{text:?} names no place for an image: {what}")))
    };
    Ok((parse(&args.src)?, parse(&args.dst)?))
}

/// Turns events into bars and soci's lines.
fn tell(progress: Arc<Progress>, silent: bool) -> Tell {
    let build = teller(Arc::clone(&progress), silent);
    Arc::new(move |event| match event {
        // It is done when it is copied, which may be later.
        ConvertEvent::Build(BuildEvent::Done(report)) => say(&progress, silent, &report),
        ConvertEvent::Build(event) => build(event),
        ConvertEvent::Expect(blobs) => progress.expect(blobs),
        ConvertEvent::Copy { blob, size } => progress.start(&blob, size, "copy"),
        ConvertEvent::Bytes { blob, len } => progress.advance(&blob, len),
        ConvertEvent::Copied { blob, .. } => progress.finish(&blob),
    })
}

fn made(src: &Place, dst: &Place, converted: &Converted) -> Made {
    Made {
        source: src.to_string(),
        target: dst.to_string(),
        digest: converted.root.digest.clone(),
        size: converted.root.bytes.len(),
        images: converted.images.iter().map(made_image).collect(),
        without_index: converted.without.iter().map(platform::name).collect(),
    }
}

fn made_image(image: &ConvertedImage) -> MadeImage {
    MadeImage {
        platform: platform::name(&image.platform),
        source_digest: image.old.clone(),
        digest: image.digest.clone(),
        index: image.index.digest.clone(),
        index_v1: image.v1.as_ref().map(|index| index.digest.clone()),
        layers: image.index.layers.iter().map(describe_layer).collect(),
    }
}

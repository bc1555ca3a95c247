//! `spandrel pull`: an image into containerd, lazily where the snapshotter can.

use std::sync::Arc;

use indicatif::BinaryBytes;
use spandrel_registry::Reference;
use spandrel_registry::manifest::Platform;
use spandrel_soci::image::resolve;
use spandrel_soci::platform::Platforms;

use crate::args::{Global, RegistryArgs, parse_platform, parse_reference};
use crate::error::Error;
use crate::progress::Progress;
use crate::pull::{How, ImageToPull, PullEvent, PullOptions, PulledLayer, pull};
use crate::{output, registry};

/// Pull an image into containerd so that its layers are mounted, not downloaded, where they have an index.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    /// The snapshotter, by its name in containerd's configuration
    #[arg(long, value_name = "NAME", default_value = "spandrel")]
    snapshotter: String,
    /// Platform of the image, as in linux/arm64 [default: this machine's]
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform)]
    platform: Option<Platform>,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Does it.
///
/// # Errors
/// When the image can't be read, or containerd or its snapshotter refuses.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let source = registry::source(&args.registry, &args.image)?;
    let platforms = args.platform.map_or(Platforms::Default, |platform| Platforms::Listed(vec![platform]));
    let resolved = resolve(&source, args.image.manifest_part(), &platforms).await?;
    let name = args.image.to_string();
    let image = resolved
        .images
        .into_iter()
        .next()
        .ok_or_else(|| Error::NotFound(format!("{name} has no image for this machine")))?;
    let image = ImageToPull { reference: args.image, root: resolved.root, manifest: image.fetched };
    let options = PullOptions { containerd: global.containerd(), snapshotter: args.snapshotter, name };
    let silent = args.quiet || global.json;
    let progress = Arc::new(Progress::new(args.quiet));
    let tell = Arc::new(move |event| match event {
        PullEvent::Download(layer, size) => progress.start(&layer, size, "pull"),
        PullEvent::Bytes(layer, len) => progress.advance(&layer, len),
        PullEvent::Layer(layer) => {
            progress.finish(&layer.digest);
            if !silent {
                // The image matters more than who reads about it.
                let _ = progress.aside(|| output::print(&line(&layer)));
            }
        }
    });
    let pulled = pull(source.client(), &image, &options, tell).await?;
    if global.json {
        output::print_json(&pulled)
    } else if args.quiet {
        Ok(())
    } else {
        output::print(&format!("pulled {} ({}) for {}\n", pulled.name, pulled.manifest, pulled.snapshotter))
    }
}

/// A layer as a line.
fn line(layer: &PulledLayer) -> String {
    let how = match layer.how {
        How::Exists => "is there already",
        How::Remote => "needn't be pulled",
        How::Unpacked => "was pulled and unpacked by containerd",
    };
    format!("layer {} ({}) {how}\n", layer.digest, BinaryBytes(layer.size))
}

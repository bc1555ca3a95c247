//! `spandrel inspect`: what an image's layers and indexes are, what will be lazy of it and where, and what a start costs.
//!
//! What is known is collected here and in `look`; `verdict` says what comes of it.

mod look;
mod verdict;

use serde::Serialize;
use spandrel_registry::Digest;
use spandrel_registry::Reference;
use spandrel_registry::manifest::Platform;
use spandrel_soci::build::DEFAULT_MIN_LAYER_SIZE;
use spandrel_soci::image::resolve;
use spandrel_soci::platform::Platforms;

use crate::args::{Global, RegistryArgs, parse_platform, parse_reference};
use crate::error::Error;
use crate::{output, registry, table, units};
use verdict::How;

/// Say of each layer of an image how large it is, whether it has an index, what will be lazy, and what a start will cost.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, as in registry.example/app:1.0
    #[arg(value_name = "IMAGE", value_parser = parse_reference)]
    image: Reference,
    /// Platform of the image, as in linux/arm64; may be given several times [default: all that there are]
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform)]
    platform: Vec<Platform>,
    /// The daemon's index.min_layer_size: smaller layers are downloaded whole
    #[arg(long, value_name = "SIZE", default_value_t = DEFAULT_MIN_LAYER_SIZE, value_parser = units::parse_size)]
    min_layer_size: u64,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What there is, as JSON.
#[derive(Debug, Serialize)]
struct Inspected {
    image: String,
    digest: Digest,
    platforms: Vec<OfPlatform>,
}

/// An image of one platform.
#[derive(Debug, Serialize)]
struct OfPlatform {
    platform: String,
    digest: Digest,
    /// Length of all layers in bytes, each counted once.
    size: u64,
    indexes: Vec<OfIndex>,
    layers: Vec<OfLayer>,
    start: Start,
}

/// An index, or that there is none.
#[derive(Debug, Serialize)]
struct OfIndex {
    manifest_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_tool: Option<String>,
    /// How many zTOCs it lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    ztocs: Option<usize>,
    /// Why there is none, or why it can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A layer.
#[derive(Debug, Serialize)]
struct OfLayer {
    digest: Digest,
    media_type: String,
    size: u64,
    format: String,
    /// That of the index which Spandrel takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ztoc: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ztoc_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
    spandrel: How,
    soci: How,
    fargate: How,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What Spandrel asks the registry for on a node that has nothing of the image, before its first file can be read.
#[derive(Debug, Default, Serialize)]
struct Start {
    /// Requests for index and zTOCs.
    requests: usize,
    /// Length of index and zTOCs.
    index_bytes: u64,
    lazy_layers: usize,
    whole_layers: usize,
    /// Length of the layers that are downloaded whole, by Spandrel or by containerd.
    whole_bytes: u64,
}

/// Does it.
///
/// # Errors
/// When the image can't be read, or the registry doesn't say what it has.
pub async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let source = registry::source(&args.registry, &args.image)?;
    let platforms =
        if args.platform.is_empty() { Platforms::All } else { Platforms::Listed(args.platform.clone()) };
    let resolved = resolve(&source, args.image.manifest_part(), &platforms).await?;
    let mut inspected = Inspected {
        image: args.image.to_string(),
        digest: resolved.root.digest.clone(),
        platforms: Vec::new(),
    };
    let ecr = spandrel_credentials::EcrHost::parse(&args.image.repository.host).is_some();
    for image in &resolved.images {
        inspected.platforms.push(look::at(&source, image, args.min_layer_size, ecr).await?);
    }
    if global.json { output::print_json(&inspected) } else { output::print(&text(&inspected)) }
}

/// For people.
fn text(inspected: &Inspected) -> String {
    let mut text = format!("{} is {}\n", inspected.image, inspected.digest);
    for image in &inspected.platforms {
        text.push_str(&format!("\n{}: {}, {} bytes\n", image.platform, image.digest, image.size));
        for index in &image.indexes {
            text.push_str(&format!("index {}: {}\n", index.manifest_version, index_text(index)));
        }
        let rows: Vec<_> = image.layers.iter().map(row).collect();
        let header = [
            "LAYER",
            "SIZE",
            "FORMAT",
            "ZTOC SIZE",
            "SPANS",
            "SPANDREL",
            "SOCI",
            "FARGATE",
            "NOT LAZY SINCE",
        ];
        // The last column is for reading only: no spaces behind it.
        for line in table::render(header, &rows).lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let start = &image.start;
        text.push_str(&format!(
            "a start: {} requests and {} bytes for index and zTOCs; {} layers lazily, {} whole ({} bytes)\n",
            start.requests, start.index_bytes, start.lazy_layers, start.whole_layers, start.whole_bytes
        ));
    }
    text
}

fn index_text(index: &OfIndex) -> String {
    let error = || index.error.clone().unwrap_or_default();
    let (Some(digest), Some(size), Some(ztocs)) = (&index.digest, index.size, index.ztocs) else {
        return error();
    };
    let tool = index.build_tool.as_deref().filter(|tool| !tool.is_empty()).unwrap_or("an unnamed tool");
    // Anybody's text: what a terminal would obey is shown as what it is.
    let tool = tool.escape_debug();
    format!("{digest} in {}, {size} bytes, {ztocs} zTOCs, by {tool}", index.repository)
}

fn row(layer: &OfLayer) -> [String; 9] {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    [
        layer.digest.to_string(),
        layer.size.to_string(),
        layer.format.escape_debug().to_string(),
        number(layer.ztoc_size),
        number(layer.spans.map(|spans| spans as u64)),
        layer.spandrel.name().to_owned(),
        layer.soci.name().to_owned(),
        layer.fargate.name().to_owned(),
        layer.reason.clone().unwrap_or_default(),
    ]
}

//! `spandrel ztoc list`.

use serde::Serialize;
use spandrel_registry::Digest;

use crate::args::Global;
use crate::commands::{blocking, canonical};
use crate::error::Error;
use crate::{output, table};

/// List the zTOCs in the store, by digest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this one
    #[arg(long, value_name = "DIGEST")]
    ztoc_digest: Option<Digest>,
    /// Only those of this image
    #[arg(long, value_name = "IMAGE")]
    image_ref: Option<String>,
    /// Print digests only
    #[arg(long, short)]
    quiet: bool,
}

/// A zTOC, as JSON.
#[derive(Debug, Serialize)]
struct Listed {
    digest: Digest,
    size: u64,
    layer_digest: Digest,
    layer_media_type: String,
    span_size: Option<u64>,
    image_refs: Vec<String>,
}

/// Does it.
pub(super) async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let store = global.store();
    let mut ztocs = blocking(move || Ok(store.ztocs()?)).await?;
    if let Some(digest) = &args.ztoc_digest {
        ztocs.retain(|ztoc| ztoc.entry.ztoc.digest == *digest);
    }
    if let Some(image) = &args.image_ref {
        let image = canonical(image);
        ztocs.retain(|ztoc| ztoc.images.contains(&image));
    }
    if global.json {
        let listed = ztocs.into_iter().map(|ztoc| Listed {
            digest: ztoc.entry.ztoc.digest,
            size: ztoc.entry.ztoc.size,
            layer_digest: ztoc.entry.layer,
            layer_media_type: ztoc.entry.layer_media_type,
            span_size: ztoc.entry.span_size,
            image_refs: ztoc.images.into_iter().collect(),
        });
        return output::print_json(&listed.collect::<Vec<_>>());
    }
    if args.quiet {
        return output::print(
            &ztocs.iter().map(|ztoc| format!("{}\n", ztoc.entry.ztoc.digest)).collect::<String>(),
        );
    }
    let rows: Vec<_> = ztocs
        .iter()
        .map(|ztoc| &ztoc.entry)
        .map(|entry| [entry.ztoc.digest.to_string(), entry.ztoc.size.to_string(), entry.layer.to_string()])
        .collect();
    output::print(&table::render(["DIGEST", "SIZE", "LAYER DIGEST"], &rows))
}

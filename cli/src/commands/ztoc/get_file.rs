//! `spandrel ztoc get-file`: a file out of a layer, fetching only the spans that hold it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest as _;
use spandrel_registry::{Digest, Reference};
use spandrel_soci::file::{copy, lookup};
use spandrel_soci::source::{BlobSource, LayerFile};
use spandrel_ztoc::{SpanId, SpanTable, Ztoc};

use super::locate::{Located, Remote, layer_by_size, locate};
use crate::args::Global;
use crate::commands::blocking;
use crate::error::Error;
use crate::output::Sink;
use crate::progress::Progress;
use crate::registry;

/// How much of a file is read at once, in bytes.
const READ_LEN: usize = 256 << 10;

/// Write a file out of a layer, fetching only the spans that hold it.
///
/// The layer is fetched from the image that the store has the zTOC of, or that --ref names, or is read from a local file
/// (--layer FILE). Links are followed within the layer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Digest of the zTOC, or a file
    #[arg(value_name = "ZTOC")]
    ztoc: String,
    /// Path of the file within the layer
    #[arg(value_name = "PATH")]
    path: String,
    /// Where to write it [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The layer: a local file, or a digest where no index says which layer the zTOC is of
    #[arg(long, value_name = "FILE|DIGEST")]
    layer: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Does it.
pub(super) async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let located = locate(&args.ztoc, &global.store(), &args.remote).await?;
    let bytes = located.bytes.clone();
    let (name, path) = (args.ztoc.clone(), args.path.clone());
    let (ztoc, range) = blocking(move || {
        let bad = |source| Error::Ztoc { path: name.clone().into(), source };
        let ztoc = Ztoc::decode(&bytes).map_err(bad)?;
        let range = lookup(&ztoc, path.as_bytes()).map_err(bad)?;
        Ok((Arc::new(ztoc), range.map_err(|error| Error::NotFound(error.to_string()))?))
    })
    .await?;
    let (source, layer) = layer(&args, &located, ztoc.compressed_size).await?;

    let progress = Progress::new(args.output.is_none());
    let spans =
        SpanTable::new(&ztoc).map_err(|source| Error::Ztoc { path: args.ztoc.clone().into(), source })?;
    let wanted = spans.covering(range.clone()).filter_map(|id| spans.get(SpanId(id)));
    progress.start(&layer, wanted.map(|span| span.compressed.end - span.compressed.start).sum(), "fetch");
    let mut sink = Sink::new(args.output.as_deref())?;
    copy(&*source, &layer, ztoc, range, &mut sink, &|len| progress.advance(&layer, len)).await.map_err(
        |error| match error {
            spandrel_soci::Error::Output(error) => sink.failed(error),
            error => error.into(),
        },
    )?;
    progress.finish(&layer);
    sink.finish()
}

/// Where the layer is, and its digest.
async fn layer(args: &Args, located: &Located, size: u64) -> Result<(Box<dyn BlobSource>, Digest), Error> {
    let given = args.layer.as_deref().map(|layer| layer.parse::<Digest>().map_err(|_| Path::new(layer)));
    if let Some(Err(path)) = given {
        let digest = match &located.layer {
            Some(digest) => digest.clone(),
            None => digest_of(path.to_owned()).await?,
        };
        return Ok((Box::new(LayerFile::new(path)), digest));
    }
    let image: &Reference = located.image.as_ref().ok_or_else(|| {
        Error::Usage("say where the layer is: --ref IMAGE, or --layer FILE for a local one".to_owned())
    })?;
    let source = registry::source(&args.remote.registry, image)?;
    let layer = match (given, &located.layer) {
        (Some(Ok(digest)), _) => digest,
        (_, Some(digest)) => digest.clone(),
        _ => layer_by_size(&source, image, &args.remote, size).await?,
    };
    Ok((Box::new(source), layer))
}

/// Digest of a layer in a file, for messages: a zTOC in a file doesn't say which layer it is of.
async fn digest_of(path: PathBuf) -> Result<Digest, Error> {
    blocking(move || {
        let mut hasher = sha2::Sha256::new();
        let hash = File::open(&path).and_then(|file| {
            let mut file = BufReader::with_capacity(READ_LEN, file);
            loop {
                let piece = file.fill_buf()?;
                if piece.is_empty() {
                    return Ok(());
                }
                hasher.update(piece);
                let len = piece.len();
                file.consume(len);
            }
        });
        hash.map_err(|source| Error::File { what: "reading", path, source })?;
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}").parse().map_err(|error| Error::Failed(format!("{error}")))
    })
    .await
}

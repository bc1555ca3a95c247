//! Indexes one layer: its bytes come from the source on the async side, and are inflated and walked on a thread.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;
use spandrel_ztoc::build::BuildOptions as ZtocOptions;
use spandrel_ztoc::limits::MAX_STREAM_LEN;
use spandrel_ztoc::unpack::LayerFormat;
use spandrel_ztoc::{Compression, Ztoc};

use super::{BuildEvent, BuildOptions, KnownZtocs, LayerReport, Outcome, Skip, Tell};
use crate::Error;
use crate::blob_reader::{BlobReader, bridge};
use crate::index::limit;
use crate::source::ImageSource;

/// How many bytes are looked at to tell the format.
const MAGIC_LEN: u64 = 4;

/// What became of a layer.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// The zTOC, when it has one.
    pub(super) ztoc: Option<Bytes>,
}

/// Indexes `layer`, or says why not.
pub(super) async fn index(
    source: Arc<dyn ImageSource>,
    layer: &Descriptor,
    options: &BuildOptions,
    known: &dyn KnownZtocs,
    tell: &Tell,
) -> Result<Done, Error> {
    let done = work(source, layer, options, known, tell).await?;
    tell(BuildEvent::Done(LayerReport { outcome: done.outcome.clone(), ..LayerReport::new(layer) }));
    Ok(done)
}

async fn work(
    source: Arc<dyn ImageSource>,
    layer: &Descriptor,
    options: &BuildOptions,
    known: &dyn KnownZtocs,
    tell: &Tell,
) -> Result<Done, Error> {
    let Some(named) = LayerFormat::of_media_type(&layer.media_type) else {
        return Ok(skipped(Skip::NotALayer));
    };
    if layer.size < options.min_layer_size {
        return Ok(skipped(Skip::Small { min: options.min_layer_size }));
    }
    if named == LayerFormat::Zstd {
        return Ok(skipped(Skip::Format("zstd")));
    }
    limit(&format!("length of layer {}", layer.digest), layer.size, MAX_STREAM_LEN)?;
    if let Some(ztoc) = known.get(&layer.digest, options.span_size, &options.build_tool) {
        let outcome = Outcome::Known { ztoc: Digest::sha256(&ztoc), len: ztoc.len() as u64 };
        return Ok(Done { outcome, ztoc: Some(ztoc) });
    }

    tell(BuildEvent::Start { layer: layer.digest.clone(), size: layer.size });
    let mut stream = source.blob_range(&layer.digest, 0..layer.size).await?;
    let (feed, reader) = bridge(layer.digest.algorithm());
    let ztoc_options = ZtocOptions { span_size: options.span_size, build_tool: options.build_tool.clone() };
    let thread = tokio::task::spawn_blocking(move || scan(reader, named, &ztoc_options));
    let fed =
        feed.feed(&mut *stream, |len| tell(BuildEvent::Bytes { layer: layer.digest.clone(), len })).await;
    let scanned = thread.await.map_err(|error| Error::Worker(error.to_string()))?;
    // When the network failed, what the thread says is only that its bytes broke off.
    fed?;
    let (scanned, got) = scanned.map_err(|source| read_error(layer, source))?;
    if got != layer.digest.as_str() {
        return Err(Error::LayerDigest { layer: layer.digest.to_string(), got });
    }
    Ok(match scanned {
        Ok(ztoc) => {
            let bytes = Bytes::from(ztoc.encode());
            known.keep(&layer.digest, options.span_size, &options.build_tool, &bytes);
            let outcome = Outcome::Built { ztoc: Digest::sha256(&bytes), len: bytes.len() as u64 };
            Done { outcome, ztoc: Some(bytes) }
        }
        Err(skip) => skipped(skip),
    })
}

fn skipped(skip: Skip) -> Done {
    Done { outcome: Outcome::Skipped(skip), ztoc: None }
}

fn read_error(layer: &Descriptor, source: io::Error) -> Error {
    Error::Layer { layer: layer.digest.to_string(), source: source.into() }
}

/// The zTOC or the reason why there is none, and the digest of the blob, which is read to its end in either case: whether
/// the layer is odd or its bytes were changed on the way shows only there.
fn scan(
    mut reader: BlobReader,
    named: LayerFormat,
    options: &ZtocOptions,
) -> io::Result<(Result<Ztoc, Skip>, String)> {
    let mut magic = Vec::new();
    reader.by_ref().take(MAGIC_LEN).read_to_end(&mut magic)?;
    let built = match (named, LayerFormat::of_first_bytes(&magic)) {
        // Docker's media type for plain tar is also put on compressed layers.
        (LayerFormat::Tar, LayerFormat::Zstd) => Err(Skip::Format("zstd")),
        (LayerFormat::Tar, LayerFormat::Tar) => {
            built(&magic, &mut reader, Compression::Uncompressed, options)?
        }
        _ => built(&magic, &mut reader, Compression::Gzip, options)?,
    };
    Ok((built, reader.finish()?))
}

/// Builds; only what breaks the reading off is an error.
fn built(
    magic: &[u8],
    reader: &mut BlobReader,
    compression: Compression,
    options: &ZtocOptions,
) -> io::Result<Result<Ztoc, Skip>> {
    match spandrel_ztoc::build::build(magic.chain(reader), compression, options) {
        Ok(built) => Ok(Ok(built.ztoc)),
        Err(spandrel_ztoc::Error::Io(error)) => Err(error),
        Err(error) => Ok(Err(Skip::Unindexable(error.to_string()))),
    }
}

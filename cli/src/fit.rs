//! Whether a zTOC can be used for a layer, by what both say: what the daemon looks at before it mounts one. Whether it tells
//! the truth shows only in the layer's bytes, which are `spandrel_soci::prove`'s to look at.

use spandrel_registry::manifest::Descriptor;
use spandrel_ztoc::tree::Tree;
use spandrel_ztoc::unpack::LayerFormat;
use spandrel_ztoc::{Compression, SpanTable, Ztoc};

/// Longest span that the daemon reads, in bytes of stream: it is held in memory whole. (The daemon's own limit is the same,
/// and the two programs share no crate that it could be in.)
const MAX_DECODED_LEN: u64 = 64 << 20;

/// Whether `ztoc`, with its windows or without, can be one of `layer`.
///
/// # Errors
/// Why it can't, in words.
pub fn fit(ztoc: &Ztoc, layer: &Descriptor) -> Result<(), String> {
    if ztoc.compressed_size != layer.size {
        let size = ztoc.compressed_size;
        return Err(format!("the zTOC is of a blob of {size} bytes, the layer has {}", layer.size));
    }
    let spans = SpanTable::new(ztoc).map_err(|error| error.to_string())?;
    let long = |len: u64| len > MAX_DECODED_LEN;
    if let Some(span) = spans.iter().find(|span| long(span.uncompressed.end - span.uncompressed.start)) {
        return Err(format!("span {} has over {MAX_DECODED_LEN} bytes of stream", span.id.0));
    }
    // Docker's media type for plain tar is also put on compressed layers: only what can't be is refused.
    match (ztoc.compression, LayerFormat::of_media_type(&layer.media_type)) {
        (Compression::Gzip, Some(LayerFormat::Gzip | LayerFormat::Tar))
        | (Compression::Uncompressed, Some(LayerFormat::Tar)) => {}
        (Compression::Gzip, _) => {
            return Err(format!("the zTOC is of a gzip blob, the layer is {}", layer.media_type));
        }
        (Compression::Uncompressed, _) => {
            return Err(format!("the zTOC is of a plain tar, the layer is {}", layer.media_type));
        }
    }
    Tree::new(&ztoc.entries, ztoc.uncompressed_size).map_err(|error| error.to_string())?;
    Ok(())
}

//! Proves a zTOC against its layer: reads the layer once, and compares it with all that the zTOC says.
//!
//! The layer's bytes are taken two ways at once. Each span is hashed and decoded from its checkpoint, as a node does it. The
//! whole is inflated from its beginning, as a plain pull does it, and its tar is walked. What the zTOC says is true when the
//! spans have their digests, both ways give the same stream, and the entries are the tar's.

mod entries;
mod spans;

use std::io::{self, Read};
use std::sync::Arc;

use spandrel_registry::manifest::Descriptor;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::unpack::{LayerFormat, StreamReader};
use spandrel_ztoc::{Compression, SpanTable, Ztoc};

use crate::Error;
use crate::blob_reader::{BlobReader, bridge};
use crate::source::BlobSource;

use spans::{Ranges, Spans};

/// Most differences that are put into words; more are counted only. Nobody reads more, and a layer has millions of entries.
const MAX_NAMED: usize = 20;

/// How much of the stream is taken at once, in bytes.
const PIECE_LEN: usize = 64 << 10;

/// In what a zTOC and its layer differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// How many there are.
    pub count: u64,
    /// The first ones, in words.
    pub named: Vec<String>,
}

impl Differences {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(what());
        }
    }
}

/// Reads all of `layer` from `source` and says in what `ztoc`, which is of a blob of the layer's length, differs from it.
/// `arrived` hears of the bytes that came.
///
/// Memory is that of one span and of the entries, twice.
///
/// # Errors
/// When the layer can't be had, or its bytes aren't those that its digest names: nothing is known of the zTOC then.
pub async fn prove(
    source: &dyn BlobSource,
    layer: &Descriptor,
    ztoc: Arc<Ztoc>,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<Differences, Error> {
    let bad = |source| Error::Layer { layer: layer.digest.to_string(), source };
    let table = SpanTable::new(&ztoc).map_err(bad)?;
    let mut stream = source.blob_range(&layer.digest, 0..layer.size).await?;
    let (feed, reader) = bridge(layer.digest.algorithm());
    let thread = tokio::task::spawn_blocking(move || compare(reader, &ztoc, table));
    let fed = feed.feed(&mut *stream, arrived).await;
    let compared = thread.await.map_err(|error| Error::Worker(error.to_string()))?;
    // When the network failed, what the thread says is only that its bytes broke off.
    fed?;
    let (differences, got) = compared.map_err(|error| bad(error.into()))?;
    if got != layer.digest.as_str() {
        return Err(Error::LayerDigest { layer: layer.digest.to_string(), got });
    }
    Ok(differences)
}

/// The layer's bytes on their way to the inflater: the spans see them too.
struct Tap<'a, 'b> {
    reader: &'a mut BlobReader,
    spans: &'a mut Spans<'b>,
}

impl Read for Tap<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.spans.push(&buf[..len]);
        Ok(len)
    }
}

/// The differences, and the digest of the blob, which is read to its end whatever is found.
fn compare(mut reader: BlobReader, ztoc: &Ztoc, table: SpanTable) -> io::Result<(Differences, String)> {
    let format = match ztoc.compression {
        Compression::Gzip => LayerFormat::Gzip,
        Compression::Uncompressed => LayerFormat::Tar,
    };
    let mut spans = Spans::new(ztoc, &table);
    let mut ranges = Ranges::new(&table);
    let mut walk = TarWalk::new(TarRules::Index);
    let mut broken = None;
    {
        let mut stream = StreamReader::new(Tap { reader: &mut reader, spans: &mut spans }, format)?;
        let mut piece = vec![0; PIECE_LEN];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => {
                    ranges.push(&piece[..len]);
                    // It fails from then on, and says so at the end.
                    let _ = walk.push(&piece[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
                {
                    broken = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    // What the inflater left, where it failed.
    io::copy(&mut Tap { reader: &mut reader, spans: &mut spans }, &mut io::sink())?;
    let mut differences = Differences::default();
    spans.finish(&mut differences, &ranges.finish());
    if let Some(broken) = broken {
        differences.add(|| format!("the layer can't be unpacked, so it can have no zTOC: {broken}"));
    } else {
        match walk.finish() {
            Ok(toc) => {
                if toc.archive_end != ztoc.uncompressed_size {
                    let (said, is) = (ztoc.uncompressed_size, toc.archive_end);
                    differences.add(|| format!("the tar ends at byte {is} of the stream, not at {said}"));
                }
                entries::compare(&ztoc.entries, &toc.entries, &mut differences);
            }
            Err(error) => differences.add(|| format!("the layer can have no zTOC: {error}")),
        }
    }
    Ok((differences, reader.finish()?))
}

#[cfg(test)]
mod tests;

//! Compares a lazy layer that has become complete with its diff ID and with its index, as a whole.
//!
//! The stream on disk ends where the tar does; the diff ID goes on to the blob's end, over padding that no span's length
//! counts. So what lies behind the tar's end is decoded once more, from the last spans' bytes.

use std::sync::Arc;

use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::{Span, SpanDecoder, SpanId};

use super::hash::Hasher;
use super::record::Record;
use crate::Error;
use crate::fetch::{BlobSource, Spans, blocking};

/// How much of the stream is read at a time, in bytes.
const READ_LEN: usize = 1 << 20;

/// Most padding behind a tar, in bytes: tools pad to 10 KiB, some to a multiple of a MiB.
const MAX_TAIL: u64 = 256 << 20;

/// Whether a layer all of whose spans are present is what its image and its index say; the error inside says what it is
/// instead.
///
/// # Errors
/// When the stream can't be read, or what lies behind the tar's end can't be had: it isn't known.
pub(super) async fn whole_stream(
    spans: &Arc<Spans>,
    record: &Record,
    source: Arc<dyn BlobSource>,
) -> Result<Result<(), String>, Error> {
    let tail = tail(spans, source).await?;
    let (spans, diff_id) = (Arc::clone(spans), record.diff_id.clone());
    blocking(move || {
        let mut hasher = Hasher::like(&diff_id);
        let mut walk = Ok(TarWalk::new(TarRules::Fill));
        let len = spans.table().stream_len();
        let mut buffer = vec![0; READ_LEN];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).map_or(READ_LEN, |left| left.min(READ_LEN));
            spans
                .files()
                .stream
                .read(at, &mut buffer[..part])
                .map_err(|e| Error::Internal(format!("read the stream: {e}")))?;
            hasher.update(&buffer[..part]);
            walk = walk.and_then(|mut walk| walk.push(&buffer[..part]).map(|()| walk));
            at += part as u64;
        }
        hasher.update(&tail);
        let found = hasher.finish();
        if found != diff_id.as_str() {
            return Ok(Err(format!("its tar has the digest {found}, the image says {diff_id} (diff ID)")));
        }
        // An index that left entries out may say that the tar ends where they begin.
        let toc = walk.and_then(|mut walk| walk.push(&tail).map(|()| walk)).and_then(TarWalk::finish);
        let compared = toc.map_err(|e| e.to_string()).and_then(|toc| spans.compare_all(&toc.entries));
        Ok(compared.map_err(|what| format!("its index doesn't describe it: {what}")))
    })
    .await
}

/// What the stream has behind the tar's end.
async fn tail(spans: &Spans, source: Arc<dyn BlobSource>) -> Result<Vec<u8>, Error> {
    let table = spans.table();
    let mut tail = Vec::new();
    let Some(first) = table.span_of_offset(table.stream_len().saturating_sub(1)) else { return Ok(tail) };
    for id in first.0..u32::try_from(table.len()).unwrap_or(u32::MAX) {
        let Some(span) = table.get(SpanId(id)) else { break };
        let bytes = whole_span(spans, &source, &span).await?;
        let known = usize::try_from(span.uncompressed.end - span.uncompressed.start).unwrap_or(usize::MAX);
        tail.extend_from_slice(bytes.get(known..).unwrap_or_default());
        if tail.len() as u64 > MAX_TAIL {
            return Err(Error::Corrupt(format!("there are over {MAX_TAIL} bytes behind the tar's end")));
        }
    }
    Ok(tail)
}

/// All that a span decodes to, also what lies behind the tar's end.
async fn whole_span(spans: &Spans, source: &Arc<dyn BlobSource>, span: &Span) -> Result<Vec<u8>, Error> {
    let table = spans.table();
    if span.compressed.is_empty() {
        return Ok(Vec::new());
    }
    let window = spans.window(span.id)?;
    let corrupt = |e: spandrel_ztoc::Error| Error::Corrupt(e.to_string());
    let mut decoder = match table.decoded_len(span.id) {
        Some(len) => {
            let len = usize::try_from(len).map_err(|e| Error::Internal(e.to_string()))?;
            SpanDecoder::new(table.compression(), span.bits, &window, len)
        }
        None => {
            let most = span.uncompressed.end - span.uncompressed.start + MAX_TAIL;
            let most = usize::try_from(most).map_err(|e| Error::Internal(e.to_string()))?;
            SpanDecoder::to_end(table.compression(), span.bits, &window, most)
        }
    }
    .map_err(corrupt)?;
    let mut hash = sha2::Sha256::default();
    let mut answer = source.open(span.compressed.clone()).await?;
    while let Some(chunk) = answer.next().await? {
        sha2::Digest::update(&mut hash, &chunk);
        decoder.push(&chunk).map_err(corrupt)?;
    }
    if spandrel_ztoc::Sha256Digest(sha2::Digest::finalize(hash).into()) != span.digest {
        return Err(Error::Corrupt(format!("span {} isn't what its index says", span.id.0)));
    }
    decoder.finish().map_err(corrupt)
}

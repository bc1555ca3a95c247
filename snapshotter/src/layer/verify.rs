//! Compares a lazy layer that has become complete with its diff ID and with its index, as a whole.
//!
//! The stream on disk ends where the tar does; the diff ID goes on to the blob's end, over padding that no span's length
//! counts. Zeros are tried for it, since a digest that fits proves them; anything else is decoded once more, from the last
//! spans' bytes.

use std::sync::Arc;
use std::time::Duration;

use spandrel_registry::Digest;
use spandrel_ztoc::tar::{TarError, TarRules, TarWalk, Toc};
use spandrel_ztoc::{Span, SpanDecoder, SpanId};
use tokio::sync::Semaphore;

use super::hash::Hasher;
use super::record::Record;
use crate::Error;
use crate::fetch::{BlobSource, Spans, Unaccepted, blocking};

/// How much of the stream is read at a time, in bytes.
const READ_LEN: usize = 1 << 20;

/// How much of the stream is read in one go, in bytes: some 10 ms of a core, then others have their turn.
const STEP_LEN: u64 = 8 << 20;

/// Most padding behind a tar that is decoded, in bytes: tools pad to 10 KiB, some to a multiple of a MiB. It is all in memory
/// at once, of one layer at a time.
const MAX_TAIL: u64 = 64 << 20;

/// Most padding that is tried without a look at it, in bytes: see [`MAX_TAIL`] for what tools make. To try all of it takes
/// milliseconds.
const MAX_ZEROS: usize = 1 << 20;

/// How long the registry has to send that padding: the next layer's turn comes after it, and this one's again later.
const TAIL_PATIENCE: Duration = Duration::from_secs(60);

/// Length of a tar's block, in bytes: padding is made of such, and ends at a multiple of it.
const TAR_BLOCK: usize = 512;

/// Layers that are read through at a time, on the whole node: nobody waits for the verdict, and readers need the cores. Also,
/// a layer's entries are in memory meanwhile.
pub(super) const AT_ONCE: usize = 1;

/// Whether a layer all of whose spans are present is what its image and its index say; the error inside says what it is
/// instead. `turns` are those of [`AT_ONCE`].
///
/// # Errors
/// When the stream can't be read, or what lies behind the tar's end can't be had: it isn't known.
pub(super) async fn whole_stream(
    spans: &Arc<Spans>,
    record: &Record,
    source: Arc<dyn BlobSource>,
    turns: &Semaphore,
) -> Result<Result<(), String>, Error> {
    let _turn = turns.acquire().await.expect("this semaphore is never closed");
    // What the disk takes back meanwhile would be read as zeros.
    let Some(_whole) = spans.keep_whole() else {
        return Err(Error::Unavailable("some of it was given back for lack of room".to_owned()));
    };
    let mut reading = Reading::new(&record.diff_id);
    while reading.at < spans.table().stream_len() {
        let this = Arc::clone(spans);
        reading = blocking(move || reading.step(&this)).await?;
    }
    let (this, diff_id) = (Arc::clone(spans), record.diff_id.clone());
    let padded = blocking(move || Ok(reading.with_zeros(&diff_id))).await?;
    let (found, toc) = match padded {
        Ok(toc) => (record.diff_id.to_string(), toc),
        Err(reading) => {
            let tail = tokio::time::timeout(TAIL_PATIENCE, tail(spans, source)).await;
            let tail = tail.unwrap_or_else(|_| {
                let waited = TAIL_PATIENCE.as_secs();
                Err(Error::Unavailable(format!("the blob's end did not come within {waited} s")))
            })?;
            blocking(move || Ok(reading.with(&tail))).await?
        }
    };
    if found != record.diff_id.as_str() {
        let diff_id = &record.diff_id;
        return Ok(Err(format!("its tar has the digest {found}, the image says {diff_id} (diff ID)")));
    }
    // An index that left entries out may say that the tar ends where they begin.
    blocking(move || {
        let compared = match toc {
            Ok(toc) => this.compare_all(&toc.entries),
            Err(error) => Err(Unaccepted::Differs(error.to_string())),
        };
        match compared {
            Ok(()) => Ok(Ok(())),
            Err(Unaccepted::Differs(what)) => Ok(Err(format!("its index doesn't describe it: {what}"))),
            Err(Unaccepted::Unread(what)) => Err(Error::Internal(what)),
        }
    })
    .await
}

/// A stream that is read through.
#[derive(Debug)]
struct Reading {
    hasher: Hasher,
    walk: Result<TarWalk, TarError>,
    /// How far it was read, in bytes of stream.
    at: u64,
}

impl Reading {
    fn new(diff_id: &Digest) -> Self {
        Self { hasher: Hasher::like(diff_id), walk: Ok(TarWalk::new(TarRules::Fill)), at: 0 }
    }

    /// Reads a step further.
    fn step(mut self, spans: &Spans) -> Result<Self, Error> {
        let end = self.at.saturating_add(STEP_LEN).min(spans.table().stream_len());
        let mut buffer = vec![0; READ_LEN];
        while self.at < end {
            let part = usize::try_from(end - self.at).map_or(READ_LEN, |left| left.min(READ_LEN));
            let bytes = &mut buffer[..part];
            let read = spans.files().stream.read_past_cache(self.at, bytes);
            read.map_err(|e| Error::Internal(format!("read the stream: {e}")))?;
            self = self.push(bytes);
        }
        Ok(self)
    }

    fn push(mut self, bytes: &[u8]) -> Self {
        self.hasher.update(bytes);
        self.walk = self.walk.and_then(|mut walk| walk.push(bytes).map(|()| walk));
        self.at += bytes.len() as u64;
        self
    }

    /// What the tar holds, if it has the digest `diff_id` with some zeros behind it.
    fn with_zeros(self, diff_id: &Digest) -> Result<Result<Toc, TarError>, Box<Self>> {
        let zeros = [0; TAR_BLOCK];
        let mut hasher = self.hasher.clone();
        // The first of them end a block that was begun.
        let begun = usize::try_from(self.at % TAR_BLOCK as u64).expect("is less than a block");
        let (mut len, mut next) = (0, (TAR_BLOCK - begun) % TAR_BLOCK);
        while len <= MAX_ZEROS {
            if hasher.clone().finish() == diff_id.as_str() {
                let padding = vec![0; len];
                return Ok(self.push(&padding).walk.and_then(TarWalk::finish));
            }
            if next == 0 {
                next = TAR_BLOCK;
            }
            hasher.update(&zeros[..next]);
            (len, next) = (len + next, TAR_BLOCK);
        }
        Err(Box::new(self))
    }

    /// Its digest with `tail` behind it, and what it holds.
    fn with(self, tail: &[u8]) -> (String, Result<Toc, TarError>) {
        let this = self.push(tail);
        (this.hasher.finish(), this.walk.and_then(TarWalk::finish))
    }
}

/// What the stream has behind the tar's end.
async fn tail(spans: &Spans, source: Arc<dyn BlobSource>) -> Result<Vec<u8>, Error> {
    let table = spans.table();
    let mut tail = Vec::new();
    let Some(first) = table.span_of_offset(table.stream_len().saturating_sub(1)) else { return Ok(tail) };
    for id in first.0..u32::try_from(table.len()).unwrap_or(u32::MAX) {
        let Some(span) = table.get(SpanId(id)) else { break };
        let known = span.uncompressed.end - span.uncompressed.start;
        if table.decoded_len(span.id) == Some(known) {
            continue;
        }
        let bytes = whole_span(spans, &source, &span).await?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
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

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;

//! The spans of a layer as its blob passes: hashed, decoded from their checkpoints, and compared with the stream.

use sha2::{Digest as _, Sha256};
use spandrel_ztoc::{Error, Sha256Digest, Span, SpanDecoder, SpanId, SpanTable, Ztoc};

use super::Differences;

/// What a span was found to be.
struct Seen {
    id: SpanId,
    /// Digest of its bytes in the blob, where it isn't what the zTOC says.
    other: Option<Sha256Digest>,
    /// Digest of what it decodes to, or why it doesn't.
    decoded: Result<Sha256Digest, String>,
}

/// Takes the blob's bytes and checks the spans that they are.
pub(super) struct Spans<'a> {
    ztoc: &'a Ztoc,
    table: &'a SpanTable,
    /// How much of the blob has passed, in bytes.
    position: u64,
    /// The byte before that: two spans may share it.
    last: u8,
    /// The span that the next byte belongs to, or that comes next.
    next: u32,
    running: Option<Running>,
    seen: Vec<Seen>,
}

/// A span on its way.
struct Running {
    span: Span,
    hasher: Sha256,
    decoder: Result<SpanDecoder, Error>,
}

impl Running {
    fn new(span: Span, ztoc: &Ztoc) -> Self {
        let len = span.uncompressed.end - span.uncompressed.start;
        let len = usize::try_from(len).unwrap_or(usize::MAX); // a zTOC's spans are checked: at most MAX_SPAN_LEN
        let decoder = SpanDecoder::new(ztoc.compression, span.bits, ztoc.window(span.id), len);
        Self { span, hasher: Sha256::new(), decoder }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Ok(decoder) = &mut self.decoder
            && let Err(error) = decoder.push(bytes)
        {
            self.decoder = Err(error);
        }
    }

    fn finish(self) -> Seen {
        let got = Sha256Digest(self.hasher.finalize().into());
        let decoded = self.decoder.and_then(SpanDecoder::finish);
        Seen {
            id: self.span.id,
            other: (got != self.span.digest).then_some(got),
            decoded: decoded.map(|bytes| Sha256Digest::of(&bytes)).map_err(|error| error.to_string()),
        }
    }
}

impl<'a> Spans<'a> {
    pub(super) fn new(ztoc: &'a Ztoc, table: &'a SpanTable) -> Self {
        Self { ztoc, table, position: 0, last: 0, next: 0, running: None, seen: Vec::new() }
    }

    /// Takes the blob's next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(span) = self.table.get(SpanId(self.next)) else { break };
            // Spans go on where the one before ends, or a byte before that; only the first may begin later.
            let until = if self.position < span.compressed.start {
                span.compressed.start
            } else {
                span.compressed.end
            };
            let len =
                usize::try_from(until.saturating_sub(self.position)).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(len);
            if self.position >= span.compressed.start {
                let running = self.running.get_or_insert_with(|| {
                    let mut running = Running::new(span.clone(), self.ztoc);
                    if self.position > span.compressed.start {
                        running.push(&[self.last]);
                    }
                    running
                });
                running.push(now);
            }
            self.pass(now);
            rest = later;
            if self.position >= span.compressed.end {
                self.end();
            }
        }
        self.pass(rest);
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.position += bytes.len() as u64;
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// The span that is running, or comes next and is empty, is over.
    fn end(&mut self) {
        let span = self.table.get(SpanId(self.next));
        let running = self.running.take().or_else(|| span.map(|span| Running::new(span, self.ztoc)));
        self.seen.extend(running.map(Running::finish));
        self.next += 1;
    }

    /// All of the blob has passed: what is wrong with its spans, of whose ranges `stream` has the digests.
    pub(super) fn finish(mut self, differences: &mut Differences, stream: &[Sha256Digest]) {
        while self.seen.len() < self.table.len() {
            self.end();
        }
        for (seen, want) in self.seen.iter().zip(stream) {
            let id = seen.id.0;
            if let Some(other) = &seen.other {
                differences.add(|| format!("span {id}: its bytes in the layer have the digest {other}"));
            }
            match &seen.decoded {
                Err(what) => {
                    differences.add(|| format!("span {id}: it can't be decoded from its checkpoint: {what}"))
                }
                Ok(decoded) if decoded != want => differences.add(|| {
                    format!("span {id}: decoded from its checkpoint it isn't what the layer has there")
                }),
                Ok(_) => {}
            }
        }
    }
}

/// Digests of those ranges of the stream that the spans hold, as it passes.
pub(super) struct Ranges<'a> {
    table: &'a SpanTable,
    position: u64,
    hasher: Sha256,
    digests: Vec<Sha256Digest>,
}

impl<'a> Ranges<'a> {
    pub(super) fn new(table: &'a SpanTable) -> Self {
        Self { table, position: 0, hasher: Sha256::new(), digests: Vec::new() }
    }

    fn next(&self) -> Option<Span> {
        self.table.get(SpanId(u32::try_from(self.digests.len()).ok()?))
    }

    /// Takes the stream's next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        // The ranges tile the stream up to the tar's end; those behind it are empty.
        while let Some(span) = self.next() {
            let left = span.uncompressed.end.saturating_sub(self.position);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(len);
            self.hasher.update(now);
            self.position += len as u64;
            rest = later;
            if self.position < span.uncompressed.end {
                return;
            }
            self.end();
        }
    }

    fn end(&mut self) {
        let hasher = std::mem::take(&mut self.hasher);
        self.digests.push(Sha256Digest(hasher.finalize().into()));
    }

    /// One digest for each span; of what the stream has of it, where it ends early.
    pub(super) fn finish(mut self) -> Vec<Sha256Digest> {
        while self.next().is_some() {
            self.end();
        }
        self.digests
    }
}

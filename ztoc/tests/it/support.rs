//! What the tests share: reading through a zTOC, and the tools that say what is right.

use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use spandrel_ztoc::{Entry, Sha256Digest, SpanDecoder, SpanId, SpanTable, Ztoc, decode_span};

/// Runs a tool with `input` on its standard input: what it wrote, and whether it was content.
///
/// Where the tool is missing the test fails and says which it is.
pub(crate) fn pipe(program: &str, args: &[&str], input: &[u8]) -> (Vec<u8>, bool) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs the program `{program}`: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A tool may stop reading early; what it wrote is looked at.
        scope.spawn(move || drop(stdin.write_all(input)));
        let output = child.wait_with_output().unwrap();
        (output.stdout, output.status.success())
    })
}

/// What GNU gzip makes of a blob.
pub(crate) fn gunzip(blob: &[u8]) -> Vec<u8> {
    let (stream, good) = pipe("gzip", &["-dc"], blob);
    assert!(good, "gzip can't read this blob");
    stream
}

/// Runs a tool in `dir`; it must be content.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).current_dir(dir).status();
    let status = status.unwrap_or_else(|error| panic!("this test needs the program `{program}`: {error}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// A layer that is read through its zTOC, with nothing but the spans' own bytes, as the daemon does it.
pub(crate) struct Layer<'a> {
    pub(crate) ztoc: &'a Ztoc,
    pub(crate) spans: SpanTable,
    blob: &'a [u8],
}

impl<'a> Layer<'a> {
    pub(crate) fn new(ztoc: &'a Ztoc, blob: &'a [u8]) -> Self {
        Self { ztoc, spans: SpanTable::new(ztoc).unwrap(), blob }
    }

    /// Span `id`, with its digest checked.
    pub(crate) fn span(&self, id: u32) -> (Range<u64>, Vec<u8>) {
        let span = self.spans.get(SpanId(id)).unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let compressed = &self.blob[at(span.compressed.start)..at(span.compressed.end)];
        assert_eq!(Sha256Digest::of(compressed), span.digest, "span {id}");
        let window = self.ztoc.window(span.id);
        let len = at(span.uncompressed.end - span.uncompressed.start);
        let bytes = decode_span(self.ztoc.compression, span.bits, window, compressed, len)
            .unwrap_or_else(|error| panic!("span {id}: {error}"));
        (span.uncompressed, bytes)
    }

    /// A range of the stream.
    pub(crate) fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in self.spans.pieces(range) {
            bytes.extend_from_slice(piece.cut(&self.span(piece.span.id.0).1).unwrap());
        }
        bytes
    }

    /// The content of an entry.
    pub(crate) fn content(&self, entry: &Entry) -> Vec<u8> {
        self.read(entry.data())
    }

    /// The stream with the padding behind the tar's end: what a diff ID is the digest of.
    fn whole_stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        for span in self.spans.iter() {
            let at = |offset: u64| usize::try_from(offset).unwrap();
            let compressed = &self.blob[at(span.compressed.start)..at(span.compressed.end)];
            let window = self.ztoc.window(span.id);
            let compression = self.ztoc.compression;
            let mut decoder = match self.spans.decoded_len(span.id) {
                Some(len) => SpanDecoder::new(compression, span.bits, window, at(len)),
                None => SpanDecoder::to_end(compression, span.bits, window, 1 << 30),
            }
            .unwrap();
            // As from a network: in pieces.
            compressed.chunks(10_007).for_each(|piece| decoder.push(piece).unwrap());
            stream.extend(decoder.finish().unwrap());
        }
        stream
    }

    /// Every span decodes to its part of `stream`, and together they are all of it up to the tar's end.
    pub(crate) fn check_spans(&self, stream: &[u8]) {
        let mut end = 0;
        for id in 0..u32::try_from(self.spans.len()).unwrap() {
            let (at, bytes) = self.span(id);
            assert_eq!(at.start, end, "span {id} begins where the one before ends");
            end = at.end;
            let want = &stream[usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()];
            assert!(bytes == want, "span {id} isn't its part of the stream");
        }
        assert_eq!(end, self.spans.stream_len());
        assert!(self.whole_stream() == stream, "with what lies behind the tar's end");
    }
}

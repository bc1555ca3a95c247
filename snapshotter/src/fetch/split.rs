//! Takes the answer to a request for several spans apart, as it arrives. No I/O.
//!
//! A span whose checkpoint lies within a byte begins with the byte that the span before it ends with: that byte belongs to
//! both.

use std::ops::Range;

/// An answer on its way.
#[derive(Debug)]
pub struct Splitter {
    /// Where each span lies in the blob, in order; neighbours, none of them empty.
    spans: Vec<Range<u64>>,
    /// Which of them the next byte belongs to.
    current: usize,
    /// Where the next byte lies in the blob.
    at: u64,
}

/// A piece of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Index of the span that it belongs to.
    pub span: usize,
    /// The bytes, at least one.
    pub bytes: &'a [u8],
    /// Whether the span ends with them.
    pub last: bool,
}

impl Splitter {
    /// An answer with these spans: where each lies in the blob, in order; neighbours, none of them empty.
    pub fn new(spans: Vec<Range<u64>>) -> Self {
        let at = spans.first().map_or(0, |span| span.start);
        Self { spans, current: 0, at }
    }

    /// Whether every span has had its last byte.
    pub fn is_done(&self) -> bool {
        self.current == self.spans.len()
    }

    /// The next piece of `input`, of which `used` bytes have been seen; `None` when there is none.
    pub fn next<'a>(&mut self, input: &'a [u8], used: &mut usize) -> Option<Piece<'a>> {
        let span = self.spans.get(self.current)?;
        let rest = &input[*used..];
        let left = span.end.saturating_sub(self.at);
        let take = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        if take == 0 {
            return None;
        }
        *used += take;
        self.at += take as u64;
        let piece = Piece { span: self.current, bytes: &rest[..take], last: self.at == span.end };
        if piece.last {
            self.current += 1;
            if self.spans.get(self.current).is_some_and(|next| next.start < self.at) {
                // The shared byte once more: `take` is at least 1.
                self.at -= 1;
                *used -= 1;
            }
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(spans: &[Range<u64>], chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut splitter = Splitter::new(spans.to_vec());
        let mut out = vec![Vec::new(); spans.len()];
        for chunk in chunks {
            let mut used = 0;
            while let Some(piece) = splitter.next(chunk, &mut used) {
                out[piece.span].extend_from_slice(piece.bytes);
                assert_eq!(
                    piece.last,
                    out[piece.span].len() as u64 == spans[piece.span].end - spans[piece.span].start
                );
            }
        }
        (out, splitter.is_done())
    }

    #[test]
    fn a_shared_byte_belongs_to_both() {
        let (out, done) = split(&[10..13, 12..14, 14..15], &[b"ab", b"cde", b"surplus"]);
        assert_eq!(out, [b"abc".to_vec(), b"cd".to_vec(), b"e".to_vec()]);
        assert!(done);
        assert!(!split(&[0..2, 1..3], &[b"ab"]).1, "an answer that ends early");
    }

    proptest! {
        #[test]
        fn however_it_arrives(lens in prop::collection::vec((2u64..9, any::<bool>()), 1..6), cuts in prop::collection::vec(1usize..7, 1..30)) {
            let mut spans = Vec::new();
            let mut at = 5u64;
            for (len, shared) in lens {
                let start = if shared && !spans.is_empty() { at - 1 } else { at };
                spans.push(start..start + len);
                at = start + len;
            }
            let blob: Vec<u8> = (5..at).map(|byte| u8::try_from(byte).expect("small")).collect();
            let mut chunks = Vec::new();
            let mut rest = blob.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, more) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = more;
            }
            let (out, done) = split(&spans, &chunks);
            prop_assert!(done);
            for (span, bytes) in spans.iter().zip(out) {
                let want: Vec<u8> = span.clone().map(|byte| u8::try_from(byte).expect("small")).collect();
                prop_assert_eq!(bytes, want);
            }
        }
    }
}

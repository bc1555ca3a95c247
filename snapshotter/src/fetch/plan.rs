//! Which missing spans are asked for together. Decisions only: no I/O, no clock.

use std::ops::Range;

use spandrel_ztoc::Span;

use super::limits::{MAX_DECODED_LEN, MAX_REQUEST_LEN};

/// Groups `missing`, in order, into runs of neighbours, each for one range request of at most `MAX_REQUEST_LEN`
/// compressed bytes and `MAX_DECODED_LEN` decoded ones (a longer span is alone). The answer are ranges of indexes into `missing`.
pub fn requests(missing: &[Span]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (index, span) in missing.iter().enumerate() {
        let fits = groups.last().is_some_and(|group| {
            let first = &missing[group.start];
            let last = &missing[group.end - 1];
            last.id.0 + 1 == span.id.0
                && span.compressed.end - first.compressed.start <= MAX_REQUEST_LEN
                && span.uncompressed.end - first.uncompressed.start <= MAX_DECODED_LEN
        });
        match groups.last_mut() {
            Some(group) if fits => group.end = index + 1,
            _ => groups.push(index..index + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use spandrel_ztoc::{Sha256Digest, SpanId};

    fn span(id: u32, compressed: Range<u64>) -> Span {
        Span { id: SpanId(id), compressed, uncompressed: 0..1, bits: 0, digest: Sha256Digest([0; 32]) }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
    fn neighbours_are_asked_for_together() {
        const MIB: u64 = 1 << 20;
        for (missing, want) in [
            (vec![], vec![]),
            (vec![span(0, 0..9)], vec![0..1]),
            (vec![span(0, 0..9), span(1, 8..20)], vec![0..2]), // they share a byte
            (vec![span(0, 0..9), span(2, 20..30)], vec![0..1, 1..2]), // span 1 is there already
            (
                vec![span(4, 0..10 * MIB), span(5, 10 * MIB..16 * MIB), span(6, 16 * MIB..17 * MIB)],
                vec![0..2, 2..3],
            ),
            (vec![span(4, 0..100 * MIB), span(5, 100 * MIB..101 * MIB)], vec![0..1, 1..2]),
        ] {
            assert_eq!(requests(&missing), want, "{missing:?}");
        }
    }
}

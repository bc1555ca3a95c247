//! Tests of span arithmetic: which spans hold a range, and checkpoints that tile no stream.

use super::*;

const KIB: u64 = 1024;

/// A gzip zTOC of a blob of 100 KiB and a stream of 400 KiB, with these checkpoints (in, out, bits).
fn ztoc(points: &[(u64, u64, u8)]) -> Ztoc {
    Ztoc {
        version: b"0.9".to_vec(),
        build_tool: Vec::new(),
        compressed_size: 100 * KIB,
        uncompressed_size: 400 * KIB,
        entries: Vec::new(),
        compression: Compression::Gzip,
        span_size: 64 * KIB,
        checkpoints: points
            .iter()
            .map(|&(compressed_offset, uncompressed_offset, bits)| Checkpoint {
                compressed_offset,
                uncompressed_offset,
                bits,
            })
            .collect(),
        windows: vec![0; points.len() * WINDOW_LEN],
        span_digests: vec![Sha256Digest([0; 32]); points.len()],
        first_checkpoint_implied: false,
    }
}

fn table() -> SpanTable {
    SpanTable::new(&ztoc(&[(10, 0, 0), (30 * KIB, 100 * KIB, 3), (60 * KIB, 250 * KIB, 0)])).expect("tiles")
}

#[test]
fn spans_tile_blob_and_stream() {
    let spans: Vec<_> = table().iter().map(|span| (span.compressed, span.uncompressed, span.bits)).collect();
    let want = [
        (10..30 * KIB, 0..100 * KIB, 0),
        (30 * KIB - 1..60 * KIB, 100 * KIB..250 * KIB, 3), // its first byte is also the last of the span before
        (60 * KIB..100 * KIB, 250 * KIB..400 * KIB, 0),
    ];
    assert_eq!(spans, want);
    assert_eq!(table().get(SpanId(3)), None);
    assert_eq!((table().len(), table().stream_len(), table().blob_len()), (3, 400 * KIB, 100 * KIB));
}

#[test]
fn covering_is_half_open() {
    for (range, want) in [
        (0..1, 0..1),
        (0..100 * KIB, 0..1), // ends where span 1 begins
        (100 * KIB - 1..100 * KIB + 1, 0..2),
        (100 * KIB..250 * KIB, 1..2),
        (0..400 * KIB, 0..3),
        (400 * KIB - 1..u64::MAX, 2..3), // what lies past the end is cut
        (400 * KIB..401 * KIB, 0..0),
        (u64::MAX - 1..u64::MAX, 0..0),
        (7..7, 0..0),
        (0..0, 0..0),
    ] {
        assert_eq!(table().covering(range.clone()), want, "{range:?}");
    }
}

#[test]
fn a_range_that_runs_backwards_needs_nothing() {
    assert_eq!(table().covering(Range { start: 300 * KIB, end: 5 }), 0..0);
}

#[test]
fn pieces_are_the_parts_of_a_range() {
    let kib = |count: usize| count * 1024;
    for (range, want, fetched) in [
        (0..1, vec![(0, 0..1)], Some(10..30 * KIB)),
        (99 * KIB..101 * KIB, vec![(0, kib(99)..kib(100)), (1, 0..kib(1))], Some(10..60 * KIB)),
        (100 * KIB..250 * KIB, vec![(1, 0..kib(150))], Some(30 * KIB - 1..60 * KIB)),
        (399 * KIB..u64::MAX, vec![(2, kib(149)..kib(150))], Some(60 * KIB..100 * KIB)),
        (400 * KIB..401 * KIB, vec![], None),
        (7..7, vec![], None),
    ] {
        let pieces: Vec<_> =
            table().pieces(range.clone()).map(|piece| (piece.span.id.0, piece.within)).collect();
        assert_eq!(pieces, want, "{range:?}");
        assert_eq!(table().compressed(range.clone()), fetched, "{range:?}");
    }
    let piece = table().pieces(99 * KIB..100 * KIB).next().expect("one piece");
    assert_eq!(piece.cut(&vec![0; kib(100)]).map(<[u8]>::len), Some(kib(1)));
    assert_eq!(piece.cut(&vec![0; kib(100) - 1]), None);
}

#[test]
fn soci_counts_the_span_after_a_file_that_ends_with_its_span() {
    for (offset, size, want) in [(512, 100, (0, 0)), (512, 100 * KIB - 512, (0, 1)), (512, 300 * KIB, (0, 2))]
    {
        let entry = Entry {
            name: b"f".to_vec(),
            kind: crate::EntryKind::Regular,
            offset,
            size,
            linkname: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            mtime: None,
            devmajor: 0,
            devminor: 0,
            pax: Vec::new(),
        };
        let spans = table().soci_file_spans(&entry).map(|(first, last)| (first.0, last.0));
        assert_eq!(spans, Some(want), "{size} bytes at {offset}");
    }
}

#[test]
fn padding_behind_the_tar_makes_empty_spans_at_the_end() {
    let mut ztoc = ztoc(&[(10, 0, 0), (30 * KIB, 100 * KIB, 3), (60 * KIB, 250 * KIB, 0)]);
    ztoc.uncompressed_size = 90 * KIB;
    let table = SpanTable::new(&ztoc).expect("padding is no reason to refuse");
    let spans: Vec<_> = table.iter().map(|span| span.uncompressed).collect();
    assert_eq!(spans, [0..90 * KIB, 90 * KIB..90 * KIB, 90 * KIB..90 * KIB]);
    assert_eq!(table.covering(0..u64::MAX), 0..1);
}

#[test]
fn hostile_checkpoints_are_named() {
    for (points, field, what) in [
        (&[][..], "checkpoints", "none"),
        (&[(10, 1, 0)], "checkpoint.out", "the first span begins at byte 1"),
        (&[(10, 0, 8)], "checkpoint.bits", "is 8"),
        (&[(0, 0, 1)], "checkpoint.in", "the byte before the blob"),
        (&[(100 * KIB + 1, 0, 0)], "checkpoint.in", "which has 102400"),
        (&[(u64::MAX, 0, 0)], "checkpoint.in", "which has 102400"),
        (&[(10, 0, 0), (10, 1, 0)], "checkpoint.in", "begins at byte 10 of the blob and ends at 10"),
        (&[(10, 0, 0), (9, 1, 0)], "checkpoint.in", "ends at 9"),
        (&[(10, 0, 0), (20, 0, 0)], "checkpoint.out", "an empty span"),
        (&[(10, 0, 0), (20, 50, 0), (30, 40, 0)], "checkpoint.out", "an empty span"),
        (&[(10, 0, 0), (11, 300 * KIB, 0)], "checkpoint.out", "more than its bytes in the blob can hold"),
        (
            &[(10, 0, 0), (100 * KIB, 100 * KIB, 0)],
            "checkpoint.out",
            "more than its bytes in the blob can hold",
        ),
        (&[(10, 0, 0), (20, u64::MAX, 0)], "checkpoint.out", "more than its bytes in the blob can hold"),
    ] {
        let error = SpanTable::new(&ztoc(points)).expect_err(what);
        let named = matches!(error, Error::Invalid { field: named, .. } if named == field);
        assert!(named && error.to_string().contains(what), "{points:?}: {error}");
    }
}

#[test]
fn every_checkpoint_has_a_digest() {
    let mut ztoc = ztoc(&[(10, 0, 0)]);
    ztoc.span_digests.clear();
    let error = SpanTable::new(&ztoc).expect_err("no digest");
    assert!(error.to_string().contains("span_digests"), "{error}");
}

#[test]
fn a_layer_of_no_bytes_has_no_spans() {
    let mut ztoc = ztoc(&[]);
    (ztoc.compressed_size, ztoc.uncompressed_size, ztoc.compression) = (0, 0, Compression::Uncompressed);
    let table = SpanTable::new(&ztoc).expect("a layer of 0 bytes");
    assert!(table.is_empty() && table.iter().next().is_none());
    assert_eq!((table.covering(0..10), table.span_of_offset(0)), (0..0, None));
}

#[test]
fn a_span_that_no_memory_should_hold_is_refused() {
    let mut ztoc = ztoc(&[(0, 0, 0)]);
    ztoc.compression = Compression::Uncompressed;
    for (len, good) in [(MAX_SPAN_LEN, true), (MAX_SPAN_LEN + 1, false)] {
        (ztoc.compressed_size, ztoc.uncompressed_size) = (len, len);
        assert_eq!(SpanTable::new(&ztoc).is_ok(), good, "{len} bytes");
    }
}

//! Getting at 4 MiB in the middle of a gzip layer: from a checkpoint, beside inflating as many bytes that are a stream
//! of their own, and beside what is needed without a checkpoint.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use criterion::Criterion;
use flate2::read::MultiGzDecoder;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};
use spandrel_ztoc::{SpanId, SpanTable, decode_span};
use zlib_rs::{Inflate, InflateFlush, Status};

use crate::input::{GZIP, TAR, ZTOC};

/// Logarithm of deflate's window, as zlib wants it.
const WINDOW_BITS: u8 = 15;

pub fn bench(criterion: &mut Criterion) {
    let ztoc = &*ZTOC;
    let table = SpanTable::new(ztoc).expect("an index that was just built");
    let middle = u32::try_from(table.len() / 2).expect("few spans");
    let span = table.get(SpanId(middle)).expect("there is a middle");
    let place = |range: &std::ops::Range<u64>| {
        usize::try_from(range.start).expect("in memory")..usize::try_from(range.end).expect("in memory")
    };
    let (compressed, wanted) = (&GZIP[place(&span.compressed)], &TAR[place(&span.uncompressed)]);
    let window = ztoc.window(span.id);
    let decode = || {
        decode_span(ztoc.compression, span.bits, window, compressed, wanted.len()).expect("the layer's bytes")
    };
    assert!(decode() == wanted, "a benchmark of wrong bytes");

    let mut group = crate::bytes(criterion, "span-resume", wanted.len());
    group.bench_function("spandrel: decode from the checkpoint", |bencher| bencher.iter(decode));
    group.bench_function("spandrel: check the digest and decode", |bencher| {
        bencher.iter(|| {
            assert_eq!(<[u8; 32]>::from(Sha256::digest(compressed)), span.digest.0);
            decode()
        });
    });
    let alone = deflate(wanted);
    group.bench_function("zlib-rs: raw inflate of a stream of its own", |bencher| {
        bencher.iter(|| {
            let mut out = vec![0; wanted.len()];
            let mut inflate = Inflate::new(false, WINDOW_BITS);
            let status = inflate.decompress(&alone, &mut out, InflateFlush::Finish).expect("deflate");
            assert_eq!(status, Status::StreamEnd);
            out
        });
    });
    group.bench_function("flate2: raw inflate of a stream of its own", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(wanted.len());
            flate2::read::DeflateDecoder::new(alone.as_slice()).read_to_end(&mut out).expect("deflate");
            out
        });
    });
    group.bench_function("flate2: inflate from the layer's start", |bencher| {
        bencher.iter(|| {
            let mut stream = MultiGzDecoder::new(GZIP.as_slice());
            let before =
                std::io::copy(&mut stream.by_ref().take(span.uncompressed.start), &mut std::io::sink());
            assert_eq!(before.expect("gzip"), span.uncompressed.start);
            let mut out = vec![0; wanted.len()];
            stream.read_exact(&mut out).expect("gzip");
            out
        });
    });
    group.bench_function("memcpy", |bencher| bencher.iter(|| black_box(wanted).to_vec()));
    group.finish();
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

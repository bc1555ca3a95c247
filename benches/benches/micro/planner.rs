//! What the fetch engine decides for a read: which spans hold it, which are asked for together, and which span a byte of
//! the answer belongs to; beside the simplest thing that would do.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use spandrel_fixtures::random::Random;
use spandrel_snapshotter::fetch::planner::{Background, Class, End, Next, Planner, Rules};
use spandrel_snapshotter::fetch::split::Splitter;
use spandrel_ztoc::{Checkpoint, Compression, Sha256Digest, Span, SpanId, SpanTable, Ztoc};

use crate::input;

/// Spans of the layer: 4 GiB, as the largest layers have.
const SPANS: u32 = 1024;
/// Length of a span in the stream.
const SPAN_LEN: u64 = 4 << 20;
/// Length of a read: the kernel's largest request.
const READ_LEN: u64 = 1 << 20;
/// Reads that are looked up each time.
const READS: usize = 1000;
/// Length of the pieces in which an answer arrives: what TLS has in a record.
const PIECE_LEN: usize = 16 << 10;

pub fn bench(criterion: &mut Criterion) {
    let table = table();
    lookup(criterion, &table);
    plan(criterion, &table);
    split(criterion);
}

fn lookup(criterion: &mut Criterion, table: &SpanTable) {
    let mut random = Random::new(3);
    let reads: Vec<Range<u64>> =
        (0..READS).map(|_| random.below(table.stream_len() - READ_LEN)).map(|at| at..at + READ_LEN).collect();
    let spans: Vec<Span> = (0..SPANS).filter_map(|id| table.get(SpanId(id))).collect();
    let one_by_one = |read: &Range<u64>| {
        let holds = |span: &&Span| span.uncompressed.start < read.end && read.start < span.uncompressed.end;
        spans
            .iter()
            .filter(holds)
            .map(|span| span.id.0)
            .fold(None, |ids: Option<Range<u32>>, id| Some(ids.map_or(id, |ids| ids.start)..id + 1))
            .unwrap_or_default()
    };
    assert!(reads.iter().all(|read| one_by_one(read) == table.covering(read.clone())));
    let mut group = crate::elements(criterion, "planner-lookup", READS);
    group.bench_function("spandrel: spans of a read", |bencher| {
        bencher.iter(|| {
            reads.iter().for_each(|read| {
                black_box(table.covering(read.clone()));
            })
        });
    });
    group.bench_function("all spans looked at", |bencher| {
        bencher.iter(|| {
            reads.iter().for_each(|read| {
                black_box(one_by_one(read));
            })
        });
    });
    group.finish();
}

fn plan(criterion: &mut Criterion, table: &SpanTable) {
    let mut random = Random::new(4);
    let missing: Vec<u32> = (0..SPANS).filter(|_| random.below(3) != 0).collect();
    let table = Arc::new(table.clone());
    let rules =
        Rules { max_requests: 64, memory: 256 << 20, background: Background::Off, background_rate: None };
    // Everything is wanted at once; each request is answered at once.
    let plan = |missing: &[u32]| {
        let mut planner = Planner::new(rules.clone());
        let layer = planner.add("host", Arc::clone(&table), |_| false);
        missing.iter().for_each(|span| planner.want(layer, *span, Class::Demand));
        let mut requests = 0;
        while let Next::Send(order) = planner.next(Duration::ZERO) {
            requests += 1;
            for span in order.spans.clone() {
                planner.landed(order.id, span, Duration::ZERO);
            }
            planner.ended(order.id, End::Done, 1, Duration::ZERO, Duration::ZERO);
            planner.release("host", order.memory.iter().sum());
        }
        requests
    };
    let mut group = crate::elements(criterion, "planner-requests", missing.len());
    group.bench_function("spandrel: neighbours together", |bencher| {
        bencher.iter(|| plan(black_box(&missing)));
    });
    group.bench_function("a request for each span", |bencher| {
        bencher.iter(|| {
            let alone = (0..black_box(&missing).len()).map(|index| index..index + 1);
            alone.collect::<Vec<Range<usize>>>()
        });
    });
    group.finish();
}

fn split(criterion: &mut Criterion) {
    // Four spans, each of which shares a byte with the one before, as in a gzip layer.
    let ends = [4u64, 8, 12, 16].map(|mib| mib << 20);
    let spans: Vec<Range<u64>> = ends.iter().map(|end| (end - (4 << 20)).saturating_sub(1)..*end).collect();
    let answer = input::code(&mut Random::new(5), 16 << 20);
    let mut group = crate::elements(criterion, "planner-split", answer.len() / PIECE_LEN);
    group.bench_function("spandrel: an answer taken apart by spans", |bencher| {
        bencher.iter(|| {
            let mut splitter = Splitter::new(spans.clone());
            for piece in answer.chunks(PIECE_LEN) {
                let mut used = 0;
                while let Some(part) = splitter.next(piece, &mut used) {
                    black_box(part);
                }
            }
            assert!(splitter.is_done());
        });
    });
    group.bench_function("the pieces as they come", |bencher| {
        bencher.iter(|| {
            answer.chunks(PIECE_LEN).for_each(|piece| {
                black_box(piece);
            })
        });
    });
    group.finish();
}

/// The spans of a layer whose blob is a third of its stream.
fn table() -> SpanTable {
    let checkpoints = (0..u64::from(SPANS)).map(|nth| Checkpoint {
        compressed_offset: 10 + nth * SPAN_LEN / 3,
        uncompressed_offset: nth * SPAN_LEN,
        bits: if nth == 0 { 0 } else { 3 },
    });
    let ztoc = Ztoc {
        version: b"0.9".to_vec(),
        build_tool: Vec::new(),
        compressed_size: 10 + u64::from(SPANS) * SPAN_LEN / 3,
        uncompressed_size: u64::from(SPANS) * SPAN_LEN,
        entries: Vec::new(),
        compression: Compression::Gzip,
        span_size: SPAN_LEN,
        checkpoints: checkpoints.collect(),
        windows: Vec::new(),
        span_digests: vec![Sha256Digest([0; 32]); SPANS as usize],
        first_checkpoint_implied: false,
    };
    SpanTable::new(&ztoc).expect("spans that tile the stream")
}

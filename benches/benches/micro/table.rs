//! Making a layer's table from its index, beside what unpacking the layer costs, which it replaces.

use criterion::{BatchSize, Criterion};
use spandrel_fixtures::require;
use spandrel_snapshotter::layer::table;
use spandrel_ztoc::Entry;
use spandrel_ztoc::tree::Tree;

use crate::input::{MANY, TAR, ZTOC};

pub fn bench(criterion: &mut Criterion) {
    let (entries, stream_len) = (ZTOC.entries.as_slice(), ZTOC.uncompressed_size);
    let mut group = crate::elements(criterion, "table", entries.len());
    group.bench_function("spandrel: tree and table", |bencher| bencher.iter(|| made(entries, stream_len)));
    group.bench_function("spandrel: tree only", |bencher| {
        bencher.iter(|| Tree::new(entries, stream_len).expect("a tree"));
    });
    if let Some(disk) = require::plain_disk() {
        group.bench_function("tar: unpack into a directory", |bencher| {
            let dir = || tempfile::tempdir_in(&disk).expect("a directory");
            let unpack = |dir: tempfile::TempDir| {
                tar::Archive::new(TAR.as_slice()).unpack(dir.path()).expect("room for the layer");
                dir // deleted outside the measurement
            };
            bencher.iter_batched(dir, unpack, BatchSize::PerIteration);
        });
    }
    group.finish();

    let (many, stream_len) = (MANY.entries.as_slice(), MANY.uncompressed_size);
    let mut group = crate::elements(criterion, "table-many", many.len());
    group.bench_function("spandrel: tree and table", |bencher| bencher.iter(|| made(many, stream_len)));
    group.bench_function("spandrel: tree only", |bencher| {
        bencher.iter(|| Tree::new(many, stream_len).expect("a tree"));
    });
    group.finish();
}

fn made(entries: &[Entry], stream_len: u64) -> Vec<u8> {
    let tree = Tree::new(entries, stream_len).expect("a tree");
    table::build(&tree, stream_len).expect("names and links of ordinary length")
}

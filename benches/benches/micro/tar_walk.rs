//! Walking a tar: ours keeps every entry with all that an index says of it; beside the tar crate.

use std::io::Cursor;

use criterion::Criterion;
use spandrel_ztoc::tar::{TarRules, TarWalk};

use crate::input::{self, TAR};

/// How much of a stream comes at a time, in bytes: what our builder reads at once.
const CHUNK_LEN: usize = 128 << 10;

pub fn bench(criterion: &mut Criterion) {
    let count = input::ZTOC.entries.len();
    let mut group = crate::elements(criterion, "tar-walk", count);
    group.bench_function("spandrel: entries of a stream", |bencher| {
        bencher.iter(|| {
            let mut walk = TarWalk::new(TarRules::Index);
            for chunk in TAR.chunks(CHUNK_LEN) {
                walk.push(chunk).expect("a tar");
            }
            let toc = walk.finish().expect("a whole tar");
            assert_eq!(toc.entries.len(), count);
            toc
        });
    });
    group.bench_function("tar: entries of a stream", |bencher| {
        bencher.iter(|| {
            let mut archive = tar::Archive::new(TAR.as_slice());
            kept(archive.entries().expect("a tar"))
        });
    });
    group.bench_function("tar: entries, data sought over", |bencher| {
        bencher.iter(|| {
            let mut archive = tar::Archive::new(Cursor::new(TAR.as_slice()));
            kept(archive.entries_with_seek().expect("a tar"))
        });
    });
    group.finish();
}

/// The least that an index needs of each entry.
fn kept<R: std::io::Read>(entries: tar::Entries<'_, R>) -> Vec<(Vec<u8>, u64, u64, u32)> {
    let kept = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let mode = entry.header().mode().expect("a mode");
        (entry.path_bytes().into_owned(), entry.raw_file_position(), entry.size(), mode)
    });
    kept.collect()
}

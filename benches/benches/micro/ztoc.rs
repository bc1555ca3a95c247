//! The index itself: bytes to model and back, for a layer of many entries. What stands beside it is its digest, which
//! has to be computed in any case, since no published crate reads the format.

use std::hint::black_box;

use criterion::Criterion;
use sha2::{Digest as _, Sha256};
use spandrel_ztoc::Ztoc;

use crate::input::MANY;

pub fn bench(criterion: &mut Criterion) {
    let ztoc = &*MANY;
    let encoded = ztoc.encode();
    assert_eq!(Ztoc::decode(&encoded).expect("was just written").entries.len(), ztoc.entries.len());
    let mut group = crate::bytes(criterion, "ztoc", encoded.len());
    group.bench_function("spandrel: decode", |bencher| {
        bencher.iter(|| Ztoc::decode(black_box(&encoded)).expect("was just written"));
    });
    group.bench_function("spandrel: encode", |bencher| bencher.iter(|| ztoc.encode()));
    group.bench_function("sha2: digest", |bencher| bencher.iter(|| Sha256::digest(black_box(&encoded))));
    group.finish();
}

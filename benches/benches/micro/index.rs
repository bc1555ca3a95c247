//! Building an index, for each way in which layers are packed; beside reading the same layer without making one.

use std::hint::black_box;
use std::io::{self, Read};

use criterion::Criterion;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use spandrel_ztoc::Compression;
use spandrel_ztoc::build::{BuildOptions, build};

use crate::input;

pub fn bench(criterion: &mut Criterion) {
    for packed in input::packed() {
        let blob = packed.blob.as_slice();
        // All of them by bytes of stream, so that codecs can be compared too.
        let mut group = crate::bytes(criterion, &format!("index-{}", packed.name), input::TAR.len());
        group.bench_function("spandrel: build", |bencher| {
            bencher.iter(|| build(blob, packed.compression, &BuildOptions::default()).expect("an index"));
        });
        let gzip = packed.compression == Compression::Gzip;
        let otherwise =
            if gzip { "flate2 + sha2 + tar: list and digest" } else { "sha2 + tar: list and digest" };
        group.bench_function(otherwise, |bencher| {
            bencher.iter(|| {
                let mut hashing = Hashing { inner: blob, hasher: Sha256::new() };
                let entries = if gzip { list(MultiGzDecoder::new(&mut hashing)) } else { list(&mut hashing) };
                (entries, hashing.hasher.finalize())
            });
        });
        if gzip {
            group.bench_function("flate2: inflate only", |bencher| {
                bencher.iter(|| io::copy(&mut MultiGzDecoder::new(blob), &mut io::sink()).expect("gzip"));
            });
        }
        group.bench_function("sha2: digest of the blob only", |bencher| {
            bencher.iter(|| Sha256::digest(black_box(blob)));
        });
        group.finish();
    }
}

/// How many entries the tar has, which is read to its end.
fn list(stream: impl Read) -> usize {
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry").header().mode());
    let count = entries.count();
    io::copy(&mut archive.into_inner(), &mut io::sink()).expect("the rest");
    count
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hasher.update(&buf[..len]);
        Ok(len)
    }
}

//! Hostile zTOCs. That friendly ones are read and written rightly the golden files show (`tests/it/vectors.rs`).

use std::path::Path;

use super::flat_write::{Builder, Position};
use super::ids;
use crate::limits::MAX_STREAM_LEN;
use crate::{Compression, EntryKind, Error, WINDOW_LEN, Ztoc};

fn golden(name: &str) -> Vec<u8> {
    let path = format!("../fixtures/golden/vectors/layers/{name}/new-65536.ztoc");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decoded(name: &str) -> Ztoc {
    Ztoc::decode(&golden(name)).expect("a golden zTOC")
}

/// The field that refusing `bytes` names.
fn refused(bytes: &[u8]) -> String {
    match Ztoc::decode(bytes) {
        Err(Error::Invalid { field, .. }) => field.to_owned(),
        Err(Error::Limit { what, .. }) => what.to_owned(),
        other => panic!("not refused for its content: {other:?}"),
    }
}

#[test]
fn a_ztoc_cut_anywhere_is_refused() {
    for name in ["empty-0", "tar-exact-multiple", "t-xattr"] {
        let bytes = golden(name);
        for len in 0..bytes.len() {
            // The last bytes are the end of the last string and padding, which nothing depends on.
            if let Ok(ztoc) = Ztoc::decode(&bytes[..len]) {
                assert!(bytes.len() - len < 8, "{name}: {len} of {} bytes", bytes.len());
                assert_eq!(ztoc.encode(), bytes, "{name}: {len} bytes");
            }
        }
    }
}

#[test]
fn a_ztoc_with_any_bit_flipped_is_read_or_refused_and_no_more() {
    for name in ["empty-0", "tar-exact-multiple", "t-xattr", "t-pax-path"] {
        let mut bytes = golden(name);
        let window = Ztoc::decode_without_windows(&bytes).expect("a golden zTOC").1.get(crate::SpanId(0));
        for at in 0..bytes.len() {
            if window.as_ref().is_some_and(|window| window.contains(&(at as u64))) {
                continue; // any bytes will do there
            }
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                bytes[at] ^= flip;
                if let Ok(ztoc) = Ztoc::decode(&bytes) {
                    assert_eq!(Ztoc::decode(&ztoc.encode()).expect("what was read can be written"), ztoc);
                }
                bytes[at] ^= flip;
            }
        }
    }
}

#[test]
fn hostile_values_are_named() {
    type Change = fn(&mut Ztoc);
    let cases: &[(&str, Change)] = &[
        ("compressed_archive_size", |ztoc| ztoc.compressed_size = MAX_STREAM_LEN + 1),
        ("uncompressed_archive_size", |ztoc| ztoc.uncompressed_size = MAX_STREAM_LEN + 1),
        ("uncompressed_archive_size", |ztoc| ztoc.uncompressed_size = u64::MAX),
        ("uncompressed_size", |ztoc| ztoc.uncompressed_size = 0),
        ("checkpoint.out", |ztoc| ztoc.uncompressed_size = MAX_STREAM_LEN),
        ("checkpoint.in", |ztoc| ztoc.compressed_size = 20),
        ("checkpoint.in", |ztoc| ztoc.checkpoints[1].compressed_offset = u64::MAX),
        ("checkpoint.in", |ztoc| ztoc.checkpoints[2].compressed_offset -= 1 << 16),
        ("checkpoint.out", |ztoc| ztoc.checkpoints[0].uncompressed_offset = 1),
        ("checkpoint.out", |ztoc| ztoc.checkpoints[2].uncompressed_offset = u64::MAX),
        ("checkpoint.out", |ztoc| ztoc.checkpoints[1].uncompressed_offset = 0),
        ("checkpoint.bits", |ztoc| ztoc.checkpoints[1].bits = 8),
        ("checkpoints.span_size", |ztoc| ztoc.span_size = u64::MAX),
        ("span_digests", |ztoc| ztoc.span_digests.truncate(1)),
        ("span_digests", |ztoc| ztoc.span_digests.push(ztoc.span_digests[0])),
        ("uncompressed_offset", |ztoc| ztoc.entries[0].offset = 0),
        ("uncompressed_offset", |ztoc| ztoc.entries[5].offset += 1),
        ("uncompressed_offset", |ztoc| ztoc.entries[5].offset -= 512),
        ("uncompressed_offset", |ztoc| ztoc.entries[5].offset = ztoc.entries[4].offset),
        ("uncompressed_size", |ztoc| ztoc.entries[5].offset = 1 << 40),
        ("uncompressed_size", |ztoc| ztoc.entries[5].size = ztoc.uncompressed_size),
        ("uncompressed_size", |ztoc| ztoc.entries[5].size = u64::MAX),
        ("xattrs", |ztoc| ztoc.entries[5].pax = vec![(b"GNU.sparse.map".to_vec(), b"0,1".to_vec())]),
    ];
    for (field, change) in cases {
        let mut ztoc = decoded("gz-gnu1");
        ztoc.entries.iter_mut().for_each(|entry| entry.kind = EntryKind::Regular);
        Ztoc::decode(&ztoc.encode()).expect("good until it is changed");
        change(&mut ztoc);
        assert_eq!(refused(&ztoc.encode()), *field, "{:?} {:?}", ztoc.checkpoints, ztoc.entries[5]);
    }
}

/// Writes the table `TOC`.
type WriteToc = fn(&mut Builder) -> Position;

/// What a zTOC is made of, as raw as needed; the default is one of an empty gzip layer.
struct Parts {
    algorithm: u8,
    max_span_id: i32,
    digests: Vec<Vec<u8>>,
    zinfo: Vec<u8>,
    toc: WriteToc,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            algorithm: super::ALGORITHM_GZIP,
            max_span_id: 0,
            digests: vec![format!("sha256:{}", "0".repeat(64)).into_bytes()],
            zinfo: [&[1, 0, 0, 0][..], &[0; 8]].concat(),
            toc: |out| {
                let none = out.offsets(&[]);
                out.table(1).offset(ids::toc::METADATA, none).end()
            },
        }
    }
}

impl Parts {
    fn encode(&self) -> Vec<u8> {
        let mut out = Builder::new();
        let toc = (self.toc)(&mut out);
        let zinfo = out.bytes(&self.zinfo);
        let digests: Vec<_> = self.digests.iter().map(|digest| out.string(digest)).collect();
        let digests = out.offsets(&digests);
        let info = out
            .table(ids::info::COUNT)
            .i32(ids::info::MAX_SPAN_ID, self.max_span_id)
            .offset(ids::info::SPAN_DIGESTS, digests)
            .offset(ids::info::CHECKPOINTS, zinfo)
            .u8(ids::info::ALGORITHM, self.algorithm, super::ALGORITHM_GZIP)
            .end();
        let root = out
            .table(ids::ztoc::COUNT)
            .size(ids::ztoc::COMPRESSED_SIZE, 1 << 20)
            .size(ids::ztoc::UNCOMPRESSED_SIZE, 1 << 20)
            .offset(ids::ztoc::TOC, toc)
            .offset(ids::ztoc::COMPRESSION_INFO, info)
            .end();
        out.finish(root)
    }
}

#[test]
fn hostile_structures_are_named() {
    let zinfo = |have: i32, len: usize| [&have.to_le_bytes()[..], &vec![0; len]].concat();
    Ztoc::decode(&Parts::default().encode()).expect("good as it is");
    for (field, parts) in [
        ("compression_algorithm", Parts { algorithm: 0, ..Parts::default() }),
        ("compression_algorithm", Parts { algorithm: 3, ..Parts::default() }),
        ("max_span_id", Parts { max_span_id: 1, ..Parts::default() }),
        ("max_span_id", Parts { max_span_id: -1, ..Parts::default() }),
        ("max_span_id", Parts { max_span_id: i32::MAX, ..Parts::default() }),
        ("span_digests", Parts { digests: vec![], ..Parts::default() }),
        ("span_digests", Parts { digests: vec![b"sha256:00".to_vec()], ..Parts::default() }),
        ("span_digests", Parts { digests: vec![vec![0xff; 71]], ..Parts::default() }),
        ("checkpoints", Parts { zinfo: vec![], ..Parts::default() }),
        ("checkpoints", Parts { zinfo: vec![0; 11], ..Parts::default() }),
        ("checkpoints.have", Parts { zinfo: zinfo(0, 8), ..Parts::default() }),
        ("checkpoints.have", Parts { zinfo: zinfo(-1, 8), ..Parts::default() }),
        ("checkpoints.have", Parts { zinfo: zinfo(i32::MAX, 8), ..Parts::default() }),
        ("checkpoints", Parts { zinfo: zinfo(2, 8), ..Parts::default() }),
        ("checkpoints", Parts { zinfo: zinfo(1, 9), ..Parts::default() }),
        ("checkpoints", Parts { zinfo: zinfo(1, 8 + 17), ..Parts::default() }),
        ("checkpoints", Parts { zinfo: zinfo(3, 8 + 17 + WINDOW_LEN), ..Parts::default() }),
    ] {
        assert_eq!(refused(&parts.encode()), field, "{:?}", parts.zinfo.get(..12));
    }
}

#[test]
fn one_table_or_string_named_many_times_is_refused() {
    /// A file of this name, whose records are the ones at `xattrs`.
    fn file(out: &mut Builder, name: Position, xattrs: Position, offset: u64) -> Position {
        let kind = out.string(b"reg");
        out.table(ids::file::COUNT)
            .offset(ids::file::NAME, name)
            .offset(ids::file::TYPE, kind)
            .size(ids::file::OFFSET, offset)
            .offset(ids::file::XATTRS, xattrs)
            .end()
    }
    let toc: [(&str, WriteToc); 3] = [
        ("metadata", |out| {
            let (name, none) = (out.string(b"f"), out.offsets(&[]));
            let table = file(out, name, none, 512);
            let files = out.offsets(&[table; 1000]);
            out.table(1).offset(ids::toc::METADATA, files).end()
        }),
        ("name", |out| {
            let (name, none) = (out.string(&[b'n'; 10_000]), out.offsets(&[]));
            let files: Vec<_> = (0..1000).map(|index| file(out, name, none, 512 * (index + 1))).collect();
            let files = out.offsets(&files);
            out.table(1).offset(ids::toc::METADATA, files).end()
        }),
        ("xattrs", |out| {
            let name = out.string(b"f");
            let record = out.table(ids::xattr::COUNT).end(); // no key, no value
            let records = out.offsets(&[record; 1000]);
            let files: Vec<_> = (0..1000).map(|index| file(out, name, records, 512 * (index + 1))).collect();
            let files = out.offsets(&files);
            out.table(1).offset(ids::toc::METADATA, files).end()
        }),
    ];
    for (field, toc) in toc {
        assert_eq!(refused(&Parts { toc, ..Parts::default() }.encode()), field);
    }
}

#[test]
fn shared_strings_of_an_honest_writer_are_read() {
    let toc: WriteToc = |out| {
        let (name, kind, owner) = (out.string(b"dir/file"), out.string(b"reg"), out.string(b"root"));
        let files: Vec<_> = (0..1000)
            .map(|index| {
                let table = out.table(ids::file::COUNT).offset(ids::file::NAME, name);
                let table = table.offset(ids::file::TYPE, kind).size(ids::file::OFFSET, 512 * (index + 1));
                table.offset(ids::file::UNAME, owner).offset(ids::file::GNAME, owner).end()
            })
            .collect();
        let files = out.offsets(&files);
        out.table(1).offset(ids::toc::METADATA, files).end()
    };
    let ztoc = Ztoc::decode(&Parts { toc, ..Parts::default() }.encode()).expect("strings may be shared");
    assert_eq!(ztoc.entries.len(), 1000);
    assert!(ztoc.entries.iter().all(|entry| entry.uname == b"root" && entry.mtime.is_none()));
}

#[test]
fn a_plain_tars_zinfo_fits_its_blob() {
    type Change = fn(&mut Ztoc);
    let cases: [(&str, Change); 4] = [
        ("checkpoints.span_size", |ztoc| ztoc.span_size = 0),
        ("number of spans", |ztoc| {
            ztoc.span_size = 1;
            ztoc.compressed_size = 1 << 30;
        }),
        ("max_span_id", |ztoc| ztoc.span_size = 1000),
        ("checkpoint.out", |ztoc| ztoc.uncompressed_size = 1 << 40),
    ];
    for (field, change) in cases {
        let mut ztoc = decoded("tar-exact-multiple");
        assert_eq!(ztoc.compression, Compression::Uncompressed);
        change(&mut ztoc);
        assert_eq!(refused(&ztoc.encode()), field);
    }
}

#[test]
#[should_panic(expected = "only with its windows")]
fn a_ztoc_without_windows_is_not_written() {
    let (ztoc, _) = Ztoc::decode_without_windows(&golden("gz-gnu1")).expect("a golden zTOC");
    ztoc.encode();
}

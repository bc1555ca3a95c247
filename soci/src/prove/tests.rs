//! Tests of proving: what builders make is true, and each lie is found.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use spandrel_registry::{Digest, ErrorKind};
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{EntryKind, Sha256Digest, Timestamp};

use super::*;
use crate::index::descriptor;
use crate::testing::{MemorySource, sha256};

/// A gzip layer of three spans.
const FILES: &str = "06339c329d2f1d6072efa50c01a4f32992f9e15b687bdd10d517838b16fe9038";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is found of `blob` and a zTOC.
async fn differences(blob: &[u8], ztoc: &Ztoc) -> Differences {
    let mut source = MemorySource::default();
    let layer = source.add_blob(blob.to_vec());
    let came = AtomicU64::new(0);
    let arrived = |len| {
        came.fetch_add(len, Ordering::Relaxed);
    };
    let layer = descriptor(GZIP, layer, blob.len() as u64);
    let found = prove(&source, &layer, Arc::new(ztoc.clone()), &arrived).await.unwrap();
    assert_eq!(came.into_inner(), blob.len() as u64);
    assert!(found.named.len() <= MAX_NAMED && found.named.len() as u64 <= found.count);
    found
}

fn files() -> (Vec<u8>, Ztoc) {
    let blob = MemorySource::golden().blobs[&sha256(FILES)].to_vec();
    let options = BuildOptions { span_size: 20_000, ..BuildOptions::default() };
    let ztoc = build(&*blob, Compression::Gzip, &options).unwrap().ztoc;
    assert!(ztoc.checkpoints.len() > 3 && ztoc.checkpoints.iter().any(|at| at.bits != 0));
    (blob, ztoc)
}

#[tokio::test]
async fn what_soci_s_tools_of_all_releases_built_is_true() {
    let layers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/vectors/layers");
    let mut proven = 0;
    for layer in layers.read_dir().unwrap() {
        let files: Vec<_> =
            layer.unwrap().path().read_dir().unwrap().map(|file| file.unwrap().path()).collect();
        let Some(blob) = files
            .iter()
            .find(|file| file.file_stem().is_some_and(|stem| stem == "layer" || stem == "layer.tar"))
        else {
            continue;
        };
        for ztoc in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "ztoc")) {
            // Sparse files, which the tools index as if their data were their content, aren't read.
            let Ok(decoded) = Ztoc::decode(&std::fs::read(ztoc).unwrap()) else { continue };
            let found = differences(&std::fs::read(blob).unwrap(), &decoded).await;
            assert_eq!(found, Differences::default(), "{}", ztoc.display());
            proven += 1;
        }
    }
    assert!(proven > 40, "only {proven} were looked at");
}

#[tokio::test]
async fn every_lie_is_found() {
    let (blob, good) = files();
    assert_eq!(differences(&blob, &good).await, Differences::default());
    let file = good.entries.iter().position(|entry| entry.kind == EntryKind::Regular).unwrap();
    type Lie<'a> = (&'a str, &'a dyn Fn(&mut Ztoc));
    let lies: [Lie<'_>; 21] = [
        ("span 2: its bytes in the layer have the digest", &|z| z.span_digests[2] = Sha256Digest([0; 32])),
        ("span 1: ", &|z| z.windows[32768..65536].fill(b'x')),
        ("span 1: ", &|z| z.checkpoints[1].bits = (z.checkpoints[1].bits + 1) % 8),
        ("span 2: ", &|z| z.checkpoints[2].uncompressed_offset += 1),
        ("span 1: ", &|z| z.checkpoints[2].compressed_offset -= 1),
        ("the tar ends at byte", &|z| z.uncompressed_size -= 512),
        ("the tar ends at byte", &|z| z.uncompressed_size += 512),
        ("the name is", &|z| z.entries[file].name.push(b'x')),
        ("the link is", &|z| z.entries[file].linkname.push(0xff)),
        ("the type is reg in the layer and fifo", &|z| z.entries[file].kind = EntryKind::Fifo),
        ("the place is", &|z| z.entries[file].offset += 512),
        ("the size is", &|z| z.entries[file].size -= 1),
        ("the mode is", &|z| z.entries[file].mode ^= 0o4000),
        ("the owner is", &|z| z.entries[file].uid ^= 1),
        ("the owner is", &|z| z.entries[file].gid ^= 1),
        ("the time is", &|z| z.entries[file].mtime = Some(Timestamp { seconds: 1, nanoseconds: 2 })),
        ("the device is", &|z| z.entries[file].devminor += 1),
        ("the extended attributes differ", &|z| {
            z.entries[file].pax.push((b"SCHILY.xattr.security.capability".to_vec(), b"x".to_vec()));
        }),
        ("entries, the layer", &|z| drop(z.entries.pop())),
        ("entries, the layer", &|z| z.entries.push(z.entries[file].clone())),
        ("the zTOC has 0 entries", &|z| z.entries.clear()),
    ];
    for (number, (what, lie)) in lies.into_iter().enumerate() {
        let mut ztoc = good.clone();
        lie(&mut ztoc);
        let found = differences(&blob, &ztoc).await;
        assert!(found.named.iter().any(|named| named.contains(what)), "{number} {what}: {found:?}");
    }
    // Names of users, and PAX records that nobody reads, aren't what a layer is.
    let mut ztoc = good.clone();
    ztoc.entries[file].uname = b"somebody".to_vec();
    ztoc.entries[file].pax.push((b"comment".to_vec(), b"x".to_vec()));
    assert_eq!(differences(&blob, &ztoc).await, Differences::default());
}

#[tokio::test]
async fn a_ztoc_of_another_layer_of_the_same_length_differs_everywhere() {
    let (blob, ztoc) = files();
    let noise = vec![b'x'; blob.len()];
    let found = differences(&noise, &ztoc).await;
    assert!(found.count > ztoc.checkpoints.len() as u64, "{found:?}");
    assert!(found.named.iter().any(|named| named.contains("can't be unpacked")), "{found:?}");
    // Of many differences some are named, and all counted.
    let mut many = ztoc.clone();
    while many.entries.len() < 100 {
        many.entries.extend(many.entries.clone());
    }
    many.entries.iter_mut().for_each(|entry| entry.uid ^= 1);
    let (_, good) = files();
    let found = differences(&blob, &many).await;
    assert_eq!(
        (found.count, found.named.len()),
        (good.entries.len() as u64 + 1, MAX_NAMED.min(good.entries.len() + 1))
    );
}

#[tokio::test]
async fn nothing_is_said_of_a_layer_that_can_t_be_had() {
    let (blob, ztoc) = files();
    let ztoc = Arc::new(ztoc);
    let layer = |digest: Digest| descriptor(GZIP, digest, blob.len() as u64);
    // Other bytes than its digest names, as something on the way may make them.
    let mut source = MemorySource::default();
    let digest = Digest::sha256(b"other");
    source.blobs.insert(digest.clone(), blob.clone().into());
    let error = prove(&source, &layer(digest), Arc::clone(&ztoc), &|_| {}).await.unwrap_err();
    assert!(matches!(error, Error::LayerDigest { .. }), "{error}");
    // A download that breaks off, and none at all.
    let mut source = MemorySource::default();
    let digest = source.add_blob(blob.clone());
    source.breaks.push(digest.clone());
    for kind in [ErrorKind::Unavailable, ErrorKind::Unauthorized] {
        let error = prove(&source, &layer(digest.clone()), Arc::clone(&ztoc), &|_| {}).await.unwrap_err();
        assert!(matches!(&error, Error::Registry(error) if error.kind == kind), "{error}");
        source.fails = Some(ErrorKind::Unauthorized);
    }
}

//! Tests of reading a single file out of a layer: links, ranges, and layers that lie.

use std::sync::atomic::{AtomicU64, Ordering};

use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, EntryKind};

use super::*;
use crate::source::LayerFile;
use crate::testing::{MemorySource, sha256};

/// A gzip layer of three spans, and one with links of every kind.
const FILES: &str = "06339c329d2f1d6072efa50c01a4f32992f9e15b687bdd10d517838b16fe9038";
const LINKS: &str = "1064edd647380365f8e8ecf2a0d53d61d6bcc34f8e4e9ba00831a9c8a95f8198";

fn ztoc_of(blob: &[u8], span_size: u64) -> Arc<Ztoc> {
    let options = BuildOptions { span_size, ..BuildOptions::default() };
    Arc::new(build(blob, Compression::Gzip, &options).unwrap().ztoc)
}

fn gunzip(blob: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(blob), &mut stream).unwrap();
    stream
}

fn text(ztoc: &Ztoc, path: &str) -> Result<Range<u64>, LookupError> {
    lookup(ztoc, path.as_bytes()).unwrap()
}

#[tokio::test]
async fn every_file_comes_out_whole_and_only_its_spans_are_fetched() {
    let source = MemorySource::golden();
    let digest = sha256(FILES);
    let blob = source.blobs[&digest].clone();
    let (stream, ztoc) = (gunzip(&blob), ztoc_of(&blob, 20_000));
    let spans = SpanTable::new(&ztoc).unwrap();
    assert!(spans.len() > 3);
    let mut several = 0;
    for entry in ztoc.entries.iter().filter(|entry| entry.kind == EntryKind::Regular) {
        let range = lookup(&ztoc, &entry.name).unwrap().unwrap();
        assert_eq!(range, entry.offset..entry.offset + entry.size);
        source.asked();
        let (mut out, came) = (Vec::new(), AtomicU64::new(0));
        let arrived = |len| {
            came.fetch_add(len, Ordering::Relaxed);
        };
        copy(&source, &digest, Arc::clone(&ztoc), range.clone(), &mut out, &arrived).await.unwrap();
        let at = |offset| usize::try_from(offset).unwrap();
        assert_eq!(out, stream[at(range.start)..at(range.end)]);
        let wanted: Vec<Span> = spans.covering(range).map(|id| spans.get(SpanId(id)).unwrap()).collect();
        let want: Vec<String> =
            wanted.iter().map(|span| format!("blob {digest} {:?}", span.compressed)).collect();
        assert_eq!(source.asked(), want);
        let len: u64 = wanted.iter().map(|span| span.compressed.end - span.compressed.start).sum();
        assert_eq!(came.into_inner(), len);
        several += u32::from(wanted.len() > 1);
    }
    assert!(several > 0, "no file lies in more than one span");
}

#[tokio::test]
async fn a_layer_file_gives_the_same() {
    let source = MemorySource::golden();
    let digest = sha256(FILES);
    let blob = source.blobs[&digest].clone();
    let (stream, ztoc) = (gunzip(&blob), ztoc_of(&blob, 65536));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    std::fs::write(&path, &blob).unwrap();
    let file = LayerFile::new(&path);
    let mut out = Vec::new();
    let all = 0..ztoc.uncompressed_size;
    copy(&file, &digest, Arc::clone(&ztoc), all.clone(), &mut out, &|_| {}).await.unwrap();
    assert_eq!(out, stream[..out.len()]);
    assert_eq!(out.len() as u64, ztoc.uncompressed_size);
    // Cut, it says so; and where it isn't, where it should be.
    std::fs::write(&path, &blob[..blob.len() / 2]).unwrap();
    let error = copy(&file, &digest, Arc::clone(&ztoc), all.clone(), &mut out, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("shorter than the blob that should be in it"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = copy(&file, &digest, ztoc, all, &mut out, &|_| {}).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(&file.name()), "{error}");
}

#[tokio::test]
async fn changed_bytes_are_not_given_out() {
    let mut source = MemorySource::golden();
    let digest = sha256(FILES);
    let mut blob = source.blobs[&digest].to_vec();
    let ztoc = ztoc_of(&blob, 65536);
    let at = blob.len() - 3000; // in the last span
    blob[at] ^= 0x10;
    source.blobs.insert(digest.clone(), blob.into());
    let mut out = Vec::new();
    let error = copy(&source, &digest, Arc::clone(&ztoc), 0..ztoc.uncompressed_size, &mut out, &|_| {});
    let error = error.await.unwrap_err().to_string();
    assert!(
        error.contains("memory.example/app") && error.contains("either the zTOC is of another layer"),
        "{error}"
    );
    let spans = SpanTable::new(&ztoc).unwrap();
    let last = spans.iter().last().unwrap();
    assert_eq!(out.len() as u64, last.uncompressed.start);
}

#[tokio::test]
async fn bytes_that_are_the_right_ones_and_no_deflate_stream_are_an_error() {
    let mut source = MemorySource::golden();
    let digest = sha256(FILES);
    let mut blob = source.blobs[&digest].to_vec();
    let mut ztoc = Ztoc::clone(&ztoc_of(&blob, 65536));
    let last = SpanTable::new(&ztoc).unwrap().iter().last().unwrap();
    let at = usize::try_from(last.compressed.start).unwrap();
    blob[at..at + 4].fill(0xff); // a block of the type that there isn't
    // The one who made this zTOC made it of these bytes.
    *ztoc.span_digests.last_mut().unwrap() = spandrel_ztoc::Sha256Digest::of(&blob[at..]);
    source.blobs.insert(digest.clone(), blob.into());
    let (mut out, range) = (Vec::new(), last.uncompressed);
    let error = copy(&source, &digest, Arc::new(ztoc), range, &mut out, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::Layer { source: spandrel_ztoc::Error::Corrupt { .. }, .. }), "{error}");
    assert!(out.is_empty());
}

#[test]
fn links_are_followed_within_the_layer() {
    let source = MemorySource::golden();
    let ztoc = ztoc_of(&source.blobs[&sha256(LINKS)], 65536);
    let orig = text(&ztoc, "a/orig").unwrap();
    assert!(!orig.is_empty());
    for path in ["/a/orig", "./a//orig", "a/../a/orig", "../../a/orig", "a/hard", "hard2", "hardhard", "sym"]
    {
        assert_eq!(text(&ztoc, path), Ok(orig.clone()), "{path}");
    }
    assert_eq!(text(&ztoc, "symdir/orig"), Ok(orig));
    for path in ["no/such", "dangling", "a/orig/x", "", "symempty/x"] {
        let error = text(&ztoc, path).unwrap_err().to_string();
        assert!(path.is_empty() || error == format!("file {path} does not exist in metadata"), "{error}");
    }
    assert_eq!(text(&ztoc, "a/"), Err(LookupError::NoFile("a/".to_owned(), "a directory")));
    assert_eq!(text(&ztoc, "loop"), Err(LookupError::Loop("loop".to_owned())));
}

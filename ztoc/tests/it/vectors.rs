//! Layers and what SOCI's own tools made of them: `fixtures/golden/vectors`, or all of the folder that the environment
//! variable `SPANDREL_VECTORS` names (the same layout, which the README in the golden folder describes).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, EntryKind, Error, Sha256Digest, SpanId, SpanTable, WINDOW_LEN, Ztoc};

use crate::support::{Layer, gunzip};

/// The identifier that the vectors' zTOCs were built with.
const TOOL: &str = "AWS SOCI CLI v0.2";

/// Layers whose zTOC by the tool has a size for entries without data: its reader doesn't read what it wrote.
const HEADER_SIZES: [&str; 4] = ["t-hdrsize", "t-hdrsize-symlink", "t-hdrsize-hardlink", "t-hdrsize-last"];
/// Sparse files, which the tool indexes as if their data were their content.
const SPARSE: [&str; 2] = ["t-pax-sparse10", "t-pax-sparse01"];

fn folder() -> PathBuf {
    std::env::var_os("SPANDREL_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/vectors"),
        PathBuf::from,
    )
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// One layer.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) blob: Vec<u8>,
    compression: Option<Compression>,
    pub(crate) spans: Vec<u64>,
    results: Value,
}

pub(crate) fn vectors() -> Vec<Vector> {
    let folder = folder();
    let results = json(&folder.join("results.json"));
    let list = json(&folder.join("vectors.json"));
    let vectors: Vec<Vector> = list["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vector| {
            let name = vector["name"].as_str().unwrap().to_owned();
            let dir = folder.join("layers").join(&name);
            let media_type = vector["mediaType"].as_str().unwrap();
            Vector {
                blob: std::fs::read(dir.join(vector["file"].as_str().unwrap())).unwrap(),
                compression: match media_type {
                    media_type if media_type.ends_with("gzip") => Some(Compression::Gzip),
                    media_type if media_type.ends_with("tar") => Some(Compression::Uncompressed),
                    _ => None,
                },
                spans: vector["spans"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|span| span.as_u64().unwrap())
                    .collect(),
                results: results[&name].clone(),
                name,
                dir,
            }
        })
        .collect();
    assert!(vectors.len() >= 70, "only {} vectors in {}", vectors.len(), folder.display());
    vectors
}

impl Vector {
    /// The zTOCs that are there, by file name without its ending.
    fn ztocs(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let ztocs = files.filter(|path| path.extension().is_some_and(|ending| ending == "ztoc"));
        ztocs
            .map(|path| {
                (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
            })
            .collect()
    }

    fn stream(&self) -> Vec<u8> {
        match self.compression {
            Some(Compression::Gzip) => gunzip(&self.blob),
            _ => self.blob.clone(),
        }
    }

    pub(crate) fn build(&self, span_size: u64) -> Result<Ztoc, Error> {
        let options = BuildOptions { span_size, build_tool: TOOL.to_owned() };
        let built = build(&*self.blob, self.compression.unwrap(), &options)?;
        assert_eq!(built.blob_digest, Sha256Digest::of(&self.blob));
        Ok(built.ztoc)
    }
}

/// Whether the zTOC that `seen` describes has more than one checkpoint at byte 0 of the stream.
fn starts_twice(seen: &Value) -> bool {
    let starts =
        seen["spans"].as_array().into_iter().flatten().filter(|span| span["uncompressed_start"] == 0);
    starts.count() > 1
}

#[test]
fn foreign_ztocs_are_read_as_the_go_library_reads_them() {
    let mut read = 0;
    for vector in vectors() {
        for (file, bytes) in vector.ztocs() {
            let context = format!("{}/{file}", vector.name);
            let seen = json(&vector.dir.join(format!("{file}.json")));
            let ztoc = Ztoc::decode(&bytes);
            if starts_twice(&seen) {
                let error = ztoc.expect_err(&context).to_string();
                assert!(error.contains("an empty span"), "{context}: {error}");
                continue;
            }
            if SPARSE.contains(&vector.name.as_str()) {
                ztoc.expect_err(&context);
                continue;
            }
            let ztoc = ztoc.unwrap_or_else(|error| panic!("{context}: {error}"));
            if seen.get("unmarshal_error").is_none() {
                compare(&context, &ztoc, &seen, HEADER_SIZES.contains(&vector.name.as_str()));
            }
            if !HEADER_SIZES.contains(&vector.name.as_str()) {
                assert!(ztoc.encode() == bytes, "{context}: what was read is written with other bytes");
            }
            let (lean, windows) = Ztoc::decode_without_windows(&bytes).unwrap();
            for (id, window) in (0..).zip(ztoc.windows.chunks_exact(WINDOW_LEN)) {
                let range = windows.get(SpanId(id)).unwrap();
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert!(&bytes[range] == window, "{context}: window {id}");
            }
            assert_eq!(windows.get(SpanId(u32::try_from(ztoc.checkpoints.len()).unwrap())), None);
            assert_eq!(Ztoc { windows: ztoc.windows.clone(), ..lean }, ztoc, "{context}");
            read += 1;
        }
    }
    assert!(read >= 45, "only {read} zTOCs were read");
}

/// A string of the Go library's JSON: text, or `{"hex": ...}` where it is none.
fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(
        || {
            let hex = value["hex"].as_str().unwrap();
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        },
        |text| text.as_bytes().to_vec(),
    )
}

fn compare(context: &str, ztoc: &Ztoc, seen: &Value, header_sizes: bool) {
    assert_eq!(ztoc.version, bytes(&seen["version"]), "{context}");
    assert_eq!(ztoc.build_tool, bytes(&seen["build_tool_identifier"]), "{context}");
    assert_eq!(seen["compressed_archive_size"], ztoc.compressed_size, "{context}");
    assert_eq!(seen["uncompressed_archive_size"], ztoc.uncompressed_size, "{context}");
    assert_eq!(seen["span_size"], ztoc.span_size, "{context}");
    let spans = SpanTable::new(ztoc).unwrap();
    let seen_spans = seen["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(spans.len(), seen_spans.len(), "{context}");
    for (index, (span, want)) in spans.iter().zip(seen_spans).enumerate() {
        let context = format!("{context} span {index}");
        let end = ztoc.uncompressed_size;
        assert_eq!(want["compressed_start"], span.compressed.start, "{context}");
        assert_eq!(want["compressed_end"], span.compressed.end, "{context}");
        // What lies behind the tar's end the library gives as it stands in the checkpoints; we cut it.
        assert_eq!(
            want["uncompressed_start"].as_u64().unwrap().min(end),
            span.uncompressed.start,
            "{context}"
        );
        assert_eq!(want["uncompressed_end"].as_u64().unwrap().min(end), span.uncompressed.end, "{context}");
        assert_eq!(want["digest"], span.digest.to_string(), "{context}");
        if ztoc.compression == Compression::Gzip {
            let window = ztoc.windows.chunks_exact(WINDOW_LEN).nth(index).unwrap();
            assert_eq!(want["checkpoint_window_sha256"], Sha256Digest::of(window).hex(), "{context}");
            assert_eq!(want["checkpoint_bits"], span.bits, "{context}");
        }
    }
    let seen_entries = seen["toc"].as_array().unwrap();
    assert_eq!(ztoc.entries.len(), seen_entries.len(), "{context}");
    for (index, (entry, want)) in ztoc.entries.iter().zip(seen_entries).enumerate() {
        let context = format!("{context} entry {index}");
        assert_eq!(entry.name, bytes(&want["name"]), "{context}");
        assert_eq!(want["type"], entry.kind.name(), "{context}");
        assert_eq!(want["uncompressed_offset"], entry.offset, "{context}");
        if !header_sizes || entry.kind == EntryKind::Regular {
            assert_eq!(want["uncompressed_size"], entry.size, "{context}");
            let (first, last) = spans.soci_file_spans(entry).unwrap();
            assert_eq!(want["start_span"], first.0, "{context}");
            assert_eq!(want["end_span_of_offset_plus_size"], last.0, "{context}");
        }
        assert_eq!(entry.linkname, bytes(&want["linkname"]), "{context}");
        assert_eq!(want["mode"], entry.mode, "{context}");
        assert_eq!(want["uid"], entry.uid, "{context}");
        assert_eq!(want["gid"], entry.gid, "{context}");
        assert_eq!(entry.uname, bytes(&want["uname"]), "{context}");
        assert_eq!(entry.gname, bytes(&want["gname"]), "{context}");
        assert_eq!(want["devmajor"], entry.devmajor, "{context}");
        assert_eq!(want["devminor"], entry.devminor, "{context}");
        // The library makes the year 1 of what isn't there.
        let time = entry.mtime.map_or((-62_135_596_800, 0), |time| (time.seconds, time.nanoseconds));
        assert_eq!(want["mod_time_unix"], time.0, "{context}");
        assert_eq!(want["mod_time_nsec"], time.1, "{context}");
        let records = want["xattrs_field"].as_array().unwrap();
        let records: Vec<_> = records.iter().map(|record| (bytes(&record[0]), bytes(&record[1]))).collect();
        assert_eq!(entry.pax, records, "{context}");
    }
}

#[test]
fn built_ztocs_have_the_go_tools_bytes() {
    let (mut equal, mut refused) = (0, 0);
    for vector in vectors() {
        for &span_size in &vector.spans {
            let context = format!("{}/{span_size}", vector.name);
            let Some(_) = vector.compression else { continue };
            let built = vector.build(span_size);
            let accepted = vector.results[format!("new-{span_size}")] == "ok";
            if !accepted || SPARSE.contains(&vector.name.as_str()) {
                built.expect_err(&context);
                refused += 1;
                continue;
            }
            let built = built.unwrap_or_else(|error| panic!("{context}: {error}"));
            let tool = std::fs::read(vector.dir.join(format!("new-{span_size}.ztoc"))).unwrap();
            let seen = json(&vector.dir.join(format!("new-{span_size}.json")));
            if starts_twice(&seen) {
                check_one_start(&context, &built, &seen);
            } else if HEADER_SIZES.contains(&vector.name.as_str()) {
                // Reading drops the sizes that aren't there; nothing else differs.
                assert!(built.encode() == Ztoc::decode(&tool).unwrap().encode(), "{context}");
                assert_ne!(built.encode(), tool, "{context}");
            } else {
                assert!(built.encode() == tool, "{context}: other bytes than the tool's");
                equal += 1;
            }
        }
    }
    assert!(equal >= 40 && refused >= 20, "{equal} were equal and {refused} refused: fewer than there are");
}

/// Of several checkpoints at byte 0 of the stream the first is written, and all others as the tool has them.
fn check_one_start(context: &str, built: &Ztoc, seen: &Value) {
    let spans = seen["spans"].as_array().unwrap();
    let starts = spans.iter().filter(|span| span["uncompressed_start"] == 0).count();
    let want: Vec<&Value> = spans.iter().take(1).chain(spans.iter().skip(starts)).collect();
    assert_eq!(built.checkpoints.len(), want.len(), "{context}");
    for (index, (checkpoint, want)) in built.checkpoints.iter().zip(want).enumerate() {
        assert_eq!(want["checkpoint_in"], checkpoint.compressed_offset, "{context} checkpoint {index}");
        assert_eq!(want["checkpoint_out"], checkpoint.uncompressed_offset, "{context} checkpoint {index}");
        assert_eq!(want["checkpoint_bits"], checkpoint.bits, "{context} checkpoint {index}");
        let window = built.windows.chunks_exact(WINDOW_LEN).nth(index).unwrap();
        assert_eq!(
            want["checkpoint_window_sha256"],
            Sha256Digest::of(window).hex(),
            "{context} window {index}"
        );
        if index > 0 {
            assert_eq!(want["digest"], built.span_digests[index].to_string(), "{context} span {index}");
        }
    }
    assert_eq!(Ztoc::decode(&built.encode()).unwrap(), *built, "{context}");
}

#[test]
fn every_span_and_every_file_is_what_gzip_and_tar_make_of_it() {
    let (mut files, mut bits) = (0, [0; 8]);
    for vector in vectors() {
        let mut ztocs: Vec<Ztoc> =
            vector.ztocs().values().filter_map(|bytes| Ztoc::decode(bytes).ok()).collect();
        ztocs.extend(
            vector.spans.iter().filter_map(|&span| vector.compression.and_then(|_| vector.build(span).ok())),
        );
        // Only the old tool takes a blob with bytes after its last member, of which gzip complains.
        let trailing = vector.name.starts_with("end-gz");
        if ztocs.is_empty() || trailing {
            continue;
        }
        let stream = vector.stream();
        let wanted = expected(&vector);
        for ztoc in &ztocs {
            let layer = Layer::new(ztoc, &vector.blob);
            layer.check_spans(&stream);
            for checkpoint in &ztoc.checkpoints {
                bits[usize::from(checkpoint.bits)] += 1;
            }
            for (name, digest) in &wanted {
                // Of entries of one name the last is what tar leaves there.
                let entry = ztoc.entries.iter().rfind(|entry| clean(&entry.name) == *name);
                if let Some(entry) = entry.filter(|entry| entry.kind == EntryKind::Regular) {
                    let content = Sha256Digest::of(&layer.content(entry)).hex();
                    assert_eq!(content, *digest, "{}: {}", vector.name, String::from_utf8_lossy(name));
                    files += 1;
                }
            }
        }
    }
    assert!(files >= 500, "only {files} files were compared");
    assert!(bits[1..].iter().any(|&count| count > 0), "no span begins within a byte: {bits:?}");
}

/// A name as it is on disk: without `.`, `..` and what is no part of it.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Names and digests in `expected.sha256`, with the escapes of `sha256sum`.
fn expected(vector: &Vector) -> Vec<(Vec<u8>, String)> {
    if vector.name == "end-unpadded" {
        return Vec::new(); // GNU tar doesn't give the end of its last file
    }
    let Ok(text) = std::fs::read(vector.dir.join("expected.sha256")) else { return Vec::new() };
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (escaped, line) = line.strip_prefix(b"\\").map_or((false, line), |line| (true, line));
            let (digest, name) = line.split_at(64);
            let mut name = name[2..].to_vec();
            if escaped {
                name =
                    String::from_utf8(name).unwrap().replace("\\n", "\n").replace("\\\\", "\\").into_bytes();
            }
            (name, String::from_utf8(digest.to_vec()).unwrap())
        })
        .collect()
}

#[test]
fn a_ztoc_without_its_first_checkpoint_is_read_and_written_as_such() {
    for vector in vectors() {
        for (file, bytes) in vector.ztocs() {
            let Ok(mut ztoc) = Ztoc::decode(&bytes) else { continue };
            let plain = ztoc.checkpoints.first().is_some_and(|first| first.compressed_offset == 10);
            if ztoc.compression != Compression::Gzip || !plain {
                continue;
            }
            let whole = ztoc.encode();
            ztoc.first_checkpoint_implied = true;
            let old = ztoc.encode();
            assert!(whole.len() - old.len() >= WINDOW_LEN, "{}/{file}: one checkpoint less", vector.name);
            assert_eq!(Ztoc::decode(&old).unwrap(), ztoc, "{}/{file}", vector.name);
            let (_, windows) = Ztoc::decode_without_windows(&old).unwrap();
            assert_eq!(windows.get(SpanId(0)), None);
            for (id, window) in (0..).zip(ztoc.windows.chunks_exact(WINDOW_LEN)).skip(1) {
                let range = windows.get(SpanId(id)).unwrap();
                assert!(
                    &old[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
                        == window
                );
            }
        }
    }
}

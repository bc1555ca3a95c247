//! Layers as people have them, and layers nobody would have: each read through its zTOC, and held against what GNU tar
//! and GNU gzip make of the same bytes.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, EntryKind, Sha256Digest, Ztoc};

use crate::support::{Layer, gunzip, pipe, run};

/// How much of this machine's files is packed, in bytes: enough for some dozen spans, little enough for seconds.
const SOURCE_LEN: u64 = 12 << 20;

/// Files and links of this machine, up to [`SOURCE_LEN`], in a folder of their own.
fn source(dir: &Path) {
    let mut list = Vec::new();
    let mut left = SOURCE_LEN;
    let mut folders =
        vec![PathBuf::from("/usr/share/doc"), PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_symlink()
                || (metadata.is_file()
                    && metadata.len() <= left.min(3 << 20)
                    && fs::File::open(&path).is_ok())
            {
                left -= if metadata.is_symlink() { 0 } else { metadata.len() };
                list.extend_from_slice(path.strip_prefix("/").unwrap().as_os_str().as_bytes());
                list.push(0);
            }
        }
        if left < 64 << 10 {
            break;
        }
    }
    assert!(left < SOURCE_LEN / 2, "this machine has too few files in /usr to test with");
    fs::write(dir.join("list"), list).unwrap();
}

/// Every file that GNU tar extracts from `tar` is what the layer has at its entry, and no file is missing.
fn compare_with_tar(layer: &Layer<'_>, tar: &Path) {
    let out = tempfile::tempdir().unwrap();
    run(out.path(), "tar", &["-xf", tar.to_str().unwrap(), "--no-same-owner"]);
    let mut files = 0;
    for entry in &layer.ztoc.entries {
        let path = out.path().join(std::ffi::OsStr::from_bytes(&entry.name));
        let metadata = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match entry.kind {
            EntryKind::Regular => {
                assert!(metadata.is_file());
                assert!(fs::read(&path).unwrap() == layer.content(entry), "{} differs", path.display());
                let mtime = entry.mtime.unwrap();
                let touched = std::os::unix::fs::MetadataExt::mtime(&metadata);
                assert_eq!(touched, mtime.seconds, "{}", path.display());
                files += 1;
            }
            EntryKind::Symlink => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), entry.linkname);
            }
            EntryKind::Directory => assert!(metadata.is_dir()),
            EntryKind::Hardlink => assert!(metadata.is_file() || metadata.is_symlink()),
            other => panic!("{other:?} isn't among what was packed"),
        }
    }
    let extracted = walk(out.path());
    let hardlinks = layer.ztoc.entries.iter().filter(|entry| entry.kind == EntryKind::Hardlink).count();
    assert!(
        extracted >= files && extracted <= files + hardlinks,
        "{files} of {extracted} files were compared"
    );
}

/// How many regular files are in a folder.
fn walk(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => walk(&entry.path()),
            kind => usize::from(kind.is_file()),
        })
        .sum()
}

fn index(blob: &[u8], compression: Compression, span_size: u64) -> Ztoc {
    let built = build(blob, compression, &BuildOptions { span_size, ..BuildOptions::default() }).unwrap();
    assert_eq!(built.blob_digest, Sha256Digest::of(blob));
    assert_eq!(Ztoc::decode(&built.ztoc.encode()).unwrap(), built.ztoc);
    built.ztoc
}

#[test]
fn files_of_this_machine_are_the_same_through_a_ztoc_as_through_tar() {
    let dir = tempfile::tempdir().unwrap();
    source(dir.path());
    let tar = dir.path().join("layer.tar");
    let name = tar.to_str().unwrap();
    run(
        dir.path(),
        "tar",
        &["-cf", name, "--format=posix", "--null", "--no-recursion", "-C", "/", "-T", "list"],
    );
    let stream = fs::read(&tar).unwrap();

    let packers: [(&str, &[&str]); 5] = [
        ("gzip", &["-1"]),
        ("gzip", &["-6"]),
        ("gzip", &["-9"]),
        ("pigz", &["-6"]),
        ("pigz", &["-i", "-b", "128"]),
    ];
    let mut phases = [0; 8];
    let plain = index(&stream, Compression::Uncompressed, 1 << 20);
    Layer::new(&plain, &stream).check_spans(&stream);
    compare_with_tar(&Layer::new(&plain, &stream), &tar);
    for (program, args) in packers {
        let (blob, good) = pipe(program, args, &stream);
        assert!(good, "{program} {args:?}");
        assert!(gunzip(&blob) == stream, "{program} {args:?}");
        let ztoc = index(&blob, Compression::Gzip, 128 << 10);
        assert!(ztoc.entries == plain.entries, "{program} {args:?}");
        Layer::new(&ztoc, &blob).check_spans(&stream);
        ztoc.checkpoints.iter().for_each(|at| phases[usize::from(at.bits)] += 1);
    }
    assert!(phases.iter().all(|&count| count > 0), "a span begins at every bit of a byte: {phases:?}");

    // One layer in pieces, each a member of its own.
    let members: Vec<u8> = stream.chunks(1_234_567).flat_map(|part| pipe("gzip", &["-3"], part).0).collect();
    let ztoc = index(&members, Compression::Gzip, 400_000);
    let layer = Layer::new(&ztoc, &members);
    layer.check_spans(&stream);
    compare_with_tar(&layer, &tar);
}

/// A file to be packed: what it is made of, and how long it is.
#[derive(Debug, Clone)]
struct Content {
    /// Repeats after so many bytes; 0 for bytes that don't.
    period: usize,
    len: usize,
    seed: u64,
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        // Knuth's multiplier: any mixing does.
        let mix = |value: u64| (value.wrapping_mul(6_364_136_223_846_793_005) >> 56).to_le_bytes()[0];
        let position = |at: usize| if self.period == 0 { at } else { at % self.period };
        (0..self.len).map(|at| mix(self.seed ^ (position(at) as u64 + 1).wrapping_mul(0x9e37_79b9))).collect()
    }
}

fn content() -> impl Strategy<Value = Content> {
    let period = prop_oneof![Just(0_usize), Just(1), 2..300_usize, Just(40_000)];
    let len = prop_oneof![Just(0_usize), 1..2_000_usize, 500..520_usize, 20_000..120_000_usize];
    (period, len, any::<u64>()).prop_map(|(period, len, seed)| Content { period, len, seed })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        rng_seed: RngSeed::Fixed(20_261_123),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn generated_files_come_out_as_they_went_in(
        files in prop::collection::vec(content(), 1..12),
        format in prop::sample::select(vec!["gnu", "posix", "ustar"]),
        level in prop::sample::select(vec!["-1", "-4", "-9"]),
        cut in 1_000..400_000_usize,
        span_size in prop_oneof![1..2_000_u64, 10_000..300_000_u64],
        ranges in prop::collection::vec((0..500_000_u64, 0..200_000_u64), 4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for (number, file) in files.iter().enumerate() {
            fs::write(dir.path().join(format!("{number:03}")), file.bytes()).unwrap();
        }
        let names: Vec<String> = (0..files.len()).map(|number| format!("{number:03}")).collect();
        let format = format!("--format={format}");
        let mut args = vec!["-cf", "layer.tar", &format];
        args.extend(names.iter().map(String::as_str));
        run(dir.path(), "tar", &args);
        let stream = fs::read(dir.path().join("layer.tar")).unwrap();
        let blob: Vec<u8> = stream.chunks(cut).flat_map(|part| pipe("gzip", &[level], part).0).collect();

        for (blob, compression) in [(&blob, Compression::Gzip), (&stream, Compression::Uncompressed)] {
            let ztoc = index(blob, compression, span_size);
            let layer = Layer::new(&ztoc, blob);
            layer.check_spans(&stream);
            prop_assert_eq!(ztoc.entries.len(), files.len());
            for (entry, file) in ztoc.entries.iter().zip(&files) {
                prop_assert!(layer.content(entry) == file.bytes(), "{:?}", entry);
            }
            for &(start, len) in &ranges {
                let len = len.min(layer.spans.stream_len().saturating_sub(start));
                let want = usize::try_from(start).ok().and_then(|start| {
                    stream.get(start..start + usize::try_from(len).ok()?)
                });
                let got = layer.read(start..start + len);
                prop_assert!(got == want.unwrap_or_default(), "{} bytes at {}", len, start);
            }
        }
    }
}

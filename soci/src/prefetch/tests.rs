//! Artifacts beside soci's, and finding files over layers beside what overlayfs would show.

use proptest::prelude::*;
use spandrel_fixtures::layer::{Entry, TarBuilder};
use spandrel_registry::Digest;
use spandrel_ztoc::Compression;
use spandrel_ztoc::build::{BuildOptions, build};

use super::*;

#[test]
fn artifacts_are_read_and_written_as_soci_has_them() {
    let artifact = Artifact::of([(0, 1)]).unwrap();
    let want = r#"{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":1}]}"#;
    assert_eq!(String::from_utf8(artifact.to_bytes()).unwrap(), want);
    assert_eq!(Artifact::parse(want.as_bytes()).unwrap(), artifact);
    let with = br#"{"version":"1.0","prefetch_spans":[{"start_span":1,"end_span":2,"priority":3},{"start_span":9,"end_span":9}],"x":1}"#;
    let artifact = Artifact::parse(with).unwrap();
    assert_eq!((artifact.total(), artifact.spans[0].priority), (3, 3));
    for (bad, want) in [
        (r#"{"version":"2.0","prefetch_spans":[{"start_span":0,"end_span":1}]}"#, "its version is \"2.0\""),
        (r#"{"version":"1.0","prefetch_spans":[]}"#, "it lists no spans"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":2,"end_span":1}]}"#, "spans 2 to 1"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":-1,"end_span":1}]}"#, "it can't be read"),
        ("[]", "it can't be read"),
    ] {
        let error = Artifact::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert!(Artifact::of([]).is_none());
}

proptest! {
    #[test]
    fn merged_runs_hold_the_same_spans(runs in prop::collection::vec((0u32..50, 0u32..6), 0..20)) {
        let spans = |runs: &mut dyn Iterator<Item = (u32, u32)>| {
            runs.flat_map(|(start, end)| start..=end).collect::<std::collections::BTreeSet<_>>()
        };
        let runs: Vec<_> = runs.into_iter().map(|(start, len)| (start, start + len)).collect();
        let merged = Artifact::of(runs.clone()).map(|artifact| artifact.spans).unwrap_or_default();
        prop_assert_eq!(
            spans(&mut merged.iter().map(|range| (range.start, range.end))),
            spans(&mut runs.into_iter())
        );
        // No two of them could be one.
        prop_assert!(merged.windows(2).all(|two| two[0].end + 1 < two[1].start));
    }
}

/// A layer of these entries: 1 KiB a span, so that every file of 2 KiB has spans of its own.
fn layer(entries: impl IntoIterator<Item = Entry>) -> (Digest, Vec<u8>) {
    let tar = entries.into_iter().fold(TarBuilder::new(), TarBuilder::with).finish();
    let options = BuildOptions { span_size: 512, ..BuildOptions::default() };
    let ztoc = build(&tar[..], Compression::Uncompressed, &options).unwrap().ztoc.encode();
    (Digest::sha256(&ztoc), ztoc)
}

fn file(name: &str) -> Entry {
    Entry::file(name, vec![b'x'; 1024])
}

/// For each layer, the spans that these paths lead to; and what is missing.
fn found(layers: &[(Digest, Vec<u8>)], paths: &[&str]) -> (Vec<Vec<(u32, u32)>>, Vec<String>) {
    let layers: Vec<_> = layers.iter().map(|(digest, ztoc)| Layer { digest, ztoc }).collect();
    let wanted = Wanted::new(paths.iter().map(|path| (*path).to_owned())).unwrap();
    let found = prefetch(&layers, &wanted).unwrap();
    let spans = |artifact: Option<Artifact>| {
        artifact.map(|artifact| artifact.spans.iter().map(|range| (range.start, range.end)).collect())
    };
    (found.artifacts.into_iter().map(|artifact| spans(artifact).unwrap_or_default()).collect(), found.missing)
}

#[test]
fn paths_are_cleaned_on_both_sides() {
    let layers = [layer([file("./usr/bin/x"), file("/etc/y"), file("z")])];
    for path in ["usr/bin/x", "/usr/bin/x", "./usr/bin/x", "usr//bin/./x", "/../usr/lib/../bin/x"] {
        // Its header is span 0.
        assert_eq!(found(&layers, &[path]), (vec![vec![(1, 2)]], vec![]), "{path}");
    }
    assert_eq!(found(&layers, &["etc/y", "z"]), (vec![vec![(4, 5), (7, 8)]], vec![]));
    assert_eq!(found(&layers, &["usr/bin", "usr", "no/such"]).1, ["usr/bin", "usr", "no/such"]);
}

#[test]
fn the_topmost_layer_decides_and_whiteouts_hide() {
    let layers = [
        layer([file("a"), file("b"), file("d/c"), file("e/f"), file("g/h")]),
        layer([file("a"), file(".wh.b"), Entry::dir("d"), file("d/.wh..wh..opq"), file("e/new"), file("g")]),
    ];
    for (path, want) in [
        ("a", Some(1)),
        ("b", None),
        ("d/c", None),
        ("e/f", Some(0)),
        ("e/new", Some(1)),
        // A file in the place of a folder.
        ("g/h", None),
        ("g", Some(1)),
    ] {
        let (spans, missing) = found(&layers, &[path]);
        let layer = spans.iter().position(|spans| !spans.is_empty());
        assert_eq!((layer, missing.is_empty()), (want, want.is_some()), "{path}");
    }
}

#[test]
fn links_lead_on_also_into_other_layers() {
    let layers = [
        layer([
            file("usr/lib/real"),
            Entry::symlink("lib", "usr/lib"),
            Entry::hard_link("hard", "usr/lib/real"),
        ]),
        layer([
            Entry::symlink("bin/relative", "../lib/real"),
            Entry::symlink("bin/absolute", "/lib/real"),
            Entry::symlink("loop", "pool"),
            Entry::symlink("pool", "loop"),
            Entry::symlink("dangling", "no/such"),
        ]),
    ];
    let want = (vec![vec![(1, 2)], vec![]], vec![]);
    for path in ["usr/lib/real", "lib/real", "bin/relative", "bin/absolute", "hard"] {
        assert_eq!(found(&layers, &[path]), want, "{path}");
    }
    assert_eq!(found(&layers, &["loop", "dangling"]).1, ["loop", "dangling"]);
}

#[test]
fn patterns_fit_within_one_name_or_over_folders() {
    let layers = [
        layer([file("app/a.py"), file("app/b.py"), file("app/sub/c.py"), file("app/d.txt"), file("odd[1]")]),
        layer([file("app/.wh.b.py"), file("app/z.py")]),
    ];
    for (pattern, want) in [
        ("/app/*.py", vec![vec![(1, 2)], vec![(4, 5)]]),
        ("app/**", vec![vec![(1, 2), (7, 8), (10, 11)], vec![(4, 5)]]),
        ("**/?.py", vec![vec![(1, 2), (7, 8)], vec![(4, 5)]]),
        ("app/{a,z}.py", vec![vec![(1, 2)], vec![(4, 5)]]),
        ("app/[!a].txt", vec![vec![(10, 11)], vec![]]),
        // A file may be called so.
        ("odd[1]", vec![vec![(13, 14)], vec![]]),
    ] {
        assert_eq!(found(&layers, &[pattern]), (want, vec![]), "{pattern}");
    }
    assert_eq!(found(&layers, &["app/*.rs"]).1, ["app/*.rs"]);
    for bad in ["a[", "{a", "", "/", "./.."] {
        assert!(Wanted::new([bad.to_owned()]).is_err(), "{bad}");
    }
}

#[test]
fn an_empty_file_is_there_and_has_nothing_to_fetch() {
    let layers = [layer([Entry::file("empty", Vec::new()), file("a")])];
    assert_eq!(found(&layers, &["empty"]), (vec![vec![]], vec![]));
    // A file that ends where a span does needs no further one.
    assert_eq!(found(&layers, &["a"]).0, [[(2, 3)]]);
}

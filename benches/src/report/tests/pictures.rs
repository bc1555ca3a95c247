//! Whole reports of the sample: every picture is well-formed, and the same files give the same bytes.

use std::path::{Path, PathBuf};

use super::sample::{file_system, indexes, nodes, starts};
use super::save;
use crate::report::write;

/// The sample's report in a folder; what was written.
fn report(results: &Path, docs: &Path) -> Vec<PathBuf> {
    std::fs::create_dir_all(results).unwrap();
    save(results, "start.json", &starts());
    save(results, "fs.json", &file_system());
    save(results, "index.json", &indexes());
    save(results, "node.json", &nodes());
    std::fs::write(results.join("causes.md"), "## The three largest causes\n\nA cause.\n").unwrap();
    write(&[results.to_owned()], docs).unwrap()
}

/// Whether every tag is closed in turn, attributes are quoted, and text holds no bare `<` or `&`.
fn assert_well_formed(name: &str, svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "{name}: {text}");
        for entity in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;", "apos;"].iter().any(|known| entity.starts_with(known)),
                "{name}: {text}"
            );
        }
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").expect("a comment ends").1;
            continue;
        }
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(closing) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closing), "{name}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{name}: {tag}");
        if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{name}: {open:?} {rest}");
}

#[test]
fn pictures_are_well_formed_text_in_light_and_dark() {
    let dir = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("REPORT_SAMPLE").map_or_else(|| dir.path().to_owned(), PathBuf::from);
    let written = report(&kept.join("results"), &kept.join("docs"));
    let names: Vec<String> =
        written.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(
        names,
        [
            "benchmarks.md",
            "start-lan.svg",
            "bytes-lan.svg",
            "start-s3.svg",
            "bytes-s3.svg",
            "density-lan-random.svg",
            "density-lan-tar.svg",
            "memory.svg",
        ]
    );
    let page = std::fs::read_to_string(&written[0]).unwrap();
    for path in &written[1..] {
        let (name, svg) = (path.display().to_string(), std::fs::read_to_string(path).unwrap());
        assert_well_formed(&name, &svg);
        for bad in ["NaN", "inf", "<path", "=\"-"] {
            assert!(!svg.contains(bad), "{name} has {bad}");
        }
        assert!(svg.contains("<text") && svg.contains("prefers-color-scheme: dark"), "{name}");
        let link = format!("(benchmarks/{})", path.file_name().unwrap().to_string_lossy());
        assert!(page.contains(&link), "the page doesn't show {link}");
    }
    assert!(page.contains("## The three largest causes"));
    // Differences that chance may have made are marked, absent systems and failed cells say so.
    for words in [" s), ~1.", "larger than the difference", "| not there |", "| failed |", "later from there"]
    {
        assert!(page.contains(words), "the page doesn't say {words}");
    }
    // Systems that aren't there have no bar, failed cells say so.
    let bars = std::fs::read_to_string(&written[1]).unwrap();
    assert!(!bars.contains("stargz") && bars.contains("failed"));
}

#[test]
fn the_same_files_give_the_same_bytes_and_old_pictures_go() {
    let dir = tempfile::tempdir().unwrap();
    let (results, docs) = (dir.path().join("results"), dir.path().join("docs"));
    let written = report(&results, &docs);
    let read = |written: &[PathBuf]| -> Vec<Vec<u8>> {
        written.iter().map(|path| std::fs::read(path).unwrap()).collect()
    };
    let first = read(&written);
    assert_eq!(read(&write(std::slice::from_ref(&results), &docs).unwrap()), first);
    // The other way round, and named one by one.
    let files = ["node.json", "index.json", "fs.json", "start.json"].map(|name| results.join(name));
    let same = read(&write(&files, &docs).unwrap());
    assert_eq!(same[1..], first[1..], "only the causes lie in the folder");

    let foreign = docs.join("benchmarks/drawn-by-hand.svg");
    std::fs::write(&foreign, "<svg/>").unwrap();
    write(&[results.join("index.json")], &docs).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(docs.join("benchmarks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [foreign]);
}

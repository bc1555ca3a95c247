//! `inspect` against the real docker-registry: images of all kinds, and indexes that can't be used.

use serde_json::Value;
use spandrel_fixtures::image::{ImageBuilder, Index};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, Ztoc};

use crate::support::{SOMEBODY, Tool, large_layer, mixed_image, push_with_index, small_layer};

const MIN: [&str; 2] = ["--min-layer-size", "100k"];

fn inspect(tool: &Tool, reference: &str) -> Value {
    let args = [&["inspect", reference, "--json"][..], &MIN].concat();
    serde_json::from_str(&tool.good(&args)).unwrap()
}

/// Of each layer: Spandrel, soci, Fargate.
fn verdicts(image: &Value) -> Vec<[&str; 3]> {
    let layers = image["layers"].as_array().unwrap().iter();
    layers.map(|layer| ["spandrel", "soci", "fargate"].map(|name| layer[name].as_str().unwrap())).collect()
}

/// What is said of why the layers aren't lazy.
fn reasons(image: &Value) -> Vec<&str> {
    let layers = image["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["reason"].as_str().unwrap_or_default()).collect()
}

fn ztoc_of(blob: &[u8]) -> Ztoc {
    let options = BuildOptions { span_size: 1 << 20, ..BuildOptions::default() };
    build(blob, Compression::Gzip, &options).unwrap().ztoc
}

#[test]
fn an_image_before_and_after_it_is_indexed_and_converted() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = mixed_image();
    let digest = image.push(&registry.client(), "app", "1");
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.blob.len() as u64).collect();
    let all: u64 = sizes.iter().sum();

    let before = inspect(&tool, &reference);
    assert_eq!(before["image"], reference.as_str());
    assert_eq!(before["digest"], digest.as_str());
    let platform = &before["platforms"][0];
    assert_eq!(platform["digest"], digest.as_str());
    assert_eq!(platform["size"], all);
    assert_eq!(verdicts(platform), [["whole", "containerd", "whole"]; 4]);
    assert_eq!(platform["indexes"][0]["error"], "none: the image names no index");
    assert_eq!(platform["indexes"][1]["error"], "none: no index refers to the image");
    assert_eq!(platform["start"]["requests"], 2);
    assert_eq!(platform["start"]["whole_bytes"], all);

    // Version 1: a referrer.
    tool.good(&[&["create", &reference, "--span-size", "1M", "--push"][..], &MIN].concat());
    let listed: Value = serde_json::from_str(&tool.good(&["index", "list", "--json"])).unwrap();
    let ztocs: Value = serde_json::from_str(&tool.good(&["ztoc", "list", "--json"])).unwrap();
    let after = inspect(&tool, &reference);
    let platform = &after["platforms"][0];
    let index = &platform["indexes"][1];
    assert_eq!(index["manifest_version"], "v1");
    assert_eq!(index["digest"], listed[0]["digest"]);
    assert_eq!(index["size"], listed[0]["size"]);
    assert_eq!(index["repository"], format!("{}/app", registry.host()));
    assert_eq!(index["build_tool"], "Spandrel zTOC v1");
    assert_eq!(index["ztocs"], 1);
    let eager = ["whole", "containerd", "whole"];
    // No registry of Amazon's: Fargate has nothing of it.
    assert_eq!(verdicts(platform), [["lazy", "lazy-v1", "whole"], eager, eager, eager]);
    let why = reasons(platform);
    assert!(why[0].is_empty() && why[1].contains("zstd") && why[2].contains("isn't in the index"), "{why:?}");
    assert!(why[3].contains("smaller than 102400 bytes"), "{why:?}");
    let layer = &platform["layers"][0];
    assert_eq!(layer["digest"], image.layers[0].digest.as_str());
    assert_eq!(layer["size"], sizes[0]);
    assert_eq!((&layer["format"], &platform["layers"][1]["format"]), (&"gzip".into(), &"zstd".into()));
    assert_eq!((&layer["ztoc"], &layer["ztoc_size"]), (&ztocs[0]["digest"], &ztocs[0]["size"]));
    let ztoc = ztoc_of(&image.layers[0].blob);
    assert_eq!(layer["spans"], ztoc.checkpoints.len());
    assert_eq!(layer["files"], 6);
    let start = &platform["start"];
    // What refers to it, by API and tag; the index; the zTOC.
    assert_eq!(start["requests"], 4);
    let bytes = listed[0]["size"].as_u64().unwrap() + ztocs[0]["size"].as_u64().unwrap();
    assert_eq!(start["index_bytes"], bytes);
    assert_eq!((&start["lazy_layers"], &start["whole_layers"]), (&1.into(), &3.into()));
    assert_eq!(start["whole_bytes"], all - sizes[0]);

    // Version 2: named by the image; both, where both are there.
    let both = format!("{}/app:2", registry.host());
    tool.good(&[&["convert", &reference, &both, "--span-size", "1M", "--both"][..], &MIN].concat());
    let converted = inspect(&tool, &both);
    let platform = &converted["platforms"][0];
    let eager = ["whole", "whole", "whole"];
    assert_eq!(verdicts(platform), [["lazy", "lazy", "whole"], eager, eager, eager]);
    assert!(platform["indexes"].as_array().unwrap().iter().all(|index| index["ztocs"] == 1), "{platform}");
    assert_eq!(platform["start"]["requests"], 2);

    // For people, the same.
    let text = tool.good(&[&["inspect", &both][..], &MIN].concat());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{both} is {}", converted["digest"].as_str().unwrap()));
    let named = |start: &str| lines.iter().find(|line| line.starts_with(start)).unwrap().to_string();
    let index = platform["indexes"][0]["digest"].as_str().unwrap();
    assert!(named("index v2: ").contains(index) && named("index v2: ").contains("1 zTOCs"), "{text}");
    let row = named(&image.layers[0].digest);
    assert!(row.contains(" gzip ") && row.ends_with("lazy        lazy     whole"), "{row}");
    assert!(named(&image.layers[1].digest).ends_with("zstd can't be read from the middle"), "{text}");
    assert!(named("a start: ").starts_with("a start: 2 requests and "), "{text}");
}

#[test]
fn every_platform_or_those_that_are_asked_for() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let amd64 = ImageBuilder::new().platform("linux", "amd64", "").layer(large_layer(2).0).build();
    let arm64 = ImageBuilder::new().platform("linux", "arm64", "v8").layer(small_layer("x")).docker().build();
    Index::new(vec![amd64, arm64]).push(&registry.client(), "app", "1");
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    tool.good(&["create", &reference, "-p", "linux/amd64", "--min-layer-size", "0", "--push"]);
    let inspected = inspect(&tool, &reference);
    let platforms = inspected["platforms"].as_array().unwrap();
    let names: Vec<_> = platforms.iter().map(|image| &image["platform"]).collect();
    assert_eq!(names, ["linux/amd64", "linux/arm64/v8"]);
    assert_eq!(verdicts(&platforms[0]), [["lazy", "lazy-v1", "whole"]]);
    assert_eq!(verdicts(&platforms[1]), [["whole", "containerd", "whole"]]);
    let text = tool.good(&["inspect", &reference, "-p", "linux/arm64"]);
    assert!(text.contains("\nlinux/arm64/v8: ") && !text.contains("linux/amd64"), "{text}");
    let error = tool.fails(3, &["inspect", &reference, "-p", "linux/s390x"]);
    assert!(error.contains("it has: linux/amd64, linux/arm64/v8"), "{error}");
}

#[test]
fn an_index_that_can_t_be_used_is_shown_with_its_reason() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let (layer, other) = (large_layer(3).0, large_layer(4).0);
    let tool = Tool::new();
    let client = registry.client();

    // The image names an index that isn't there. One that refers to it doesn't stand in.
    let gone = format!("sha256:{}", "0".repeat(64));
    let image = ImageBuilder::new().layer(layer.clone());
    let image = image.annotation("com.amazon.soci.index-digest", &gone).build();
    image.push(&client, "gone", "1");
    let reference = format!("{}/gone:1", registry.host());
    tool.good(&["create", &reference, "--min-layer-size", "0", "--push", "-q"]);
    let inspected = inspect(&tool, &reference);
    let platform = &inspected["platforms"][0];
    assert_eq!(verdicts(platform), [["whole", "containerd", "whole"]]);
    let error = platform["indexes"][0]["error"].as_str().unwrap();
    assert!(error.starts_with("can't be used: ") && error.contains(&gone), "{error}");
    assert_eq!(platform["indexes"][1]["ztocs"], 1);
    assert_eq!(reasons(platform), ["the index can't be used"]);

    // zTOCs: of another layer, of no format, not there.
    let (good, false_one) = (ztoc_of(&layer.blob).encode(), ztoc_of(&other.blob).encode());
    for (repo, ztoc, reason) in [
        ("good", good.clone(), ""),
        ("other", false_one, "the zTOC is of a blob of "),
        ("rubbish", b"no zTOC".to_vec(), "invalid zTOC: "),
        ("lost", [&good[..], b"."].concat(), "not found"),
    ] {
        let index = push_with_index(&client, repo, vec![layer.clone()], &[Some(ztoc.clone())]);
        if repo == "lost" {
            let digest = spandrel_registry::Digest::sha256(&ztoc);
            std::fs::remove_file(registry.blob_file(digest.as_str())).unwrap();
        }
        let inspected = inspect(&tool, &format!("{}/{repo}:1", registry.host()));
        let platform = &inspected["platforms"][0];
        assert_eq!(platform["indexes"][0]["digest"], index.as_str());
        assert_eq!(platform["indexes"][0]["build_tool"], SOMEBODY);
        let text = tool.good(&["inspect", &format!("{}/{repo}:1", registry.host())]);
        assert!(text.contains(r"by somebody \u{1b}[31m") && !text.contains('\u{1b}'), "{text}");
        let lazy = reason.is_empty();
        let want = if lazy { ["lazy", "lazy", "whole"] } else { ["whole", "unclear", "whole"] };
        assert_eq!(verdicts(platform), [want], "{repo}");
        let why = reasons(platform)[0].to_ascii_lowercase();
        assert!(why.contains(&reason.to_ascii_lowercase()) && why.is_empty() == lazy, "{repo}: {why}");
    }
}

#[test]
fn what_can_t_be_asked_is_an_error_and_not_an_image_without_index() {
    let tool = Tool::new();
    // A port that nobody listens at.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = format!("{free}/app:1");
    tool.fails(5, &["inspect", &reference, "--timeout", "2m"]);
    let Some(registry) = DockerRegistry::plain() else { return };
    let error = tool.fails(3, &["inspect", &format!("{}/no/such:1", registry.host())]);
    assert!(error.contains("no/such"), "{error}");
}

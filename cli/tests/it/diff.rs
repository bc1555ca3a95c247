//! `diff` against the real docker-registry: true indexes of both versions, and zTOCs that lie.

use serde_json::Value;
use spandrel_fixtures::image::{ImageBuilder, Index};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::scripted::ScriptedRegistry;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, EntryKind, Sha256Digest, Ztoc};

use crate::support::{Tool, large_layer, push_with_index, small_layer};

fn ztoc_of(blob: &[u8]) -> Ztoc {
    let options = BuildOptions { span_size: 1 << 20, ..BuildOptions::default() };
    build(blob, Compression::Gzip, &options).unwrap().ztoc
}

#[test]
fn indexes_of_both_versions_and_all_platforms_are_proven() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let amd64 = ImageBuilder::new().platform("linux", "amd64", "").layer(large_layer(1).0);
    let amd64 = amd64.layer(small_layer("x")).build();
    let arm64 = ImageBuilder::new().platform("linux", "arm64", "v8").layer(large_layer(2).0).build();
    let tiny = ImageBuilder::new().platform("linux", "s390x", "").layer(small_layer("y")).build();
    Index::new(vec![amd64.clone(), arm64.clone(), tiny]).push(&registry.client(), "app", "1");
    let reference = |tag: &str| format!("{}/app:{tag}", registry.host());
    let tool = Tool::new();
    let error = tool.fails(3, &["diff", &reference("1")]);
    assert!(error.contains("has no index in its registry") && error.contains("spandrel create"), "{error}");

    let options = ["--all-platforms", "--min-layer-size", "100k", "--span-size", "1M", "-q"];
    tool.good(&[&["convert", &reference("1"), &reference("2"), "--both"][..], &options].concat());
    let before = registry.requests().len();
    let ran = tool.run(&["diff", &reference("2")]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.err.lines().collect::<Vec<_>>(), ["no index for linux/s390x"]);
    let text = ran.text();
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    for layer in [&amd64.layers[0], &arm64.layers[0]] {
        // Both versions list the same zTOC: the layer is read once.
        assert_eq!(count(&format!("layer {}: ztoc sha256:", layer.digest)), 2, "{text}");
        let asked = registry.requests()[before..].iter().filter(|line| line.contains(&layer.digest)).count();
        assert_eq!(asked, 1);
    }
    assert_eq!((count(" is true ("), count(": index v1 "), count(": index v2 ")), (4, 2, 2), "{text}");
    let spans = ztoc_of(&amd64.layers[0].blob).checkpoints.len();
    assert!(spans > 2 && text.contains(&format!("is true ({spans} spans, 6 files)")), "{text}");
    assert_eq!(tool.good(&["diff", &reference("2"), "-q", "-p", "linux/amd64"]), "");
    let json: Value = serde_json::from_str(&tool.good(&["diff", &reference("2"), "--json"])).unwrap();
    assert_eq!((&json["differences"], json["indexes"].as_array().unwrap().len()), (&0.into(), 4));
    assert_eq!(json["indexes"][0]["layers"][0]["digest"], amd64.layers[0].digest.as_str());
}

#[test]
fn lying_ztocs_are_found_out() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let (layer, other) = (large_layer(3).0, large_layer(4).0);
    let good = ztoc_of(&layer.blob);
    let tool = Tool::new();
    let small = good.entries.iter().position(|entry| entry.name == b"bin/small").unwrap();
    let lie = |change: &dyn Fn(&mut Ztoc)| {
        let mut ztoc = good.clone();
        change(&mut ztoc);
        ztoc.encode()
    };
    for (repo, ztoc, differences, what) in [
        ("true", good.encode(), 0, ""),
        // Another mode: a program that runs as root, say.
        ("mode", lie(&|z| z.entries[small].mode |= 0o4000), 1, "\"bin/small\": the mode is "),
        (
            "name",
            lie(&|z| z.entries[small].name = b"bin/shell".to_vec()),
            1,
            "the name is \"bin/small\" in the layer",
        ),
        (
            "link",
            lie(&|z| z.entries[small].kind = EntryKind::Fifo),
            1,
            "the type is reg in the layer and fifo",
        ),
        (
            "digest",
            lie(&|z| z.span_digests[1] = Sha256Digest([7; 32])),
            1,
            "span 1: its bytes in the layer have",
        ),
        ("less", lie(&|z| drop(z.entries.pop())), 1, "the zTOC has 5 entries, the layer 6"),
        ("other", ztoc_of(&other.blob).encode(), 1, "the zTOC is of a blob of "),
        ("rubbish", b"no zTOC".to_vec(), 1, "invalid zTOC: "),
    ] {
        let layers = vec![layer.clone(), small_layer("x")];
        let index = push_with_index(&registry.client(), repo, layers, &[Some(ztoc), None]);
        let reference = format!("{}/{repo}:1", registry.host());
        let ran = tool.run(&["diff", &reference]);
        assert_eq!(ran.code, Some(if differences == 0 { 0 } else { 6 }), "{repo}: {}", ran.err);
        if differences > 0 {
            let said =
                format!("spandrel: {reference}: the index and the layers differ in {differences} points");
            assert!(ran.err.contains(&said), "{repo}: {}", ran.err);
        }
        let text = ran.text();
        assert!(text.contains(&format!("index v2 {index}\n")) && text.contains(what), "{repo}: {text}");
        let ran = tool.run(&["diff", &reference, "--json"]);
        let json: Value = serde_json::from_str(&ran.text()).unwrap();
        assert_eq!(json["differences"], differences, "{repo}: {json}");
        assert_eq!(json["indexes"][0]["layers"][0]["named"].as_array().unwrap().len(), differences, "{json}");
    }
}

#[test]
fn an_index_that_can_t_be_used_isn_t_true_either() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let gone = format!("sha256:{}", "0".repeat(64));
    let image = ImageBuilder::new().layer(small_layer("x"));
    image.annotation("com.amazon.soci.index-digest", &gone).build().push(&registry.client(), "gone", "1");
    let ran = Tool::new().run(&["diff", &format!("{}/gone:1", registry.host())]);
    assert_eq!(ran.code, Some(6), "{}", ran.err);
    assert!(ran.text().contains(&gone));
    // One that lists a layer which the image hasn't got.
    let layer = large_layer(5).0;
    let ztoc = ztoc_of(&layer.blob).encode();
    push_with_index(&registry.client(), "more", vec![layer.clone()], &[Some(ztoc)]);
    let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
    let manifest = registry.client().get("/v2/more/manifests/1", &accept);
    let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
    let index = manifest["annotations"]["com.amazon.soci.index-digest"].as_str().unwrap();
    let image = ImageBuilder::new().layer(small_layer("x")).annotation("com.amazon.soci.index-digest", index);
    image.build().push(&registry.client(), "more", "2");
    let ran = Tool::new().run(&["diff", &format!("{}/more:2", registry.host())]);
    assert_eq!(ran.code, Some(6), "{}", ran.err);
    let text = ran.text();
    assert!(text.contains(&layer.digest) && text.contains("the image has no such layer"), "{text}");
}

#[test]
fn a_layer_whose_bytes_were_changed_says_nothing_of_the_index() {
    let registry = ScriptedRegistry::plain();
    let (layer, other) = (large_layer(6).0, large_layer(7).0);
    let reference = format!("{}/app:1", registry.host());
    ImageBuilder::new().layer(layer.clone()).build().put(&registry, "app", "1");
    let tool = Tool::new();
    tool.good(&["create", &reference, "--min-layer-size", "0", "--push", "-q"]);
    tool.good(&["diff", &reference]);
    // As many bytes of something else.
    let mut bytes = other.blob.to_vec();
    bytes.resize(layer.blob.len(), 0);
    registry.put_blob_as("app", &layer.digest, bytes);
    let ran = tool.run(&["diff", &reference]);
    assert_eq!(ran.code, Some(6), "{}", ran.err);
    assert!(ran.err.contains("the registry or something before it changes them"), "{}", ran.err);
}

//! `ztoc get-file`, `ztoc info` and `ztoc list` over what is in a store and in a registry.

use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::scripted::{Kind, ScriptedRegistry};

use crate::support::{Tool, large_layer};

/// A registry with an indexed image, and the zTOC's digest.
struct World {
    registry: ScriptedRegistry,
    reference: String,
    layer: String,
    blob: Vec<u8>,
    content: Vec<u8>,
    ztoc: String,
    tool: Tool,
}

fn world() -> World {
    let registry = ScriptedRegistry::plain();
    let (layer, content) = large_layer(7);
    let (digest, blob) = (layer.digest.clone(), layer.blob.to_vec());
    ImageBuilder::new().layer(layer).build().put(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    tool.good(&["create", &reference, "--min-layer-size", "0", "--span-size", "256k", "--push"]);
    let ztoc = tool.good(&["ztoc", "ls", "-q"]).trim_end().to_owned();
    registry.reset_counts();
    World { registry, reference, layer: digest, blob, content, ztoc, tool }
}

#[test]
fn a_file_comes_from_the_registry_in_the_spans_that_hold_it() {
    let world = world();
    let small = world.tool.run(&["ztoc", "get-file", &world.ztoc, "bin/small"]);
    assert_eq!((small.code, small.out.as_slice(), small.err.as_str()), (Some(0), b"small\n".as_slice(), ""));
    // One span of many, and no manifest: the store knows where the layer is.
    assert_eq!(world.registry.count(Kind::BlobRange), 1);
    assert_eq!(world.registry.count(Kind::Manifest), 0);
    assert!(world.registry.sent(&world.layer) < world.blob.len() as u64 / 4);
    for (path, want) in [("link", "small\n"), ("/hard", "the end\n"), ("./bin/../end", "the end\n")] {
        assert_eq!(world.tool.good(&["ztoc", "get-file", &world.ztoc, path]), want);
    }
    let large = world.tool.run(&["ztoc", "get-file", &world.ztoc, "bin/large"]);
    assert!(large.code == Some(0) && large.out == world.content, "{}", large.err);

    for (path, want) in [
        ("no/such", "spandrel: file no/such does not exist in metadata\n"),
        ("bin/", "spandrel: bin/ is no regular file but a directory\n"),
    ] {
        assert_eq!(world.tool.fails(3, &["ztoc", "get-file", &world.ztoc, path]), want);
    }
}

#[test]
fn without_a_store_the_reference_says_where_everything_is() {
    let world = world();
    let other = Tool::new();
    let error = other.fails(3, &["ztoc", "get-file", &world.ztoc, "end"]);
    assert!(error.contains("couldn't retrieve artifact for") && error.contains("--ref"), "{error}");
    let get = |args: &[&str]| other.good(&[&["ztoc", "get-file"], args].concat());
    assert_eq!(get(&[&world.ztoc, "end", "--ref", &world.reference]), "the end\n");
    let unknown = format!("sha256:{}", "0".repeat(64));
    let error = other.fails(3, &["ztoc", "get-file", &unknown, "end", "--ref", &world.reference]);
    assert!(error.contains("lists the zTOC"), "{error}");
    assert_eq!(
        other.good(&["ztoc", "info", &world.ztoc, "--ref", &world.reference]),
        world.tool.good(&["ztoc", "info", &world.ztoc])
    );

    // A zTOC in a file: its layer is found by its length, or named.
    let (layer, file) = (other.path("layer"), other.path("ztoc"));
    std::fs::write(&layer, &world.blob).unwrap();
    let (layer, file) = (layer.to_str().unwrap(), file.to_str().unwrap());
    other.good(&["ztoc", "build", layer, "-o", file]);
    assert_eq!(get(&[file, "end", "--ref", &world.reference]), "the end\n");
    assert_eq!(get(&[file, "end", "--ref", &world.reference, "--layer", &world.layer]), "the end\n");
    assert_eq!(get(&[file, "end", "--layer", layer]), "the end\n");
    assert_eq!(get(&[&world.ztoc, "end", "--ref", &world.reference, "--layer", layer]), "the end\n");
    let error = other.fails(2, &["ztoc", "get-file", file, "end"]);
    assert!(error.contains("--ref IMAGE, or --layer FILE"), "{error}");
    let error = other.fails(3, &["ztoc", "get-file", file, "end", "--layer", "/no/such"]);
    assert!(error.contains("/no/such"), "{error}");

    // To a file, which is whole or not there.
    let out = other.path("out");
    let args = [file, "bin/large", "--layer", layer, "-o", out.to_str().unwrap()];
    assert_eq!(get(&args), "");
    assert_eq!(std::fs::read(&out).unwrap(), world.content);
    let mut broken = world.blob.clone();
    let at = broken.len() / 2;
    broken[at] ^= 1;
    std::fs::write(layer, broken).unwrap();
    let error = other.fails(6, &[&["ztoc", "get-file"], &args[..]].concat());
    assert!(error.contains("either the zTOC is of another layer"), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), world.content);
    let left: Vec<_> =
        std::fs::read_dir(out.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}"); // layer, zTOC, output
}

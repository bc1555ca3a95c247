//! `convert` between real registries, folders and archives, and what other programs make of the result.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use spandrel_fixtures::digest::sha256;
use spandrel_fixtures::image::{Image, ImageBuilder, Index};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Options};
use spandrel_fixtures::require;
use spandrel_fixtures::scripted::{Fault, Gate, Kind, Rule, ScriptedRegistry};

use crate::support::{Ran, Tool, large_layer, small_layer, sorted};

const ANY_SIZE: [&str; 3] = ["--min-layer-size", "0", "-q"];

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A manifest or index, by its name in the registry.
fn manifest(registry: &DockerRegistry, path: &str) -> Vec<u8> {
    let types = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"];
    let accept = types.map(|media_type| ("accept", media_type));
    let (repository, part) = path.rsplit_once(':').unwrap();
    let (repository, part) = match repository.split_once('@') {
        Some((repository, algorithm)) => (repository, format!("{algorithm}:{part}")),
        None => (repository, part.to_owned()),
    };
    let answer = registry.client().get(&format!("/v2/{repository}/manifests/{part}"), &accept);
    assert_eq!(answer.status.as_u16(), 200, "{path}: {:?}", answer.body);
    answer.body.to_vec()
}

fn app(seed: u64) -> Image {
    ImageBuilder::new().layer(large_layer(seed).0).layer(small_layer("small")).annotation("a", "b").build()
}

/// Requests since `before` that brought bytes or manifests into the registry.
fn uploads(registry: &DockerRegistry, before: usize) -> Vec<String> {
    let sends = |line: &&String| ["POST ", "PATCH ", "PUT "].iter().any(|method| line.starts_with(method));
    registry.requests()[before..].iter().filter(sends).cloned().collect()
}

fn convert<'a>(src: &'a str, dst: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["convert", src, dst][..], &ANY_SIZE, more].concat()
}

#[test]
fn within_a_registry_blobs_are_mounted_and_the_image_names_its_index() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = app(21);
    image.push(&registry.client(), "team/app", "1");
    let (src, dst) = (format!("{}/team/app:1", registry.host()), format!("{}/lazy/app:2", registry.host()));
    let tool = Tool::new();
    let before = registry.requests().len();
    let made = json(tool.good(&convert(&src, &dst, &["--json"])).as_bytes());
    // Layers and configuration were mounted: no byte of them was sent.
    let sent = uploads(&registry, before);
    for digest in image.layers.iter().map(|layer| layer.digest.clone()).chain([image.config_digest()]) {
        let mine: Vec<_> = sent.iter().filter(|line| line.contains(&digest[7..])).collect();
        assert!(
            matches!(&mine[..], [line] if line.starts_with("POST") && line.contains("mount=")),
            "{mine:?}"
        );
    }
    let last = sent.last().unwrap();
    assert_eq!(last, "PUT /v2/lazy/app/manifests/2");

    // By the tag one gets to the index.
    let index = json(&manifest(&registry, "lazy/app:2"));
    let new = index["manifests"][0]["digest"].as_str().unwrap();
    let soci = index["manifests"][1]["digest"].as_str().unwrap();
    let named = json(&manifest(&registry, &format!("lazy/app@{new}")));
    assert_eq!(named["annotations"]["com.amazon.soci.index-digest"], soci);
    assert_eq!(
        (&named["annotations"]["a"], &named["layers"][0]["digest"]),
        (&"b".into(), &image.layers[0].digest.clone().into())
    );
    assert_eq!((&made["images"][0]["digest"], &made["images"][0]["index"]), (&new.into(), &soci.into()));
    assert_eq!(made["images"][0]["source_digest"], image.digest().as_str());
    let listing = json(&manifest(&registry, &format!("lazy/app@{soci}")));
    assert_eq!(listing["config"]["mediaType"], "application/vnd.amazon.soci.index.v2+json");
    // Found there without the store that it was made with.
    let ztoc = listing["layers"][0]["digest"].as_str().unwrap();
    let other = Tool::new();
    let info = json(other.good(&["ztoc", "info", ztoc, "--ref", &dst]).as_bytes());
    assert_eq!(info["num_files"], 6);
    let large = other.run(&["ztoc", "get-file", ztoc, "bin/large", "--ref", &dst]);
    assert!(large.code == Some(0) && large.out == large_layer(21).1, "{}", large.err);
    // The store lists it under the name that it has now.
    let listed = json(tool.good(&["index", "list", "--json"]).as_bytes());
    assert_eq!((&listed[0]["digest"], &listed[0]["manifest_version"]), (&soci.into(), &"v2".into()));
    assert_eq!((&listed[0]["image_ref"], &listed[0]["image_digest"]), (&dst.as_str().into(), &new.into()));

    // Again, and of what is converted already: nothing is sent.
    for src in [&src, &dst] {
        let before = registry.requests().len();
        let again = json(tool.good(&convert(src, &dst, &["--json", "--force"])).as_bytes());
        assert_eq!(again["digest"], made["digest"]);
        assert_eq!(uploads(&registry, before), Vec::<String>::new());
    }
}

#[test]
fn from_one_registry_to_another_with_different_logins() {
    let options = Options { auth: Auth::Token, ..Options::default() };
    let (Some(one), Some(two)) = (DockerRegistry::start(options), DockerRegistry::start(options)) else {
        return;
    };
    let (amd64, arm64) =
        (app(22), ImageBuilder::new().platform("linux", "arm64", "v8").layer(large_layer(23).0).build());
    let tiny = ImageBuilder::new().platform("linux", "s390x", "").layer(small_layer("x")).build();
    Index::new(vec![amd64.clone(), arm64.clone(), tiny.clone()]).push(&one.client(), "app", "1");
    let (src, dst) = (format!("{}/app:1", one.host()), format!("{}/app:1", two.host()));
    let (user, password) = one.login().unwrap();
    let login = format!("{user}:{password}");
    let mut tool = Tool::new();
    tool.set("SPANDREL_PASSWORD", "");
    // The credentials of one aren't sent to the other.
    let error = tool.fails(4, &convert(&src, &dst, &["--user", &login]));
    assert!(error.contains(&one.host()), "{error}");
    let error = tool.fails(4, &convert(&src, &dst, &["--src-user", &login]));
    assert!(error.contains(&two.host()), "{error}");
    let both = ["--src-user", &login, "--user", &login, "--all-platforms", "--json", "--both"];
    let args = [&["convert", &src, &dst, "--min-layer-size", "100k"][..], &both].concat();
    let ran = tool.run(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("no index for linux/s390x"), "{}", ran.err);
    let made = json(&ran.out);
    assert_eq!(made["without_index"][0], "linux/s390x");
    // All of it is there: other platforms as they were, every blob, and the indexes of version 1 as referrers.
    assert_eq!(manifest(&two, &format!("app@{}", tiny.digest())), tiny.manifest.to_vec());
    for (image, made) in [&amd64, &arm64].into_iter().zip(made["images"].as_array().unwrap()) {
        for layer in &image.layers {
            assert_eq!(std::fs::read(two.blob_file(&layer.digest)).unwrap(), layer.blob.to_vec());
        }
        let new = made["digest"].as_str().unwrap();
        let referrers = json(&manifest(&two, &format!("app:{}", new.replace(':', "-"))));
        assert_eq!(referrers["manifests"][0]["digest"], made["index_v1"]);
        let v1 = json(&manifest(&two, &format!("app@{}", made["index_v1"].as_str().unwrap())));
        assert_eq!(v1["subject"]["digest"], new);
    }
    // What is there isn't sent again, though nothing can be mounted.
    let before = two.requests().len();
    let ran = tool.run(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let sent: Vec<_> =
        uploads(&two, before).into_iter().filter(|line| !line.contains("/manifests/sha256")).collect();
    assert_eq!(sent, Vec::<String>::new());
}

#[test]
fn folders_and_archives_give_what_registries_give() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = app(24);
    image.push(&registry.client(), "app", "1");
    let tool = Tool::new();
    let path = |name: &str| tool.path(name).display().to_string();
    image.write_layout(Path::new(&path("layout")), "1");
    let from = format!("{}/app:1", registry.host());
    let to = [
        (from.clone(), format!("oci-dir:{}:x", path("a"))),
        (format!("oci-dir:{}:1", path("layout")), format!("oci-archive:{}", path("b.tar"))),
        (format!("oci-dir:{}", path("layout")), format!("{}/lazy:1", registry.host())),
        (format!("oci-dir:{}:x", path("a")), format!("oci-dir:{}", path("c"))),
        (format!("oci-archive:{}", path("b.tar")), format!("{}/unpacked:1", registry.host())),
    ];
    let digests: Vec<Value> = to
        .iter()
        .map(|(src, dst)| json(tool.good(&convert(src, dst, &["--json"])).as_bytes())["digest"].clone())
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // As soci has it, by paths alone; and the archive is the same, byte for byte.
    tool.good(&convert(&path("layout"), &path("d.tar"), &["--standalone"]));
    assert_eq!(std::fs::read(path("d.tar")).unwrap(), std::fs::read(path("b.tar")).unwrap());
    tool.good(&convert(&path("b.tar"), &path("e"), &["--standalone", "--format", "oci-dir"]));
    let index = |name: &str| std::fs::read(tool.path(name).join("index.json")).unwrap();
    assert_eq!(index("e"), index("c"));

    let Some(skopeo) = require::program("skopeo") else { return };
    let run = |args: &[&str]| {
        let output = Command::new(&skopeo).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    // Others read both, and copy the image out of the archive.
    let archive = format!("oci-archive:{}", path("b.tar"));
    assert_eq!(
        run(&["inspect", "--raw", &archive]),
        run(&["inspect", "--raw", &format!("oci:{}:x", path("a"))])
    );
    let copied = format!("docker://{}/copied:1", registry.host());
    run(&["copy", "--preserve-digests", "--dest-tls-verify=false", &archive, &copied]);
    let new = json(&manifest(&registry, "lazy:1"))["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(manifest(&registry, "copied:1"), manifest(&registry, &format!("lazy@{new}")));
    // docker's archive has plain layers: they stay so, under another digest than the registry's, and with the same files.
    let docker = format!("docker-archive:{}", path("saved.tar"));
    run(&["copy", "--src-tls-verify=false", &format!("docker://{from}"), &format!("{docker}:app:1")]);
    let dst = format!("{}/saved:1", registry.host());
    let made = json(tool.good(&convert(&docker, &dst, &["--json"])).as_bytes());
    let layer = &made["images"][0]["layers"][0];
    assert_eq!(layer["digest"], image.layers[0].diff_id.as_str());
    let ran = tool.run(&["ztoc", "get-file", layer["ztoc"].as_str().unwrap(), "bin/large", "--ref", &dst]);
    assert!(ran.code == Some(0) && ran.out == large_layer(24).1, "{}", ran.err);
    let error = tool.fails(2, &convert(&from, &docker, &[]));
    assert!(error.contains("oci-archive:PATH"), "{error}");
}

#[test]
fn a_layer_that_was_indexed_once_is_never_read_for_it_again() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let (layer, one, two) = (large_layer(31).0, small_layer("one"), small_layer("two"));
    ImageBuilder::new().layer(layer.clone()).layer(one).build().push(&registry.client(), "one", "1");
    ImageBuilder::new().layer(layer.clone()).layer(two).build().push(&registry.client(), "two", "1");
    let name = |repository: &str| format!("{}/{repository}:1", registry.host());
    let tool = Tool::new();
    let args = |image: &str| ["create", image, "--min-layer-size", "100k"].map(str::to_owned);
    let run = |image: &str, more: &[&str]| {
        let before = registry.requests().len();
        let args = args(image);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let lines = tool.good(&args);
        let known = lines.contains(" (already exists)\n");
        let read = registry.requests()[before..]
            .iter()
            .any(|line| line.starts_with("GET") && line.contains(&layer.digest));
        assert_ne!(known, read, "{lines}");
        known
    };
    assert!(!run(&name("one"), &[]));
    // By another image, and without the store.
    std::fs::remove_dir_all(tool.store()).unwrap();
    assert!(run(&name("two"), &[]));
    assert!(tool.path(".cache/spandrel/ztocs").is_dir());
    std::fs::remove_dir_all(tool.store()).unwrap();
    for more in [&["--force"][..], &["--span-size", "1M"], &["--cache", "elsewhere", "--cache-size", "0"]] {
        assert!(!run(&name("one"), more), "{more:?}");
        std::fs::remove_dir_all(tool.store()).unwrap();
    }
    // What is kept isn't believed when it was changed.
    for entry in std::fs::read_dir(tool.path(".cache/spandrel/ztocs")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"rubbish").unwrap();
    }
    assert!(!run(&name("one"), &[]));
}

#[test]
fn files_to_be_prefetched_are_listed() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = app(32);
    image.push(&registry.client(), "app", "1");
    let (src, dst) = (format!("{}/app:1", registry.host()), format!("{}/app:2", registry.host()));
    let tool = Tool::new();
    let list = tool.path("list.json");
    std::fs::write(&list, r#"["./link", "bin/large*", "no/such"]"#).unwrap();
    let list = list.to_str().unwrap();
    let args = [
        "--min-layer-size",
        "100k",
        "--span-size",
        "1M",
        "--prefetch-file",
        "/end",
        "--prefetch-files-json",
        list,
    ];
    let ran = tool.run(&[&["convert", &src, &dst][..], &args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("[WARN] prefetch file no/such not found in any indexed layer"), "{}", ran.err);
    let line = ran.text().lines().find(|line| line.starts_with("Created ")).unwrap().to_owned();
    let (about, digest) = line.rsplit_once(": ").unwrap();
    assert_eq!(about, format!("Created prefetch artifact for layer {}", image.layers[0].digest));
    // In the registry, named by the index.
    let index = json(&manifest(&registry, "app:2"));
    let soci = index["manifests"][1]["digest"].as_str().unwrap();
    let entry = json(&manifest(&registry, &format!("app@{soci}")))["layers"][1].clone();
    assert_eq!(
        (&entry["digest"], &entry["mediaType"]),
        (&digest.into(), &"application/vnd.amazon.soci.prefetch.v1+json".into())
    );
    let artifact = json(&std::fs::read(registry.blob_file(digest)).unwrap());
    let spans = artifact["prefetch_spans"].as_array().unwrap();
    assert_eq!((&artifact["version"], spans.len()), (&"1.0".into(), 1));
    // And shown from the store.
    let listed = tool.good(&["prefetch", "list"]);
    assert!(
        listed.starts_with("DIGEST ")
            && listed.contains(&format!("{digest}    {}    ", image.layers[0].digest)),
        "{listed}"
    );
    let listed = json(tool.good(&["prefetch", "ls", "--json"]).as_bytes());
    let total = spans[0]["end_span"].as_u64().unwrap() - spans[0]["start_span"].as_u64().unwrap() + 1;
    assert_eq!((&listed[0]["Digest"], &listed[0]["TotalSpans"]), (&digest.into(), &total.into()));
    let info = tool.good(&["prefetch", "info", digest]);
    assert!(info.contains(&format!("Layer Digest:  {}\n", image.layers[0].digest)), "{info}");
    assert!(info.ends_with(&format!("Total spans to prefetch: {total}\n")), "{info}");
    let error = tool.fails(3, &["prefetch", "info", &image.layers[0].digest]);
    assert!(error.contains("couldn't retrieve artifact for"), "{error}");
    let error = tool.fails(2, &["create", &src, "--prefetch-file", "a["]);
    assert!(error.contains("prefetch file \"a[\""), "{error}");
    std::fs::write(list, "{}").unwrap();
    let error = tool.fails(2, &["create", &src, "--prefetch-files-json", list]);
    assert!(error.contains("no JSON list of paths"), "{error}");
    // `create` lists them too, and what was pushed has them.
    let made = tool.good(&["create", &src, "--min-layer-size", "100k", "--prefetch-file", "end", "--push"]);
    assert!(made.contains("Created prefetch artifact for layer"), "{made}");
}

#[test]
fn lines_are_soci_s() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = app(25);
    image.push(&registry.client(), "app", "1");
    let (src, dst) = (format!("{}/app:1", registry.host()), format!("{}/app:2", registry.host()));
    let tool = Tool::new();
    let lines = sorted(&tool.good(&["convert", &src, &dst, "--min-layer-size", "100k"]));
    assert!(lines[0].starts_with(&format!("layer {} -> ztoc sha256:", image.layers[0].digest)), "{lines:?}");
    let small = &image.layers[1];
    let want = format!(
        "ztoc skipped - layer {} (application/vnd.oci.image.layer.v1.tar+gzip) size {} is less than min-layer-size 102400",
        small.digest,
        small.blob.len()
    );
    assert_eq!(lines[1..], [want]);
    // Indexes of version 2 aren't pushed by themselves.
    let error = tool.fails(3, &["push", &dst]);
    assert!(error.contains("spandrel create"), "{error}");
    let ran = tool.run(&["convert", &src, &dst]);
    let want = "spandrel: no ztocs created, all layers either skipped or produced errors\n";
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), want));
}

#[test]
fn what_makes_no_sense_is_said_with_what_to_do() {
    let registry = ScriptedRegistry::plain();
    app(26).put(&registry, "app", "1");
    let src = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    let digest = format!("{}/app@sha256:{}", registry.host(), "0".repeat(64));
    let nowhere = tool.path("nowhere").display().to_string();
    std::fs::create_dir(tool.path("empty")).unwrap();
    let empty = format!("oci-dir:{}", tool.path("empty").display());
    std::fs::write(tool.path("text.tar"), "no archive at all").unwrap();
    let text = tool.path("text.tar").display().to_string();
    for (code, src, dst, want) in [
        (2, src.as_str(), digest.as_str(), "name where it goes by a tag"),
        (2, "UPPER", "x", "names no place for an image"),
        (2, &src, "oci-dir:", "a path is missing"),
        (3, &format!("oci-dir:{nowhere}"), "oci-dir:x", "it has no index.json"),
        (3, &format!("oci-archive:{nowhere}"), "oci-dir:x", "nowhere"),
        (1, &empty, "oci-dir:x", "it has no index.json"),
        (1, &format!("oci-archive:{text}"), "oci-dir:x", "text.tar"),
        (1, &format!("docker-archive:{text}"), "oci-dir:x", "text.tar"),
        (1, &src, &format!("oci-dir:{text}"), "text.tar"),
        (3, &src, &format!("oci-archive:{nowhere}/x.tar"), "nowhere"),
    ] {
        let ran = tool.run(&convert(src, dst, &[]));
        assert!(ran.err.contains(want), "{src} {dst}: {}", ran.err);
        // A folder that isn't there and one without a layout are told apart nowhere: both have no index.json.
        assert!(
            ran.code == Some(code) || (want.contains("index.json") && ran.code == Some(1)),
            "{src} {dst}: {ran:?}"
        );
    }
    // One bit is different on the way: nothing gets a name.
    registry.rule(Rule::new(Kind::BlobRange, Fault::Flip(1000)));
    for dst in [format!("{}/app:bad", registry.host()), format!("oci-dir:{}", tool.path("bad").display())] {
        let error = tool.fails(6, &convert(&src, &dst, &[]));
        assert!(error.contains("the bytes that came have the digest"), "{error}");
    }
    assert!(registry.manifest("app", "bad").is_none() && !tool.path("bad/index.json").exists());
}

#[test]
fn a_signal_leaves_nothing_that_has_a_name() {
    let registry = ScriptedRegistry::plain();
    app(27).put(&registry, "app", "1");
    let src = format!("{}/app:1", registry.host());
    let gate = Gate::new();
    registry.rule(Rule::new(Kind::BlobRange, Fault::HoldAfter(1 << 20, gate.clone())));
    for dst in ["registry", "oci-dir", "oci-archive"] {
        let tool = Tool::new();
        std::fs::create_dir(tool.path("out")).unwrap();
        let name = match dst {
            "registry" => format!("{}/other:1", registry.host()),
            kind => format!("{kind}:{}", tool.path("out/image").display()),
        };
        let before = registry.count(Kind::BlobRange);
        let mut command = tool.command(&convert(&src, &name, &[]));
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        registry.wait_for_blocking(Kind::BlobRange, before + 1);
        let kill = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (Some(130), "spandrel: interrupted\n"));
        assert!(registry.manifest("other", "1").is_none());
        assert!(!tool.path("out/image/index.json").exists());
        // What is left in a folder is whole, and the next run's to use.
        let broken: Vec<_> =
            files(&tool.path("out")).into_iter().filter(|path| !is_whole_blob(path)).collect();
        assert_eq!(broken, Vec::<PathBuf>::new());
    }
    gate.open();
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Whether a file of a layout has the bytes that its name says.
fn is_whole_blob(path: &Path) -> bool {
    let digest = sha256(&std::fs::read(path).unwrap());
    path.parent().unwrap().ends_with("blobs/sha256")
        && digest == format!("sha256:{}", path.file_name().unwrap().display())
}

//! `create`, `push` and `index` against the real docker-registry.

use serde_json::Value;
use spandrel_fixtures::image::{ImageBuilder, Index};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Options};

use crate::support::{Tool, large_layer, mixed_image, small_layer, sorted};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_image_is_indexed_kept_pushed_and_found() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let image = mixed_image();
    let digest = image.push(&registry.client(), "team/app", "1");
    let reference = format!("{}/team/app:1", registry.host());
    let tool = Tool::new();
    let layers = &image.layers;

    let made = tool.run(&["create", &reference, "--min-layer-size", "100k", "--span-size", "1M"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(made.err.contains("is in ") && !made.err.contains('\r'), "{}", made.err);
    let lines = sorted(&made.text());
    assert!(lines[0].starts_with(&format!("layer {} -> ztoc sha256:", layers[0].digest)), "{lines:?}");
    let skipped = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(
        skipped("is compressed in an unsupported format. expect: [tar, gzip, unknown] but got \"zstd\""),
        1
    );
    assert_eq!(skipped("can't be indexed: unsupported tar entry type"), 1);
    assert_eq!(skipped("is less than min-layer-size 102400"), 1);
    assert_eq!(lines.len(), 4);
    let ztoc = lines[0].rsplit(' ').next().unwrap().to_owned();

    // Again, nothing is fetched.
    let before = registry.requests().len();
    let again = tool.good(&["create", &reference, "--min-layer-size", "100k", "--span-size", "1M"]);
    assert!(
        again.contains(&format!("layer {} -> ztoc {ztoc} (already exists)\n", layers[0].digest)),
        "{again}"
    );
    let asked = registry.requests()[before..].iter().filter(|line| line.contains(&layers[0].digest)).count();
    assert_eq!(asked, 0);

    let listed = json(&tool.good(&["index", "list", "--json"]));
    let index = listed[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["image_ref"], reference.as_str());
    assert_eq!(listed[0]["image_digest"], digest.as_str());
    assert_eq!(listed[0]["platform"], "linux/amd64");

    let pushed = tool.good(&["push", &reference]);
    assert!(pushed.starts_with(&format!("pushing soci index with digest: {index}\n")), "{pushed}");
    assert!(pushed.ends_with(&format!("successfully pushed artifact with digest: {index}\n")), "{pushed}");
    assert!(pushed.contains(&format!("successfully pushed artifact with digest: {ztoc}\n")), "{pushed}");
    // The registry has it, byte for byte, and names it as a referrer by the fallback tag.
    let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
    let manifest = registry.client().get(&format!("/v2/team/app/manifests/{index}"), &accept);
    let info = tool.good(&["index", "info", &index]);
    assert_eq!(json(&info), json(std::str::from_utf8(&manifest.body).unwrap()));
    let accept = [("accept", "application/vnd.oci.image.index.v1+json")];
    let tag = digest.replace(':', "-");
    let referrers = registry.client().get(&format!("/v2/team/app/manifests/{tag}"), &accept);
    let referrers = json(std::str::from_utf8(&referrers.body).unwrap());
    assert_eq!(referrers["manifests"][0]["digest"], index.as_str());
    assert_eq!(referrers["manifests"][0]["artifactType"], "application/vnd.amazon.soci.index.v1+json");
    assert_eq!(info.lines().nth(1), Some("  \"schemaVersion\": 2,"));
    assert!(std::fs::read(registry.blob_file(&ztoc)).is_ok());

    // Pushed once more, nothing is different, and nobody warns of the image's own index.
    let ran = tool.run(&["push", &reference, "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(json(&ran.text())["indexes"][0]["digest"], index.as_str());

    // Another index of the image: warned of, or skipped.
    tool.good(&["create", &reference, "--min-layer-size", "100k", "--span-size", "2M", "-q"]);
    let skipped = tool.good(&["push", &reference, "--existing-index", "skip"]);
    assert!(skipped.starts_with("skipping soci index "), "{skipped}");
    let ran = tool.run(&["push", &reference]);
    assert!(ran.code == Some(0) && ran.err.contains("[WARN] "), "{}", ran.err);
}

#[test]
fn create_pushes_what_it_made_for_every_platform() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let amd64 = ImageBuilder::new().layer(large_layer(2).0).build();
    let arm64 = ImageBuilder::new().platform("linux", "arm64", "v8").layer(large_layer(3).0).docker().build();
    let tiny = ImageBuilder::new().platform("linux", "s390x", "").layer(small_layer("x")).build();
    Index::new(vec![amd64.clone(), arm64.clone(), tiny]).push(&registry.client(), "app", "1");
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    let args = ["create", &reference, "--all-platforms", "--min-layer-size", "100k", "--push", "--json"];
    let ran = tool.run(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("no index for linux/s390x"), "{}", ran.err);
    let made = json(&ran.text());
    let platforms: Vec<_> =
        made["indexes"].as_array().unwrap().iter().map(|index| &index["platform"]).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64/v8"]);
    for (index, image) in made["indexes"].as_array().unwrap().iter().zip([&amd64, &arm64]) {
        assert_eq!(index["image_digest"], image.digest().as_str());
        assert_eq!(index["pushed"], true);
        assert_eq!(index["layers"][0]["digest"], image.layers[0].digest.as_str());
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
        let path = format!("/v2/app/manifests/{}", index["digest"].as_str().unwrap());
        assert_eq!(registry.client().get(&path, &accept).status.as_u16(), 200);
    }
    // Filters, and the platform as the image has it.
    let quiet = |args: &[&str]| tool.good(&[&["index", "ls", "-q"], args].concat()).lines().count();
    assert_eq!(quiet(&[]), 2);
    assert_eq!(quiet(&["--platform", "linux/arm64"]), 1);
    assert_eq!(quiet(&["-p", "linux/arm64", "-p", "linux/amd64"]), 2);
    assert_eq!(quiet(&["-p", "linux/s390x"]), 0);
    assert_eq!(quiet(&["--ref", &reference]), 2);
    assert_eq!(quiet(&["--ref", "other.example/app:1"]), 0);
    assert!(tool.good(&["index", "ls"]).contains("    linux/arm64/v8    "));
    // Small layers alone make no index, in soci's words.
    let error = tool.fails(1, &["create", &reference, "-p", "linux/s390x", "-q"]);
    assert_eq!(error, "spandrel: no ztocs created, all layers either skipped or produced errors\n");
    let error = tool.fails(3, &["create", &reference, "-p", "linux/ppc64le"]);
    assert!(
        error.contains("isn't there for linux/ppc64le; it has: linux/amd64, linux/arm64/v8, linux/s390x"),
        "{error}"
    );
    let error = tool.fails(3, &["push", &reference, "-p", "linux/s390x"]);
    assert!(error.contains("are of other platforms") && error.contains("spandrel create"), "{error}");
}

#[test]
fn a_tag_that_moved_on_is_noticed() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    let error = tool.fails(3, &["push", &reference]);
    assert!(error.contains(&format!("`spandrel create {reference}`")), "{error}");
    ImageBuilder::new().layer(large_layer(4).0).build().push(&registry.client(), "app", "1");
    tool.good(&["create", &reference, "--min-layer-size", "0"]);
    ImageBuilder::new().layer(large_layer(5).0).build().push(&registry.client(), "app", "1");
    let error = tool.fails(3, &["push", &reference]);
    assert!(error.contains("of what the tag named before"), "{error}");
}

#[test]
fn every_way_to_log_in() {
    for auth in [Auth::Basic, Auth::Token] {
        let options = Options { auth, tls: true, redirect: true, ..Options::default() };
        let Some(registry) = DockerRegistry::start(options) else { return };
        ImageBuilder::new().layer(large_layer(6).0).build().push(&registry.client(), "app", "1");
        let reference = format!("{}/app:1", registry.host());
        let (user, password) = registry.login().unwrap();
        let mut tool = Tool::new();
        let ca = tool.path("ca.pem");
        std::fs::write(&ca, registry.ca_pem().unwrap()).unwrap();
        let ca = ca.to_str().unwrap();
        let base = ["create", &reference, "--min-layer-size", "0", "--push", "-q", "--tlscacert", ca];

        // By nobody, and by somebody else.
        let error = tool.fails(4, &base);
        assert!(error.contains(&registry.host()) && error.contains("--user NAME"), "{error}");
        let wrong = format!("{user}:wrong-secret");
        let error = tool.fails(4, &[&base[..], &["--user", &wrong]].concat());
        assert!(!error.contains("wrong-secret"), "{error}");
        let error = tool.fails(2, &[&base[..], &["--user", user]].concat());
        assert!(error.contains("SPANDREL_PASSWORD"), "{error}");
        // By flag, by variable, and by docker's configuration.
        tool.good(&[&base[..], &["--user", &format!("{user}:{password}")]].concat());
        tool.set("SPANDREL_PASSWORD", password);
        tool.good(&[&base[..], &["--user", user]].concat());
        let tool = Tool::new();
        let config = tool.path(".docker/config.json");
        std::fs::create_dir(config.parent().unwrap()).unwrap();
        let logins =
            serde_json::json!({"auths": {registry.host(): {"username": user, "password": password}}});
        std::fs::write(config, logins.to_string()).unwrap();
        tool.good(&base);
        // A certificate that nobody vouches for is refused, unless nobody asks.
        let error = tool.fails(5, &["create", &reference, "--min-layer-size", "0"]);
        assert!(error.contains("--tlscacert"), "{error}");
        tool.good(&["create", &reference, "--min-layer-size", "0", "-k", "-q"]);
    }
}

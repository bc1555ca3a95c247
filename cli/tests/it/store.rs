//! `index` and `ztoc list`: tables and errors as soci has them.

use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::scripted::ScriptedRegistry;

use crate::support::{Tool, large_layer};

const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn tables_are_laid_out_as_soci_s() {
    let registry = ScriptedRegistry::plain();
    ImageBuilder::new().layer(large_layer(10).0).build().put(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    let tool = Tool::new();
    let empty = "DIGEST    SIZE    IMAGE REF    PLATFORM    MEDIA TYPE    MANIFEST VERSION    CREATED    \n";
    assert_eq!(tool.good(&["index", "list"]), empty);
    assert_eq!(tool.good(&["ztoc", "list"]), "DIGEST    SIZE    LAYER DIGEST    \n");
    assert_eq!(tool.good(&["index", "list", "--json"]), "[]\n");
    tool.good(&["create", &reference, "--min-layer-size", "0"]);

    let index = tool.good(&["index", "ls", "-q"]).trim_end().to_owned();
    let table = tool.good(&["index", "list"]);
    let (head, row) = table.split_once('\n').unwrap();
    let spaces = " ".repeat(reference.len() - "IMAGE REF".len() + 4);
    let want = format!(
        "DIGEST{:69}SIZE    IMAGE REF{spaces}PLATFORM       MEDIA TYPE{:36}MANIFEST VERSION    CREATED    ",
        "", ""
    );
    assert_eq!(head, want);
    let size = std::fs::read(tool.store().join("blobs/sha256").join(&index[7..])).unwrap().len();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let start =
        format!("{index}    {size}     {reference}    linux/amd64    {media_type}    v1                  ");
    let age = row.strip_prefix(&start).unwrap_or_else(|| panic!("{start:?} doesn't begin {row:?}"));
    assert!(age.ends_with("s ago     \n") && age.len() == 12, "{age:?}");

    let ztoc = tool.good(&["ztoc", "ls", "-q"]).trim_end().to_owned();
    let listed: serde_json::Value = serde_json::from_str(&tool.good(&["ztoc", "list", "--json"])).unwrap();
    let want = format!(
        "DIGEST{:69}SIZE{:5}LAYER DIGEST{:63}\n{ztoc}    {}    {}    \n",
        "",
        "",
        "",
        listed[0]["size"],
        listed[0]["layer_digest"].as_str().unwrap()
    );
    assert_eq!(tool.good(&["ztoc", "list"]), want);
    let count = |args: &[&str]| tool.good(&[&["ztoc", "ls", "-q"], args].concat()).lines().count();
    assert_eq!(count(&["--ztoc-digest", &ztoc]), 1);
    assert_eq!(count(&["--ztoc-digest", NOTHING]), 0);
    assert_eq!(count(&["--image-ref", &reference]), 1);
    assert_eq!(count(&["--image-ref", "x"]), 0);

    // The wrong command for a digest says which is the right one.
    let error = tool.fails(3, &["ztoc", "info", &index]);
    assert!(
        error.contains("the provided digest belongs to a SOCI index. Use `spandrel index info`"),
        "{error}"
    );
    let error = tool.fails(3, &["index", "info", &ztoc]);
    assert!(error.contains("the provided digest is of ztoc not SOCI index"), "{error}");

    let error = tool.fails(3, &["index", "rm", &index, NOTHING]);
    assert!(error.contains(&format!("the index of the digest {NOTHING} doesn't exist")), "{error}");
    assert_eq!(tool.good(&["index", "list"]), empty);
    assert_eq!(tool.good(&["ztoc", "list", "-q"]), "");
    tool.good(&["create", &reference, "--min-layer-size", "0", "-q"]);
    assert_eq!(tool.good(&["index", "remove", "--ref", &reference]), "");
    assert_eq!(tool.good(&["index", "list"]), empty);
}

#[test]
fn errors_are_soci_s() {
    let tool = Tool::new();
    assert_eq!(tool.good(&["index", "rm"]), "");
    for (code, args, want) in [
        (2, &["index", "info", "x"][..], "invalid checksum digest format"),
        (2, &["ztoc", "info", "x"], "invalid checksum digest format"),
        (2, &["ztoc", "get-file", "nonsense", "x"], "invalid checksum digest format"),
        (2, &["index", "rm", "x"], "invalid checksum digest format"),
        (3, &["index", "info", NOTHING], &format!("couldn't retrieve artifact for {NOTHING}, not found")),
        (3, &["ztoc", "info", NOTHING], &format!("couldn't retrieve artifact for {NOTHING}, not found")),
        (3, &["index", "rm", NOTHING], &format!("the index of the digest {NOTHING} doesn't exist")),
        (3, &["index", "rm", "--ref", "no/such:1"], "image \"no/such:1\": not found"),
    ] {
        let error = tool.fails(code, args);
        assert!(error.contains(want), "{want:?} isn't in {error:?}");
    }
    assert!(!tool.store().exists());
}

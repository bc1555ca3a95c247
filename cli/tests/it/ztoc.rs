//! `ztoc build` and `ztoc info` over files: soci's bytes and soci's JSON.

use serde_json::Value;

use crate::support::{Tool, golden};

#[test]
fn a_built_ztoc_equals_soci_s() {
    let tool = Tool::new();
    let out = tool.path("out.ztoc");
    for (layer, want) in [
        ("gz-gnu1/layer.tar.gz", "gz-gnu1/new-65536.ztoc"),
        ("tar-exact-multiple/layer.tar", "tar-exact-multiple/new-65536.ztoc"),
    ] {
        let layer = golden(layer);
        let args = [
            "ztoc",
            "build",
            layer.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--span-size",
            "64KiB",
            "--build-tool",
            "AWS SOCI CLI v0.2",
        ];
        let line = tool.good(&args);
        assert!(line.starts_with("layer sha256:") && line.contains(" -> ztoc sha256:"), "{line}");
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(golden(want)).unwrap());
        let json: Value = serde_json::from_str(&tool.good(&[&args[..], &["--json"]].concat())).unwrap();
        assert_eq!(json["ztoc_size"], std::fs::metadata(&out).unwrap().len());
        assert_eq!(json["layer_size"], std::fs::metadata(&layer).unwrap().len());
    }
    for (layer, want) in [
        ("zstd/layer.tar.zst", "this is zstd"),
        ("t-gnu-sparse/layer.tar.gz", "unsupported tar entry type"),
        ("end-gz-cut-data/layer.tar.gz", "corrupt gzip stream"),
    ] {
        std::fs::remove_file(&out).ok();
        let layer = golden(layer);
        let error = tool.fails(1, &["ztoc", "build", layer.to_str().unwrap(), "-o", out.to_str().unwrap()]);
        assert!(error.contains(want) && error.contains(layer.to_str().unwrap()), "{error}");
        assert!(!out.exists());
    }
    let error = tool.fails(3, &["ztoc", "build", "/no/such", "-o", out.to_str().unwrap()]);
    assert!(error.contains("reading /no/such"), "{error}");
}

#[test]
fn info_says_what_soci_s_library_reads() {
    let tool = Tool::new();
    // Names that are no text are looked at by the unit tests of the quoting.
    for name in ["t-links", "gz-gnu1", "t-whiteouts", "mm-odd", "empty-tar", "empty-0", "tar-exact-multiple"]
    {
        let ztoc = golden(&format!("{name}/new-65536.ztoc"));
        let info = tool.good(&["ztoc", "info", ztoc.to_str().unwrap()]);
        let got: Value = serde_json::from_str(&info).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(golden(&format!("{name}/new-65536.json"))).unwrap())
                .unwrap();
        assert_eq!(got["size"], std::fs::metadata(&ztoc).unwrap().len());
        assert_eq!(got["build_tool"], "AWS SOCI CLI v0.2");
        let entries = golden["toc"].as_array().unwrap();
        assert_eq!(got["num_files"], entries.len());
        assert_eq!(got["num_spans"], golden["spans"].as_array().map_or(0, Vec::len));
        if entries.is_empty() {
            assert_eq!(got["files"], Value::Null);
            continue;
        }
        for (file, entry) in got["files"].as_array().unwrap().iter().zip(entries) {
            for (key, golden_key) in [
                ("filename", "name"),
                ("offset", "uncompressed_offset"),
                ("size", "uncompressed_size"),
                ("type", "type"),
                ("start_span", "start_span"),
                ("end_span", "end_span_of_offset_plus_size"),
            ] {
                assert_eq!(file[key], entry[golden_key], "{name}: {key}");
            }
        }
    }
    let error = tool.fails(1, &["ztoc", "info", golden("t-links/layer.tar.gz").to_str().unwrap()]);
    assert!(error.contains("layer.tar.gz: invalid zTOC"), "{error}");
}

#[test]
fn info_is_soci_s_to_the_byte() {
    let tool = Tool::new();
    let info = tool.good(&["ztoc", "info", golden("empty-tar-gz/new-65536.ztoc").to_str().unwrap()]);
    let want = "{\n  \"version\": \"0.9\",\n  \"build_tool\": \"AWS SOCI CLI v0.2\",\n  \"size\": 33120,\n  \
                \"span_size\": 65536,\n  \"num_spans\": 1,\n  \"num_files\": 0,\n  \"num_multi_span_files\": 0,\n  \
                \"files\": null\n}\n";
    let size = std::fs::metadata(golden("empty-tar-gz/new-65536.ztoc")).unwrap().len();
    assert_eq!(info, want.replace("33120", &size.to_string()));
    let info = tool.good(&["ztoc", "info", golden("t-links/new-65536.ztoc").to_str().unwrap()]);
    let want = "{\n  \"version\": \"0.9\",\n  \"build_tool\": \"AWS SOCI CLI v0.2\",\n  \"size\": 35424,\n  \
                \"span_size\": 65536,\n  \"num_spans\": 1,\n  \"num_files\": 15,\n  \"num_multi_span_files\": 0,\n  \
                \"files\": [\n    {\n      \"filename\": \"a/\",\n      \"offset\": 512,\n      \"size\": 0,\n      \
                \"type\": \"dir\",\n      \"start_span\": 0,\n      \"end_span\": 0\n    },\n    {\n";
    assert_eq!(&info[..want.len()], want);
}

//! Tests of index manifests: SOCI's own, byte for byte, and hostile ones.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Every index that SOCI's tools made: digest and bytes.
fn golden() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/index");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert!(files.len() >= 15, "the golden files are missing");
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn what_soci_wrote_is_written_again_byte_for_byte() {
    let mut versions = [0, 0];
    for (name, bytes) in golden() {
        assert_eq!(Digest::sha256(&bytes).hex(), name);
        let index = IndexManifest::parse(&bytes).unwrap();
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), String::from_utf8(bytes).unwrap());
        assert!(!index.layers.is_empty());
        assert_eq!(index.subject.is_some(), index.version == Version::V1);
        versions[usize::from(index.version == Version::V2)] += 1;
    }
    assert!(versions.iter().all(|count| *count >= 5), "{versions:?}");
}

#[test]
fn an_index_says_what_its_annotations_say() {
    let bytes = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden/index/496c0c9c8137f8e929dba2d7e60b9eb35aa2ad1afb19313e71a8d63f744ef04f.json"),
    );
    let index = IndexManifest::parse(&bytes.unwrap()).unwrap();
    assert_eq!(index.version, Version::V1);
    assert_eq!(index.build_tool, "AWS SOCI CLI v0.2");
    assert_eq!(index.layers.len(), 4);
    assert_eq!(index.layers[0].span_size, Some(65536));
    assert_eq!(index.layers[1].layer_media_type, "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(index.layers[1].ztoc.size, 8168);
    assert_eq!(index.prefetch.len(), 1);
    let layer = &index.layers[2].layer;
    assert_eq!(index.ztoc_of(layer), Some(&index.layers[2]));
    assert_eq!(index.ztoc_of(&Digest::sha256(b"")), None);
}

fn manifest(config_type: &str, layers: &serde_json::Value) -> Vec<u8> {
    let config = json!({"mediaType": config_type, "digest": Digest::sha256(b"{}"), "size": 2});
    json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes()
}

fn entry(media_type: &str, size: u64, annotations: &serde_json::Value) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(b"z"), "size": size, "annotations": annotations})
}

#[test]
fn what_is_no_index_is_refused_by_name() {
    let layer = json!({annotation::LAYER_DIGEST: Digest::sha256(b"l")});
    let long = vec![b' '; 4 << 20 | 1];
    let huge = entry(ZTOC, spandrel_ztoc::limits::MAX_ZTOC_LEN + 1, &layer);
    let prefetch = entry(PREFETCH, MAX_PREFETCH_LEN + 1, &layer);
    let many = vec![entry(ZTOC, 1, &layer); MAX_LAYERS + 1];
    let no_digest = entry(ZTOC, 1, &json!({annotation::LAYER_DIGEST: "sha256:xyz"}));
    for (bytes, want) in [
        (b"".to_vec(), "no image manifest"),
        (b"[]".to_vec(), "no image manifest"),
        (b"{\"layers\":[]}".to_vec(), "no image manifest"),
        (manifest(media_type::OCI_CONFIG, &json!([])), "config.mediaType is"),
        (
            manifest(INDEX_V1, &json!([no_digest])),
            "layers[0].annotations[\"com.amazon.soci.image-layer-digest\"]",
        ),
        (manifest(INDEX_V2, &json!([huge])), "layers[0].size is"),
        (manifest(INDEX_V2, &json!([prefetch])), "layers[0].size is"),
        (manifest(INDEX_V2, &json!(many)), "number of layers in the index is 1025"),
        (long, "length of the index manifest is 4194305"),
    ] {
        let error = IndexManifest::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(want), "{want:?} isn't in {error:?}");
    }
}

#[test]
fn entries_that_nobody_could_use_are_passed_over() {
    let layer = json!({annotation::LAYER_DIGEST: Digest::sha256(b"l"), annotation::SPAN_SIZE: "many"});
    let layers = json!([
        entry(ZTOC, 1, &json!({})), // of no layer
        entry("application/vnd.example.later", 1, &layer),
        entry(ZTOC, 7, &layer),
    ]);
    let index = IndexManifest::parse(&manifest(INDEX_V2, &layers)).unwrap();
    assert_eq!(index.layers.len(), 1);
    assert_eq!(index.layers[0].ztoc.size, 7);
    assert_eq!(index.layers[0].span_size, None);
}

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 4]>().prop_map(|bytes| Digest::sha256(&bytes))
}

fn layers() -> impl Strategy<Value = LayerZtoc> {
    let parts = (digests(), ".*", digests(), 0..1u64 << 30, any::<Option<u64>>(), any::<bool>());
    parts.prop_map(|(layer, layer_media_type, ztoc, size, span_size, disable_xattrs)| {
        let mut entry = LayerZtoc {
            layer,
            layer_media_type,
            ztoc: descriptor(ZTOC, ztoc, size),
            span_size,
            disable_xattrs,
        };
        entry.ztoc = entry.descriptor();
        entry
    })
}

fn indexes() -> impl Strategy<Value = IndexManifest> {
    let subject = proptest::option::of((digests(), any::<u64>()));
    (any::<bool>(), ".*", proptest::collection::vec(layers(), 0..4), digests(), subject).prop_map(
        |(first, build_tool, layers, prefetch, subject)| IndexManifest {
            version: if first { Version::V1 } else { Version::V2 },
            build_tool,
            layers,
            prefetch: vec![descriptor(PREFETCH, prefetch, 66)],
            subject: subject.map(|(digest, size)| descriptor(media_type::OCI_MANIFEST, digest, size)),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(index in indexes()) {
        let bytes = index.to_bytes();
        prop_assert_eq!(&IndexManifest::parse(&bytes).unwrap(), &index);
        // Whatever the text, what Go escapes never shows.
        prop_assert!(!bytes.iter().any(|byte| b"<>&".contains(byte)));
    }

    #[test]
    fn no_bytes_make_it_panic(at in 0usize..2000, byte: u8, cut in 0usize..2000) {
        for (_, mut bytes) in golden().into_iter().take(3) {
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = IndexManifest::parse(&bytes);
            bytes.truncate(cut);
            let _ = IndexManifest::parse(&bytes);
        }
    }
}

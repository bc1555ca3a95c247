//! Tests of what a reference leads to: manifests, indexes, platforms, and what is no image.

use serde_json::json;

use super::*;
use crate::testing::{DOCKER_LIST, MULTI, MULTI_IMAGES, MemorySource, SINGLE, sha256};

fn listed(platforms: &[&str]) -> Platforms {
    Platforms::Listed(platforms.iter().map(|text| platform::parse(text).unwrap()).collect())
}

async fn images(
    source: &MemorySource,
    part: &str,
    platforms: &Platforms,
) -> Result<Vec<(String, String)>, Error> {
    let resolved = resolve(source, part, platforms).await?;
    Ok(resolved
        .images
        .iter()
        .map(|image| (image.digest().hex().to_owned(), platform::name(&image.platform)))
        .collect())
}

#[tokio::test]
async fn a_single_image_is_for_what_its_configuration_says() {
    let source = MemorySource::golden();
    let part = format!("sha256:{SINGLE}");
    let want = [(SINGLE.to_owned(), "linux/amd64".to_owned())];
    for platforms in [Platforms::Default, Platforms::All, listed(&["linux/amd64"])] {
        assert_eq!(images(&source, &part, &platforms).await.unwrap(), want);
    }
    let error = images(&source, &part, &listed(&["linux/s390x"])).await.unwrap_err().to_string();
    let want = format!("image memory.example/app@{part} isn't there for linux/s390x; it has: linux/amd64");
    assert_eq!(error, want);
    // The document's word counts, not the header.
    let resolved = resolve(&source, &part, &Platforms::All).await.unwrap();
    assert_eq!(resolved.root.media_type, media_type::OCI_MANIFEST);
    assert_eq!(resolved.images[0].descriptor().size, 914);
}

#[tokio::test]
async fn an_index_gives_the_platforms_that_were_asked_for() {
    let source = MemorySource::golden();
    let (amd64, arm64) = (MULTI_IMAGES[0].0, MULTI_IMAGES[1].0);
    let amd64 = (amd64.to_owned(), "linux/amd64".to_owned());
    let arm64 = (arm64.to_owned(), "linux/arm64/v8".to_owned());
    let part = format!("sha256:{MULTI}");
    for (platforms, want) in [
        (Platforms::All, vec![amd64.clone(), arm64.clone()]), // and no attestation
        (listed(&["linux/arm64"]), vec![arm64.clone()]),
        (listed(&["linux/arm64/v8", "linux/amd64"]), vec![arm64.clone(), amd64.clone()]),
        (listed(&["linux/amd64", "x86_64"]), vec![amd64.clone()]), // once
    ] {
        assert_eq!(images(&source, &part, &platforms).await.unwrap(), want, "{platforms:?}");
    }
    let error = images(&source, &part, &listed(&["linux/s390x"])).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().ends_with("it has: linux/amd64, linux/arm64/v8"), "{error}");
    let list = images(&source, &format!("sha256:{DOCKER_LIST}"), &Platforms::All).await.unwrap();
    assert_eq!(list.len(), 2);
}

#[tokio::test]
async fn the_default_is_this_machine() {
    let source = MemorySource::golden();
    let got = images(&source, &format!("sha256:{MULTI}"), &Platforms::Default).await.unwrap();
    let want = listed(&[&platform::name(&platform::host())]);
    assert_eq!(got, images(&source, &format!("sha256:{MULTI}"), &want).await.unwrap());
}

#[tokio::test]
async fn an_entry_without_platform_is_asked_for_it() {
    let mut source = MemorySource::golden();
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": media_type::OCI_MANIFEST, "digest": sha256(SINGLE), "size": 914},
        {"mediaType": media_type::OCI_MANIFEST, "digest": sha256(SINGLE), "size": 914, "artifactType": "x/y"},
        {"mediaType": media_type::OCI_INDEX, "digest": sha256(MULTI), "size": 1},
    ]});
    let digest = source.add_manifest(media_type::OCI_INDEX, index.to_string());
    let got = images(&source, digest.as_str(), &listed(&["linux/amd64"])).await.unwrap();
    assert_eq!(got, [(SINGLE.to_owned(), "linux/amd64".to_owned())]);
    assert_eq!(images(&source, digest.as_str(), &Platforms::All).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_image_is_refused_by_name() {
    let mut source = MemorySource::golden();
    let config = |media_type: &str| json!({"mediaType": media_type, "digest": sha256(SINGLE), "size": 2});
    let image = config(media_type::OCI_CONFIG);
    let layer = config(media_type::OCI_LAYER);
    for (document, want) in [
        (json!([]), "can't be read"),
        (json!({}), "neither an image's nor an index"),
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (json!({"schemaVersion": 2, "config": image, "layers": [], "manifests": []}), "at once"),
        (
            json!({"schemaVersion": 2, "config": config("application/vnd.example"), "layers": []}),
            "no container image",
        ),
        (json!({"schemaVersion": 2, "manifests": []}), "lists no image"),
        (
            json!({"schemaVersion": 2, "config": image, "layers": vec![layer; 1025]}),
            "is 1025, above the limit",
        ),
        (json!({"schemaVersion": 2, "manifests": vec![image; 1025]}), "is 1025, above the limit"),
        (json!({"x": "y".repeat(4 << 20)}), "above the limit of 4194304"),
    ] {
        let digest = source.add_manifest(media_type::OCI_MANIFEST, document.to_string());
        let error = images(&source, digest.as_str(), &Platforms::All).await.unwrap_err().to_string();
        assert!(error.contains(want), "{want:?} isn't in {error:?}");
    }
    let error = images(&source, "gone", &Platforms::All).await.unwrap_err();
    assert!(error.is_not_found());
}

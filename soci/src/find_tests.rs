//! Tests of finding an index: label, annotation, referrers, and what each failure means.

use spandrel_registry::{ErrorKind, media_type};

use super::*;
use crate::index::descriptor;
use crate::testing::MemorySource;

const V1: &[u8] =
    include_bytes!("../golden/index/5131209310716b22c78f7ba4d0839817f24c354bc83982226cb03a130ba993b6.json");
const V2: &[u8] =
    include_bytes!("../golden/index/6d6f94527db0060528965596b8ff123d3c0dbb6501d643d8bc19daf0599b5e61.json");

/// An image manifest that may name an index.
fn image(index: Option<&str>) -> Vec<u8> {
    let digest = Digest::sha256(b"{}");
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest, "size": 2},
        "layers": [],
    });
    if let Some(index) = index {
        manifest["annotations"] = serde_json::json!({annotation::INDEX_DIGEST: index});
    }
    manifest.to_string().into_bytes()
}

/// A version 1 index of this image.
fn v1_of(image: &Digest) -> Vec<u8> {
    let mut index = IndexManifest::parse(V1).unwrap();
    index.subject = Some(descriptor(media_type::OCI_MANIFEST, image.clone(), 1));
    index.to_bytes()
}

struct World {
    source: MemorySource,
    image: Vec<u8>,
    label: Digest,
    v2: Digest,
    v1: Digest,
}

/// An image that has an index in each way.
fn world() -> World {
    let mut source = MemorySource::default();
    let v2 = source.add_manifest(media_type::OCI_MANIFEST, V2);
    let image = image(Some(v2.as_str()));
    let v1 = source.add_manifest(media_type::OCI_MANIFEST, v1_of(&Digest::sha256(&image)));
    let label = source.add_manifest(media_type::OCI_MANIFEST, v1_of(&Digest::sha256(b"another")));
    source.referrers = vec![v1.clone()];
    World { source, image, label, v2, v1 }
}

impl World {
    async fn find(&self, label: bool, v1: bool, v2: bool) -> Result<Option<(FoundBy, Digest)>, Error> {
        let options = FindOptions { label: label.then(|| self.label.clone()), v1, v2 };
        let found = find_in(&self.source, &Digest::sha256(&self.image), &self.image, &options).await?;
        Ok(found.map(|found| (found.by, found.digest)))
    }
}

#[tokio::test]
async fn label_goes_before_annotation_and_that_before_referrers() {
    let world = world();
    let label = Some((FoundBy::Label, world.label.clone()));
    let annotation = Some((FoundBy::Annotation, world.v2.clone()));
    let referrer = Some((FoundBy::Referrer, world.v1.clone()));
    for (given, v1, v2, want) in [
        (true, true, true, &label),
        (true, false, false, &label),
        (false, true, true, &annotation),
        (false, false, true, &annotation),
        (false, true, false, &referrer),
        (false, false, false, &None),
    ] {
        assert_eq!(world.find(given, v1, v2).await.unwrap(), *want, "label {given} v1 {v1} v2 {v2}");
    }
}

#[tokio::test]
async fn what_is_switched_off_costs_no_request() {
    let mut world = world();
    world.image = image(None);
    world.source.asked();
    assert_eq!(world.find(false, false, true).await.unwrap(), None);
    assert!(world.source.asked().is_empty());
    world.source.referrers.clear();
    assert_eq!(world.find(false, true, true).await.unwrap(), None);
    assert_eq!(world.source.asked(), [format!("referrers v1 {}", Digest::sha256(&world.image))]);
}

#[tokio::test]
async fn an_index_that_is_named_and_gone_is_an_error() {
    let mut world = world();
    world.source.manifests.remove(world.v2.as_str());
    assert!(world.find(false, true, true).await.unwrap_err().is_not_found());
    world.source.manifests.remove(world.label.as_str());
    assert!(world.find(true, true, true).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_annotation_names_an_index_of_version_2() {
    let mut world = world();
    world.image = image(Some(world.label.as_str()));
    let error = world.find(false, true, true).await.unwrap_err().to_string();
    assert!(error.contains("memory.example/app@sha256:") && error.contains("version v1"), "{error}");
    world.image = image(Some("sha256:short"));
    let error = world.find(false, true, true).await.unwrap_err().to_string();
    assert!(error.contains("com.amazon.soci.index-digest"), "{error}");
}

#[tokio::test]
async fn a_broken_referrer_hides_no_good_one() {
    let mut world = world();
    let rubbish = world.source.add_manifest(media_type::OCI_MANIFEST, b"{}".to_vec());
    let gone = Digest::sha256(b"gone");
    world.source.referrers =
        vec![rubbish.clone(), gone, world.label.clone(), world.v2.clone(), world.v1.clone()];
    let want = Some((FoundBy::Referrer, world.v1.clone()));
    assert_eq!(world.find(false, true, false).await.unwrap(), want);
    // With none that is good, the first one's error is told.
    world.source.referrers = vec![rubbish, world.label.clone()];
    let error = world.find(false, true, false).await.unwrap_err().to_string();
    assert!(error.contains("no image manifest"), "{error}");
    // One that is of another image says which.
    world.source.referrers = vec![world.label.clone()];
    let error = world.find(false, true, false).await.unwrap_err().to_string();
    assert!(error.contains("its subject is"), "{error}");
}

#[tokio::test]
async fn only_so_many_referrers_are_tried() {
    let mut world = world();
    world.source.referrers = vec![Digest::sha256(b"gone"); MAX_REFERRERS_TRIED];
    world.source.referrers.push(world.v1.clone());
    assert!(world.find(false, true, false).await.is_err());
    assert_eq!(world.source.asked().len(), 1 + MAX_REFERRERS_TRIED);
}

#[tokio::test]
async fn a_registry_that_fails_is_no_image_without_index() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Unauthorized, ErrorKind::RateLimited] {
        let mut world = world();
        world.source.fails = Some(kind);
        let error = world.find(false, true, false).await.unwrap_err();
        assert!(matches!(&error, Error::Registry(error) if error.kind == kind), "{error}");
    }
}

#[tokio::test]
async fn a_ztoc_that_is_too_long_is_not_asked_for() {
    let mut source = MemorySource::default();
    let digest = source.add_blob(&b"ztoc"[..]);
    let good = descriptor(crate::index::ZTOC, digest.clone(), 4);
    assert_eq!(ztoc_bytes(&source, &good).await.unwrap(), "ztoc");
    source.asked();
    let long = descriptor(crate::index::ZTOC, digest, spandrel_ztoc::limits::MAX_ZTOC_LEN + 1);
    assert!(matches!(ztoc_bytes(&source, &long).await, Err(Error::Limit { .. })));
    assert!(source.asked().is_empty());
}

//! The edits beside what soci's own `convert` made of the same.

use serde_json::{Value, json};

use super::*;
use crate::index::INDEX_V1;
use crate::platform;
use crate::testing::{DOCKER_LIST, MULTI, MULTI_IMAGES, SINGLE, golden, golden_index, sha256};

/// What soci made: SOCI index and converted manifest of each image, and the image index over them.
struct Golden {
    images: Vec<(&'static str, &'static str, &'static str)>,
    root: &'static str,
}

const SINGLE_V2: (&str, &str, &str) = (
    SINGLE,
    "6d6f94527db0060528965596b8ff123d3c0dbb6501d643d8bc19daf0599b5e61",
    "4e55209b4efa7bd354fa7e8154034cf2c11e118a831f31aa096b4c82cce50d21",
);

fn multi() -> Golden {
    Golden {
        images: vec![
            (
                MULTI_IMAGES[0].0,
                SINGLE_V2.1,
                "3b8c347f5babd44a452f74ed3ea4f11e8f844ce3e18f77704ed038988eae5a6d",
            ),
            (
                MULTI_IMAGES[1].0,
                "25da66ebfd4f1847f52f48f131e20f0b1d1b5b18c422b0ea9c44dc2a44a1dbc8",
                "bfa8f58ee9930225f3bf36b6d8cb5e83cb29dd38d3f35bd3adea63b4f6051443",
            ),
        ],
        root: "1dfe61fb549e1f998620a20513b4e8c1a3d2579972826ed89ef822dc2724f0c0",
    }
}

fn blob(hex: &str) -> Vec<u8> {
    golden("blobs").into_iter().find(|(name, _)| name == hex).unwrap().1
}

fn converted(hex: &str) -> Vec<u8> {
    golden("converted").into_iter().find(|(name, _)| name == hex).unwrap().1
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The images of `golden` rewritten, each checked against soci's, and the entries for the index.
fn rewrite(golden: &Golden, platforms: &[&str]) -> (BTreeMap<Digest, Rewritten>, Vec<SociEntry>) {
    let mut rewritten = BTreeMap::new();
    let mut entries = Vec::new();
    for ((old, soci, new), platform) in golden.images.iter().zip(platforms) {
        let image = image("app", &blob(old), &sha256(soci)).unwrap();
        assert_eq!(text(&image.bytes), text(&converted(new)));
        assert_eq!((image.digest.hex(), image.media_type.as_str()), (*new, media_type::OCI_MANIFEST));
        entries.push(SociEntry {
            old_image: sha256(old),
            new_image: image.digest.clone(),
            digest: sha256(soci),
            size: golden_index(soci).len() as u64,
            platform: platform::parse(platform).unwrap(),
        });
        rewritten.insert(sha256(old), image);
    }
    (rewritten, entries)
}

/// What soci made of `MULTI`, with what it loses: unknown members, and what attestations are about.
fn unlost(root: &[u8], images: [&str; 2]) -> Vec<u8> {
    let about = |at: usize| {
        format!(
            "\"size\":465,\"annotations\":{{\"vnd.docker.reference.digest\":\"sha256:{}\",\
             \"vnd.docker.reference.type\":\"attestation-manifest\"}},",
            images[at]
        )
    };
    let mut text = text(root).to_owned();
    for at in 0..2 {
        text = text.replacen("\"size\":465,\"platform\"", &format!("{}\"platform\"", about(at)), 1);
    }
    text.strip_suffix('}').map(|text| format!("{text},\"x-unknown\":1}}")).unwrap().into_bytes()
}

#[test]
fn a_single_image_becomes_what_soci_makes_of_it() {
    let golden = Golden {
        images: vec![SINGLE_V2],
        root: "c4fea16d773efc6e16eed3a5af272fc019f88b270d3846e1acf6629ae4f13981",
    };
    let (rewritten, entries) = rewrite(&golden, &["linux/amd64"]);
    let index = index_of_one("app", &rewritten[&sha256(SINGLE)], &entries[0]).unwrap();
    assert_eq!(text(&index.bytes), text(&converted(golden.root)));
    assert_eq!(index.digest, sha256(golden.root));
}

#[test]
fn a_docker_list_becomes_what_soci_makes_of_it() {
    let golden = Golden {
        images: vec![
            (
                "4d061ada57f0769ec6b28103a598e0d1047861bbd2e42a32ef4a729e3f65b91f",
                "42adbae90596c3cf9dc7ecd8cdf53bb9b29893fc20837a044a4693f7c8da30e6",
                "7cf5fb1101bc1117081e2758177d0be35b4d387da44ba067f6e3122a1cdf7b8a",
            ),
            (
                "c9f6613c2ede499f6cebd6805965dd0065e4b76de46b84706fc8cb756c09277b",
                "98f8fd33b4491c10a6a3df386769850f30a0a3a1959f505d17424ee4a11198f0",
                "33fb33166eb95b3ebc30f519adaa102745e95ef5f7b9bb7ea8e49921b43abe8a",
            ),
        ],
        root: "a1e8d81489c014f04283dfe1d7feca978620da2a106a8f2f991b269460ed9797",
    };
    let (rewritten, entries) = rewrite(&golden, &["linux/amd64", "linux/arm64/v8"]);
    let made = index("app", &blob(DOCKER_LIST), &rewritten, &entries).unwrap();
    assert_eq!(text(&made.bytes), text(&converted(golden.root)));
}

#[test]
fn of_an_index_only_what_soci_loses_is_different() {
    let golden = multi();
    let (rewritten, entries) = rewrite(&golden, &["linux/amd64", "linux/arm64"]);
    let made = index("app", &blob(MULTI), &rewritten, &entries).unwrap();
    let new = [golden.images[0].2, golden.images[1].2];
    assert_eq!(text(&made.bytes), text(&unlost(&converted(golden.root), new)));
    // In the order that was asked for.
    let back: Vec<_> = entries.iter().rev().cloned().collect();
    let made = index("app", &blob(MULTI), &rewritten, &back).unwrap();
    let two = converted("b9abc83f6f0f853030408f17e93bd6fbad0b25756e64e18fd833c9ff00fd5cd7");
    assert_eq!(text(&made.bytes), text(&unlost(&two, new)));
    // One of them: the other stays as it is, attestation and all. (soci writes the platform as it was asked for.)
    let arm = BTreeMap::from([(sha256(MULTI_IMAGES[1].0), rewritten[&sha256(MULTI_IMAGES[1].0)].clone())]);
    let made = index("app", &blob(MULTI), &arm, &entries[1..]).unwrap();
    let one = converted("02acbf803f1db1861265220c4da0016c41256954e3aeccdc71ef5ec6d74a385d");
    let one = unlost(&one, [MULTI_IMAGES[0].0, new[1]]);
    let asked = r#""platform":{"architecture":"arm64","os":"linux"},"artifactType""#;
    let image = r#""platform":{"architecture":"arm64","os":"linux","variant":"v8"},"artifactType""#;
    assert_eq!(text(&made.bytes), text(&one).replacen(asked, image, 1));
}

#[test]
fn what_is_converted_already_stays_as_it_is() {
    let golden = multi();
    let (rewritten, entries) = rewrite(&golden, &["linux/amd64", "linux/arm64"]);
    let first = index("app", &blob(MULTI), &rewritten, &entries).unwrap();
    // All of them again, and one of them: the same.
    for which in [0..2, 0..1, 1..2] {
        let (mut again, mut more) = (BTreeMap::new(), Vec::new());
        for entry in &entries[which] {
            let old = &rewritten[&entry.old_image];
            let new = image("app", &old.bytes, &entry.digest).unwrap();
            assert_eq!(new, *old);
            again.insert(old.digest.clone(), new);
            more.push(SociEntry { old_image: old.digest.clone(), ..entry.clone() });
        }
        assert_eq!(index("app", &first.bytes, &again, &more).unwrap(), first);
    }
    // With another index: in the place of the old one.
    let other = Digest::sha256(b"another");
    let old = &rewritten[&entries[0].old_image];
    let new = image("app", &old.bytes, &other).unwrap();
    let entry = SociEntry {
        old_image: old.digest.clone(),
        new_image: new.digest.clone(),
        digest: other.clone(),
        ..entries[0].clone()
    };
    let again = index("app", &first.bytes, &BTreeMap::from([(old.digest.clone(), new.clone())]), &[entry]);
    let want = text(&first.bytes)
        .replace(old.digest.as_str(), new.digest.as_str())
        .replace(entries[0].digest.as_str(), other.as_str());
    assert_eq!(text(&again.unwrap().bytes), want);
}

#[test]
fn key_order_and_unknown_members_stay() {
    let manifest = r#"{
        "config": {"digest": "sha256:00", "mediaType": "application/vnd.oci.image.config.v1+json", "x": 1.0},
        "schemaVersion": 2, "annotations": {"z": "<", "a": "b"}, "layers": [], "more": {"q": []}
    }"#;
    let soci = Digest::sha256(b"soci");
    let made = image("app", manifest.as_bytes(), &soci).unwrap();
    let want = format!(
        "{{\"config\":{{\"digest\":\"sha256:00\",\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"x\":1.0}},\
         \"schemaVersion\":2,\"mediaType\":\"{}\",\"annotations\":{{\"com.amazon.soci.index-digest\":\"{soci}\",\
         \"z\":\"\\u003c\",\"a\":\"b\"}},\"layers\":[],\"more\":{{\"q\":[]}}}}",
        media_type::OCI_MANIFEST
    );
    assert_eq!(text(&made.bytes), want);
}

#[test]
fn indexes_of_version_1_and_others_artifacts_are_left_alone() {
    let golden = multi();
    let (rewritten, entries) = rewrite(&golden, &["linux/amd64", "linux/arm64"]);
    let mut root: Value = serde_json::from_slice(&blob(MULTI)).unwrap();
    let other = json!({
        "mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(b"v1"), "size": 3,
        "platform": {"architecture": "amd64", "os": "linux"}, "artifactType": INDEX_V1,
    });
    root["manifests"].as_array_mut().unwrap().insert(0, other.clone());
    let made = index("app", &serde_json::to_vec(&root).unwrap(), &rewritten, &entries).unwrap();
    let made: Value = serde_json::from_slice(&made.bytes).unwrap();
    assert_eq!((&made["manifests"][0], made["manifests"].as_array().unwrap().len()), (&other, 7));
}

#[test]
fn a_subject_that_was_rewritten_is_named_by_its_new_digest() {
    let golden = multi();
    let (rewritten, _) = rewrite(&golden, &["linux/amd64", "linux/arm64"]);
    let (old, _, new) = golden.images[0];
    let with = |digest: &str| {
        format!(
            "{{\"schemaVersion\":2,\"subject\":{{\"mediaType\":\"m\",\"digest\":\"sha256:{digest}\",\"size\":1,\"y\":2}}}}"
        )
    };
    let made = subject("app", "m", with(old).as_bytes(), &rewritten).unwrap().unwrap();
    let size = rewritten[&sha256(old)].bytes.len();
    let want = with(new)
        .replace("\"mediaType\":\"m\"", &format!("\"mediaType\":\"{}\"", media_type::OCI_MANIFEST))
        .replace("\"size\":1", &format!("\"size\":{size}"));
    assert_eq!((text(&made.bytes), made.media_type.as_str()), (want.as_str(), "m"));
    assert_eq!(subject("app", "m", with(new).as_bytes(), &rewritten).unwrap(), None);
    assert_eq!(subject("app", "m", b"{}", &rewritten).unwrap(), None);
}

#[test]
fn what_is_no_manifest_is_refused_by_name() {
    let soci = Digest::sha256(b"soci");
    for bytes in
        [&b""[..], b"[]", b"{\"annotations\":[]}", b"{\"annotations\":{\"a\":1,\"a\":2}}", b"{\"config\":7}"]
    {
        let error = image("registry.example/app:1", bytes, &soci).unwrap_err().to_string();
        assert!(error.starts_with("image registry.example/app:1: its manifest can't be read"), "{error}");
    }
    for bytes in [&b"{\"manifests\":{}}"[..], b"{\"manifests\":[1]}", b"{\"manifests\":[{\"digest\":\"x\"}]}"]
    {
        assert!(index("app", bytes, &BTreeMap::new(), &[]).is_err());
    }
}

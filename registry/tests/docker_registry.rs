//! Everything the client does, against the real docker-registry: without authentication here, by loopback HTTP.

mod common;

use bytes::Bytes;
use common::{anonymous, descriptor, manifest, noise, push_image, read, repository};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_registry::{Digest, ErrorKind, media_type};

#[tokio::test]
async fn what_is_pushed_is_read_back() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let client = anonymous(Vec::new()); // finds out by itself that loopback speaks HTTP
    let app = repository(&registry.host(), "team/app");
    let layer = noise(1_000_000);
    let manifest = push_image(&client, &app, "1.0", &layer).await;

    let by_tag = client.manifest(&app, "1.0").await.expect("there");
    assert_eq!((by_tag.media_type.as_str(), &by_tag.bytes), (media_type::OCI_MANIFEST, &manifest));
    let by_digest = client.manifest(&app, by_tag.digest.as_str()).await.expect("there");
    assert_eq!(by_digest.bytes, manifest);
    let head = client.manifest_head(&app, "1.0").await.expect("an answer").expect("there");
    assert_eq!((&head.digest, head.size), (&by_tag.digest, manifest.len() as u64));
    assert!(client.manifest_head(&app, "2.0").await.expect("an answer").is_none());

    let digest = Digest::sha256(&layer);
    assert_eq!(client.blob_size(&app, &digest).await.expect("an answer"), Some(1_000_000));
    assert_eq!(client.blob_size(&app, &Digest::sha256(b"none")).await.expect("an answer"), None);
    assert_eq!(client.blob(&app, &digest, 1_000_000).await.expect("there"), layer);
    for range in [0..1u64, 0..1_000_000, 999_999..1_000_000, 12_345..700_001, 5..5] {
        let got = read(&client, &app, &digest, range.clone()).await.expect("there");
        assert_eq!(
            got,
            layer.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
        );
    }
}

#[tokio::test]
async fn failures_have_their_class() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let client = anonymous(Vec::new());
    let app = repository(&registry.host(), "app");
    let layer = noise(1000);
    push_image(&client, &app, "1", &layer).await;
    let digest = Digest::sha256(&layer);

    let error = client.manifest(&app, "2").await.expect_err("not there");
    assert_eq!(error.kind, ErrorKind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains("manifest 2") && text.contains(&registry.host()) && text.contains("pushed"),
        "{text}"
    );

    // Longer than it is: the range lies outside, or the body is too short.
    let error = read(&client, &app, &digest, 2000..3000).await.expect_err("outside");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    let error = client.blob(&app, &digest, 1001).await.expect_err("too long");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    let error = client.blob(&app, &digest, 999).await.expect_err("too short");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");

    // A manifest whose blobs are missing is refused.
    let missing = Bytes::from(serde_json::to_vec(&manifest(b"{}", b"never pushed")).unwrap());
    let error =
        client.push_manifest(&app, "3", media_type::OCI_MANIFEST, missing).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let error =
        client.push_blob(&app, &digest, Bytes::from_static(b"other"), None).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let error = client.manifest(&app, "../1").await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let client = anonymous(Vec::new());
    let (one, two) = (repository(&registry.host(), "one"), repository(&registry.host(), "two"));
    let layer = noise(5000);
    let digest = Digest::sha256(&layer);
    client.push_blob(&one, &digest, layer.clone(), None).await.expect("pushed");
    client.push_blob(&two, &digest, layer.clone(), Some(&one)).await.expect("mounted");
    assert_eq!(client.blob(&two, &digest, 5000).await.expect("there"), layer);
    // From where it isn't: uploaded.
    let other = noise(6000);
    client.push_blob(&two, &Digest::sha256(&other), other.clone(), Some(&one)).await.expect("pushed");
    assert_eq!(client.blob(&two, &Digest::sha256(&other), 6000).await.expect("there"), other);
}

#[tokio::test]
async fn referrers_are_kept_under_the_fallback_tag() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let client = anonymous(Vec::new());
    let app = repository(&registry.host(), "app");
    let image = push_image(&client, &app, "1", &noise(1000)).await;
    let subject = Digest::sha256(&image);
    assert!(client.referrers(&app, &subject, "").await.expect("an answer").is_empty());

    let mut pushed = Vec::new();
    for (kind, artifact_type) in
        [("a", Some("application/x.one")), ("b", Some("application/x.two")), ("c", None)]
    {
        let mut referring = manifest(b"{}", b"");
        referring.layers.clear();
        referring.artifact_type = artifact_type.map(str::to_owned);
        referring.subject = Some(descriptor(media_type::OCI_MANIFEST, &image));
        referring.annotations.insert("kind".into(), kind.into());
        let bytes = Bytes::from(serde_json::to_vec(&referring).unwrap());
        let digest = Digest::sha256(&bytes);
        for _ in 0..2 {
            // Twice: it is listed once all the same.
            let part = digest.as_str();
            client.push_manifest(&app, part, media_type::OCI_MANIFEST, bytes.clone()).await.expect("pushed");
        }
        pushed.push(digest);
    }
    let all = client.referrers(&app, &subject, "").await.expect("an answer");
    assert_eq!(all.iter().map(|d| d.digest.clone()).collect::<Vec<_>>(), pushed);
    for (artifact_type, want) in
        [("application/x.one", 0), ("application/x.two", 1), (media_type::OCI_CONFIG, 2)]
    {
        let found = client.referrers(&app, &subject, artifact_type).await.expect("an answer");
        assert_eq!(found.len(), 1, "{artifact_type}");
        assert_eq!(found[0].digest, pushed[want]);
        assert_eq!(found[0].annotations["kind"], ["a", "b", "c"][want]);
    }
    assert!(client.referrers(&app, &subject, "application/x.three").await.expect("an answer").is_empty());
}

#[tokio::test]
async fn writers_at_once_do_not_undo_each_other() {
    let Some(registry) = DockerRegistry::plain() else { return };
    let client = anonymous(Vec::new());
    let app = repository(&registry.host(), "app");
    let image = push_image(&client, &app, "1", &noise(1000)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let mut referring = manifest(b"{}", b"");
        referring.layers.clear();
        referring.subject = Some(descriptor(media_type::OCI_MANIFEST, &image));
        referring.annotations.insert("number".into(), number.to_string());
        let bytes = Bytes::from(serde_json::to_vec(&referring).unwrap());
        let (client, app) = (client.clone(), app.clone());
        tasks.spawn(async move {
            let part = Digest::sha256(&bytes);
            client.push_manifest(&app, part.as_str(), media_type::OCI_MANIFEST, bytes).await.expect("pushed");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    let all = client.referrers(&app, &Digest::sha256(&image), "").await.expect("an answer");
    assert_eq!(all.len(), 8);
}

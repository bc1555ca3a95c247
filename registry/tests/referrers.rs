//! The referrers API: pages, filters, and the fallback where it is lacking or strange.

mod common;

use bytes::Bytes;
use common::scripted::{Answer, Server};
use common::{anonymous, descriptor, manifest, noise, plain, push_image, repository};
use spandrel_fixtures::scripted::{Fault, Kind, Rule, ScriptedRegistry, Settings};
use spandrel_registry::{Client, Digest, ErrorKind, Repository, media_type};

const ONE: &str = "application/x.one+json";
const TWO: &str = "application/x.two+json";

/// Pushes an image and things that refer to it; yields the image's digest.
async fn push_all(client: &Client, app: &Repository, types: &[&str]) -> Digest {
    let image = push_image(client, app, "1", &noise(100)).await;
    for (number, artifact_type) in types.iter().enumerate() {
        let mut referring = manifest(b"{}", b"");
        referring.layers.clear();
        referring.artifact_type = Some((*artifact_type).to_owned());
        referring.subject = Some(descriptor(media_type::OCI_MANIFEST, &image));
        referring.annotations.insert("number".into(), number.to_string());
        let bytes = Bytes::from(serde_json::to_vec(&referring).expect("JSON"));
        let part = Digest::sha256(&bytes);
        client.push_manifest(app, part.as_str(), media_type::OCI_MANIFEST, bytes).await.expect("pushed");
    }
    Digest::sha256(&image)
}

#[tokio::test]
async fn all_pages_are_read() {
    for (per_page, types) in
        [(usize::MAX, [ONE, TWO, ONE, ONE, TWO]), (2, [ONE, TWO, ONE, ONE, TWO]), (1, [ONE; 5])]
    {
        let registry =
            ScriptedRegistry::start(Settings { referrers_per_page: per_page, ..Settings::default() });
        let client = anonymous(vec![plain(&registry.host())]);
        let app = repository(&registry.host(), "app");
        let subject = push_all(&client, &app, &types).await;
        assert!(
            registry.manifest("app", &subject.as_str().replace(':', "-")).is_none(),
            "no fallback tag is needed"
        );
        assert_eq!(client.referrers(&app, &subject, "").await.expect("there").len(), 5);
        for artifact_type in [ONE, TWO] {
            let want = types.iter().filter(|t| **t == artifact_type).count();
            let got = client.referrers(&app, &subject, artifact_type).await.expect("there");
            assert_eq!(got.len(), want, "{artifact_type}, {per_page} per page");
            assert!(got.iter().all(|d| d.artifact_type.as_deref() == Some(artifact_type)));
        }
    }
}

#[tokio::test]
async fn without_the_api_the_tag_is_used() {
    let registry = ScriptedRegistry::start(Settings { referrers: false, ..Settings::default() });
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    let subject = push_all(&client, &app, &[ONE, TWO]).await;
    assert!(registry.manifest("app", &subject.as_str().replace(':', "-")).is_some());
    assert_eq!(client.referrers(&app, &subject, TWO).await.expect("there").len(), 1);
    // Failing isn't lacking: the fallback tag may be old.
    registry.rule(Rule::new(Kind::Referrers, Fault::status(403)));
    let error = client.referrers(&app, &subject, TWO).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn api_and_tag_are_asked_for_together_until_it_is_known_that_there_is_the_api() {
    for (api, rounds) in [(true, vec![(1, 1), (1, 0), (1, 0)]), (false, vec![(1, 1), (1, 1), (1, 1)])] {
        let registry = ScriptedRegistry::start(Settings { referrers: api, ..Settings::default() });
        let client = anonymous(vec![plain(&registry.host())]);
        let app = repository(&registry.host(), "app");
        let subject = push_all(&client, &app, &[ONE, TWO]).await;
        // What pushing has learnt isn't what is tested.
        let client = anonymous(vec![plain(&registry.host())]);
        for (of_api, of_tag) in rounds {
            registry.reset_counts();
            let held = registry.hold_in_rounds();
            let asking = tokio::spawn({
                let (client, app, subject) = (client.clone(), app.clone(), subject.clone());
                async move { client.referrers(&app, &subject, ONE).await }
            });
            // Neither is answered before both have come.
            held.wait(of_api + of_tag).await;
            held.open();
            assert_eq!(asking.await.expect("no panic").expect("there").len(), 1);
            assert_eq!((registry.count(Kind::Referrers), registry.count(Kind::Manifest)), (of_api, of_tag));
        }
    }
}

#[tokio::test]
async fn a_host_that_has_lost_the_api_is_asked_for_the_tag() {
    let lost = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |asked, _| {
        let is_api = asked.target.contains("/referrers/");
        if is_api && lost.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            return Answer::new(404, "");
        }
        let entry: &[u8] = if is_api { b"api" } else { b"tag" };
        Answer::new(200, index(&[(Some(ONE), entry)])).header("content-type", media_type::OCI_INDEX)
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    let app = repository(&server.host(), "app");
    for want in [b"api", b"tag"] {
        let got = client.referrers(&app, &Digest::sha256(b"x"), ONE).await.expect("there");
        assert_eq!(got[0].digest, Digest::sha256(want));
    }
}

/// An index with these entries, as (artifact type, content of the manifest).
fn index(entries: &[(Option<&str>, &[u8])]) -> Vec<u8> {
    let manifests: Vec<_> = entries
        .iter()
        .map(|(artifact_type, bytes)| {
            let mut entry = descriptor(media_type::OCI_MANIFEST, bytes);
            entry.artifact_type = artifact_type.map(str::to_owned);
            entry
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests,
    }))
    .expect("JSON")
}

#[tokio::test]
async fn a_registry_that_does_not_filter_is_filtered() {
    let server = Server::start(|_, _| {
        Answer::new(200, index(&[(Some(ONE), b"a"), (Some(TWO), b"b")]))
            .header("content-type", media_type::OCI_INDEX)
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    let got = client
        .referrers(&repository(&server.host(), "app"), &Digest::sha256(b"x"), TWO)
        .await
        .expect("there");
    assert_eq!(got.iter().map(|d| d.digest.clone()).collect::<Vec<_>>(), [Digest::sha256(b"b")]);
    assert!(
        server.asked()[0].target.contains("artifactType=application%2Fx.two%2Bjson"),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
async fn a_page_that_is_no_index_means_the_tag() {
    let server = Server::start(|asked, _| {
        if asked.target.contains("/referrers/") {
            Answer::new(200, "<html>single page application</html>").header("content-type", "text/html")
        } else {
            Answer::new(200, index(&[(None, b"{\"config\":{}}"), (Some(ONE), b"b")]))
                .header("content-type", media_type::OCI_INDEX)
        }
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    let app = repository(&server.host(), "app");
    let got = client.referrers(&app, &Digest::sha256(b"x"), "").await.expect("there");
    assert_eq!(got.len(), 2);
    assert_eq!(server.count("manifests/sha256-"), 1);
}

#[tokio::test]
async fn endless_pages_end_and_lead_nowhere_else() {
    let elsewhere = Server::start(|_, _| Answer::new(200, "")).await;
    let next = format!("<{}/steal?last=x>; rel=\"next\"", elsewhere.url());
    let server = Server::start(move |_, _| {
        Answer::new(200, index(&[(Some(ONE), b"a")]))
            .header("content-type", media_type::OCI_INDEX)
            .header("link", next.clone())
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    let app = repository(&server.host(), "app");
    let error = client.referrers(&app, &Digest::sha256(b"x"), ONE).await.expect_err("endless");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.message.contains("64 pages"), "{error}");
    assert!(elsewhere.asked().is_empty(), "a link to another host isn't followed");
    let known = ["/v2/app/referrers/sha256:", "/v2/app/manifests/sha256-"];
    assert!(server.asked().iter().all(|asked| known.iter().any(|start| asked.target.starts_with(start))));
}

#[tokio::test]
async fn a_writer_that_was_undone_writes_again() {
    // Another writer's index replaces ours once, right after we wrote it.
    let written = std::sync::Mutex::new((Vec::<u8>::new(), 0));
    let server = Server::start(move |asked, _| {
        let mut written = written.lock().expect("whole");
        match (asked.method.as_str(), asked.target.contains("manifests/sha256-")) {
            ("PUT", true) => {
                written.1 += 1;
                written.0 =
                    if written.1 == 1 { index(&[(Some(TWO), b"theirs")]) } else { asked.body.clone() };
                Answer::new(201, "")
            }
            ("PUT", false) => Answer::new(201, ""),
            _ if written.1 == 0 => Answer::new(404, ""),
            _ => Answer::new(200, written.0.clone()).header("content-type", media_type::OCI_INDEX),
        }
    })
    .await;
    let (client, _) = common::clocked(common::options(vec![plain(&server.host())]));
    let app = repository(&server.host(), "app");
    let mut referring = manifest(b"{}", b"");
    referring.artifact_type = Some(ONE.to_owned());
    referring.subject = Some(descriptor(media_type::OCI_MANIFEST, b"image"));
    let bytes = Bytes::from(serde_json::to_vec(&referring).expect("JSON"));
    client.push_manifest(&app, "1", media_type::OCI_MANIFEST, bytes).await.expect("pushed");
    let last = server.asked().into_iter().rfind(|a| a.method == "PUT").expect("written");
    let text = String::from_utf8(last.body).expect("text");
    assert!(text.contains(ONE) && text.contains(TWO), "both are there: {text}");
}

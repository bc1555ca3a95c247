//! Uploads to registries that differ: where the session is, what they refuse.

mod common;

use std::sync::{Arc, Mutex};

use common::scripted::{Answer, Asked, Server};
use common::{anonymous, clocked, noise, options, plain, repository};
use spandrel_fixtures::scripted::{Fault, Kind, Rule, ScriptedRegistry};
use spandrel_registry::{Digest, ErrorKind, media_type};

#[tokio::test]
async fn an_upload_that_fails_is_begun_again() {
    let registry = ScriptedRegistry::plain();
    let blob = noise(100_000);
    let digest = Digest::sha256(&blob);
    registry.rule(Rule::new(Kind::Upload, Fault::status(500)).nth(0));
    registry.rule(Rule::new(Kind::Upload, Fault::status(503)).nth(1));
    let (client, clock) = clocked(options(vec![plain(&registry.host())]));
    let app = repository(&registry.host(), "app");
    client.push_blob(&app, &digest, blob.clone(), None).await.expect("at last");
    assert!(registry.blob(digest.as_str()).is_some_and(|stored| stored == blob));
    assert_eq!(clock.slept().len(), 2);
    // What is there isn't sent again.
    registry.reset_counts();
    client.push_blob(&app, &digest, blob, None).await.expect("there");
    assert_eq!(registry.count(Kind::Upload), 0);

    registry.rule(Rule::new(Kind::ManifestPush, Fault::status(503)).nth(0));
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    client.push_manifest(&app, "1", media_type::OCI_INDEX, index.as_slice().into()).await.expect("at last");
    assert!(registry.manifest("app", "1").is_some());
}

#[tokio::test]
async fn the_session_may_be_anywhere() {
    let storage = Server::start(|_, _| Answer::new(201, "")).await;
    let base = Arc::new(std::sync::OnceLock::<String>::new());
    for location in ["/up?a=b%2Fc&d", "SELF/up?a=b%2Fc&d", "STORAGE/up?a=b%2Fc&d"] {
        let location = location.replace("STORAGE", &storage.url());
        let base = Arc::new(std::sync::OnceLock::<String>::new());
        let own = Arc::clone(&base);
        let server = Server::start(move |asked, _| match asked.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" => Answer::new(202, "")
                .header("location", location.replace("SELF", own.get().expect("set before"))),
            _ => Answer::new(201, ""),
        })
        .await;
        base.set(server.url()).expect("set once");
        let blob = noise(1000);
        let digest = Digest::sha256(&blob);
        let app = repository(&server.host(), "app");
        anonymous(vec![plain(&server.host())])
            .push_blob(&app, &digest, blob.clone(), None)
            .await
            .expect("pushed");
        let mut asked = server.asked();
        asked.extend(storage.asked());
        let put = asked.iter().rfind(|a| a.method == "PUT").expect("sent");
        assert_eq!(put.target, format!("/up?a=b%2Fc&d&digest={}", digest.as_str().replace(':', "%3A")));
        assert_eq!(put.body, blob);
        let post = asked.iter().find(|a| a.method == "POST").expect("begun");
        assert_eq!(post.header("content-length"), Some("0"));
    }
    drop(base);
}

#[tokio::test]
async fn a_registry_that_wants_pieces_gets_them() {
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let into = Arc::clone(&received);
    let server = Server::start(move |asked, _| {
        let mut received = into.lock().expect("whole");
        match asked.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" => Answer::new(202, "").header("location", "/up/0"),
            "PUT" if !asked.body.is_empty() => Answer::new(413, ""),
            "PUT" => Answer::new(201, ""),
            _ => {
                assert_eq!(
                    asked.header("content-range"),
                    Some(format!("{}-{}", received.len(), received.len() + asked.body.len() - 1).as_str())
                );
                received.extend_from_slice(&asked.body);
                Answer::new(202, "").header("location", format!("/up/{}", received.len()))
            }
        }
    })
    .await;
    let blob = noise((8 << 20) + 5);
    let digest = Digest::sha256(&blob);
    let app = repository(&server.host(), "app");
    anonymous(vec![plain(&server.host())])
        .push_blob(&app, &digest, blob.clone(), None)
        .await
        .expect("pushed");
    assert!(*received.lock().expect("whole") == blob, "all of it, in order");
    let last = server.asked().pop().expect("asked");
    assert!(last.target.starts_with(&format!("/up/{}?digest=", blob.len())), "{}", last.target);
}

#[tokio::test]
async fn a_mount_that_is_refused_becomes_an_upload() {
    let script = |asked: &Asked, _| match asked.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" if asked.target.contains("mount=") => Answer::new(403, ""),
        "POST" => Answer::new(202, "").header("location", "/up"),
        _ => Answer::new(201, ""),
    };
    let server = Server::start(script).await;
    let blob = noise(10);
    let (app, from) = (repository(&server.host(), "app"), repository(&server.host(), "from"));
    let client = anonymous(vec![plain(&server.host())]);
    client.push_blob(&app, &Digest::sha256(&blob), blob.clone(), Some(&from)).await.expect("pushed");
    let posts: Vec<_> = server.asked().into_iter().filter(|a| a.method == "POST").map(|a| a.target).collect();
    assert!(posts.len() == 2 && posts[0].contains("from=from") && !posts[1].contains("mount"), "{posts:?}");
    // From another host nothing can be mounted.
    let foreign = repository("other.example", "from");
    client.push_blob(&app, &Digest::sha256(&blob), blob, Some(&foreign)).await.expect("pushed");
    assert_eq!(server.count("mount="), 1);
}

#[tokio::test]
async fn refusals_say_what_the_registry_says() {
    let server = Server::start(|asked, _| match asked.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        _ => Answer::new(400, r#"{"errors":[{"code":"SIZE_INVALID","message":"too large for you"}]}"#),
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    let app = repository(&server.host(), "app");
    let blob = noise(10);
    let error = client.push_blob(&app, &Digest::sha256(&blob), blob, None).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("SIZE_INVALID too large for you"), "{error}");
    let long = vec![b' '; (4 << 20) + 1];
    let error =
        client.push_manifest(&app, "1", media_type::OCI_INDEX, long.into()).await.expect_err("refused");
    assert!(error.message.contains("more than"), "{error}");
}

/// A blob that is read anew for every try, and can break.
struct Content {
    bytes: bytes::Bytes,
    opened: std::sync::atomic::AtomicUsize,
    breaks: bool,
}

impl Content {
    fn new(bytes: bytes::Bytes) -> Self {
        Self { bytes, opened: std::sync::atomic::AtomicUsize::new(0), breaks: false }
    }

    fn opened(&self) -> usize {
        self.opened.load(std::sync::atomic::Ordering::SeqCst)
    }
}

struct Pieces(bytes::Bytes, bool);

#[async_trait::async_trait]
impl spandrel_registry::BlobContent for Content {
    async fn open(&self) -> std::io::Result<Box<dyn spandrel_registry::BlobPieces>> {
        self.opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Box::new(Pieces(self.bytes.clone(), self.breaks)))
    }
}

#[async_trait::async_trait]
impl spandrel_registry::BlobPieces for Pieces {
    async fn next(&mut self) -> std::io::Result<Option<bytes::Bytes>> {
        if self.0.len() <= 20_000 && self.1 {
            return Err(std::io::Error::other("its disk is gone"));
        }
        let len = self.0.len().min(9_999);
        Ok(Some(self.0.split_to(len)).filter(|piece| !piece.is_empty()))
    }
}

#[tokio::test]
async fn content_is_read_when_it_is_needed() {
    use spandrel_registry::Pushed;
    let registry = ScriptedRegistry::plain();
    let blob = noise(300_000);
    let digest = Digest::sha256(&blob);
    let (client, _) = clocked(options(vec![plain(&registry.host())]));
    let app = repository(&registry.host(), "app");
    let other = repository(&registry.host(), "other");
    let content = Content::new(blob.clone());
    // Not before there is a session to send it to.
    registry.rule(Rule::new(Kind::Upload, Fault::status(503)).nth(0));
    let size = blob.len() as u64;
    let pushed = client.push_blob_from(&app, &digest, size, &content, None).await.expect("at last");
    assert_eq!((pushed, content.opened()), (Pushed::Sent, 1));
    assert!(registry.blob(digest.as_str()).is_some_and(|stored| stored == blob));
    // There, or in another repository of the registry: nobody reads it.
    let pushed = client.push_blob_from(&app, &digest, size, &content, None).await.expect("there");
    assert_eq!((pushed, content.opened()), (Pushed::Exists, 1));
    let pushed = client.push_blob_from(&other, &digest, size, &content, Some(&app)).await.expect("mounted");
    assert_eq!((pushed, content.opened()), (Pushed::Mounted, 1));
    // What can't be read isn't tried again, and says why.
    let content = Content { breaks: true, ..Content::new(noise(300_001)) };
    let digest = Digest::sha256(&content.bytes);
    let error = client.push_blob_from(&app, &digest, 300_001, &content, None).await.expect_err("broken");
    assert!(error.message.contains("its disk is gone") && error.kind == ErrorKind::Invalid, "{error}");
    assert_eq!(content.opened(), 1);
    assert!(registry.blob(digest.as_str()).is_none());
}

#[tokio::test]
async fn content_goes_in_pieces_where_no_long_body_is_taken() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let parts = Arc::clone(&got);
    let server = Server::start(move |asked, _| match asked.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").header("location", "/up"),
        "PATCH" => {
            let range = asked.header("content-range").expect("said").to_owned();
            parts.lock().expect("whole").push((range, asked.body.len()));
            Answer::new(202, "").header("location", "/up")
        }
        _ if asked.body.is_empty() => Answer::new(201, ""),
        _ => Answer::new(413, ""),
    })
    .await;
    let content = Content::new(noise((8 << 20) + 5));
    let digest = Digest::sha256(&content.bytes);
    let app = repository(&server.host(), "app");
    let size = content.bytes.len() as u64;
    anonymous(vec![plain(&server.host())])
        .push_blob_from(&app, &digest, size, &content, None)
        .await
        .expect("pushed");
    let want = [("0-8388607".to_owned(), 8 << 20), ("8388608-8388612".to_owned(), 5)];
    assert_eq!(*got.lock().expect("whole"), want);
    assert_eq!(content.opened(), 2);
}

//! Mirrors: asked first and in order, passed over for a while when they fail, never written to.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::scripted::{Answer, Server};
use common::{clocked, noise, options, plain, push_image, read, repository};
use spandrel_fixtures::scripted::ScriptedRegistry;
use spandrel_registry::{Client, Digest, ErrorKind, HostConfig, Repository};

/// A host with one blob, and a client that has these mirrors for it.
struct Set {
    registry: ScriptedRegistry,
    app: Repository,
    blob: Bytes,
    digest: Digest,
    client: Client,
    clock: std::sync::Arc<common::TestClock>,
}

impl Set {
    fn new(mirrors: &[&Server]) -> Self {
        let registry = ScriptedRegistry::plain();
        let blob = noise(200_000);
        let digest = registry.put_blob("app", blob.clone()).parse().expect("a digest");
        let mirrors = mirrors.iter().map(|mirror| format!("{}/some/path", mirror.url())).collect();
        let host = HostConfig { mirrors, ..plain(&registry.host()) };
        let (client, clock) = clocked(options(vec![host]));
        Self { app: repository(&registry.host(), "app"), registry, blob, digest, client, clock }
    }

    async fn reads(&self) {
        let got = read(&self.client, &self.app, &self.digest, 7..150_000).await.expect("there");
        assert_eq!(got, self.blob.slice(7..150_000));
    }
}

/// A mirror that has the blob.
async fn good() -> Server {
    let blob = noise(200_000);
    Server::start(move |asked, _| Answer::part(&blob, asked.range().expect("a range"))).await
}

async fn answering(status: u16) -> Server {
    Server::start(move |_, _| Answer::new(status, "")).await
}

#[tokio::test]
async fn the_first_mirror_that_has_it_answers() {
    let (lacks, has) = (answering(404).await, good().await);
    let set = Set::new(&[&lacks, &has]);
    for _ in 0..3 {
        set.reads().await;
    }
    // One that lacks an image isn't broken: it may have the next one.
    assert_eq!((lacks.asked().len(), has.asked().len(), set.registry.log().len()), (3, 3, 0));
    let target = &has.asked()[0].target;
    let host = set.registry.host().replace(':', "%3A");
    assert_eq!(target, &format!("/some/path/v2/app/blobs/{}?ns={host}", set.digest));
    assert!(set.clock.slept().is_empty(), "no wait between mirrors");
}

#[tokio::test]
async fn a_broken_mirror_is_passed_over_for_a_while() {
    let broken = answering(500).await;
    let set = Set::new(&[&broken]);
    for (seconds, asked) in [(0, 1), (0, 1), (29, 1), (2, 2)] {
        set.clock.advance(Duration::from_secs(seconds));
        set.reads().await;
        assert_eq!(broken.asked().len(), asked, "after {seconds} s more");
    }
}

#[tokio::test]
async fn what_a_mirror_began_the_host_ends() {
    let blob = noise(200_000);
    let breaks = Server::start(move |asked, _| {
        Answer::part(&blob, asked.range().expect("a range")).broken_after(100_000)
    })
    .await;
    let lies = {
        let blob = noise(200_001);
        Server::start(move |asked, _| {
            let range = asked.range().expect("a range");
            Answer::part(&blob, range.start + 1..range.end + 1)
        })
        .await
    };
    let set = Set::new(&[&lies, &breaks]);
    set.reads().await;
    let log = set.registry.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].range.as_deref(), Some("bytes=100007-149999"));
}

#[tokio::test]
async fn a_mirror_with_wrong_bytes_is_passed_over() {
    let wrong = Server::start(|_, _| Answer::new(200, vec![0; 200_000])).await;
    let set = Set::new(&[&wrong]);
    assert_eq!(set.client.blob(&set.app, &set.digest, 200_000).await.expect("there"), set.blob);
    assert_eq!(wrong.asked().len(), 1);
}

#[tokio::test]
async fn when_all_fail_all_are_named() {
    let mirror = answering(503).await;
    let mut set = Set::new(&[&mirror]);
    set.registry.stop();
    let error = read(&set.client, &set.app, &set.digest, 0..10).await.expect_err("nobody");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(&set.registry.host()), "{error}");

    let mirror = answering(403).await;
    let set = Set::new(&[&mirror]);
    let error = set.client.manifest(&set.app, "none").await.expect_err("not there");
    assert_eq!(error.kind, ErrorKind::NotFound, "the host decides what there is: {error}");
    assert!(error.message.contains(&format!("mirror {}: answered 403", mirror.host())), "{error}");
}

#[tokio::test]
async fn mirrors_are_never_written_to() {
    let mirror = answering(404).await;
    let set = Set::new(&[&mirror]);
    push_image(&set.client, &set.app, "1", &noise(10)).await;
    assert!(mirror.asked().is_empty());
}

#[tokio::test]
async fn a_mirror_without_a_sane_url_is_refused_at_once() {
    let host = HostConfig { mirrors: vec!["mirror.example".into()], ..plain("registry.example") };
    let error = Client::new(options(vec![host]), std::sync::Arc::new(spandrel_registry::Anonymous))
        .expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.to_string().contains("registry.example"), "{error}");
}

//! Blobs that lie elsewhere: followed once, remembered, found anew when refused, and no credential goes along.

mod common;

use std::time::Duration;

use common::scripted::{Answer, Server};
use common::{Fixed, anonymous, client, clocked, noise, options, plain, push_image, read, repository};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Options};
use spandrel_fixtures::scripted::{Access, Fault, Gate, Kind, Rule, ScriptedRegistry, Settings};
use spandrel_registry::{Digest, ErrorKind};

#[tokio::test]
async fn the_real_registry_is_asked_once_for_many_ranges() {
    let with = Options { auth: Auth::Token, redirect: true, ..Options::default() };
    let Some(registry) = DockerRegistry::start(with) else { return };
    let client = client(Vec::new(), Fixed::login(registry.login().expect("it has one")));
    let app = repository(&registry.host(), "app");
    let layer = noise(200_000);
    let digest = Digest::sha256(&layer);
    push_image(&client, &app, "1", &layer).await;
    let asked = |registry: &DockerRegistry| {
        registry
            .requests()
            .iter()
            .filter(|request| request.starts_with("GET ") && request.contains(digest.hex()))
            .count()
    };
    let before = registry.redirected();
    for number in 0..20 {
        let range = number * 1000..number * 1000 + 5000;
        let want = layer.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert_eq!(read(&client, &app, &digest, range).await.expect("there"), want);
    }
    assert_eq!(registry.redirected() - before, 20);
    // The first without a token, refused, then with one: and never again.
    assert!(asked(&registry) <= 2, "{:?}", registry.requests());
    assert_eq!(client.blob(&app, &digest, 200_000).await.expect("there"), layer);
    assert_eq!(client.blob_size(&app, &digest).await.expect("an answer"), Some(200_000));
}

fn scripted(access: Access) -> (ScriptedRegistry, Digest) {
    let registry = ScriptedRegistry::start(Settings { access, redirect: true, ..Settings::default() });
    let digest = registry.put_blob("app", noise(100_000)).parse().expect("a digest");
    (registry, digest)
}

#[tokio::test]
async fn a_refused_url_is_resolved_again_once() {
    let (registry, digest) = scripted(Access::Open);
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    for (expire, resolved) in [(false, 1), (false, 1), (true, 2), (false, 2)] {
        if expire {
            registry.expire_urls();
        }
        assert_eq!(
            read(&client, &app, &digest, 5..5000).await.expect("there"),
            noise(100_000).slice(5..5000)
        );
        assert_eq!(registry.count(Kind::Resolve), resolved);
    }
    // Refused right after it was signed: no loop.
    registry.rule(Rule::new(Kind::BlobRange, Fault::status(403)));
    registry.reset_counts();
    let error = read(&client, &app, &digest, 5..5000).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
    assert_eq!((registry.count(Kind::Resolve), registry.count(Kind::BlobRange)), (1, 2));
    assert!(!error.to_string().contains("Signature") && !error.to_string().contains('?'), "{error}");
}

#[tokio::test]
async fn many_readers_of_a_new_blob_resolve_it_once() {
    let (registry, digest) = scripted(Access::Open);
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (client, app, digest) = (client.clone(), app.clone(), digest.clone());
        tasks.spawn(async move { read(&client, &app, &digest, 0..100).await.expect("there") });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    assert_eq!((registry.count(Kind::Resolve), registry.count(Kind::BlobRange)), (1, 40));
}

#[tokio::test]
async fn no_credential_goes_to_storage() {
    let (registry, digest) = scripted(Access::Tokens);
    let client = client(vec![plain(&registry.host())], Fixed::login(registry.login().expect("it has one")));
    let app = repository(&registry.host(), "app");
    read(&client, &app, &digest, 0..100).await.expect("there");
    client.blob_size(&app, &digest).await.expect("an answer");
    let log = registry.log();
    assert!(log.iter().any(|seen| seen.second), "storage was asked");
    assert!(log.iter().filter(|seen| seen.second).all(|seen| seen.authorization.is_none()), "{log:#?}");
}

#[tokio::test]
async fn a_url_is_used_until_shortly_before_its_end() {
    let blob = noise(1000);
    let digest = Digest::sha256(&blob);
    let storage = {
        let blob = blob.clone();
        Server::start(move |asked, _| Answer::part(&blob, asked.range().expect("a range"))).await
    };
    // 1,800,000,000, where the test clock begins, is 2027-01-15 08:00:00.
    let target =
        format!("{}/b?X-Amz-Date=20270115T080000Z&X-Amz-Expires=600&X-Amz-Signature=s", storage.url());
    let registry = Server::start(move |_, _| Answer::new(307, "").header("location", target.clone())).await;
    let (client, clock) = clocked(options(vec![plain(&registry.host())]));
    let app = repository(&registry.host(), "app");
    for (seconds, resolved) in [(0, 1), (569, 1), (2, 2)] {
        clock.advance(Duration::from_secs(seconds));
        assert_eq!(read(&client, &app, &digest, 1..9).await.expect("there"), blob.slice(1..9));
        assert_eq!(registry.asked().len(), resolved, "after {seconds} s more");
    }
}

#[tokio::test]
async fn odd_redirects_end_in_an_error() {
    for (location, want) in [
        (Some("/v2/app/blobs/again"), "more than"), // round and round
        (Some("file:///etc/passwd"), "isn't HTTP"),
        (Some("http://user:secret@127.0.0.1/x"), "user name"),
        (Some("http://"), "no URL"),
        (None, "missing"),
    ] {
        let registry = Server::start(move |_, _| {
            let answer = Answer::new(307, "");
            location.map_or(answer.clone(), |location| answer.header("location", location))
        })
        .await;
        let client = anonymous(vec![plain(&registry.host())]);
        let app = repository(&registry.host(), "app");
        let error = read(&client, &app, &Digest::sha256(b"x"), 0..1).await.expect_err("odd");
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains(want) && !error.message.contains("secret"), "{error}");
        assert!(registry.asked().len() <= 5);
    }
}

#[tokio::test]
async fn storage_that_died_is_resolved_again_at_the_next_try() {
    let blob = noise(1000);
    let digest = Digest::sha256(&blob);
    let start = |blob: bytes::Bytes| {
        Server::start(move |asked, number| match number {
            0 => Answer::part(&blob, asked.range().expect("a range")),
            _ => Answer::new(500, ""),
        })
    };
    let (first, second) = (start(blob.clone()).await, start(blob.clone()).await);
    let urls = [format!("{}/b", first.url()), format!("{}/b", second.url())];
    let registry =
        Server::start(move |_, number| Answer::new(307, "").header("location", urls[number.min(1)].clone()))
            .await;
    let (client, _) = clocked(options(vec![plain(&registry.host())]));
    let app = repository(&registry.host(), "app");
    for _ in 0..2 {
        assert_eq!(read(&client, &app, &digest, 0..10).await.expect("there"), blob.slice(0..10));
    }
    assert_eq!((first.asked().len(), second.asked().len(), registry.asked().len()), (2, 1, 2));
}

/// A registry with `count` blobs of 1000 bytes.
fn with_blobs(settings: Settings, count: u8) -> (ScriptedRegistry, Vec<Digest>) {
    let registry = ScriptedRegistry::start(settings);
    let blobs = (0..count).map(|number| registry.put_blob("app", vec![number; 1000]));
    let blobs = blobs.map(|digest| digest.parse().expect("a digest")).collect();
    (registry, blobs)
}

#[tokio::test]
async fn places_are_found_before_the_first_read_without_a_byte() {
    for access in [Access::Open, Access::Tokens] {
        let settings = Settings { access, redirect: true, ..Settings::default() };
        let (registry, blobs) = with_blobs(settings, 20);
        let client = match registry.login() {
            Some(login) => client(vec![plain(&registry.host())], Fixed::login(login)),
            None => anonymous(vec![plain(&registry.host())]),
        };
        let app = repository(&registry.host(), "app");
        // Nobody knows yet that it redirects: the first blob shows it.
        let finding = tokio::spawn({
            let (client, app, blobs) = (client.clone(), app.clone(), blobs.clone());
            async move { client.find_places(&app, &blobs[1..]).await }
        });
        read(&client, &app, &blobs[0], 0..100).await.expect("there");
        finding.await.expect("no panic");
        assert_eq!((registry.count(Kind::Resolve), registry.count(Kind::BlobRange)), (20, 1));
        assert_eq!(registry.count(Kind::Head), 0);
        for digest in &blobs {
            read(&client, &app, digest, 5..50).await.expect("there");
        }
        assert_eq!((registry.count(Kind::Resolve), registry.count(Kind::BlobRange)), (20, 21));
        // What is known isn't asked for again, until it has ended.
        client.find_places(&app, &blobs).await;
        assert_eq!(registry.count(Kind::Resolve), 20);
        registry.expire_urls();
        read(&client, &app, &blobs[1], 5..50).await.expect("there");
        assert_eq!(registry.count(Kind::Resolve), 21);
    }
}

#[tokio::test]
async fn a_registry_that_sends_blobs_itself_is_not_asked_for_places() {
    let (registry, blobs) = with_blobs(Settings::default(), 3);
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    client.blob(&app, &blobs[0], 1000).await.expect("there");
    client.find_places(&app, &blobs).await;
    assert_eq!(registry.log().len(), 1);
}

#[tokio::test]
async fn a_reader_waits_for_the_place_that_is_being_found() {
    let settings = Settings { redirect: true, ..Settings::default() };
    let (registry, blobs) = with_blobs(settings, 2);
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    read(&client, &app, &blobs[0], 0..1).await.expect("there");
    let gate = Gate::new();
    registry.rule(Rule::new(Kind::Resolve, Fault::Hold(gate.clone())));
    let (finding, reading) = {
        let (client, app, wanted) = (client.clone(), app.clone(), blobs[1].clone());
        let (reader, from, digest) = (client.clone(), app.clone(), wanted.clone());
        let finding = tokio::spawn(async move { client.find_places(&app, &[wanted]).await });
        registry.wait_for(Kind::Resolve, 2).await;
        (finding, tokio::spawn(async move { read(&reader, &from, &digest, 0..9).await }))
    };
    tokio::task::yield_now().await;
    gate.open();
    finding.await.expect("no panic");
    reading.await.expect("no panic").expect("there");
    assert_eq!((registry.count(Kind::Resolve), registry.count(Kind::BlobRange)), (2, 2));
}

#[tokio::test]
async fn a_place_that_is_not_found_is_found_by_its_reader() {
    let settings = Settings { redirect: true, ..Settings::default() };
    let (registry, blobs) = with_blobs(settings, 3);
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    read(&client, &app, &blobs[0], 0..1).await.expect("there");
    for status in [403, 404, 429, 500] {
        registry.clear_rules();
        registry.rule(Rule::new(Kind::Resolve, Fault::status(status)).times(2));
        registry.reset_counts();
        client.find_places(&app, &blobs).await;
        assert_eq!(registry.count(Kind::Resolve), 2, "{status}: each once");
    }
    registry.clear_rules();
    for digest in &blobs {
        read(&client, &app, digest, 0..1).await.expect("there");
    }
    // A server that is gone says nothing at all.
    let gone = repository("127.0.0.1:1", "app");
    anonymous(vec![plain("127.0.0.1:1")]).blob(&gone, &blobs[0], 1000).await.expect_err("gone");
}

#[tokio::test]
async fn a_place_that_leads_on_is_followed_by_the_first_reader() {
    let blob = noise(1000);
    let digest = Digest::sha256(&blob);
    let last = {
        let blob = blob.clone();
        Server::start(move |asked, _| Answer::part(&blob, asked.range().expect("a range"))).await
    };
    let target = format!("{}/b", last.url());
    let middle = Server::start(move |_, _| Answer::new(302, "").header("location", target.clone())).await;
    let target = format!("{}/b", middle.url());
    let registry = Server::start(move |_, _| Answer::new(307, "").header("location", target.clone())).await;
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    read(&client, &app, &Digest::sha256(b"other"), 0..9).await.expect("there");
    client.find_places(&app, std::slice::from_ref(&digest)).await;
    for _ in 0..3 {
        assert_eq!(read(&client, &app, &digest, 1..9).await.expect("there"), blob.slice(1..9));
    }
    let count = |server: &Server| server.asked().len();
    assert_eq!((count(&registry), count(&middle), count(&last)), (2, 2, 4));
}

#[tokio::test]
async fn a_registry_that_has_changed_its_ways_is_asked_for_one_byte_and_no_more() {
    let blob = noise(1000);
    let storage = {
        let blob = blob.clone();
        Server::start(move |asked, _| Answer::part(&blob, asked.range().expect("a range"))).await
    };
    let target = format!("{}/b", storage.url());
    let registry = {
        let blob = blob.clone();
        Server::start(move |asked, number| match number {
            0 => Answer::new(307, "").header("location", target.clone()),
            _ => Answer::part(&blob, asked.range().expect("a range")),
        })
        .await
    };
    let client = anonymous(vec![plain(&registry.host())]);
    let app = repository(&registry.host(), "app");
    read(&client, &app, &Digest::sha256(b"first"), 0..9).await.expect("there");
    let digest = Digest::sha256(&blob);
    client.find_places(&app, std::slice::from_ref(&digest)).await;
    assert_eq!(registry.asked()[1].header("range"), Some("bytes=0-0"));
    assert_eq!(read(&client, &app, &digest, 1..9).await.expect("there"), blob.slice(1..9));
    client.find_places(&app, &[Digest::sha256(b"another")]).await;
    assert_eq!(registry.asked().len(), 3);
}

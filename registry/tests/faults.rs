//! What goes wrong on the way, against the scripted registry; time is a test's, so no test waits.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::scripted::{Answer, Server};
use common::{clocked, noise, options, plain, read, repository};
use spandrel_fixtures::scripted::{Fault, Kind, Rule, ScriptedRegistry, Settings};
use spandrel_registry::{Client, ClientOptions, Digest, ErrorKind, Repository, media_type};

/// A registry with one blob of 300,000 bytes.
struct Set {
    registry: ScriptedRegistry,
    app: Repository,
    blob: Bytes,
    digest: Digest,
}

impl Set {
    fn new(settings: Settings) -> Self {
        let registry = ScriptedRegistry::start(settings);
        let blob = noise(300_000);
        let digest = registry.put_blob("app", blob.clone()).parse().expect("a digest");
        let app = repository(&registry.host(), "app");
        Self { registry, app, blob, digest }
    }

    fn client(&self) -> (Client, std::sync::Arc<common::TestClock>) {
        clocked(options(vec![plain(&self.registry.host())]))
    }

    fn rule(&self, rule: Rule) -> &Self {
        self.registry.rule(rule);
        self
    }

    async fn read(
        &self,
        client: &Client,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, spandrel_registry::Error> {
        read(client, &self.app, &self.digest, range).await
    }
}

fn ranges(fault: Fault) -> Rule {
    Rule::new(Kind::BlobRange, fault)
}

#[tokio::test]
async fn passing_failures_are_retried_with_growing_waits() {
    for fault in [Fault::status(500), Fault::status(503), Fault::ResetAfter(0)] {
        let set = Set::new(Settings::default());
        set.rule(ranges(fault).times(4));
        let (client, clock) = set.client();
        assert_eq!(set.read(&client, 10..200_000).await.expect("at last"), set.blob.slice(10..200_000));
        let slept = clock.slept();
        assert_eq!(slept.len(), 4);
        for (number, wait) in slept.iter().enumerate() {
            let full = Duration::from_millis(100 << number);
            assert!(*wait >= full / 2 && *wait <= full, "{slept:?}");
        }
    }
}

#[tokio::test]
async fn retries_end() {
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::status(503)));
    let (client, _) = set.client();
    let error = set.read(&client, 0..10).await.expect_err("never");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("503") && error.message.contains("tried 6 times"), "{error}");
    assert_eq!(set.registry.count(Kind::BlobRange), 6);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::retry_after(429, "7")).nth(0)).rule(ranges(Fault::retry_after(503, "3")).nth(1));
    let (client, clock) = set.client();
    set.read(&client, 0..10).await.expect("at last");
    assert_eq!(clock.slept(), [Duration::from_secs(7), Duration::from_secs(3)]);

    // A date, by the clock's own time.
    let date = "Fri, 15 Jan 2027 08:00:20 GMT"; // 1,800,000,020: 20 s after the test clock's beginning
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::retry_after(429, date)).nth(0));
    let (client, clock) = set.client();
    set.read(&client, 0..10).await.expect("at last");
    assert_eq!(clock.slept(), [Duration::from_secs(20)]);
}

#[tokio::test]
async fn patience_is_asked_of_all_requests_of_a_host() {
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::retry_after(429, "61")).nth(0));
    let (client, clock) = set.client();
    set.read(&client, 0..10).await.expect_err("too long");
    let error = set.read(&client, 10..20).await.expect_err("for others, too");
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert_eq!(set.registry.count(Kind::BlobRange), 1, "the host is left alone");
    clock.advance(Duration::from_secs(40));
    set.read(&client, 20..30).await.expect("the rest of the time is waited for");
    assert_eq!(clock.slept(), [Duration::from_secs(20)]);
}

#[tokio::test]
async fn patience_ends_with_the_deadline() {
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::retry_after(429, "61")));
    let (client, clock) = set.client();
    let error = set.read(&client, 0..10).await.expect_err("too long");
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert!(error.message.contains("deadline") && error.message.contains("mirror"), "{error}");
    assert!(clock.slept().is_empty(), "it is known at once that waiting is in vain");
}

#[tokio::test]
async fn a_body_that_breaks_is_continued_where_it_broke() {
    for fault in [Fault::ResetAfter(100_000), Fault::CloseAfter(70_000)] {
        let set = Set::new(Settings::default());
        set.rule(ranges(fault).times(2));
        let (client, _) = set.client();
        assert_eq!(set.read(&client, 1..290_000).await.expect("at last"), set.blob.slice(1..290_000));
        let asked: Vec<_> = set.registry.log().into_iter().filter_map(|seen| seen.range).collect();
        assert_eq!(asked[0], "bytes=1-289999");
        assert!(asked.len() == 3 && asked.iter().all(|range| range.ends_with("-289999")), "{asked:?}");
        assert!(
            asked[1] != asked[0] && asked[2] != asked[1],
            "what had come isn't asked for again: {asked:?}"
        );
    }
}

#[tokio::test]
async fn a_whole_blob_is_continued_too() {
    let set = Set::new(Settings::default());
    set.rule(Rule::new(Kind::Blob, Fault::ResetAfter(100_000)).nth(0));
    let (client, _) = set.client();
    assert_eq!(client.blob(&set.app, &set.digest, 300_000).await.expect("at last"), set.blob);
    assert_eq!((set.registry.count(Kind::Blob), set.registry.count(Kind::BlobRange)), (1, 1));
}

#[tokio::test]
async fn progress_earns_new_retries_and_crumbs_do_not() {
    // 300,000 bytes in pieces of 70,000: more breaks than retries, but each gets on.
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::CloseAfter(66_000)));
    let (client, _) = clocked(ClientOptions { max_retries: 1, ..options(vec![plain(&set.registry.host())]) });
    assert_eq!(set.read(&client, 0..300_000).await.expect("at last"), set.blob);

    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::CloseAfter(100)));
    let (client, _) = set.client();
    let error = set.read(&client, 0..300_000).await.expect_err("crumbs");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert_eq!(set.registry.count(Kind::BlobRange), 6);
}

#[tokio::test]
async fn lies_about_the_range_are_corrupt() {
    for fault in [
        Fault::Short(1),
        Fault::Longer(1),
        Fault::ContentRange("bytes 11-20/300000".into()),
        Fault::ContentRange("bytes 10-20/300000".into()),
        Fault::ContentRange("bytes */300000".into()),
        Fault::ContentRange("nonsense".into()),
    ] {
        let set = Set::new(Settings::default());
        set.rule(ranges(fault.clone()));
        let (client, _) = set.client();
        let error = set.read(&client, 10..20).await.expect_err("a lie");
        assert_eq!(error.kind, ErrorKind::Corrupt, "{fault:?}: {error}");
        assert_eq!(set.registry.count(Kind::BlobRange), 2, "once more, in case a proxy was to blame");
        // Told once only, it is found out and got over.
        let set = Set::new(Settings::default());
        set.rule(ranges(fault.clone()).nth(0));
        let (client, _) = set.client();
        assert_eq!(set.read(&client, 10..20).await.expect("at last"), set.blob.slice(10..20));
    }
}

#[tokio::test]
async fn more_or_fewer_bytes_than_announced_are_noticed_without_a_length() {
    let blob = noise(5000);
    let digest = Digest::sha256(&blob);
    for (len, kind) in [(999, ErrorKind::Unavailable), (1001, ErrorKind::Corrupt)] {
        let body = blob.slice(1000..1000 + len);
        let server = Server::start(move |asked, _| {
            let range = asked.range().expect("a range");
            let body = if range.start == 1000 { body.to_vec() } else { Vec::new() };
            Answer::new(206, body)
                .header("content-range", format!("bytes {}-{}/5000", range.start, range.end - 1))
                .chunked()
        })
        .await;
        let (client, _) = clocked(options(vec![plain(&server.host())]));
        let error =
            read(&client, &repository(&server.host(), "app"), &digest, 1000..2000).await.expect_err("wrong");
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn a_whole_answer_to_a_range_is_used_but_not_trusted() {
    let set = Set::new(Settings { ignores_range: true, ..Settings::default() });
    let (client, _) = set.client();
    for range in [0..10, 10..20, 299_990..300_000, 0..300_000] {
        let want = set.blob.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert_eq!(set.read(&client, range).await.expect("there"), want);
    }
    let error = set.read(&client, 299_990..300_001).await.expect_err("past the end");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_and_asked_for_again() {
    let set = Set::new(Settings::default());
    set.rule(Rule::new(Kind::Blob, Fault::Flip(77)).nth(0));
    let (client, _) = set.client();
    assert_eq!(client.blob(&set.app, &set.digest, 300_000).await.expect("the second time"), set.blob);
    set.rule(Rule::new(Kind::Blob, Fault::Flip(77)));
    let error = client.blob(&set.app, &set.digest, 300_000).await.expect_err("wrong");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(
        error.to_string().contains(set.digest.as_str()) && error.message.contains("another digest"),
        "{error}"
    );
}

#[tokio::test]
async fn manifests_are_checked_by_digest_and_by_the_registrys_own_word() {
    let set = Set::new(Settings::default());
    let bytes = Bytes::from(serde_json::to_vec(&common::manifest(b"{}", b"layer")).expect("JSON"));
    let digest = set.registry.put_manifest("app", "1", media_type::OCI_MANIFEST, bytes.clone());
    let (client, _) = set.client();
    assert_eq!(client.manifest(&set.app, "1").await.expect("there").digest.as_str(), digest);
    set.rule(Rule::new(Kind::Manifest, Fault::Flip(3)));
    for part in ["1", digest.as_str()] {
        let error = client.manifest(&set.app, part).await.expect_err("wrong");
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    }
    set.registry.clear_rules();
    set.registry.put_manifest("app", "long", media_type::OCI_MANIFEST, vec![b' '; (4 << 20) + 1]);
    let error = client.manifest(&set.app, "long").await.expect_err("too long");
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert!(error.message.contains("4194304"), "{error}");
}

#[tokio::test]
async fn silence_ends_with_the_read_timeout() {
    let set = Set::new(Settings::default());
    let hold = spandrel_fixtures::scripted::Gate::new();
    set.rule(ranges(Fault::Never).nth(0)).rule(ranges(Fault::HoldAfter(100_000, hold)).nth(1));
    let options = ClientOptions {
        read_timeout: Duration::from_millis(300),
        ..options(vec![plain(&set.registry.host())])
    };
    let (client, _) = clocked(options);
    assert_eq!(set.read(&client, 0..200_000).await.expect("the third time"), set.blob.slice(0..200_000));
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable_and_comes_back() {
    let mut set = Set::new(Settings::default());
    let (client, clock) = set.client();
    set.registry.stop();
    let error = set.read(&client, 0..10).await.expect_err("down");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("can't connect") && error.message.contains("reached"), "{error}");
    assert_eq!(clock.slept().len(), 5);
    set.registry.restart();
    assert_eq!(set.read(&client, 0..10).await.expect("back"), set.blob.slice(0..10));
}

#[tokio::test]
async fn what_waiting_does_not_cure_is_not_retried() {
    for (status, kind) in [
        (400, ErrorKind::Invalid),
        (403, ErrorKind::Unauthorized),
        (404, ErrorKind::NotFound),
        (416, ErrorKind::Corrupt),
        (501, ErrorKind::Invalid),
        (302, ErrorKind::Invalid),
    ] {
        let set = Set::new(Settings::default());
        set.rule(ranges(Fault::status(status)));
        let (client, clock) = set.client();
        let error = set.read(&client, 0..10).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{status}: {error}");
        assert_eq!((set.registry.count(Kind::BlobRange), clock.slept().len()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn a_trickle_ends_with_the_deadline() {
    let set = Set::new(Settings::default());
    let hold = spandrel_fixtures::scripted::Gate::new();
    set.rule(ranges(Fault::HoldAfter(1000, hold)));
    let options = ClientOptions {
        deadline: Duration::from_secs(1),
        read_timeout: Duration::from_secs(600),
        ..options(vec![plain(&set.registry.host())])
    };
    let client = Client::new(options, std::sync::Arc::new(spandrel_registry::Anonymous)).expect("a client");
    let error = set.read(&client, 0..200_000).await.expect_err("too slow");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("deadline"), "{error}");
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_not_punished() {
    let set = Set::new(Settings::default());
    set.rule(ranges(Fault::CloseAfter(1000)).nth(0));
    let (client, clock) = set.client();
    let mut body = client.blob_range(&set.app, &set.digest, 0..50_000).await.expect("there");
    let mut got = 0;
    while let Some(bytes) = body.chunk().await.expect("the deadline is for the registry") {
        got += bytes.len();
        clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(got, 50_000);
}

#[tokio::test]
async fn a_read_can_be_given_up_and_taken_up_again() {
    let set = Set::new(Settings::default());
    let gate = spandrel_fixtures::scripted::Gate::new();
    set.rule(ranges(Fault::HoldAfter(1000, gate.clone())));
    let (client, _) = set.client();
    let mut body = client.blob_range(&set.app, &set.digest, 0..50_000).await.expect("there");
    let mut got = Vec::new();
    let mut given_up = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(50), body.chunk()).await {
            Ok(Ok(Some(bytes))) => got.extend_from_slice(&bytes),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => {
                given_up += 1;
                if given_up == 2 {
                    gate.open();
                }
            }
        }
    }
    assert!(given_up >= 2 && got == set.blob.slice(0..50_000));
    assert_eq!(set.registry.count(Kind::BlobRange), 1);
}

#[tokio::test]
async fn whatever_goes_wrong_no_byte_is_wrong() {
    // Ends of ranges and faults from a fixed sequence, so that a failure can be had again.
    let numbers = noise(40 * 40);
    let mut numbers =
        numbers.chunks(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")) as usize);
    let mut next = move |below: usize| numbers.next().expect("enough numbers") % below;
    let (mut ended_well, mut ended_badly) = (0, 0);
    for round in 0..40 {
        let set = Set::new(Settings::default());
        for number in 0..4 {
            let at = next(120_000);
            let fault = match next(8) {
                0 => Fault::ResetAfter(at),
                1 | 2 => Fault::CloseAfter(at),
                3 => Fault::IgnoreRange,
                4 => Fault::Short(at / 1000 + 1),
                5 => Fault::Longer(at / 1000 + 1),
                6 => Fault::status(502),
                _ => Fault::ContentRange(format!("bytes {at}-{}/300000", at + 10)),
            };
            set.rule(ranges(fault).nth(number));
        }
        let (client, _) =
            clocked(ClientOptions { max_retries: 3, ..options(vec![plain(&set.registry.host())]) });
        let (one, other) = (next(300_000), next(300_000));
        let range = one.min(other)..one.max(other);
        let wanted = range.start as u64..range.end as u64;
        match set.read(&client, wanted.clone()).await {
            Ok(bytes) => {
                assert!(bytes == set.blob.slice(range.clone()), "round {round}: {range:?} is wrong");
                ended_well += 1;
            }
            Err(error) => {
                assert!(
                    matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Unavailable),
                    "round {round}: {error}"
                );
                ended_badly += 1;
            }
        }
    }
    assert!(ended_well > 5 && ended_badly > 0, "both ends were seen: {ended_well}, {ended_badly}");
}

//! ECR as a node meets it: a scripted AWS gives tokens, and the real docker-registry is behind a door that wants them.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{MovedClock, PART, Player, ask, log_everything, tell};
use spandrel_credentials::{Credentials, DockerConfig, Observer, Options};
use spandrel_fixtures::aws::{Asked, HOST, Identity, SECRET, ScriptedAws};
use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::random::Random;
use spandrel_registry::{Client, ClientOptions, Clock, CredentialSource, Digest, HostConfig, Repository};

/// Length of each piece of the layer that is read alone.
const PIECE: u64 = 1000;

/// How many readers come at once.
const READERS: usize = 20;

const HOUR: Duration = Duration::from_secs(3600);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn app() -> Repository {
    Repository::new(HOST, "team/app").expect("valid")
}

/// Prints a line, as whatever the client does might.
fn print(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}").expect("the test listens");
}

/// Prints what is counted.
#[derive(Debug)]
struct Printed;

impl Observer for Printed {
    fn asked(&self, source: &'static str, outcome: &'static str) {
        print(&format!("asked {source} {outcome}"));
    }

    fn token(&self, cause: &'static str, is_ok: bool) {
        print(&format!("token {cause} {is_ok}"));
    }
}

/// A client as daemon and tool have it, by a clock of its own.
fn client(clock: &Arc<MovedClock>) -> (Client, Arc<Credentials>) {
    let options =
        Options { given: None, docker: DockerConfig::from_environment(), observer: Some(Arc::new(Printed)) };
    let credentials = Credentials::with_clock(options, Arc::clone(clock) as _);
    let host = HostConfig { host: HOST.to_owned(), plain_http: true, ..HostConfig::default() };
    let options = ClientOptions { hosts: vec![host], max_retries: 0, ..ClientOptions::default() };
    let client = Client::with_clock(options, Arc::clone(&credentials) as _, Arc::clone(clock) as _);
    (client.expect("a client"), credentials)
}

struct Bed {
    aws: ScriptedAws,
    registry: DockerRegistry,
    layer: Layer,
}

impl Bed {
    fn new() -> Option<Self> {
        let registry = DockerRegistry::plain()?;
        let tar = TarBuilder::new().with(Entry::file("data", Random::new(3).bytes(600_000))).finish();
        let layer = Layer::gzip(&tar);
        ImageBuilder::new().layer(layer.clone()).build().push(&registry.client(), "team/app", "1");
        Some(Self { aws: ScriptedAws::start(registry.addr()), registry, layer })
    }

    /// A part of `test`, which knows the layer.
    fn play(&self, test: &str, part: &str, identity: Identity) -> Player {
        Player::start(test, part, |command| {
            self.aws.introduce(command, identity);
            command.env("LAYER", &self.layer.digest);
        })
    }

    fn count(&self, asked: Asked) -> usize {
        self.aws.count(asked)
    }
}

/// Plays a part, if this process is there for that.
fn part(name: &str) -> bool {
    std::env::var(PART).is_ok_and(|part| part == name)
}

fn layer() -> Digest {
    std::env::var("LAYER").expect("the layer's digest").parse().expect("a digest")
}

fn no_secret_in(printed: &str) {
    let found = printed.lines().find(|line| line.contains(SECRET));
    assert!(found.is_none(), "a secret was printed: {found:?}");
    // Nor in the form in which tokens travel: `AWS:hunter2-ecr-token` in base64, wherever it begins.
    let found = printed.lines().find(|line| line.contains("QVdTOmh1bnRlcjIt"));
    assert!(found.is_none(), "a token was printed: {found:?}");
}

#[test]
fn every_source_of_aws_credentials_serves_in_the_sdks_order() {
    if part("once") {
        log_everything();
        runtime().block_on(async {
            let (client, credentials) = client(&Arc::new(MovedClock::default()));
            client.manifest(&app(), "1").await.unwrap_or_else(|error| panic!("{error} {error:?}"));
            print(&format!("{client:?} {credentials:?} {:?}", credentials.explain(&app()).await));
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let test = "every_source_of_aws_credentials_serves_in_the_sdks_order";
    for (first, identity) in Identity::ALL.into_iter().enumerate() {
        bed.aws.reset_counts();
        // This one, and all that come after it: they must not be asked.
        let player = Player::start(test, "once", |command| {
            for other in Identity::ALL[first..].iter().rev() {
                bed.aws.introduce(command, *other);
            }
            command.env("LAYER", &bed.layer.digest);
        });
        let printed = player.end();
        let detail = format!("AWS credentials from {}", identity.name());
        let found = printed.lines().find(|line| line.contains("credentials found"));
        let found = found.unwrap_or_else(|| panic!("{identity:?}: it isn't in the log: {printed}"));
        assert!(found.contains(&detail) && found.contains("source=\"ecr\""), "{identity:?}: {found}");
        assert!(printed.contains("asked ecr found") && printed.contains("token first true"), "{printed}");
        no_secret_in(&printed);
        assert_eq!(bed.aws.keys()[first..], [identity.access_key()], "{identity:?}");
        let metadata = usize::from(identity == Identity::Instance);
        for (asked, count) in [
            (Asked::Token, 1),
            (Asked::WebIdentity, usize::from(identity == Identity::WebIdentity)),
            (Asked::Container, usize::from(identity == Identity::PodIdentity)),
            (Asked::MetadataSession, metadata),
            (Asked::Metadata, 2 * metadata),
            (Asked::RegistryUnauthorized, 1),
            (Asked::RegistryRefused, 0),
            (Asked::Registry, 1),
            (Asked::Unknown, 0),
        ] {
            assert_eq!(bed.count(asked), count, "{identity:?}: {asked:?} of {:?}", bed.aws.counts());
        }
        // Files of this one would serve the next.
        for file in ["aws-credentials", "web-identity", "pod-identity"] {
            let _ = std::fs::remove_file(bed.aws.home().join(file));
        }
    }
}

#[test]
fn other_registries_never_make_it_ask_aws() {
    if part("elsewhere") {
        runtime().block_on(async {
            let (client, credentials) = client(&Arc::new(MovedClock::default()));
            let here = Repository::new(std::env::var("OTHER").expect("a host"), "team/app").expect("valid");
            client.manifest(&here, "1").await.unwrap_or_else(|error| panic!("{error}"));
            for host in ["docker.io", "public.ecr.aws", "ghcr.io", "x.dkr.ecr.eu-west-1.amazonaws.com"] {
                let repository = Repository::new(host, "team/app").expect("valid");
                assert_eq!(credentials.credential(&repository).await, Ok(None), "{host}");
            }
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let test = "other_registries_never_make_it_ask_aws";
    // As on an instance whose metadata service is not to be reached.
    bed.aws.silence_metadata(true);
    let player = Player::start(test, "elsewhere", |command| {
        bed.aws.introduce(command, Identity::Instance);
        command.env("OTHER", bed.registry.host());
    });
    player.end();
    assert!(bed.aws.counts().is_empty(), "{:?}", bed.aws.counts());
}

#[test]
fn where_aws_is_not_the_error_says_so_and_comes_soon() {
    if part("nobody") {
        runtime().block_on(async {
            let (client, _) = client(&Arc::new(MovedClock::default()));
            let error = client.manifest(&app(), "1").await.expect_err("there are no credentials");
            tell(&error.to_string());
            let again = client.manifest(&app(), "1").await.expect_err("there are no credentials");
            assert_eq!(again.message, error.message);
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    for (identity, silent) in [(Identity::Nobody, false), (Identity::Instance, true)] {
        bed.aws.reset_counts();
        bed.aws.silence_metadata(silent);
        let mut player = bed.play("where_aws_is_not_the_error_says_so_and_comes_soon", "nobody", identity);
        let error = player.hear().expect("it says its error");
        for part in [HOST, "no AWS credentials", "ecr:GetAuthorizationToken", "docker's config"] {
            assert!(error.contains(part), "{identity:?}: {part:?} isn't in {error}");
        }
        let printed = player.end();
        assert!(printed.contains("asked ecr failed") && printed.contains("token first false"), "{printed}");
        // One try, and its failure is the answer for a while.
        assert_eq!(bed.count(Asked::Metadata), usize::from(silent));
        assert_eq!(bed.count(Asked::Token), 0);
    }
}

/// Reads piece `number` of the layer.
async fn read(client: &Client, number: u64) -> bytes::Bytes {
    let range = number * PIECE..(number + 1) * PIECE;
    let body = client.blob_range(&app(), &layer(), range).await;
    let body = body.unwrap_or_else(|error| panic!("piece {number}: {error}"));
    body.collect(PIECE).await.unwrap_or_else(|error| panic!("piece {number}: {error}"))
}

/// Many read pieces that nobody has read yet.
async fn cold_reads(client: &Client, pieces: &mut std::ops::RangeFrom<u64>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in pieces.take(READERS) {
        let client = client.clone();
        tasks.spawn(async move { read(&client, number).await });
    }
    while let Some(read) = tasks.join_next().await {
        assert_eq!(read.expect("no panic").len(), usize::try_from(PIECE).expect("small"));
    }
}

/// Hears that everything was read.
fn hear_read(player: &mut Player) {
    assert_eq!(player.hear().as_deref(), Some("read"), "{}", player.printed);
}

/// Lets time pass, does something, and lets many read what nobody has read yet: how many tokens were given for it, and how
/// often the registry refused one.
fn round(
    bed: &Bed,
    player: &mut Player,
    wait: Duration,
    meanwhile: impl FnOnce(&ScriptedAws),
) -> (usize, usize) {
    bed.aws.reset_counts();
    bed.aws.advance(wait);
    player.say(&wait.as_secs().to_string());
    assert_eq!(player.hear().as_deref(), Some("moved"), "{}", player.printed);
    meanwhile(&bed.aws);
    player.say("go on");
    hear_read(player);
    (bed.count(Asked::Token), bed.count(Asked::RegistryRefused))
}

#[test]
fn tokens_end_under_cold_reads_and_no_reader_notices() {
    let test = "tokens_end_under_cold_reads_and_no_reader_notices";
    if part("reads") {
        log_everything();
        runtime().block_on(async {
            let clock = Arc::new(MovedClock::default());
            let (client, _credentials) = client(&clock);
            let mut pieces = 0..;
            cold_reads(&client, &mut pieces).await;
            while let Ok(seconds) = ask("read").parse() {
                clock.advance(Duration::from_secs(seconds));
                ask("moved");
                cold_reads(&client, &mut pieces).await;
            }
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    bed.aws.set_token_life(HOUR);
    let mut player = bed.play(test, "reads", Identity::Instance);
    hear_read(&mut player);
    assert_eq!((bed.count(Asked::Token), bed.count(Asked::RegistryRefused)), (1, 0));
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for _ in 0..3 {
        // They end while nobody reads: one new token, and no request with the old one.
        assert_eq!(round(&bed, &mut player, minutes(61), |_| ()), (1, 0));
        assert_eq!(round(&bed, &mut player, minutes(0), |_| ()), (0, 0));
        assert_eq!(round(&bed, &mut player, minutes(30), |_| ()), (0, 0), "half of its life");
        // At two thirds of their life they are renewed, though nobody reads.
        let renewed = |aws: &ScriptedAws| aws.wait_for(Asked::Token, 1);
        assert_eq!(round(&bed, &mut player, minutes(15), renewed), (1, 0));
        // What the client has kept for five minutes it asks for again: all have the new one.
        assert_eq!(round(&bed, &mut player, minutes(6), |_| ()), (0, 0));
        // They are revoked while they should be good, by 403 and by 401: each reader is refused once at most.
        for forbids in [true, false] {
            let revoked = |aws: &ScriptedAws| {
                aws.forbid(forbids);
                aws.end_tokens();
            };
            let (tokens, refused) = round(&bed, &mut player, minutes(0), revoked);
            let causes: Vec<_> = player.printed.lines().filter(|line| line.starts_with("token ")).collect();
            assert_eq!(tokens, 1, "{forbids}: {causes:?}");
            assert!((1..=READERS).contains(&refused), "{forbids}: {refused} were refused");
        }
    }
    player.say("end");
    let printed = player.end();
    no_secret_in(&printed);
    for (cause, count) in [("first", 1), ("ended", 3), ("renewal", 3), ("refused", 6)] {
        let line = format!("token {cause} true");
        assert_eq!(printed.lines().filter(|have| **have == line).count(), count, "{cause}");
    }
    assert!(!printed.contains(" false\n"), "no token failed to come: {printed}");
    assert!(printed.lines().count() > 200, "everything was logged");
}

#[test]
fn what_fails_is_said_without_secrets_and_mended_at_once() {
    let test = "what_fails_is_said_without_secrets_and_mended_at_once";
    if part("mended") {
        log_everything();
        runtime().block_on(async {
            let clock = Arc::new(MovedClock::default());
            let (client, _) = client(&clock);
            loop {
                let said = match client.manifest(&app(), "1").await {
                    Ok(_) => "there".to_owned(),
                    Err(error) => format!("{error} {error:?}"),
                };
                if ask(&said) == "end" {
                    return;
                }
                // Longer than a failure is the answer.
                clock.advance(Duration::from_secs(6));
            }
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    bed.aws.end_keys(Identity::Profile, true);
    let mut player = bed.play(test, "mended", Identity::Profile);
    let profile = |key: &str| {
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}-another\n");
        std::fs::write(bed.aws.home().join("aws-credentials"), text).expect("written");
    };
    let hear = |player: &mut Player, wants: &[&str]| {
        let said = player.hear().unwrap_or_else(|| panic!("it has ended: {}", player.printed));
        for want in wants {
            assert!(said.contains(want), "{want:?} isn't in {said}");
        }
    };
    let what = ["ECR's API in eu-west-1", "ExpiredTokenException", "is expired", "ecr:GetAuthorizationToken"];
    hear(&mut player, &what);
    // Somebody writes other keys, which nobody knows.
    profile("AKIASTRANGER");
    player.say("go on");
    hear(&mut player, &["UnrecognizedClientException", "request is invalid. Check"]);
    // A file that can't be read as one.
    std::fs::write(bed.aws.home().join("aws-credentials"), format!("[default\nx = {SECRET}\n"))
        .expect("written");
    player.say("go on");
    hear(&mut player, &["the AWS credentials can't be had", "docker's config"]);
    // Good keys, while ECR itself is down.
    profile(Identity::Environment.access_key());
    bed.aws.set_down(true);
    player.say("go on");
    hear(&mut player, &["ServerException: try later"]);
    bed.aws.set_down(false);
    player.say("go on");
    hear(&mut player, &["there"]);
    player.say("end");
    let printed = player.end();
    no_secret_in(&printed);
    assert!(printed.contains("token first false") && printed.contains("token first true"), "{printed}");
}

#[test]
fn a_login_of_yesterday_in_dockers_config_gives_way() {
    let test = "a_login_of_yesterday_in_dockers_config_gives_way";
    if part("login") {
        runtime().block_on(async {
            let (client, _) = client(&Arc::new(MovedClock::default()));
            for _ in 0..2 {
                client.manifest(&app(), "1").await.unwrap_or_else(|error| panic!("{error}"));
            }
        });
        return;
    }
    let Some(bed) = Bed::new() else { return };
    std::fs::create_dir(bed.aws.home().join(".docker")).expect("a folder");
    for forbids in [true, false] {
        bed.aws.reset_counts();
        bed.aws.forbid(forbids);
        // As `aws ecr get-login-password | docker login` left it, more than twelve hours ago.
        let config = format!(r#"{{"auths":{{"{HOST}":{{"username":"AWS","password":"{SECRET}-old"}}}}}}"#);
        std::fs::write(bed.aws.home().join(".docker/config.json"), config).expect("written");
        let printed = bed.play(test, "login", Identity::Environment).end();
        assert!(
            printed.contains("asked docker-config found") && printed.contains("asked ecr found"),
            "{printed}"
        );
        assert_eq!((bed.count(Asked::RegistryRefused), bed.count(Asked::Token)), (1, 1));
        assert_eq!(bed.count(Asked::Registry), 2);
    }
}

#[test]
fn the_clock_of_these_tests_moves() {
    let clock = MovedClock::default();
    let before = (clock.now(), clock.elapsed());
    clock.advance(HOUR);
    assert!(clock.now() >= before.0 + HOUR && clock.elapsed() >= before.1 + HOUR);
}

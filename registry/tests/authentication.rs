//! Who we are: Basic and tokens against the real docker-registry, and what only a scripted one can be made to do.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::scripted::{Answer, Server};
use common::{Fixed, anonymous, client, noise, plain, push_image, read, repository};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Options};
use spandrel_fixtures::scripted::{Access, Kind, ScriptedRegistry, Settings};
use spandrel_registry::{Anonymous, Credential, CredentialError, Digest, ErrorKind};

#[tokio::test]
async fn basic_authentication() {
    let Some(registry) = DockerRegistry::start(Options { auth: Auth::Basic, ..Options::default() }) else {
        return;
    };
    let login = registry.login().expect("it has one");
    let source = Fixed::login(login);
    let known = client(Vec::new(), Arc::clone(&source) as _);
    let app = repository(&registry.host(), "team/app");
    let layer = noise(100_000);
    push_image(&known, &app, "1", &layer).await;
    assert_eq!(
        read(&known, &app, &Digest::sha256(&layer), 5..99_000).await.expect("there"),
        layer.slice(5..99_000)
    );
    assert!(
        source.asked() <= 2,
        "once for reading and once for writing, not for each request: {}",
        source.asked()
    );

    let error = anonymous(Vec::new()).manifest(&app, "1").await.expect_err("not allowed");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(
        error.message.contains("without credentials") && error.message.contains("docker login"),
        "{error}"
    );

    let wrong = client(Vec::new(), Fixed::login((login.0, "hunter2")));
    let error = wrong.manifest(&app, "1").await.expect_err("not allowed");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("as user alice") && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn token_authentication() {
    let options = Options { auth: Auth::Token, ..Options::default() };
    let Some(registry) = DockerRegistry::start(options) else { return };
    let login = registry.login().expect("it has one");
    let known = client(Vec::new(), Fixed::login(login));
    let (app, other) = (repository(&registry.host(), "team/app"), repository(&registry.host(), "team/other"));
    let layer = noise(100_000);
    let digest = Digest::sha256(&layer);
    push_image(&known, &app, "1", &layer).await;
    let pushed_with = registry.tokens();
    known.manifest(&app, "1").await.expect("there");
    for _ in 0..5 {
        read(&known, &app, &digest, 0..1000).await.expect("there");
    }
    assert_eq!(registry.tokens(), pushed_with + 1, "one token for all reading");
    // Reading another repository takes a token of its own.
    known.push_blob(&other, &digest, layer.clone(), Some(&app)).await.expect("mounted");
    assert_eq!(known.blob_size(&other, &digest).await.expect("an answer"), Some(100_000));

    let error = anonymous(Vec::new()).manifest(&app, "1").await.expect_err("not allowed");
    assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
    let wrong = client(Vec::new(), Fixed::login((login.0, "hunter2")));
    let error = wrong.manifest(&app, "1").await.expect_err("not allowed");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("token service") && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn anybody_reads_with_an_anonymous_token() {
    let options = Options { auth: Auth::TokenAnyonePulls, ..Options::default() };
    let Some(registry) = DockerRegistry::start(options) else { return };
    let app = repository(&registry.host(), "app");
    let known = client(Vec::new(), Fixed::login(registry.login().expect("it has one")));
    let layer = noise(1000);
    let manifest = push_image(&known, &app, "1", &layer).await;
    let nobody = anonymous(Vec::new());
    assert_eq!(nobody.manifest(&app, "1").await.expect("public").bytes, manifest);
    let error =
        nobody.push_blob(&app, &Digest::sha256(b"x"), "x".into(), None).await.expect_err("not allowed");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("anonymously"), "{error}");
}

fn scripted(access: Access) -> ScriptedRegistry {
    ScriptedRegistry::start(Settings { access, ..Settings::default() })
}

#[tokio::test]
async fn many_readers_share_one_token() {
    let registry = scripted(Access::Tokens);
    let layer = noise(10_000);
    let digest: Digest = registry.put_blob("app", layer).parse().expect("a digest");
    let client = client(vec![plain(&registry.host())], Fixed::login(registry.login().expect("it has one")));
    let app = repository(&registry.host(), "app");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, app, digest) = (client.clone(), app.clone(), digest.clone());
        tasks.spawn(async move { read(&client, &app, &digest, 0..100).await.expect("there") });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    assert_eq!(registry.count(Kind::Token), 1);

    // A token that ended early is renewed once, and nobody notices.
    registry.expire_tokens();
    read(&client, &app, &digest, 0..100).await.expect("there");
    assert_eq!(registry.count(Kind::Token), 2);
    // A further repository doesn't need to be refused first: what the host asks for is known.
    registry.put_blob("b", noise(10));
    registry.reset_counts();
    let other = repository(&registry.host(), "b");
    assert_eq!(client.blob_size(&other, &Digest::sha256(&noise(10))).await.expect("an answer"), Some(10));
    assert_eq!((registry.count(Kind::Challenged), registry.count(Kind::Token)), (0, 1));
}

#[tokio::test]
async fn short_lived_tokens_are_renewed_in_time() {
    let settings = Settings { access: Access::AnonymousTokens, claimed_validity: 60, ..Settings::default() };
    let registry = ScriptedRegistry::start(settings);
    let digest: Digest = registry.put_blob("app", noise(100)).parse().expect("a digest");
    let (client, clock) = common::clocked(common::options(vec![plain(&registry.host())]));
    let app = repository(&registry.host(), "app");
    for (seconds, tokens) in [(0, 1), (49, 1), (2, 2)] {
        // 10 s before the end is the end
        clock.advance(std::time::Duration::from_secs(seconds));
        read(&client, &app, &digest, 0..10).await.expect("there");
        assert_eq!(registry.count(Kind::Token), tokens, "after {seconds} s more");
    }
    assert_eq!(registry.count(Kind::Challenged), 1, "none was refused but the very first");
}

/// A registry that wants tokens from `realm`, and any token will do.
fn challenges(realm: String) -> impl Fn(&common::scripted::Asked, usize) -> Answer + Send + Sync + 'static {
    move |asked, _| {
        if asked.target.starts_with("/token") {
            return Answer::new(200, r#"{"access_token":"the-token","expires_in":300}"#);
        }
        match asked.header("authorization") {
            Some("Bearer the-token") => Answer::new(200, "x").header("content-type", "text/plain"),
            _ => Answer::new(401, "").header(
                "www-authenticate",
                format!("Bearer realm=\"{realm}\",service=\"s&t\",scope=\"repository:app:pull\""),
            ),
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_posted_and_a_registry_token_sent_as_it_is() {
    // The realm needs the port, which is known only once the server runs.
    let base = Arc::new(std::sync::OnceLock::new());
    let script = {
        let base: Arc<std::sync::OnceLock<String>> = Arc::clone(&base);
        move |asked: &common::scripted::Asked, number| {
            challenges(format!("{}/token", base.get().expect("set before the first request")))(asked, number)
        }
    };
    let server = Server::start(script).await;
    base.set(server.url()).expect("set once");
    let app = repository(&server.host(), "app");

    let identity =
        client(vec![plain(&server.host())], Fixed::new(Ok(Some(Credential::IdentityToken("id&1".into())))));
    identity.manifest(&app, "1").await.expect("there");
    let asked = server.asked();
    let token = asked.iter().find(|a| a.target.starts_with("/token")).expect("asked for a token");
    let body = String::from_utf8(token.body.clone()).expect("text");
    assert_eq!((token.method.as_str(), token.target.as_str()), ("POST", "/token"));
    for part in
        ["grant_type=refresh_token", "refresh_token=id%261", "service=s%26t", "scope=repository%3Aapp%3Apull"]
    {
        assert!(body.contains(part), "{body}");
    }

    let direct = client(
        vec![plain(&server.host())],
        Fixed::new(Ok(Some(Credential::RegistryToken("the-token".into())))),
    );
    let before = server.count("/token");
    direct.manifest(&app, "1").await.expect("there");
    assert_eq!(server.count("/token"), before, "no token service was asked");
}

#[tokio::test]
async fn no_password_goes_to_a_token_service_without_tls() {
    for realm in
        ["http://auth.example/token", "ftp://auth.example/", "nonsense", "https://u:p@auth.example/", ""]
    {
        let server = Server::start(challenges(realm.to_owned())).await;
        let client = client(vec![plain(&server.host())], Fixed::login(("alice", "hunter2")));
        let error = client.manifest(&repository(&server.host(), "app"), "1").await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
        assert_eq!(server.asked().len(), 1, "nothing else was asked for {realm:?}");
    }
}

#[tokio::test]
async fn a_failing_source_is_not_the_same_as_none() {
    let Some(registry) = DockerRegistry::start(Options { auth: Auth::Basic, ..Options::default() }) else {
        return;
    };
    let app = repository(&registry.host(), "app");
    let error = CredentialError { host: registry.host(), message: "the helper gave no answer".into() };
    let source = Fixed::new(Err(error));
    let error =
        client(Vec::new(), Arc::clone(&source) as _).manifest(&app, "1").await.expect_err("no credentials");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("the helper gave no answer"), "{error}");
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn a_broken_token_service_is_asked_once_by_all() {
    // It answers 404, which is nothing that waiting cures.
    let tokens = Arc::new(AtomicUsize::new(0));
    let base = Arc::new(std::sync::OnceLock::<String>::new());
    let (count, realm) = (Arc::clone(&tokens), Arc::clone(&base));
    let server = Server::start(move |asked, _| {
        if asked.target.starts_with("/token") {
            count.fetch_add(1, Ordering::SeqCst);
            return Answer::new(404, "").slow(std::time::Duration::from_secs(1));
        }
        let realm = realm.get().expect("set before the first request");
        Answer::new(401, "").header("www-authenticate", format!("Bearer realm=\"{realm}/token\""))
    })
    .await;
    base.set(server.url()).expect("set once");
    let client = client(vec![plain(&server.host())], Arc::new(Anonymous));
    let app = repository(&server.host(), "app");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, app) = (client.clone(), app.clone());
        tasks.spawn(async move { client.manifest(&app, "1").await.expect_err("no token") });
    }
    while let Some(error) = tasks.join_next().await {
        let error = error.expect("no panic");
        assert_eq!(error.kind, ErrorKind::Unauthorized, "{error}");
        assert!(error.message.contains("token service"), "{error}");
    }
    let asked = tokens.load(Ordering::SeqCst);
    assert!(asked <= 5, "20 readers made {asked} requests; those that came together share one");
}

#[tokio::test]
async fn a_403_renews_what_was_kept_and_no_more() {
    // As ECR does for a password that is too old: 403, no challenge.
    let server = Server::start(|asked, number| match (asked.header("authorization"), number) {
        (None, _) => Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\""),
        (Some(_), 1) => Answer::new(200, "x").header("content-type", "text/plain"),
        _ => Answer::new(
            403,
            r#"{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired."}]}"#,
        ),
    })
    .await;
    let source = Fixed::login(("AWS", "old"));
    let client = client(vec![plain(&server.host())], Arc::clone(&source) as _);
    let app = repository(&server.host(), "app");
    client.manifest(&app, "1").await.expect("there");
    let error = client.manifest(&app, "1").await.expect_err("expired");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("DENIED Your Authorization Token has expired"), "{error}");
    assert_eq!(source.asked(), 2, "asked again, and the same password isn't sent again");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn having_none_is_remembered_for_a_while() {
    // Some repositories are for anybody, some aren't.
    let server = Server::start(|asked, _| {
        if asked.target.contains("private") {
            Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\"")
        } else {
            Answer::new(200, "x").header("content-type", "text/plain")
        }
    })
    .await;
    let source = Fixed::new(Ok(None));
    let (client, clock) =
        common::clocked_with(common::options(vec![plain(&server.host())]), Arc::clone(&source) as _);
    let (private, public) = (repository(&server.host(), "private"), repository(&server.host(), "public"));
    assert_eq!(client.manifest(&private, "1").await.expect_err("refused").kind, ErrorKind::Unauthorized);
    let before = source.asked();
    for (seconds, more) in [(0, 1), (0, 1), (299, 1), (2, 2)] {
        clock.advance(std::time::Duration::from_secs(seconds));
        client.manifest(&public, "1").await.expect("for anybody");
        assert_eq!(source.asked() - before, more, "after {seconds} s more");
    }
}

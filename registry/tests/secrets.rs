//! Nothing secret is ever printed: not in errors, not by `Debug`, not in logs, of whichever library they are.
//!
//! One test in a program of its own: it collects the logs of everything, at the finest level.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use common::{Fixed, client, noise, options, plain, read, repository};
use spandrel_fixtures::scripted::{Access, Fault, Kind, Rule, ScriptedRegistry, Settings};
use spandrel_registry::{Client, ClientOptions, Digest, HostConfig, media_type};

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything a client can do, well and badly; yields all that it could print.
async fn use_it(registry: &ScriptedRegistry, client: &Client, digest: &Digest) -> String {
    let app = repository(&registry.host(), "app");
    let mut shown = String::new();
    let mut note = |result: Result<(), spandrel_registry::Error>| {
        if let Err(error) = result {
            shown.push_str(&format!("{error}\n{error:?}\n"));
        }
    };
    for fault in [
        None,
        Some(Fault::status(500)),
        Some(Fault::status(403)),
        Some(Fault::status(404)),
        Some(Fault::retry_after(429, "600")),
        Some(Fault::ResetAfter(10)),
        Some(Fault::ContentRange("bytes 1-2/3".into())),
    ] {
        if let Some(fault) = fault {
            for kind in [Kind::Blob, Kind::BlobRange, Kind::Resolve, Kind::Manifest, Kind::Head, Kind::Upload]
            {
                registry.rule(Rule::new(kind, fault.clone()));
            }
            registry.expire_tokens();
            registry.expire_urls();
        }
        note(client.manifest(&app, "1").await.map(|_| ()));
        note(client.blob(&app, digest, 1000).await.map(|_| ()));
        note(read(client, &app, digest, 5..900).await.map(|_| ()));
        note(client.blob_size(&app, digest).await.map(|_| ()));
        note(client.referrers(&app, digest, "a/b").await.map(|_| ()));
        let new = noise(20);
        note(
            client
                .push_blob(&app, &Digest::sha256(&new), new, Some(&repository(&registry.host(), "from")))
                .await,
        );
        note(client.push_manifest(&app, "2", media_type::OCI_INDEX, "{}".into()).await.map(|_| ()));
        if let Ok(mut body) = client.blob_range(&app, digest, 1..500).await {
            let _ = body.chunk().await;
            shown_push(&mut note, format!("{body:?}"));
        }
        registry.clear_rules();
    }
    // The token service itself.
    registry.rule(Rule::new(Kind::Token, Fault::status(500)));
    registry.expire_tokens();
    note(client.manifest(&app, "1").await.map(|_| ()));
    registry.clear_rules();
    shown + &format!("{client:?}")
}

/// Puts any text among what was shown.
fn shown_push(note: &mut impl FnMut(Result<(), spandrel_registry::Error>), text: String) {
    note(Err(spandrel_registry::Error {
        kind: spandrel_registry::ErrorKind::Invalid,
        what: "Debug".into(),
        message: text,
    }));
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let logs = Collected::default();
    let writer = logs.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let mut shown = String::new();
    let mut secrets = vec!["X-Amz-".to_owned(), "scripted-token".to_owned(), "?service=".to_owned()];
    for (access, tls) in
        [(Access::Tokens, false), (Access::Basic, false), (Access::Tokens, true), (Access::Basic, true)]
    {
        let registry =
            ScriptedRegistry::start(Settings { access, tls, redirect: true, ..Settings::default() });
        let (user, password) = registry.login().expect("it has one");
        secrets.push(password.to_owned());
        secrets.push(base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")));
        let digest: Digest = registry.put_blob("app", noise(1000)).parse().expect("a digest");
        registry.put_manifest("app", "1", media_type::OCI_MANIFEST, "{}");
        let skip = |host: String| HostConfig { host, skip_verify: true, ..HostConfig::default() };
        let hosts = if tls {
            vec![skip(registry.host()), skip(registry.second_host())]
        } else {
            vec![plain(&registry.host())]
        };
        let (clocked, _) = common::clocked_with(
            ClientOptions { max_retries: 2, ..options(hosts.clone()) },
            Fixed::login((user, password)),
        );
        shown += &use_it(&registry, &clocked, &digest).await;
        let wrong = client(hosts, Fixed::login((user, "hunter2-secret")));
        let app = repository(&registry.host(), "app");
        let error = wrong.manifest(&app, "1").await.expect_err("wrong password");
        shown += &format!("{error}\n{error:?}\n");
        assert!(
            registry.log().iter().any(|seen| seen.query.contains("X-Amz-Signature")),
            "signed URLs were used"
        );
    }
    secrets.push("hunter2-secret".to_owned());
    secrets.push(base64::engine::general_purpose::STANDARD.encode("alice:hunter2-secret"));
    let logs = String::from_utf8_lossy(&logs.0.lock().expect("whole")).into_owned();
    assert!(logs.contains("try failed") && logs.lines().count() > 100, "logs were collected");
    assert!(
        shown.contains("403") && shown.contains("429") && shown.contains("500"),
        "errors were made: {shown}"
    );
    for secret in secrets {
        for text in [&shown, &logs] {
            let found = text.lines().find(|line| line.contains(&secret));
            assert!(found.is_none(), "{secret:?} is in {found:?}");
        }
    }
}

//! TLS, plain HTTP and proxies.

mod common;

use std::sync::{Arc, Mutex};

use common::scripted::{Answer, Server};
use common::{anonymous, noise, options, plain, push_image, read, repository};
use spandrel_fixtures::peers::{DockerRegistry, Options};
use spandrel_fixtures::scripted::{ScriptedRegistry, Settings};
use spandrel_fixtures::tls::Authority;
use spandrel_registry::{Anonymous, Client, Digest, ErrorKind, HostConfig, media_type};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A file with a certificate authority.
fn ca_file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pem).expect("written");
    file
}

fn trusting(host: &str, file: &tempfile::NamedTempFile) -> HostConfig {
    HostConfig { host: host.to_owned(), ca_files: vec![file.path().to_owned()], ..HostConfig::default() }
}

#[tokio::test]
async fn the_real_registry_with_tls() {
    let Some(registry) = DockerRegistry::start(Options { tls: true, ..Options::default() }) else { return };
    let host = registry.host();
    let (app, layer) = (repository(&host, "team/app"), noise(300_000));
    let own = ca_file(registry.ca_pem().expect("it has one"));
    let skipping = HostConfig { host: host.clone(), skip_verify: true, ..HostConfig::default() };
    for config in [trusting(&host, &own), skipping] {
        let client = anonymous(vec![config]);
        push_image(&client, &app, "1", &layer).await;
        assert_eq!(client.blob(&app, &Digest::sha256(&layer), 300_000).await.expect("there"), layer);
        assert_eq!(
            read(&client, &app, &Digest::sha256(&layer), 7..9).await.expect("there"),
            layer.slice(7..9)
        );
    }
    // An unknown authority is an error, not a reason to try without TLS, be it loopback or not.
    let foreign = ca_file(&Authority::new().ca_pem);
    for hosts in [Vec::new(), vec![trusting(&host, &foreign)]] {
        let error = anonymous(hosts).manifest(&app, "1").await.expect_err("not trusted");
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(
            error.message.contains("certificate isn't trusted") && error.message.contains("ca_files"),
            "{error}"
        );
    }
    let error = anonymous(vec![plain(&host)]).manifest(&app, "1").await.expect_err("it speaks TLS");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[test]
fn ca_files_are_read_at_the_start() {
    let (empty, garbage) =
        (ca_file(""), ca_file("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"));
    let mut missing = trusting("registry.example", &empty);
    missing.ca_files = vec!["/nowhere/ca.pem".into()];
    for (config, want) in [
        (missing, "/nowhere/ca.pem"),
        (trusting("registry.example", &empty), "no certificate"),
        (trusting("registry.example", &garbage), "PEM"),
    ] {
        let error = Client::new(options(vec![config]), Arc::new(Anonymous)).expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.to_string().contains(want) && error.what.contains("registry.example"), "{error}");
    }
}

#[tokio::test]
async fn that_loopback_speaks_plain_http_is_found_out_once() {
    let server =
        Server::start(|_, _| Answer::new(200, "{}").header("content-type", media_type::OCI_MANIFEST)).await;
    let client = anonymous(Vec::new());
    let app = repository(&server.host(), "app");
    for _ in 0..3 {
        client.manifest(&app, "1").await.expect("there");
    }
    assert_eq!(server.greetings(), 1, "TLS was tried once");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn images_of_a_host_share_connections_and_tokens() {
    let blob = noise(1000);
    let storage = {
        let blob = blob.clone();
        Server::start(move |asked, _| Answer::part(&blob, asked.range().expect("a range"))).await
    };
    let target = format!("{}/b", storage.url());
    // What nobody wants comes in chunks: it has to be read for the connection to be used again.
    let server = Server::start(move |asked, _| {
        let host = asked.header("host").expect("always");
        if asked.target.starts_with("/token") {
            return Answer::new(200, "{\"token\":\"t\"}");
        }
        if asked.header("authorization").is_none() {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return Answer::new(401, "refused").header("www-authenticate", challenge).chunked();
        }
        if asked.target.contains("/blobs/") {
            return Answer::new(307, "over there").header("location", target.clone()).chunked();
        }
        Answer::new(200, "{}").header("content-type", media_type::OCI_MANIFEST)
    })
    .await;
    let client = anonymous(vec![plain(&server.host())]);
    for (image, name) in ["app", "app", "other"].into_iter().enumerate() {
        let app = repository(&server.host(), name);
        client.manifest(&app, &image.to_string()).await.expect("there");
        for layer in 0..3 {
            let digest = Digest::sha256(format!("{image} {layer}").as_bytes());
            assert_eq!(read(&client, &app, &digest, 5..50).await.expect("there"), blob.slice(5..50));
        }
    }
    // The first request is refused, and no other: for the next repository it is known what the host asks for.
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.header("authorization").is_none()).count(), 1 + 2);
    assert_eq!(server.count("/token"), 2, "one for each repository");
    // One for what is small, one for blobs; and the token is asked for in the moment that the refusal has come, when the first
    // connection may not be free yet. Twelve requests and their nine redirects need no further one.
    assert!(server.connections() <= 3, "{}", server.connections());
    assert_eq!(storage.connections(), 1);
}

/// A proxy that notes what it is asked for, and connects to `upstream` whatever that was.
async fn proxy(upstream: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (log, upstream) = (Arc::clone(&log), upstream.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut first = String::new();
                stream.read_line(&mut first).await?;
                log.lock().expect("whole").push(first.trim().to_owned());
                let mut line = String::new();
                while stream.read_line(&mut line).await? > 2 {
                    line.clear();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut upstream = TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut upstream).await.map(|_| ())
            });
        }
    });
    (address, asked)
}

/// The environment belongs to the process: so the test runs itself in others, told by this variable what to do.
const CHILD: &str = "SPANDREL_TEST_PROXY_CHILD";

/// What a child does; it succeeds when it gets a manifest of the host.
async fn child(host: &str) {
    let config = HostConfig { host: host.to_owned(), skip_verify: true, ..HostConfig::default() };
    let client = Client::new(
        spandrel_registry::ClientOptions { max_retries: 0, ..options(vec![config]) },
        Arc::new(Anonymous),
    )
    .expect("a client");
    client.manifest(&repository(host, "app"), "1").await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn proxies_are_used_as_the_environment_says() {
    if let Ok(host) = std::env::var(CHILD) {
        child(&host).await;
        return;
    }
    let registry = ScriptedRegistry::start(Settings { tls: true, ..Settings::default() });
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, "{}");
    let (address, asked) = proxy(registry.host()).await;
    for (host, no_proxy, works, proxied) in [
        ("registry.invalid", "", true, true),
        ("registry.invalid:5000", "other.invalid", true, true),
        ("registry.invalid", "registry.invalid", false, false), // there is no such host
        (registry.host().as_str(), "", true, false),            // this machine is never reached by proxy
    ] {
        let output = tokio::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "proxies_are_used_as_the_environment_says"])
            .env(CHILD, host)
            .env("HTTPS_PROXY", format!("http://{address}"))
            .env("NO_PROXY", no_proxy)
            .env_remove("https_proxy")
            .env_remove("no_proxy")
            .output()
            .await
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success(), works, "{host} with NO_PROXY={no_proxy:?}: {text}");
        let asked = std::mem::take(&mut *asked.lock().expect("whole"));
        assert_eq!(!asked.is_empty(), proxied, "{host} with NO_PROXY={no_proxy:?}: {asked:?}");
        let port = if host.contains(':') { "" } else { ":443" };
        assert!(asked.iter().all(|line| *line == format!("CONNECT {host}{port} HTTP/1.1")), "{asked:?}");
    }
}

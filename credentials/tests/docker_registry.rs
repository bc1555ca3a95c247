//! A docker config and a credential helper, found by the environment, let the client into the real docker-registry.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use spandrel_credentials::{Credentials, DockerConfig, Options as Sources};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Options};
use spandrel_registry::{Client, ClientOptions, Digest, Repository};

/// The environment belongs to the process: so the test runs itself in another, told by this variable where the registry is.
const CHILD: &str = "SPANDREL_TEST_CREDENTIALS_CHILD";

/// Writes a blob and reads it, with nothing but what the environment says.
async fn child(host: &str) {
    let docker = DockerConfig::from_environment().expect("the environment names a folder");
    let source = Credentials::new(Sources { docker: Some(docker), ..Sources::default() });
    let client = Client::new(ClientOptions::default(), source).expect("a client");
    let repository = Repository::new(host, "team/app").expect("valid");
    let digest = Digest::sha256(b"hello");
    let pushed = client.push_blob(&repository, &digest, "hello".into(), None).await;
    pushed.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(client.blob(&repository, &digest, 5).await.expect("there"), "hello");
}

/// A program that answers for one server as credential helpers do.
fn write_helper(path: &Path, host: &str, (user, password): (&str, &str)) {
    let script = format!(
        "#!/bin/sh\nread -r server || true\nif test \"$1 $server\" = 'get {host}'; then\n\
         echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\nelse\n\
         echo 'credentials not found in native keychain'; exit 1\nfi\n"
    );
    std::fs::write(path, script).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn the_environment_lets_us_in() {
    if let Ok(host) = std::env::var(CHILD) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(child(&host));
        return;
    }
    for auth in [Auth::Basic, Auth::Token] {
        let Some(registry) = DockerRegistry::start(Options { auth, ..Options::default() }) else { return };
        let (host, login) = (registry.host(), registry.login().expect("it has one"));
        let folder = tempfile::tempdir().expect("a folder");
        write_helper(&folder.path().join("docker-credential-test"), &host, login);
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", login.0, login.1));
        for (config, works) in [
            (format!(r#"{{"auths":{{"{host}":{{"auth":"{pair}"}}}}}}"#), true),
            (format!(r#"{{"auths":{{"{host}/team":{{"auth":"{pair}"}}}}}}"#), true),
            (format!(r#"{{"auths":{{"{host}/other":{{"auth":"{pair}"}}}}}}"#), false),
            (format!(r#"{{"auths":{{"{host}":{{}}}},"credHelpers":{{"{host}":"test"}}}}"#), true),
            (r#"{"credsStore":"test"}"#.to_owned(), true),
            (r#"{"credsStore":"not-there"}"#.to_owned(), false),
            ("{}".to_owned(), false),
        ] {
            std::fs::write(folder.path().join("config.json"), &config).expect("written");
            let path = std::env::var("PATH").unwrap_or_default();
            let output = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "the_environment_lets_us_in"])
                .env(CHILD, &host)
                .env("DOCKER_CONFIG", folder.path())
                .env("PATH", format!("{}:{path}", folder.path().display()))
                .output()
                .expect("runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.success(), works, "{auth:?}, {config}: {text}");
            assert!(!text.contains(login.1) && !text.contains(&pair), "a secret was printed: {text}");
        }
    }
}

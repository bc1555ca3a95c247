//! Tests of docker's configuration and its helpers: files and little programs in a folder of each test's own.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

fn repository(host: &str) -> Repository {
    Repository::new(host, "team/app").expect("valid")
}

fn basic(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Basic { username: username.into(), password: password.into() })
}

/// What a file says for a host.
async fn said(source: &DockerConfig, host: &str) -> Result<Option<Credential>, CredentialError> {
    Ok(source.find(&repository(host), None).await?.map(|found| found.credential))
}

/// A config.json in a folder of its own.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new(config: &str) -> Self {
        let new = Self { folder: tempfile::tempdir().expect("a folder") };
        new.write(config);
        new
    }

    fn write(&self, config: &str) {
        std::fs::write(self.folder.path().join("config.json"), config).expect("written");
    }

    fn source(&self) -> DockerConfig {
        DockerConfig::new(self.folder.path().join("config.json"))
    }

    /// A helper that runs `script`, and its path without the file name's prefix, as `get` wants it.
    fn helper(&self, script: &str) -> String {
        let path = self.folder.path().join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path.to_str().expect("text").to_owned()
    }
}

#[tokio::test]
async fn a_changed_file_counts_at_once() {
    let setup = Setup::new(r#"{"auths":{"ghcr.io":{"username":"u","password":"one"}}}"#);
    let source = setup.source();
    assert_eq!(said(&source, "ghcr.io").await, Ok(basic("u", "one")));
    setup.write(r#"{"auths":{"ghcr.io":{"username":"u","password":"two"}}}"#);
    assert_eq!(said(&source, "ghcr.io").await, Ok(basic("u", "two")));
    std::fs::remove_file(&source.path).expect("removed");
    assert_eq!(said(&source, "ghcr.io").await, Ok(None));
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_not_none() {
    let setup = Setup::new(r#"{"auths":{"ghcr.io":{"auth":"hunter2"}}"#);
    let error = said(&setup.source(), "ghcr.io").await.expect_err("invalid");
    let text = error.to_string();
    assert!(text.contains("ghcr.io") && text.contains("config.json") && !text.contains("hunter2"), "{text}");

    let folder = DockerConfig::new(setup.folder.path());
    let error = said(&folder, "ghcr.io").await.expect_err("a folder");
    assert!(error.message.contains("regular file"), "{error}");

    let long = vec![b' '; usize::try_from(limits::MAX_CONFIG_LEN).expect("fits") + 1];
    std::fs::write(&setup.source().path, long).expect("written");
    let error = said(&setup.source(), "ghcr.io").await.expect_err("too long");
    assert!(error.message.contains("more than"), "{error}");
}

#[test]
fn the_place_comes_from_the_environment() {
    let path = |config: Option<&str>, home: Option<&str>| {
        DockerConfig::from_variables(config.map(Path::new), home.map(Path::new)).map(|found| found.path)
    };
    assert_eq!(path(Some("/d"), Some("/h")), Some(PathBuf::from("/d/config.json")));
    assert_eq!(path(None, Some("/h")), Some(PathBuf::from("/h/.docker/config.json")));
    assert_eq!(path(None, None), None);
}

/// Runs a helper by its path: `PATH` belongs to the whole process, so tests leave it alone.
async fn ask(setup: &Setup, script: &str, timeout: Duration) -> Result<Option<Credential>, String> {
    let helper = setup.helper(script);
    loop {
        match helper::run(&helper, "https://index.docker.io/v1/", timeout).await {
            // Another test's child, between fork and exec, still has the file open for writing.
            Err(error) if error.contains("busy") => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

#[tokio::test]
async fn helpers_are_asked_as_docker_asks_them() {
    let setup = Setup::new("{}");
    let second = Duration::from_secs(20);
    let script = r#"test "$1" = get || exit 9; read -r server || true; printf '{"ServerURL":"%s","Username":"%s","Secret":"s"}' "$server" "$server""#;
    assert_eq!(ask(&setup, script, second).await, Ok(basic("https://index.docker.io/v1/", "s")));
    let token = r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}'"#;
    assert_eq!(ask(&setup, token, second).await, Ok(Some(Credential::IdentityToken("t".into()))));
    let none = "echo 'credentials not found in native keychain'; exit 1";
    assert_eq!(ask(&setup, none, second).await, Ok(None));
    assert_eq!(ask(&setup, "echo '{}'", second).await, Ok(None));
}

#[tokio::test]
async fn failing_helpers_are_errors_without_secrets() {
    let setup = Setup::new("{}");
    for (script, want) in [
        ("echo 'no such session'; exit 3", "no such session"),
        (r#"echo '{"Secret":"hunter2"}'; exit 1"#, "exit status: 1"),
        ("echo 'hunter2'", "no JSON"),
        ("head -c 300000 /dev/zero", "more than"),
    ] {
        let error = ask(&setup, script, Duration::from_secs(20)).await.expect_err(script);
        assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
    }
    let error = helper::get("is-not-installed", "x", Duration::from_secs(1)).await.expect_err("missing");
    assert!(error.contains("docker-credential-is-not-installed isn't in PATH"), "{error}");
    for name in ["", "../evil", "a b", "a/b"] {
        let error = helper::get(name, "x", Duration::from_secs(1)).await.expect_err(name);
        assert!(error.contains("name"), "{error}");
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_ended_with_its_children() {
    let setup = Setup::new("{}");
    let pids = setup.folder.path().join("pids");
    let script = format!(
        "sleep 600 & echo $$ $! > {}.new; mv {}.new {}; wait",
        pids.display(),
        pids.display(),
        pids.display()
    );
    // The helper itself would take ten minutes. On a busy machine even a shell needs time to start.
    let mut written = None;
    for seconds in [1, 5, 30] {
        let error = ask(&setup, &script, Duration::from_secs(seconds)).await.expect_err("too slow");
        assert!(error.contains(&format!("no answer within {seconds} s")), "{error}");
        written = std::fs::read_to_string(&pids).ok();
        if written.is_some() {
            break;
        }
    }
    let written = written.expect("the helper had started");
    for pid in written.split_whitespace() {
        let until = Instant::now() + Duration::from_secs(20);
        // Ended, or a zombie that its parent (the runtime, or process 1) is about to reap.
        let gone = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        };
        while !gone() {
            assert!(Instant::now() < until, "process {pid} is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn secrets_are_not_printed() {
    let config = DockerConfig::new("/d/config.json");
    assert!(format!("{config:?}").contains("/d/config.json"));
    for credential in [
        Credential::Basic { username: "u".into(), password: "hunter2".into() },
        Credential::IdentityToken("hunter2".into()),
        Credential::RegistryToken("hunter2".into()),
    ] {
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}

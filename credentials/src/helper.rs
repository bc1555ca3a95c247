//! Credential helpers: `docker-credential-NAME get`, with the server on standard input and JSON on standard output.
//!
//! Source: docker-credential-helpers. A helper is somebody else's program: it gets limited time and output, and is ended
//! with whatever it started.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use spandrel_registry::Credential;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::limits::{MAX_HELPER_MESSAGE, MAX_HELPER_OUTPUT};

/// How helpers say that they have nothing: this text is part of their protocol.
const NOT_FOUND: &str = "credentials not found";

/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Asks a helper for the credential of `server`.
///
/// # Errors
/// A sentence that names the helper, and no secret.
pub(crate) async fn get(name: &str, server: &str, timeout: Duration) -> Result<Option<Credential>, String> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(sane) {
        return Err(format!("{name:?} can't be a credential helper's name"));
    }
    let program = format!("docker-credential-{name}");
    run(&program, server, timeout).await.map_err(|what| format!("{program} {what}"))
}

pub(crate) async fn run(
    program: &str,
    server: &str,
    timeout: Duration,
) -> Result<Option<Credential>, String> {
    let child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Helpers explain themselves on standard output; what a library of theirs logs isn't for us.
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                "isn't in PATH; install it, or take it out of the docker config".to_owned()
            }
            _ => format!("can't be started: {error}"),
        })?;
    let mut group = Group { leader: child.id(), child };
    match tokio::time::timeout(timeout, talk(&mut group.child, server)).await {
        Ok(Ok((status, output))) => understand(status, &output),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!("gave no answer within {} s", timeout.as_secs_f64())),
    }
}

/// A helper and whatever it started, ended when dropped.
struct Group {
    leader: Option<u32>,
    child: Child,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once it was waited for, its number may be somebody else's.
        if self.child.id().is_none() {
            return;
        }
        let leader =
            self.leader.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended just now; the runtime reaps it.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, server: &str) -> Result<(ExitStatus, Vec<u8>), String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    if let Some(mut stdin) = stdin {
        // A helper that doesn't read what it is asked shows in what it answers.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = stdout {
        let read = stdout.take(MAX_HELPER_OUTPUT + 1).read_to_end(&mut output).await;
        read.map_err(|error| format!("broke off: {error}"))?;
    }
    if u64::try_from(output.len()).unwrap_or(u64::MAX) > MAX_HELPER_OUTPUT {
        return Err(format!("wrote more than {MAX_HELPER_OUTPUT} bytes"));
    }
    let status = child.wait().await.map_err(|error| format!("can't be waited for: {error}"))?;
    Ok((status, output))
}

fn understand(status: ExitStatus, output: &[u8]) -> Result<Option<Credential>, String> {
    if !status.success() {
        let text = String::from_utf8_lossy(output);
        if text.contains(NOT_FOUND) {
            return Ok(None);
        }
        // What looks like an answer may hold a secret; an explanation is one line of prose.
        let line = text.lines().next().unwrap_or_default().trim();
        let shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_HELPER_MESSAGE).collect();
        let reason =
            if shown.is_empty() || line.contains(['{', '"']) { String::new() } else { format!(": {shown}") };
        return Err(format!("failed ({status}){reason}"));
    }
    let value: Value = serde_json::from_slice(output).map_err(|_| "answered with no JSON".to_owned())?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    if username == TOKEN_USER && !secret.is_empty() {
        return Ok(Some(Credential::IdentityToken(secret)));
    }
    if username.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential::Basic { username, password: secret }))
}

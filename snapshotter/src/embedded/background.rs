//! Starts the process that serves a mount apart from the caller's terminal, and waits until it has mounted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// Longest line that the process says, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// What the process writes before the sentence when it has mounted. Anything else is an error.
pub const READY: &str = "ready: ";

/// Starts this program with `args` and waits for what it says on standard output: [`READY`] and a sentence, which is
/// returned, or why it couldn't. Its log goes to `log`.
///
/// # Errors
/// What the process says, or that it ended without a word.
pub fn start(args: &[std::ffi::OsString], log: &Path) -> Result<String, Error> {
    let failed = |what: &str, error: &std::io::Error| Error::Internal(format!("{what}: {error}"));
    if let Some(dir) = log.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed(&dir.display().to_string(), &error))?;
    }
    let log_file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(|error| failed(&log.display().to_string(), &error))?;
    let mut child = Command::new("/proc/self/exe")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .map_err(|error| failed("the process that serves the mount can't be started", &error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout.take(MAX_LINE))
            .read_line(&mut line)
            .map_err(|error| failed("the process that serves the mount", &error))?;
    }
    if let Some(sentence) = line.strip_prefix(READY) {
        return Ok(sentence.trim_end().to_owned());
    }
    let status = child.wait().map_err(|error| failed("the process that serves the mount", &error))?;
    let said = line.trim_end();
    if said.is_empty() {
        let tail = fs::read_to_string(log).unwrap_or_default();
        let last = tail.lines().last().unwrap_or_default();
        return Err(Error::Internal(format!("the process that serves the mount ended ({status}): {last}")));
    }
    Err(Error::Internal(said.to_owned()))
}

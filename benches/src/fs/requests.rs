//! How many requests the kernel sent to Spandrel's device, from the daemon's metrics (docs/metrics.md).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The counter, one for each operation.
const COUNTER: &str = "spandrel_fuse_requests_total";

/// Longest that the daemon may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer that is read: many times what the daemon has to say.
const LARGEST: u64 = 4 << 20;

/// The operation that isn't counted: nobody waits until a file that was closed is released, which happens some time later.
const UNCOUNTED: &str = "operation=\"release\"";

/// Requests of all operations but [`UNCOUNTED`] since the daemon's start.
///
/// # Errors
/// When it doesn't answer.
pub(super) fn of(admin: &Path) -> Result<u64> {
    let ask = || {
        let mut stream = UnixStream::connect(admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // With HTTP/1.0 the answer ends where the connection does.
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.take(LARGEST).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    sum(&ask().with_context(|| format!("can't read metrics from {}", admin.display()))?)
}

/// The counter's sum in an answer.
fn sum(answer: &str) -> Result<u64> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the daemon's answer isn't HTTP")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("the daemon answers {:?}", head.lines().next().unwrap_or_default());
    }
    let values =
        body.lines().filter_map(|line| line.strip_prefix(COUNTER)?.strip_prefix('{')?.rsplit_once(' '));
    let mut total = 0_u64;
    for (labels, value) in values.filter(|(labels, _)| !labels.contains(UNCOUNTED)) {
        let value: u64 = value.trim().parse().with_context(|| format!("{COUNTER}{{{labels}: {value:?}"))?;
        total += value;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_added_up() {
        let body = "# TYPE spandrel_fuse_requests counter\nspandrel_fuse_requests_total{operation=\"read\"} 12\n\
                    spandrel_fuse_requests_total{operation=\"open\"} 3\n\
                    spandrel_fuse_requests_total{operation=\"release\"} 3\nspandrel_fuse_errors_total 9\n# EOF\n";
        assert_eq!(sum(&format!("HTTP/1.0 200 OK\r\na: b\r\n\r\n{body}")).unwrap(), 15);
        assert_eq!(sum("HTTP/1.0 200 OK\r\n\r\n# EOF\n").unwrap(), 0);
        assert!(sum("HTTP/1.0 404 Not Found\r\n\r\n").is_err());
        assert!(sum("HTTP/1.0 200 OK\r\n\r\nspandrel_fuse_requests_total{operation=\"read\"} x").is_err());
    }
}

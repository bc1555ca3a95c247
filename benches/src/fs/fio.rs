//! What fio prints with `--output-format=json` about one group of jobs that read.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What fio measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    /// Seconds that it read.
    pub seconds: f64,
    /// Bytes that it read.
    pub bytes: u64,
    /// Reads that it did.
    pub operations: u64,
    /// 99th percentile of a read's latency in seconds.
    pub latency_99: Option<f64>,
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i32,
    read: Direction,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: u64,
    /// Milliseconds.
    runtime: u64,
    total_ios: u64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    percentile: Option<std::collections::BTreeMap<String, u64>>,
}

/// Reads fio's output.
///
/// # Errors
/// When it isn't what fio prints, a job failed, or nothing was read.
pub(super) fn parse(text: &str) -> Result<Read> {
    // Notes come before it, on the same stream.
    let start = text.find('{').context("fio printed no JSON")?;
    let output: Output = serde_json::from_str(&text[start..]).context("fio's JSON can't be understood")?;
    let [job] = output.jobs.as_slice() else { bail!("fio reports {} groups", output.jobs.len()) };
    if job.error != 0 {
        bail!("fio reports error {}", job.error);
    }
    let read = &job.read;
    if read.io_bytes == 0 {
        bail!("fio read nothing");
    }
    let percentile = read.clat_ns.percentile.as_ref().and_then(|all| all.get("99.000000"));
    Ok(Read {
        // It counts whole milliseconds, 0 for less than one.
        seconds: read.runtime.max(1) as f64 / 1e3,
        bytes: read.io_bytes,
        operations: read.total_ios,
        latency_99: percentile.map(|&nanoseconds| nanoseconds as f64 / 1e9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_itself_is_understood() {
        let Some(fio) = spandrel_fixtures::require::program("fio") else { return };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, vec![7; 1 << 20]).unwrap();
        let output = std::process::Command::new(fio)
            .args([
                "--name=test",
                "--readonly",
                "--rw=randread",
                "--bs=64k",
                "--ioengine=psync",
                "--numjobs=2",
            ])
            .args(["--thread", "--size=512k", "--offset_increment=512k", "--group_reporting"])
            .args(["--output-format=json", &format!("--filename={}", file.display())])
            .output()
            .unwrap();
        let read = parse(&String::from_utf8(output.stdout).unwrap()).unwrap();
        assert_eq!((read.bytes, read.operations), (1 << 20, 16));
        assert!(read.seconds > 0.0 && read.latency_99.unwrap() > 0.0, "{read:?}");
    }

    #[test]
    fn what_went_wrong_is_no_figure() {
        let job = |error: i32, bytes: u64| {
            format!(
                "note: x\n{{\"jobs\": [{{\"error\": {error}, \"read\": {{\"io_bytes\": {bytes}, \"runtime\": 0, \
                 \"total_ios\": 1, \"clat_ns\": {{}}}}}}]}}"
            )
        };
        assert!(parse(&job(0, 1)).is_ok_and(|read| read.latency_99.is_none()));
        for text in [job(5, 1), job(0, 0), "{}".to_owned(), "{\"jobs\": []}".to_owned(), "no".to_owned()] {
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}

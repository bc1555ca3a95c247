//! Where the time of one start went: a file for one measurement, with every request and what the cores did meanwhile.
//!
//! `bench-start` leaves one for each measurement in the folder that `TRACE` names: lines of JSON, of which the proxy writes
//! those of requests, and [`Recorder`] what the cores did and when the program was ready. `account` makes a text of them, which
//! `bench-trace` prints.

mod account;

pub use account::account;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use spandrel_fixtures::proxy::Logged;

use crate::results::Cell;
use crate::usage::Machine;

/// How long a look at the cores takes: the kernel counts in ticks of 10 ms, of which this has some.
const WINDOW: Duration = Duration::from_millis(50);

/// One line of a trace. Times are seconds since the call of PullImage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A request that ended.
    Request(Logged),
    /// What all cores did from one moment to another, in CPU seconds.
    Cores {
        /// The beginning.
        from: f64,
        /// The end.
        to: f64,
        /// CPU seconds in which they did something.
        busy: f64,
    },
    /// The measurement.
    Start {
        /// Its name.
        name: String,
        /// How many cores there are.
        cores: usize,
        /// When PullImage returned.
        pulled: f64,
        /// When the program was ready.
        ready: f64,
    },
}

/// The file for a measurement in a folder of traces.
pub fn file(dir: &Path, cell: &Cell) -> PathBuf {
    let name = format!("{}-{}-{}-{}.jsonl", cell.workload, cell.network, cell.system, cell.repeat);
    dir.join(name.replace([':', '/'], "-"))
}

/// Looks at the cores until it is told to stop.
#[derive(Debug)]
pub struct Recorder {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Line>>,
}

impl Recorder {
    /// Begins; times count from now.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> Result<Self> {
        let (stop, stopped) = channel();
        let begin = Instant::now();
        let look = move || {
            let (mut lines, mut before, mut from) = (Vec::new(), Machine::now(), 0.0);
            while stopped.recv_timeout(WINDOW) == Err(RecvTimeoutError::Timeout) {
                let (now, to) = (Machine::now(), begin.elapsed().as_secs_f64());
                lines.push(Line::Cores { from, to, busy: now.busy - before.busy });
                (before, from) = (now, to);
            }
            lines
        };
        let thread = std::thread::Builder::new().name("cores".to_owned()).spawn(look).context("a thread")?;
        Ok(Self { stop, thread })
    }

    /// Ends, and adds what was seen and what was measured to the file, which has the requests.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(self, file: &Path, start: &Line) -> Result<()> {
        // It is there: it ends only when it is told to.
        let _ = self.stop.send(());
        let mut lines = self.thread.join().unwrap_or_default();
        lines.push(start.clone());
        let mut text = String::new();
        for line in lines {
            text += &serde_json::to_string(&line)?;
            text.push('\n');
        }
        let mut out = File::options().append(true).open(file);
        let written = out.as_mut().map_err(|error| std::io::Error::from(error.kind()));
        written
            .and_then(|out| out.write_all(text.as_bytes()))
            .with_context(|| format!("can't write {}", file.display()))
    }
}

/// Reads a trace.
///
/// # Errors
/// When it can't be read, or holds something else.
pub fn read(file: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("line {} of {} is no line of a trace", number + 1, file.display()))
    };
    text.lines().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let cell = Cell {
            machine: 0,
            at: String::new(),
            workload: "density:5:tar".to_owned(),
            system: "spandrel".to_owned(),
            network: "lan".to_owned(),
            repeat: 1,
        };
        let file = file(dir.path(), &cell);
        assert!(file.ends_with("density-5-tar-lan-spandrel-1.jsonl"));
        let request = Logged {
            begin: 0.5,
            first: Some(0.6),
            end: 1.0,
            kind: "blob".to_owned(),
            blob: None,
            range: None,
            bytes: 7,
        };
        std::fs::write(&file, serde_json::to_string(&request).unwrap() + "\n").unwrap();
        let recorder = Recorder::start().unwrap();
        let start = Line::Start { name: "x".to_owned(), cores: 2, pulled: 1.0, ready: 2.0 };
        recorder.finish(&file, &start).unwrap();
        let lines = read(&file).unwrap();
        assert_eq!((lines.first(), lines.last()), (Some(&Line::Request(request)), Some(&start)));
        assert!(Recorder::start().unwrap().finish(&dir.path().join("no/file"), &start).is_err());
        std::fs::write(&file, "{}\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("line 1 of"));
    }
}

//! What the tests of this crate share: a part of a test that runs in a process of its own, whose environment the AWS SDK
//! reads, and talks to the test by lines; and a clock that it moves.
#![allow(dead_code, reason = "each test needs a part")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use spandrel_registry::Clock;
use tokio::sync::watch;

/// Says which part a process is to play. (The environment belongs to a process: hence one for each.)
pub const PART: &str = "SPANDREL_TEST_CREDENTIALS_PART";

/// What marks lines that are meant for the test, among logs.
const MARK: &str = "@@ ";

/// Plays a part of a test in a process of its own.
#[derive(Debug)]
pub struct Player {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// All it has printed.
    pub printed: String,
}

impl Player {
    /// Starts the part in the test `test` of this program, in the environment that `change` makes.
    pub fn start(test: &str, part: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        change(&mut command);
        command.env(PART, part).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it runs");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout, printed: String::new() }
    }

    /// The next line that is meant for the test; `None` when it has ended.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("text") == 0 {
                return None;
            }
            self.printed.push_str(&line);
            // The harness writes its own words in front of the first.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Lets it go on.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    /// Waits for its end, which has to be a good one; returns all it has printed.
    pub fn end(mut self) -> String {
        while self.hear().is_some() {}
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{}", self.printed);
        std::mem::take(&mut self.printed)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the test, as the part.
pub fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{MARK}{line}").and_then(|()| stdout.flush()).expect("the test listens");
}

/// Says a line and waits until the test has answered: what it answered.
pub fn ask(line: &str) -> String {
    tell(line);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).expect("the test answers");
    answer.trim_end().to_owned()
}

/// Prints all logs there are, of whichever library, to standard output.
pub fn log_everything() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(std::io::stdout)
        .init();
}

/// The machine's time of day and a bit more; who sleeps wakes when the bit is large enough.
#[derive(Debug)]
pub struct MovedClock {
    start: SystemTime,
    ahead: watch::Sender<Duration>,
    slept: Mutex<Vec<Duration>>,
}

impl Default for MovedClock {
    fn default() -> Self {
        Self { start: SystemTime::now(), ahead: watch::Sender::new(Duration::ZERO), slept: Mutex::default() }
    }
}

impl MovedClock {
    /// Moves it on.
    pub fn advance(&self, time: Duration) {
        self.ahead.send_modify(|ahead| *ahead += time);
    }
}

#[async_trait]
impl Clock for MovedClock {
    fn now(&self) -> SystemTime {
        SystemTime::now() + *self.ahead.borrow()
    }

    fn elapsed(&self) -> Duration {
        SystemTime::now().duration_since(self.start).unwrap_or_default() + *self.ahead.borrow()
    }

    async fn sleep(&self, wait: Duration) {
        let until = *self.ahead.borrow() + wait;
        let mut ahead = self.ahead.subscribe();
        ahead.wait_for(|ahead| *ahead >= until).await.expect("the clock is here");
    }
}

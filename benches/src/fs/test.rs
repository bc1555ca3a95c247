//! The tests of `bench-fs`: their names, and the command of each.
//!
//! All of them run in a container of the workload `fs`, whose script says what `/data/big`, `/data/tree` and `/src` are.

use anyhow::{Result, bail};

use crate::results::fs::State;

/// The name that stands for [`SHORT`'s](SHORT) tests.
const SHORT_NAME: &str = "short";

/// A few that differ, for `./dev bench`: each needs a fresh node with each lazy system.
pub const SHORT: [&str; 3] = ["fio:read:buffered:1M:1", "find", "import"];

/// Bytes of `/data/big`.
const BIG: u64 = 256 << 20;

/// Longest that fio reads, in seconds: random reads of 4 KiB would take a minute for the whole file where each is a
/// request, and their rate is known long before.
const FIO_SECONDS: u32 = 3;

const PATTERNS: [&str; 2] = ["read", "randread"];
const ENGINES: [(&str, &str); 2] = [("buffered", "psync"), ("mmap", "mmap")];
const BLOCKS: [&str; 3] = ["4k", "64k", "1M"];
const JOBS: [u64; 2] = [1, 8];

/// Commands: the test's name, what is done before the clock runs, and what is timed. A shell runs them; what they print is of
/// no interest.
const COMMANDS: [(&str, &str, &str); 6] = [
    ("find", ":", "find /data/tree /usr"),
    ("stat", ":", "find /data/tree /usr -printf '%m %U %G %s %T@ %p\\n'"),
    ("ls", ":", "ls -lR /data/tree"),
    // GNU tar doesn't read what it writes to /dev/null itself; a pipe hides that it failed.
    (
        "tar",
        "rm -f /tmp/failed",
        "{ tar -C /data -cf - tree || touch /tmp/failed; } | cat >/dev/null; test ! -e /tmp/failed",
    ),
    (
        "import",
        ":",
        "python3 -B -c 'import argparse, asyncio, csv, ctypes, decimal, email.mime.multipart, http.server, json, \
         logging.config, multiprocessing.pool, sqlite3, ssl, tarfile, unittest.mock, urllib.request, xml.dom.minidom, \
         xmlrpc.client, zipfile'",
    ),
    // In the writable layer. Two compilers: the smallest machine that this is for has two cores.
    (
        "compile",
        "rm -rf /tmp/project /tmp/built",
        "cp -r /src /tmp/project && make -s -j2 -C /tmp/project OUT=/tmp/built",
    ),
];

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsTest {
    /// Its name in results: `fio:PATTERN:ENGINE:BLOCK:JOBS`, or the name of a command.
    pub name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Fio { pattern: &'static str, engine: &'static str, block: &'static str, jobs: u64 },
    Command { before: &'static str, command: &'static str },
}

impl FsTest {
    /// Every test, those of metadata first.
    pub fn all() -> Vec<Self> {
        let commands = COMMANDS.iter().map(|&(name, before, command)| Self {
            name: name.to_owned(),
            kind: Kind::Command { before, command },
        });
        let mut tests: Vec<_> = commands.collect();
        for pattern in PATTERNS {
            for (how, engine) in ENGINES {
                for block in BLOCKS {
                    for jobs in JOBS {
                        let name = format!("fio:{pattern}:{how}:{block}:{jobs}");
                        tests.push(Self { name, kind: Kind::Fio { pattern, engine, block, jobs } });
                    }
                }
            }
        }
        tests
    }

    /// The tests with these names, each once; `short` stands for several.
    ///
    /// # Errors
    /// When there is none of a name; the error lists those that there are.
    pub fn named(names: &[String]) -> Result<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        for name in names {
            let names = if name == SHORT_NAME { SHORT.to_vec() } else { vec![name.as_str()] };
            for name in names {
                let Some(test) = Self::all().into_iter().find(|test| test.name == name) else {
                    let names: Vec<_> = Self::all().into_iter().map(|test| test.name).collect();
                    bail!("there is no test {name:?}; there are: {SHORT_NAME}, {}", names.join(", "));
                };
                if !found.contains(&test) {
                    found.push(test);
                }
            }
        }
        Ok(found)
    }

    /// The states in which it is done. Cold is a subset: each such test wants a node of its own, and what the network
    /// does to the other block sizes and numbers of jobs is the same.
    pub fn states(&self) -> &'static [State] {
        let cold = match self.kind {
            Kind::Fio { pattern, engine, block, jobs } => {
                jobs == 1
                    && engine == "psync"
                    && matches!((pattern, block), ("read", "1M") | ("randread", "4k"))
            }
            // It does what stat does.
            Kind::Command { .. } => self.name != "ls",
        };
        if cold { &[State::Cold, State::Filled, State::Warm] } else { &[State::Filled, State::Warm] }
    }

    /// Whether it prints fio's JSON; the others print [`Self::script`]'s nanoseconds.
    pub fn is_fio(&self) -> bool {
        matches!(self.kind, Kind::Fio { .. })
    }

    /// What a shell in the container is to do.
    ///
    /// fio opens the file for reading only, reads every block at most once (jobs share the file between them), and
    /// leaves the page cache as it finds it: what is in it is the state's business. The time of a command is taken in the
    /// container, so that it doesn't contain the start of a process by CRI.
    pub fn script(&self) -> String {
        match &self.kind {
            Kind::Fio { pattern, engine, block, jobs } => {
                let share = BIG / jobs;
                format!(
                    "exec fio --name=test --filename=/data/big --readonly --rw={pattern} --bs={block} \
                     --ioengine={engine} --numjobs={jobs} --thread --size={share} --offset_increment={share} \
                     --runtime={FIO_SECONDS} --invalidate=0 --group_reporting --output-format=json"
                )
            }
            Kind::Command { before, command } => timed(before, command),
        }
    }

    /// What brings everything that the test reads into the page cache, beyond doing it: fio may end before it has read
    /// the whole file.
    pub fn warm_up(&self) -> Option<&'static str> {
        self.is_fio().then_some("cat /data/big >/dev/null")
    }
}

/// Prints the nanoseconds that a command takes.
fn timed(before: &str, command: &str) -> String {
    format!(
        "{before}; begin=$(date +%s%N) && {{ {command} >/dev/null; }} && end=$(date +%s%N) && echo $((end - begin))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_tests() {
        let all = FsTest::all();
        assert_eq!(all.len(), 30);
        let names: Vec<_> = all.iter().map(|test| test.name.clone()).collect();
        assert_eq!(FsTest::named(&names).unwrap(), all);
        let short = FsTest::named(&["find".to_owned(), "short".to_owned()]).unwrap();
        assert_eq!(short.len(), SHORT.len());
        let error = FsTest::named(&["nothing".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("there are: short, find"), "{error}");
        let cold = all.iter().filter(|test| test.states().contains(&State::Cold)).count();
        assert_eq!(cold, 7);
    }

    #[test]
    fn jobs_share_the_file() {
        let test = FsTest::named(&["fio:randread:mmap:64k:8".to_owned()]).unwrap();
        let script = test[0].script();
        assert!(script.contains("--numjobs=8") && script.contains("--size=33554432"), "{script}");
        assert!(script.contains("--ioengine=mmap") && script.contains("--rw=randread"), "{script}");
    }

    /// The shell that containers have is dash or a relative: this one's.
    #[test]
    fn a_command_that_fails_prints_no_time() {
        let run = |command: &str| {
            std::process::Command::new("sh").args(["-c", &timed(":", command)]).output().unwrap()
        };
        let ran = run("sleep 0.05");
        let nanoseconds: u64 = String::from_utf8(ran.stdout).unwrap().trim().parse().unwrap();
        assert!((50_000_000..50_000_000_000).contains(&nanoseconds), "{nanoseconds}");
        let ran = run("false");
        assert!(!ran.status.success() && ran.stdout.is_empty());
    }
}

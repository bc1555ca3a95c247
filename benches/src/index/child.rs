//! A program that is run to its end, and what it took.

use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::{interrupt, usage};

/// How often a program's peak of memory is read: it is gone when the program ends, so what comes in the last 5 ms is missed.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// How a program ended, and what it took.
#[derive(Debug)]
pub struct Ran {
    /// Seconds from its start to its end.
    pub seconds: f64,
    /// CPU seconds, user and system, to the kernel's clock tick.
    pub cpu: f64,
    /// Peak resident memory in bytes, as of at most 5 ms before its end.
    pub memory: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// All that it printed.
    pub printed: String,
}

/// Runs a program; `None` when the benchmark was interrupted, and the program ended.
///
/// # Errors
/// When it can't be started or waited for.
pub fn run(command: &mut Command) -> Result<Option<Ran>> {
    let mut output = tempfile::tempfile().context("a temporary file")?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    // A group of its own: an interruption is ours to tell it, after which its end isn't taken for a failure.
    command.process_group(0);
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("can't run {command:?}"))?;
    let memory = match watch(&child) {
        Ok(Some(memory)) => memory,
        stopped => {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return stopped.map(|_| None);
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    // As long as nobody has waited for it the kernel keeps its account.
    let cpu = usage::of(&[child.id()]).cpu;
    let status = child.wait()?;
    let mut printed = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut printed)?;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    Ok(Some(Ran { seconds, cpu, memory, status, printed }))
}

/// Waits for its end; returns its peak of memory, `None` when the benchmark was interrupted.
fn watch(child: &Child) -> Result<Option<u64>> {
    let handle = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut peak = 0;
    loop {
        peak = usage::peak(child.id()).max(peak);
        match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&LOOK_EVERY)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(Some(peak)),
            Err(error) => return Err(error.into()),
        }
        if interrupt::told() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_took_is_seen() {
        // A shell that keeps 20 MB and works for a while.
        let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' a); i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; \
                      echo done; echo apart >&2; exit 3";
        let ran = run(Command::new("sh").args(["-c", script])).unwrap().unwrap();
        assert_eq!((ran.status.code(), ran.printed.as_str()), (Some(3), "done\napart\n"));
        assert!(ran.memory > 20_000_000, "{ran:?}");
        assert!(ran.cpu > 0.05 && ran.seconds > 0.05, "{ran:?}");
        assert!(run(&mut Command::new("/nonexistent")).is_err());
    }
}

//! One measurement of `bench-start`: a container's start on a node that never saw the image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::cri::{Container, Cri, Spec};

use crate::depot::{Depot, Prepared};
use crate::network::Network;
use crate::node::{self, Node};
use crate::results::start::{Others, Passed, Start};
use crate::trace::{Line, Recorder};
use crate::usage::{self, Machine};
use crate::workload::Workload;

/// Longest until a program is ready: ten times what the slowest cell needs on two cores.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a container's log is looked at: short beside any start, and little work.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How often it is asked whether the container still runs.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a program may take to end when it is told to: postgres writes what it has.
const GRACE: Duration = Duration::from_secs(15);

/// How long the network is watched after the start in full runs.
pub const AFTER: Duration = Duration::from_secs(30);

/// What is measured on a node.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Before the node's registry.
    pub network: &'a Network,
    /// The registry.
    pub depot: &'a Depot,
    /// The image.
    pub prepared: &'a Prepared,
    /// What is started.
    pub workload: &'a Workload,
    /// Whether the network is watched for [`AFTER`] more. No second container is started then: it would find what was
    /// fetched meanwhile, or be what is watched.
    pub after: bool,
    /// Whether the pull is to leave a part of the image in the registry.
    pub lazy: bool,
    /// The log of the network's requests, and what the trace of this measurement is called: what else belongs to it is added.
    pub trace: Option<(&'a Path, &'a str)>,
}

/// Measures a start on this fresh node.
///
/// # Errors
/// When the image can't be pulled, was pulled in full although it is to be lazy, or the program doesn't say that it is ready;
/// the snapshotter's last words are shown.
pub async fn measure(node: &Node, asked: Asked<'_>) -> Result<Start> {
    let mut cri = node.cri().await?;
    let measured = measure_with(&mut cri, node, asked).await;
    node.told(measured, &asked.workload.name)
}

async fn measure_with(cri: &mut Cri, node: &Node, asked: Asked<'_>) -> Result<Start> {
    let Asked { network, depot, prepared, workload, after, lazy, trace } = asked;
    let spec = Spec { image: node.reference(&prepared.name), command: Vec::new(), env: workload.env.clone() };
    let mut warm = depot.files(prepared);
    warm.extend(programs(node));
    node::drop_caches(&warm)?;
    node.reset_peaks();
    let (before, explained) = (node.usage(), explained(depot));
    let machine = Machine::now();
    network.reset();
    let recorder = trace.map(|_| Recorder::start()).transpose()?;

    let begin = Instant::now();
    cri.pull(&spec.image).await.context("PullImage")?;
    let pulled = begin.elapsed();
    let fetched = network.passed().bytes;
    let container = cri.start_as(&spec).await.context("the container's start")?;
    wait_ready(cri, &container, &workload.ready).await?;
    let ready = begin.elapsed();

    let until_ready = network.passed();
    let machine_then = Machine::now();
    if let (Some(recorder), Some((file, name))) = (recorder, trace) {
        let (pulled, ready) = (pulled.as_secs_f64(), ready.as_secs_f64());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        recorder.finish(file, &Line::Start { name: name.to_owned(), cores, pulled, ready })?;
    }
    let used = node.usage();
    let explained = self::explained(depot) - explained;
    let disk = node.disk();
    let cpu = used.iter().map(|(role, used)| {
        let before = before.get(role).map_or(0.0, |before| before.cpu);
        (role.clone(), used.cpu - before)
    });
    let cpu: BTreeMap<String, f64> = cpu.collect();
    let others = Others {
        // Clock ticks are coarse, and processes that have ended take theirs with them.
        cpu: (machine_then.busy - machine.busy - explained - cpu.values().sum::<f64>()).max(0.0),
        stolen: machine_then.stolen - machine.stolen,
    };
    let memory = used.iter().map(|(role, used)| (role.clone(), used.peak)).collect();
    if lazy && fetched >= prepared.image.compressed {
        bail!(
            "the set-up is wrong: {fetched} bytes were fetched before the pull returned, and the image has {}: nothing \
             of it is lazy",
            prepared.image.compressed
        );
    }
    let (second_ready, after) = if after {
        let passed = watch(network).await;
        end(cri, container, workload).await;
        (None, Some(passed))
    } else {
        // The first one goes, since both may want the same port of the host.
        cri.kill(container).await;
        let begin = Instant::now();
        let container = cri.start_as(&spec).await.context("the second container's start")?;
        wait_ready(cri, &container, &workload.ready).await.context("the second container")?;
        let second_ready = begin.elapsed();
        end(cri, container, workload).await;
        (Some(second_ready.as_secs_f64()), None)
    };
    Ok(Start {
        pulled: pulled.as_secs_f64(),
        ready: ready.as_secs_f64(),
        second_ready,
        until_ready,
        after,
        cpu,
        others: Some(others),
        memory,
        disk,
    })
}

/// What passes the network in [`AFTER`] from now on.
async fn watch(network: &Network) -> Passed {
    network.reset();
    tokio::time::sleep(AFTER).await;
    network.passed()
}

/// Ends the last container as Kubernetes does; says so when it has to be killed.
async fn end(cri: &mut Cri, container: Container, workload: &Workload) {
    if !cri.end_within(container, GRACE).await {
        crate::say(&format!("{} doesn't end at SIGTERM: it was killed", workload.name));
    }
}

/// CPU seconds until now of what works for a measurement beside the node: this program, which the proxy is a part of, the
/// registry, and the kernel's own threads.
fn explained(depot: &Depot) -> f64 {
    /// The kernel's first thread, whose children all others are.
    const KTHREADD: u32 = 2;
    let others = [std::process::id()].into_iter().chain(depot.pid());
    usage::of_each(&others.collect::<Vec<_>>()).cpu + usage::of(&[KTHREADD]).cpu
}

/// Waits until a line of the container's output contains `text`.
///
/// # Errors
/// When it ends before, or takes too long: with what it printed.
pub async fn wait_ready(cri: &mut Cri, container: &Container, text: &str) -> Result<()> {
    let begin = Instant::now();
    let mut asked = begin;
    loop {
        if says(container.log(), text) {
            return Ok(());
        }
        if asked.elapsed() > ASK_EVERY {
            asked = Instant::now();
            let runs = cri.is_running(container).await;
            if says(container.log(), text) {
                return Ok(());
            }
            if !runs || begin.elapsed() > PATIENCE {
                let printed = std::fs::read_to_string(container.log()).unwrap_or_default();
                let how = if runs { "isn't ready in time" } else { "ended before it was ready" };
                bail!("the program {how}; it printed:\n{}", last_lines(&printed));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a complete line of the log contains `text`. Logs are short.
fn says(log: &Path, text: &str) -> bool {
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().any(|line| line.contains(text))
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Programs that a node has run before, so that they are in its memory.
pub fn programs(node: &Node) -> Vec<PathBuf> {
    let mut found = node.programs();
    found.extend(spandrel_fixtures::require::find_program("runc"));
    found.extend(spandrel_fixtures::require::find_program("unpigz"));
    found.sort();
    found.dedup();
    // One that was replaced meanwhile has another path.
    found.retain(|path| path.is_file());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_lines_count() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(!says(&log, "ready"));
        std::fs::write(&log, "t stdout F not yet\nt stdout F rea").unwrap();
        assert!(!says(&log, "ready"));
        std::fs::write(&log, "t stdout F not yet\nt stdout F ready").unwrap();
        assert!(!says(&log, "ready"));
        std::fs::write(&log, "t stdout F not yet\nt stdout F ready\n").unwrap();
        assert!(says(&log, "ready"));
    }
}

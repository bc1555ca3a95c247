//! A node with the image pulled and a container running: where tests are measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::cri::{Container, Cri, Ran, Spec};

use super::test::FsTest;
use super::{fio, requests};
use crate::depot::{Depot, Prepared};
use crate::network::Network;
use crate::node::{self, Node, Snapshotter};
use crate::results::fs::{State, Test};
use crate::start::programs;
use crate::system::System;

/// Longest that a command in the container may take: many times what reading the whole image takes the slowest.
const PATIENCE: Duration = Duration::from_secs(900);

/// The network is quiet when nothing came for so long: longer than any request takes.
const QUIET: Duration = Duration::from_secs(1);

/// Longest that is waited for quiet: whoever goes on fetching for longer isn't waited for.
const UNTIL_QUIET: Duration = Duration::from_secs(30);

/// What the shell that takes the time needs itself: it shall be in the page cache before any test.
const SHELL: &str = "date >/dev/null";

/// Reads every file of the image once.
const READ_ALL: &str = "find / -xdev -type f -print0 | xargs -0 cat >/dev/null";

/// A node, its container, and the network that is its own.
// Fields are dropped in this order: whoever uses the others goes first.
#[derive(Debug)]
pub struct Station {
    cri: Cri,
    container: Container,
    node: Node,
    network: Network,
    /// What stays in the page cache when it is dropped: what isn't the container's.
    keep: Vec<PathBuf>,
    is_filled: bool,
    /// Name of the test that was done last.
    last: Option<String>,
}

impl Station {
    /// A fresh node of `system` with the image just pulled, and a container of it that sleeps.
    ///
    /// # Errors
    /// When it doesn't start, or the image can't be pulled: with the snapshotter's last words.
    pub async fn open(
        system: &dyn System,
        network: &str,
        depot: &Depot,
        prepared: &Prepared,
    ) -> Result<Self> {
        let network = Network::start(network, depot)?;
        let node = system.start(&network)?;
        let mut cri = node.cri().await?;
        let spec = Spec::sleeping(&node.reference(&prepared.name));
        let start = async {
            cri.pull(&spec.image).await.context("PullImage")?;
            cri.start_as(&spec).await.context("the container's start")
        };
        let container = node.told(start.await, "the container doesn't start")?;
        let mut keep = depot.files(prepared);
        keep.extend(programs(&node));
        // A system that isn't lazy has all bytes when the pull has returned.
        Ok(Self { cri, container, node, network, keep, is_filled: !system.is_lazy(), last: None })
    }

    /// Does a test in a state; what the state asks for is brought about first. Warm does it once more when
    /// it wasn't the last one here.
    ///
    /// # Errors
    /// When the test fails, or doesn't print what it should.
    pub async fn measure(&mut self, test: &FsTest, state: State) -> Result<Test> {
        match state {
            State::Cold => self.empty_memory().await?,
            State::Filled => {
                self.fill().await?;
                self.empty_memory().await?;
            }
            State::Warm => {
                self.fill().await?;
                if self.last.as_ref() != Some(&test.name) {
                    self.run(&test.script()).await?;
                }
                if let Some(script) = test.warm_up() {
                    self.run(script).await?;
                }
            }
        }
        self.last = Some(test.name.clone());
        let measured = self.observe(test).await;
        self.node.told(measured, &test.name)
    }

    /// Brings all bytes of the image onto the node's disk, once.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn fill(&mut self) -> Result<()> {
        if self.is_filled {
            return Ok(());
        }
        self.run(READ_ALL).await.context("reading the whole image")?;
        // What was fetched beyond that, and what is done with it, shall not be part of a test.
        let begin = Instant::now();
        let mut passed = self.network.passed().bytes;
        while begin.elapsed() < UNTIL_QUIET {
            tokio::time::sleep(QUIET).await;
            let now = self.network.passed().bytes;
            if now == passed {
                break;
            }
            passed = now;
        }
        self.is_filled = true;
        Ok(())
    }

    /// Drops pages, dentries and inodes; the shell that runs tests is read again, so that it is no part of them.
    async fn empty_memory(&mut self) -> Result<()> {
        node::drop_caches(&self.keep)?;
        self.run(SHELL).await?;
        Ok(())
    }

    async fn observe(&mut self, test: &FsTest) -> Result<Test> {
        let requests_before = self.requests()?;
        let cpu_before = self.cpu();
        self.network.reset();
        let ran = self.run(&test.script()).await?;
        let network_bytes = self.network.passed().bytes;
        let cpu = self.cpu();
        let requests = self.requests()?;
        let mut done = Test {
            seconds: 0.0,
            bytes: None,
            operations: None,
            latency_99: None,
            fuse_requests: requests.zip(requests_before).map(|(after, before)| after.saturating_sub(before)),
            snapshotter_cpu: cpu.zip(cpu_before).map(|(after, before)| after - before),
            network_bytes,
        };
        if test.is_fio() {
            let read = fio::parse(&ran.out)?;
            done.seconds = read.seconds;
            done.bytes = Some(read.bytes);
            done.operations = Some(read.operations);
            done.latency_99 = read.latency_99;
        } else {
            let nanoseconds: u64 =
                ran.out.trim().parse().with_context(|| format!("no time, but {:?}", ran.out))?;
            done.seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
        }
        Ok(done)
    }

    /// Requests to the snapshotter's FUSE file system since its start, of one that says so.
    fn requests(&self) -> Result<Option<u64>> {
        match &self.node.snapshotter {
            Snapshotter::Spandrel(daemon) => requests::of(&daemon.admin_socket()).map(Some),
            _ => Ok(None),
        }
    }

    /// CPU seconds of the snapshotter's processes since their start.
    fn cpu(&self) -> Option<f64> {
        self.node.usage().get("snapshotter").map(|usage| usage.cpu)
    }

    async fn run(&mut self, script: &str) -> Result<Ran> {
        let ran = self.cri.exec_within(&self.container, script, PATIENCE).await?;
        if ran.code != 0 {
            bail!("{script}: exit code {}: {}", ran.code, ran.err.trim());
        }
        Ok(ran)
    }

    /// Ends the container and the node.
    pub async fn close(self) {
        let Self { mut cri, container, node, network, .. } = self;
        cri.kill(container).await;
        drop((cri, node, network));
    }
}

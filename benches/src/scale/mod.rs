//! The measurements of `bench-node`: a node that gets more and more images, asked at some points how it does.
//!
//! `images` makes them, `question` says what is asked of which node, `bundle` is a container that needs no image,
//! `views` what keeps images in use. One node answers all questions of a repeat, in the
//! order of their images: filling it is most of the work.

mod bundle;
mod images;
mod question;
mod views;

pub use images::Images;
pub use question::{Kind, Question, most_images};

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::join_all;
use spandrel_fixtures::cri::{Cri, Spec};
use tokio::runtime::Runtime;

use self::bundle::Bundle;
use self::views::Views;
use crate::network::Network;
use crate::node::{Node, Snapshotter, drop_caches};
use crate::results::node::Node as Found;
use crate::start::wait_ready;
use crate::{interrupt, usage};

/// Containers that are started one after the other for a median, each of another image.
const STARTS: usize = 5;

/// How often `runc` runs a container of its own for a median: it takes some ten milliseconds, and differences are small.
const RUNS: usize = 25;

/// How often the daemon is started again.
const RESTARTS: usize = 3;

/// What [`Spec::sleeping`]'s program says when it runs.
const READY: &str = "started";

/// A node, and how many images it has.
// Dropped in this order: connections belong to the runtime.
#[derive(Debug)]
pub struct Session {
    filling: Filling,
    runtime: Runtime,
}

#[derive(Debug)]
struct Filling {
    cri: Cri,
    // After whoever talks to it.
    node: Node,
    pulled: usize,
    /// Those that keep all images in use, where that is to be so.
    views: Option<Views>,
}

impl Session {
    /// A node without images.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(kind: Kind, network: &Network) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = kind.start(network)?;
        let cri = runtime.block_on(node.cri())?;
        let views = (kind == Kind::Mounted).then(Views::default);
        Ok(Self { filling: Filling { cri, node, pulled: 0, views }, runtime })
    }

    /// Images on it.
    pub fn images(&self) -> usize {
        self.filling.pulled
    }

    /// Answers a question that is asked of a node with `before` images; `None` when interrupted.
    ///
    /// # Errors
    /// When images can't be pulled or containers started; the snapshotter's last words are shown.
    pub fn answer(&mut self, question: Question, before: usize) -> Result<Option<Found>> {
        let answer = self.runtime.block_on(interrupt::or(self.filling.answer(question, before)));
        let answer = answer.transpose();
        self.filling.node.told(answer, &question.to_string())
    }
}

/// Starts a container and ends it, also one that isn't ready in time; seconds from `begin` until it was.
async fn start_and_kill(cri: &mut Cri, spec: &Spec, begin: Instant) -> Result<f64> {
    let container = cri.start_as(spec).await.context("a container's start")?;
    let ready = wait_ready(cri, &container, READY).await.map(|()| begin.elapsed().as_secs_f64());
    cri.kill(container).await;
    ready
}

impl Filling {
    async fn answer(&mut self, question: Question, images: usize) -> Result<Found> {
        // A run that goes on where another was has what came before yet to do: it is no part of the answer.
        self.pull(images).await?;
        let before = self.cpu();
        let mut seconds = BTreeMap::new();
        match question {
            Question::Images(count) => {
                let pulls = self.pull(count).await?;
                if !pulls.is_empty() {
                    seconds.insert("pull".to_owned(), pulls);
                }
                if count > 0 {
                    seconds.insert("start".to_owned(), self.start_some().await?);
                }
                let used = self.look(seconds, before);
                // What runs it isn't the snapshotter, and what it takes isn't counted.
                let bundle = Bundle::new()?;
                let runs = (0..RUNS).map(|_| bundle.run()).collect::<Result<Vec<_>>>()?;
                let mut seconds = used.seconds.clone();
                seconds.insert("runc".to_owned(), runs);
                Ok(Found { seconds, ..used })
            }
            Question::Starts(count) => self.start_at_once(count, before).await,
            Question::Restart => self.restart().await,
        }
    }

    /// Pulls until there are so many; seconds of each.
    async fn pull(&mut self, images: usize) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        while self.pulled < images {
            let reference = self.reference(self.pulled);
            let begin = Instant::now();
            self.cri.pull(&reference).await.with_context(|| format!("PullImage of {reference}"))?;
            seconds.push(begin.elapsed().as_secs_f64());
            self.pulled += 1;
        }
        if let Some(views) = &mut self.views {
            views.hold_all(&self.node.containerd)?;
        }
        Ok(seconds)
    }

    /// Starts some containers one after the other, of images from all over the node; seconds of each until ready.
    async fn start_some(&mut self) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for at in 0..STARTS {
            let spec = Spec::sleeping(&self.reference(at * self.pulled / STARTS));
            let begin = Instant::now();
            seconds.push(start_and_kill(&mut self.cri, &spec, begin).await?);
        }
        Ok(seconds)
    }

    /// Starts containers at once, of an image each; looks while all of them run.
    async fn start_at_once(&mut self, count: usize, before: f64) -> Result<Found> {
        ensure!(count <= self.pulled, "there are {} images for {count} containers", self.pulled);
        let mut clients = Vec::new();
        for at in 0..count {
            let (socket, dir) = (self.node.containerd.socket(), self.node.containerd.dir());
            let spec = Spec::sleeping(&self.reference(at * self.pulled / count));
            clients.push((Cri::connect(&socket, dir).await, spec));
        }
        let begin = Instant::now();
        let starts = clients.iter_mut().map(|(cri, spec)| async move {
            let container = cri.start_as(spec).await.context("a container's start")?;
            let ready = wait_ready(cri, &container, READY).await;
            Ok::<_, anyhow::Error>((container, ready.map(|()| begin.elapsed().as_secs_f64())))
        });
        let started = join_all(starts).await;
        let used = self.look(BTreeMap::new(), before);
        // Those of a question that fails go too: the next question is asked of the same node.
        let (mut seconds, mut failed) = (Vec::new(), None);
        for started in started {
            match started {
                Ok((container, ready)) => {
                    self.cri.kill(container).await;
                    match ready {
                        Ok(after) => seconds.push(after),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Found { seconds: BTreeMap::from([("start".to_owned(), seconds)]), ..used }),
        }
    }

    /// Ends the daemon and starts it again; then a container starts that reads layers which nobody has read. (A container
    /// that ran meanwhile would have lost its layers.)
    async fn restart(&mut self) -> Result<Found> {
        let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for restart in 0..RESTARTS {
            // What is in the page cache would be read without the daemon.
            drop_caches(&[])?;
            let begin = Instant::now();
            let Snapshotter::Spandrel(daemon) = &mut self.node.snapshotter else {
                bail!("this node has no daemon that could be started again");
            };
            daemon.restart();
            seconds.entry("restart".to_owned()).or_default().push(begin.elapsed().as_secs_f64());
            let spec = Spec::sleeping(&self.reference(restart * self.pulled / RESTARTS));
            let ready = start_and_kill(&mut self.cri, &spec, begin).await.context("after the restart")?;
            seconds.entry("ready".to_owned()).or_default().push(ready);
        }
        // The process that is there now, since its start.
        Ok(self.look(seconds, 0.0))
    }

    fn reference(&self, number: usize) -> String {
        self.node.reference(&Images::name(number))
    }

    /// What keeps the images: containerd itself where it has no other snapshotter.
    fn usage(&self) -> usage::Usage {
        let snapshotter = self.node.processes("snapshotter");
        usage::of_each(&if snapshotter.is_empty() { self.node.processes("containerd") } else { snapshotter })
    }

    fn cpu(&self) -> f64 {
        self.usage().cpu
    }

    fn look(&self, seconds: BTreeMap<String, Vec<f64>>, cpu_before: f64) -> Found {
        let used = self.usage();
        Found {
            seconds,
            memory: used.resident,
            descriptors: used.descriptors,
            threads: used.threads,
            mounts: self.mounts(),
            cpu: used.cpu - cpu_before,
        }
    }

    /// Mounts below the folders of this node's programs; others on the machine aren't this node's.
    fn mounts(&self) -> u64 {
        let mut dirs = vec![self.node.containerd.dir().to_owned()];
        if let Snapshotter::Spandrel(daemon) = &self.node.snapshotter {
            dirs.push(daemon.root());
        }
        let dirs: Vec<_> = dirs.iter().map(|dir| format!(" {}/", dir.display())).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().filter(|line| dirs.iter().any(|dir| line.contains(dir))).count() as u64
    }
}

//! Starts: how soon programs are ready, what it took, where Spandrel loses.
//!
//! `tables` has the figures, `limit` what was possible, `loses` the cells where another is sooner, `pictures` bars and dots. The density sweep
//! (`density:PERCENT:ORDER`) is a workload like others, but its cells are points of curves: `density` has them.

pub mod density;
mod limit;
mod loses;
mod pictures;
mod tables;

use anyhow::Result;

use super::groups::{Group, Groups, names};
use super::page::Page;
use super::systems;
use crate::results::start::{Image, Start, Value};
use crate::results::{Plan, Run};

/// Starts by cell, with the names of what was planned.
#[derive(Debug)]
pub struct Starts<'a> {
    groups: Groups<'a, Value, Start>,
    names: Plan,
    absent: Vec<&'a str>,
}

/// One cell's.
type Cell<'a> = Group<'a, Value, Start>;

impl<'a> Starts<'a> {
    /// Puts a run's values together.
    pub fn of(run: &'a Run<Value>) -> Self {
        Self {
            groups: Groups::of(&run.values, |value| &value.outcome),
            names: names(&run.plan, &run.values),
            absent: run.absent.iter().map(|absent| absent.system.as_str()).collect(),
        }
    }

    /// Workloads tried on this network that aren't points of the density sweep.
    fn workloads(&self, network: &str) -> Vec<&str> {
        let tried = self.names.workloads.iter().map(String::as_str);
        tried.filter(|name| density::parse(name).is_none() && self.groups.tried(network, name)).collect()
    }

    /// Whether a start that tables of this network show was disturbed.
    fn disturbed(&self, network: &str) -> bool {
        let cells = self.groups.0.iter().filter(|cell| cell.network == network);
        cells.flat_map(|cell| &cell.measured).any(|start| tables::is_disturbed(start))
    }

    /// The image of a workload, as any system had it.
    fn image(&self, network: &str, workload: &str) -> Option<&'a Image> {
        let cells = self.groups.0.iter().filter(|cell| cell.network == network && cell.workload == workload);
        let images = cells.flat_map(|cell| &cell.values).map(|value| &value.image);
        // A start that failed early may know nothing of it.
        images.max_by_key(|image| (image.compressed, image.layers))
    }

    /// Which system is Spandrel with lazy loading; of several versions the newest.
    fn ours(&self) -> &str {
        systems::ours(&self.names.systems)
    }

    /// Place of a system among all, for its colour.
    fn place(&self, system: &str) -> usize {
        self.names.systems.iter().position(|name| name == system).unwrap_or_default()
    }

    /// What a table says where there is no figure.
    fn without(&self, network: &str, workload: &str, system: &str) -> &'static str {
        match self.groups.get(network, workload, system) {
            Some(cell) if cell.failed() > 0 => "failed",
            _ if self.absent.contains(&system) => "not there",
            _ => "–",
        }
    }
}

/// Writes the sections about starts.
///
/// # Errors
/// When a picture can't be drawn.
pub fn write(page: &mut Page, run: &Run<Value>) -> Result<()> {
    let starts = Starts::of(run);
    for network in &starts.names.networks {
        if starts.workloads(network).is_empty() {
            continue;
        }
        page.heading(2, format!("Start at {network}"));
        page.prose(
            "Time from the call of PullImage to the line that means ready: median (least–greatest), and against \
             containerd's overlayfs. Where a ratio begins with ~, repeats are further apart than the two medians, or there \
             is one value.",
        );
        if starts.disturbed(network) {
            page.prose(
                "†: a repeat was disturbed: processes that have nothing to do with it, or other machines of the host, took more \
                 than a fifth of a core meanwhile.",
            );
        }
        page.table(tables::overview(&starts, network));
        pictures::times(page, &starts, network)?;
        let versions = tables::versions(&starts, network);
        if !versions.rows.is_empty() {
            page.heading(3, format!("Versions of Spandrel at {network}"));
            page.prose("Time to ready of each, and of the last against the one before it.");
            page.table(versions);
        }
        let limits = limit::table(&starts, network);
        if !limits.rows.is_empty() {
            page.heading(3, format!("Distance to the limit at {network}"));
            page.prose(
                "*limit*: the program alone (a second container on overlayfs, with image and page cache warm), the fewest bytes \
                 with which it became ready (lazily, with index and manifests) at the network's rate, and four round trips. \
                 Systems: ready, in multiples of it. Where the fewest bytes were fetched with others ahead of need, the true \
                 limit is lower.",
            );
            page.table(limits);
        }
        page.heading(3, format!("In detail at {network}"));
        page.table(tables::times(&starts, network));
        page.heading(3, format!("What passed the network at {network}"));
        page.prose(
            "Until ready, medians. *chain*: the longest chain of requests each of which began after the one before had \
             ended. *of the image*: bytes against the image's size in the registry. *30 s after*: bytes in the 30 s \
             after ready, where that was measured.",
        );
        page.table(tables::network(&starts, network));
        pictures::bytes(page, &starts, network)?;
        page.heading(3, format!("What it took of the node at {network}"));
        page.prose(
            "Until ready, medians: CPU seconds and peak resident memory by role, bytes allocated on disk. containerd's CPU \
             includes unpigz, the shim's runc; *program* is what runs in the container and its sandbox (where there is no \
             such column, the shim's includes it). Memory is of processes that are there when the program is ready, and not of \
             those that have ended (unpigz, runc).",
        );
        page.table(tables::cost(&starts, network));
    }
    loses::write(page, &starts);
    density::write(page, &starts)
}

/// Writes the picture of memory against layers, from starts and, where there are some, looks at a full node.
///
/// # Errors
/// When the picture can't be drawn.
pub fn memory(
    page: &mut Page,
    run: Option<&Run<Value>>,
    node: Option<&Run<crate::results::node::Value>>,
) -> Result<()> {
    pictures::memory(page, run.map(Starts::of).as_ref(), node)
}

pub use tables::{layers, spread};

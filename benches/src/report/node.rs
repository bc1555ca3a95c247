//! The section about one node with very many images.

use super::groups::{Group, Groups, names};
use super::page::Page;
use super::start::spread;
use super::stats::Stat;
use super::table::Table;
use super::units::{bytes, count, float, seconds};
use crate::results::Run;
use crate::results::node::{Node, Value};

/// Writes the section.
pub fn write(page: &mut Page, run: &Run<Value>) {
    let names = names(&run.plan, &run.values);
    let groups = Groups::of(&run.values, |value| &value.outcome);
    page.heading(2, "Scale on one node");
    page.prose(
        "*images:N*: a node with so many images pulled. *starts:N*: so many containers started at once. *restart*: the daemon, with \
         all of them. Times are of every container or restart of every repeat; *ready* is when a container that was started after a \
         restart is ready; *runc* is `runc run` of a container that has nothing to do with the images: what it takes longer beside them is \
         the mounts' doing. *spandrel-mounted* has a view of each image, as if a container of each ran, so that all layers are in use and \
         mounted; on *spandrel* the hundred used last are. Memory, descriptors, threads and CPU are the snapshotter's, which for overlayfs is containerd.",
    );
    let mut times =
        Table::new(4, ["question", "system", "network", "time", "median (least to greatest)", "of"]);
    let mut holds = Table::new(
        3,
        [
            "question",
            "system",
            "network",
            "images",
            "layers",
            "memory",
            "descriptors",
            "threads",
            "mounts",
            "CPU",
        ],
    );
    for workload in &names.workloads {
        for network in &names.networks {
            for system in &names.systems {
                let Some(group) = groups.get(network, workload, system) else { continue };
                holds.row(held(group));
                for (what, stat) in timed(group) {
                    times.row([
                        workload.clone(),
                        system.clone(),
                        network.clone(),
                        what.to_owned(),
                        spread(&stat),
                        stat.count.to_string(),
                    ]);
                }
            }
        }
    }
    page.table(times);
    page.table(holds);
}

/// All values of each name, of all repeats together.
fn timed<'a>(group: &Group<'a, Value, Node>) -> Vec<(&'a str, Stat)> {
    let mut names: Vec<&str> =
        group.measured.iter().flat_map(|node| node.seconds.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let stat = |name: &'a str| {
        let values = group.measured.iter().filter_map(|node| node.seconds.get(name)).flatten();
        Some((name, Stat::of(values.copied())?))
    };
    names.into_iter().filter_map(stat).collect()
}

fn held(group: &Group<'_, Value, Node>) -> Vec<String> {
    let mut row = vec![group.workload.to_owned(), group.system.to_owned(), group.network.to_owned()];
    let first = group.values.first();
    row.push(first.map(|value| value.images.to_string()).unwrap_or_default());
    row.push(first.map(|value| value.layers.to_string()).unwrap_or_default());
    if group.measured.is_empty() {
        row.push("failed".to_owned());
        return row;
    }
    let written = |figure: fn(&Node) -> f64, write: fn(f64) -> String| {
        group.stat(figure).map_or_else(String::new, |stat| write(stat.median))
    };
    row.extend([
        written(|node| float(node.memory), bytes),
        written(|node| float(node.descriptors), count),
        written(|node| float(node.threads), count),
        written(|node| float(node.mounts), count),
        written(|node| node.cpu, seconds),
    ]);
    row
}

//! Tables of starts.

use super::{Cell, Starts};
use crate::report::stats::Stat;
use crate::report::systems::{self, BASELINE};
use crate::report::table::Table;
use crate::report::units::{bytes, count, float, percent, ratio, seconds, whole_bytes};
use crate::results::start::Start;

/// Workloads down, systems across.
pub fn overview(starts: &Starts<'_>, network: &str) -> Table {
    let systems = &starts.names.systems;
    let mut table = Table::new(1, std::iter::once("workload").chain(systems.iter().map(String::as_str)));
    for workload in starts.workloads(network) {
        let base = ready(starts, network, workload, BASELINE);
        let cells = systems.iter().map(|system| {
            let Some(stat) = ready(starts, network, workload, system) else {
                return starts.without(network, workload, system).to_owned();
            };
            let against = base.filter(|_| system != BASELINE);
            let against = against.map(|base| format!(", {}", compared(&stat, &base))).unwrap_or_default();
            let cell = starts.groups.get(network, workload, system);
            format!("{}{against}", cell.map_or_else(String::new, |cell| marked(spread(&stat), cell)))
        });
        table.row(std::iter::once(workload.to_owned()).chain(cells));
    }
    table
}

/// Every cell with its times.
pub fn times(starts: &Starts<'_>, network: &str) -> Table {
    let head = ["workload", "system", "ready", "pulled", "second container", "repeats", "against overlayfs"];
    each(starts, network, &head, |workload, cell| {
        let stat =
            |figure: fn(&Start) -> f64| cell.stat(figure).map_or_else(String::new, |stat| spread(&stat));
        let second = cell.some(|start| start.second_ready);
        let base = ready(starts, network, workload, BASELINE).filter(|_| cell.system != BASELINE);
        let against = base.and_then(|base| Some(compared(&cell.stat(|start| start.ready)?, &base)));
        let repeats = match cell.failed() {
            0 => cell.measured.len().to_string(),
            failed => format!("{} ({failed} failed)", cell.measured.len()),
        };
        vec![
            marked(stat(|start| start.ready), cell),
            stat(|start| start.pulled),
            second.map_or_else(|| "–".to_owned(), |stat| spread(&stat)),
            repeats,
            against.unwrap_or_default(),
        ]
    })
}

/// The versions of ours beside each other, with nothing else; no rows where there is one.
pub fn versions(starts: &Starts<'_>, network: &str) -> Table {
    let versions = systems::versions(&starts.names.systems);
    let head = std::iter::once("workload").chain(versions.iter().copied()).chain(["the last"]);
    let mut table = Table::new(1, head);
    for workload in starts.workloads(network) {
        let stats: Vec<_> = versions.iter().map(|system| ready(starts, network, workload, system)).collect();
        let [.., Some(before), Some(last)] = stats.as_slice() else { continue };
        let against = compared(last, before);
        let cells = stats.iter().map(|stat| stat.as_ref().map_or_else(|| "–".to_owned(), spread));
        table.row(std::iter::once(workload.to_owned()).chain(cells).chain([against]));
    }
    table
}

/// A time with a † where a repeat was disturbed.
fn marked(time: String, cell: &Cell<'_>) -> String {
    if cell.measured.iter().any(|start| is_disturbed(start)) { format!("{time}†") } else { time }
}

/// Whether the machine did so much besides a start that its times are in doubt.
pub fn is_disturbed(start: &Start) -> bool {
    /// Of one core: what a machine that is left alone does besides is less.
    const SHARE: f64 = 0.2;
    start.others.is_some_and(|others| others.cpu + others.stolen > SHARE * start.ready)
}

/// Every cell with what passed the network.
pub fn network(starts: &Starts<'_>, network: &str) -> Table {
    let head = [
        "workload",
        "system",
        "requests",
        "chain",
        "at once",
        "bytes",
        "of the image",
        "30 s after",
        "requests by kind",
    ];
    each(starts, network, &head, |workload, cell| {
        let median = |figure: fn(&Start) -> f64| cell.stat(figure).map(|stat| stat.median);
        let fetched = median(|start| float(start.until_ready.bytes));
        let image =
            starts.image(network, workload).map(|image| float(image.compressed)).filter(|size| *size > 0.0);
        let share = fetched.zip(image).map(|(fetched, image)| percent(fetched / image));
        let after = cell.some(|start| start.after.as_ref().map(|after| float(after.bytes)));
        vec![
            written(median(|start| float(start.until_ready.requests.values().sum())), count),
            written(median(|start| float(start.until_ready.longest_chain)), count),
            written(median(|start| float(start.until_ready.highest_concurrency)), count),
            written(fetched, bytes),
            share.unwrap_or_default(),
            written(after.map(|stat| stat.median), bytes),
            kinds(cell),
        ]
    })
}

/// Every cell with CPU, memory and disk.
pub fn cost(starts: &Starts<'_>, network: &str) -> Table {
    let mut roles: Vec<&str> = Vec::new();
    for start in starts.groups.0.iter().flat_map(|cell| &cell.measured) {
        roles.extend(start.cpu.keys().chain(start.memory.keys()).map(String::as_str));
    }
    roles.sort_unstable();
    roles.dedup();
    let mut head = vec!["workload".to_owned(), "system".to_owned()];
    head.extend(roles.iter().map(|role| format!("CPU {role}")));
    head.extend(roles.iter().map(|role| format!("memory {role}")));
    head.push("disk".to_owned());
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    each(starts, network, &head, |_, cell| {
        let cpu = |role: &&str| cell.some(|start| start.cpu.get(*role).copied());
        let memory = |role: &&str| cell.some(|start| start.memory.get(*role).map(|value| float(*value)));
        let median = |stat: Option<Stat>| stat.map(|stat| stat.median);
        let mut row: Vec<String> = roles.iter().map(|role| written(median(cpu(role)), seconds)).collect();
        row.extend(roles.iter().map(|role| written(median(memory(role)), bytes)));
        row.push(written(median(cell.stat(|start| float(start.disk))), bytes));
        row
    })
}

/// One row for each cell that has a figure, in the plan's order.
fn each<'a>(
    starts: &Starts<'a>,
    network: &str,
    head: &[&str],
    figures: impl Fn(&str, &Cell<'a>) -> Vec<String>,
) -> Table {
    let mut table = Table::new(2, head.iter().copied());
    for workload in starts.workloads(network) {
        let name = match starts.image(network, workload) {
            Some(image) if image.compressed > 0 => {
                format!("{workload} ({}, {})", layers(image.layers), whole_bytes(image.compressed))
            }
            _ => workload.to_owned(),
        };
        for system in &starts.names.systems {
            let Some(cell) = starts.groups.get(network, workload, system) else { continue };
            let head = [name.clone(), system.clone()];
            if cell.measured.is_empty() {
                table.row(head.into_iter().chain(["failed".to_owned()]));
                continue;
            }
            table.row(head.into_iter().chain(figures(workload, cell)));
        }
    }
    table
}

/// `1 layer`, `32 layers`.
pub fn layers(number: usize) -> String {
    if number == 1 { "1 layer".to_owned() } else { format!("{number} layers") }
}

/// Median and spread: `4.21 s (4.10–4.43 s)`.
pub fn spread(stat: &Stat) -> String {
    if stat.count < 2 {
        return seconds(stat.median);
    }
    let (min, max) = (seconds(stat.min), seconds(stat.max));
    // One unit for both is enough.
    let unit = |text: &str| text.rsplit_once(' ').map(|(number, unit)| (number.to_owned(), unit.to_owned()));
    let min = match (unit(&min), unit(&max)) {
        (Some((number, of_min)), Some((_, of_max))) if of_min == of_max => number,
        _ => min,
    };
    format!("{} ({min}–{max})", seconds(stat.median))
}

/// The ratio of two medians, with a `~` where chance may have made it.
fn compared(ours: &Stat, other: &Stat) -> String {
    let ratio = ratio(ours.median, other.median);
    if ours.blurs(other) { format!("~{ratio}") } else { ratio }
}

fn ready(starts: &Starts<'_>, network: &str, workload: &str, system: &str) -> Option<Stat> {
    starts.groups.get(network, workload, system)?.stat(|start| start.ready)
}

fn written(value: Option<f64>, write: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), write)
}

/// `3 manifest, 27 blob_range`: medians of each kind, 0 where a repeat had none of it.
fn kinds(cell: &Cell<'_>) -> String {
    let mut kinds: Vec<&String> =
        cell.measured.iter().flat_map(|start| start.until_ready.requests.keys()).collect();
    kinds.sort();
    kinds.dedup();
    let median = |kind: &String| {
        cell.stat(|start| float(start.until_ready.requests.get(kind).copied().unwrap_or_default()))
    };
    let written = kinds.into_iter().filter_map(|kind| {
        let median = median(kind)?.median;
        (median > 0.0).then(|| format!("{} {kind}", count(median)))
    });
    written.collect::<Vec<_>>().join(", ")
}

//! The file system section: reads and metadata in a container, in three states.

use super::groups::{Group, Groups, names};
use super::page::Page;
use super::systems::{self, BASELINE};
use super::table::Table;
use super::units::{count, float, rate, ratio, seconds};
use crate::results::Run;
use crate::results::fs::{State, Test, Value};

type Cell<'a> = Group<'a, Value, Test>;

const STATES: [(State, &str, &str); 3] = [
    (State::Cold, "Cold", "nothing is there but what the pull brought: bytes come over the network"),
    (State::Filled, "Filled", "all bytes are on the node's disk, none in the page cache"),
    (State::Warm, "Warm", "the same test was just done: all is in the page cache"),
];

/// Writes the section.
pub fn write(page: &mut Page, run: &Run<Value>) {
    let names = names(&run.plan, &run.values);
    page.heading(2, "File system");
    page.prose(
        "In a container: fio (name: pattern, buffered or mmap, block size, jobs) as bytes per second, others as time; medians. \
         In brackets: requests that the kernel sent to the snapshotter's FUSE file system meanwhile, but for the release of closed \
         files, which nobody waits for; n/a where the snapshotter doesn't count them. \
         There is no direct I/O: EROFS refuses O_DIRECT on files of the image (EINVAL), through overlayfs too.",
    );
    for network in &names.networks {
        for (state, name, about) in STATES {
            let values = run.values.iter().filter(|value| value.state == state);
            let groups = Groups::of(values, |value| &value.outcome);
            let tests = names.workloads.iter().filter(|test| groups.tried(network, test));
            let tests: Vec<&String> = tests.collect();
            if tests.is_empty() {
                continue;
            }
            page.heading(3, format!("{name}, at {network}"));
            page.prose(format!("{}{}.", about[..1].to_uppercase(), &about[1..]));
            let cell = |test: &str, system: &str| groups.get(network, test, system);
            page.table(figures(&tests, &names.systems, cell));
            page.table(latencies(&tests, &names.systems, cell));
        }
    }
}

fn figures<'g, 'a: 'g>(
    tests: &[&String],
    systems: &[String],
    cell: impl Fn(&str, &str) -> Option<&'g Cell<'a>>,
) -> Table {
    let mut head = vec!["test"];
    head.extend(systems.iter().map(String::as_str));
    head.extend(["Spandrel against overlayfs", "snapshotter's CPU, Spandrel"]);
    let mut table = Table::new(1, head);
    for test in tests {
        let mut row = vec![(*test).clone()];
        row.extend(systems.iter().map(|system| match cell(test, system) {
            None => "–".to_owned(),
            Some(cell) => figure(cell).unwrap_or_else(|| "failed".to_owned()),
        }));
        let time = |system: &str| cell(test, system)?.stat(cost).map(|stat| stat.median);
        let ours = systems::ours(systems);
        let against = time(ours).zip(time(BASELINE)).map(|(ours, base)| faster(ours, base));
        row.push(against.unwrap_or_default());
        let cpu = cell(test, ours).and_then(|cell| cell.some(|test| test.snapshotter_cpu));
        row.push(cpu.map(|cpu| seconds(cpu.median)).unwrap_or_default());
        table.row(row);
    }
    table
}

/// `312 MB/s (484)` or `4.21 s (0)`.
fn figure(cell: &Cell<'_>) -> Option<String> {
    let throughput =
        cell.some(|test| test.bytes.map(|bytes| float(bytes) / test.seconds.max(f64::MIN_POSITIVE)));
    let time = cell.stat(|test| test.seconds)?;
    let figure = throughput.map_or_else(|| seconds(time.median), |stat| rate(stat.median));
    let requests = cell.some(|test| test.fuse_requests.map(float));
    Some(match requests {
        Some(requests) => format!("{figure} ({})", count(requests.median)),
        // It has no FUSE file system.
        None if cell.system == BASELINE => figure,
        None => format!("{figure} (n/a)"),
    })
}

/// Seconds for the test, or for each byte where a test is as long as it is asked to be.
fn cost(test: &Test) -> f64 {
    match test.bytes {
        Some(bytes) if bytes > 0 => test.seconds / float(bytes),
        _ => test.seconds,
    }
}

fn faster(ours: f64, base: f64) -> String {
    ratio(ours, base).replace("sooner", "faster").replace("later", "slower").replace("as soon", "as fast")
}

fn latencies<'g, 'a: 'g>(
    tests: &[&String],
    systems: &[String],
    cell: impl Fn(&str, &str) -> Option<&'g Cell<'a>>,
) -> Table {
    let head = ["99th percentile of a read"].into_iter().chain(systems.iter().map(String::as_str));
    let mut table = Table::new(1, head);
    for test in tests {
        let latency = |system: &String| cell(test, system)?.some(|test| test.latency_99);
        let latencies: Vec<_> = systems.iter().map(latency).collect();
        if latencies.iter().all(Option::is_none) {
            continue;
        }
        let cells = latencies.into_iter().map(|stat| match stat {
            Some(stat) => seconds(stat.median),
            None => "–".to_owned(),
        });
        table.row(std::iter::once((*test).clone()).chain(cells));
    }
    table
}

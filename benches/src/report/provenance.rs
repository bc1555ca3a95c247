//! Where the figures come from: machines, versions, what wasn't there, what failed.

use super::load::Results;
use super::page::Page;
use super::table::Table;
use crate::results::{Absent, Cell, Machine, Outcome, Run, Value};

/// What is the same for runs of every kind.
struct Origin<'a> {
    kind: &'a str,
    begun: &'a str,
    last: &'a str,
    values: usize,
    repeats: u32,
    machines: &'a [Machine],
    absent: &'a [Absent],
    failed: Vec<(&'a Cell, &'a str)>,
}

/// Reasons longer than this are cut: a program's whole output may be in one.
const LONGEST_REASON: usize = 300;

/// Writes the section.
pub fn write(page: &mut Page, results: &Results) {
    let origins: Vec<Origin<'_>> = [
        results.start.as_ref().map(|run| origin(run, |value| failure(&value.outcome))),
        results.fs.as_ref().map(|run| origin(run, |value| failure(&value.outcome))),
        results.index.as_ref().map(|run| origin(run, |value| failure(&value.outcome))),
        results.node.as_ref().map(|run| origin(run, |value| failure(&value.outcome))),
    ]
    .into_iter()
    .flatten()
    .collect();

    page.heading(2, "Machine and versions");
    if !results.left_out.is_empty() {
        let files = results.left_out.join("; ");
        page.prose(format!("Left out, since they weren't measured like the newest: {files}."));
    }
    page.table(runs(&origins));
    page.table(machines(&origins));

    let mut absent = Table::new(3, ["benchmark", "system that was not there", "why"]);
    for origin in &origins {
        for Absent { system, why } in origin.absent {
            absent.row([origin.kind, system, why]);
        }
    }
    if !absent.rows.is_empty() {
        page.prose("Systems that were asked for and weren't there; they have no figures, which is not a figure of 0:");
    }
    page.table(absent);

    let mut failed = Table::new(6, ["benchmark", "network", "workload", "system", "repeat", "why it failed"]);
    for origin in &origins {
        for (cell, why) in &origin.failed {
            let repeat = cell.repeat.to_string();
            let cut: String = why.chars().take(LONGEST_REASON).collect();
            let cut = if cut.len() < why.len() { format!("{cut}…") } else { cut };
            let cut = cut.replace(['\n', '\r'], " ");
            failed.row([origin.kind, &cell.network, &cell.workload, &cell.system, &repeat, &cut]);
        }
    }
    if failed.rows.is_empty() {
        page.prose("No measurement failed.");
    } else {
        page.prose("Measurements that failed; medians are of the others:");
    }
    page.table(failed);
}

fn origin<'a, V: Value>(run: &'a Run<V>, failure: impl Fn(&'a V) -> Option<&'a str>) -> Origin<'a> {
    let failed = run.values.iter().filter_map(|value| Some((value.cell(), failure(value)?)));
    let last = run.values.iter().map(|value| value.cell().at.as_str()).max();
    Origin {
        kind: &run.kind,
        begun: &run.begun,
        last: last.unwrap_or(&run.begun),
        values: run.values.len(),
        repeats: run.plan.repeats,
        machines: &run.machines,
        absent: &run.absent,
        failed: failed.collect(),
    }
}

fn failure<T>(outcome: &Outcome<T>) -> Option<&str> {
    match outcome {
        Outcome::Measured(_) => None,
        Outcome::Failed(why) => Some(why),
    }
}

fn runs(origins: &[Origin<'_>]) -> Table {
    let mut table =
        Table::new(3, ["benchmark", "first run begun", "last value", "values", "repeats asked for"]);
    for origin in origins {
        table.row([
            origin.kind.to_owned(),
            origin.begun.to_owned(),
            origin.last.to_owned(),
            origin.values.to_string(),
            origin.repeats.to_string(),
        ]);
    }
    table
}

/// One column for each benchmark; those measured alike share one.
fn machines(origins: &[Origin<'_>]) -> Table {
    let mut columns: Vec<(String, Vec<&Machine>)> = Vec::new();
    for origin in origins {
        let Some(first) = origin.machines.first() else { continue };
        match columns.iter_mut().find(|(_, machines)| machines[0].is_like(first)) {
            Some((name, machines)) => {
                *name = format!("{name}, {}", origin.kind);
                machines.extend(origin.machines);
            }
            None => columns.push((origin.kind.to_owned(), origin.machines.iter().collect())),
        }
    }
    let head = std::iter::once("").chain(columns.iter().map(|(name, _)| name.as_str()));
    let mut table = Table::new(columns.len() + 1, head);
    let mut row = |name: &str, value: &dyn Fn(&[&Machine]) -> String| {
        let cells = columns.iter().map(|(_, machines)| value(machines));
        table.row(std::iter::once(name.to_owned()).chain(cells));
    };
    row("processor", &|machines| machines[0].processor.clone());
    row("cores", &|machines| machines[0].cores.to_string());
    row("memory", &|machines| format!("{} MiB", machines[0].memory_mib));
    row("kernel", &|machines| machines[0].kernel.clone());
    row("distribution", &|machines| machines[0].distribution.clone());
    row("file system", &|machines| machines[0].file_system.clone());
    row("unpigz on the PATH (containerd inflates with it)", &|machines| {
        if machines[0].unpigz { "yes".to_owned() } else { "no".to_owned() }
    });
    let mut programs: Vec<&String> = columns
        .iter()
        .flat_map(|(_, machines)| machines)
        .flat_map(|machine| machine.versions.keys())
        .collect();
    programs.sort();
    programs.dedup();
    for program in programs {
        row(program, &|machines| {
            let mut versions: Vec<&str> = Vec::new();
            for version in machines.iter().filter_map(|machine| machine.versions.get(program)) {
                if !versions.contains(&version.as_str()) {
                    versions.push(version);
                }
            }
            if versions.is_empty() { "–".to_owned() } else { versions.join("; ") }
        });
    }
    table
}

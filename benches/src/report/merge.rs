//! Runs of one kind, put together; refused when they weren't measured alike.

use anyhow::{Result, bail};

use super::systems;
use crate::results::{FORMAT, Machine, Plan, Run, Value};

/// One run out of several; `None` of none.
///
/// Values, machines and absent systems of all are kept, each once (a file may be named twice). Repeats of the same cell in two runs are
/// more repeats of it. Where there are several versions of Spandrel, its systems are named with theirs, `spandrel@VERSION`:
/// they are compared, and not one. So are soci's where the measurements themselves changed for it, `soci@set-up-1`.
///
/// # Errors
/// When two machines differ in anything else; the error says in what.
pub fn merge<V: Value + Clone + PartialEq>(runs: impl IntoIterator<Item = Run<V>>) -> Result<Option<Run<V>>> {
    let mut runs: Vec<Run<V>> = runs.into_iter().collect();
    runs.sort_by(|a, b| a.begun.cmp(&b.begun));
    let Some(first) = runs.first() else { return Ok(None) };
    let mut all = Run {
        format: FORMAT,
        kind: first.kind.clone(),
        begun: first.begun.clone(),
        plan: Plan::default(),
        machines: Vec::new(),
        absent: Vec::new(),
        values: Vec::new(),
    };
    let mut versions: Vec<String> = Vec::new();
    for machine in runs.iter().flat_map(|run| &run.machines) {
        extend(&mut versions, machine.ours().map(str::to_owned));
    }
    let mut set_ups: Vec<String> = Vec::new();
    for machine in runs.iter().flat_map(|run| &run.machines) {
        extend(&mut set_ups, [machine.set_up().to_owned()]);
    }
    for mut run in runs {
        let mut places = Vec::new();
        if versions.len() > 1 {
            rename(&mut run, |system, machine| systems::of_version(system, machine.ours()));
        }
        if set_ups.len() > 1 {
            rename(&mut run, |system, machine| systems::of_set_up(system, machine.set_up()));
        }
        for machine in run.machines {
            let alone = machine.without_ours();
            if let Some(known) = all.machines.iter().find(|known| !alone.is_like(&known.without_ours())) {
                bail!(
                    "results of `{}` come from machines that differ, and can't stand in one table ({}): name the \
                     files of one machine",
                    all.kind,
                    differences(known, &machine)
                );
            }
            places.push(add(&mut all.machines, machine));
        }
        for absent in run.absent {
            add(&mut all.absent, absent);
        }
        extend(&mut all.plan.workloads, run.plan.workloads);
        extend(&mut all.plan.systems, run.plan.systems);
        extend(&mut all.plan.networks, run.plan.networks);
        all.plan.repeats = all.plan.repeats.max(run.plan.repeats);
        for mut value in run.values {
            let at = &mut value.cell_mut().machine;
            let Some(machine) = places.get(*at) else {
                bail!(
                    "a value of `{}` begun {} names machine {at}, which the file doesn't have",
                    all.kind,
                    run.begun
                )
            };
            *at = *machine;
            add(&mut all.values, value);
        }
    }
    beside_each_other(&mut all.plan.systems);
    Ok(Some(all))
}

/// Gives systems other names, which depend on what they were measured on.
fn rename<V: Value>(run: &mut Run<V>, name: impl Fn(&str, &Machine) -> String) {
    for value in &mut run.values {
        let cell = value.cell_mut();
        if let Some(machine) = run.machines.get(cell.machine) {
            cell.system = name(&cell.system, machine);
        }
    }
    // All machines of a run have the same programs.
    if let Some(machine) = run.machines.first() {
        for system in &mut run.plan.systems {
            *system = name(system, machine);
        }
    }
}

/// Puts the versions of a system where the first of them is.
fn beside_each_other(systems: &mut Vec<String>) {
    let mut ordered: Vec<String> = Vec::new();
    for name in systems.drain(..) {
        let base = systems::base(&name);
        let last = ordered.iter().rposition(|other| systems::base(other) == base);
        ordered.insert(last.map_or(ordered.len(), |last| last + 1), name);
    }
    *systems = ordered;
}

/// Parts runs into those that were measured like the newest, with the same version of Spandrel, and what is said about each
/// of the others.
pub fn newest<V>(runs: Vec<(String, Run<V>)>) -> (Vec<Run<V>>, Vec<String>) {
    let newest = runs.iter().max_by(|(_, a), (_, b)| a.begun.cmp(&b.begun));
    let Some(like) = newest.and_then(|(_, run)| run.machines.first()).cloned() else {
        return Default::default();
    };
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    for (name, run) in runs {
        match run.machines.iter().find(|machine| !machine.is_like(&like)) {
            None => kept.push(run),
            Some(other) => left_out.push(format!("{name} ({})", differences(other, &like))),
        }
    }
    (kept, left_out)
}

/// In what two machines differ, `name: this / that`.
pub fn differences(a: &Machine, b: &Machine) -> String {
    let mut found = Vec::new();
    let mut compare = |name: &str, a: String, b: String| {
        if a != b {
            found.push(format!("{name}: {a} / {b}"));
        }
    };
    compare("processor", a.processor.clone(), b.processor.clone());
    compare("cores", a.cores.to_string(), b.cores.to_string());
    compare("memory in MiB", a.memory_mib.to_string(), b.memory_mib.to_string());
    compare("kernel", a.kernel.clone(), b.kernel.clone());
    compare("distribution", a.distribution.clone(), b.distribution.clone());
    compare("file system", a.file_system.clone(), b.file_system.clone());
    compare("unpigz", a.unpigz.to_string(), b.unpigz.to_string());
    for (program, version) in &a.versions {
        if let Some(other) = b.versions.get(program) {
            compare(program, version.clone(), other.clone());
        }
    }
    found.join("; ")
}

/// Adds what isn't there yet; says where it is.
fn add<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn extend(list: &mut Vec<String>, items: impl IntoIterator<Item = String>) {
    for item in items {
        add(list, item);
    }
}

//! Runs of one kind, put together; refused when they weren't measured alike.

use anyhow::{Result, bail};

use crate::results::{FORMAT, Machine, Plan, Run};

/// One run out of several; `None` of none.
///
/// Values, machines and absent systems of all are kept, each once (a file may be named twice). Repeats of the same cell in two runs are
/// more repeats of it.
///
/// # Errors
/// When two machines differ; the error says in what.
pub fn merge<V: Clone + PartialEq>(
    runs: impl IntoIterator<Item = Run<V>>,
    place: impl Fn(&mut V) -> &mut usize,
) -> Result<Option<Run<V>>> {
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
    for run in runs {
        let mut places = Vec::new();
        for machine in run.machines {
            if let Some(known) = all.machines.iter().find(|known| !machine.is_like(known)) {
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
            let at = place(&mut value);
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
    Ok(Some(all))
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

fn extend(list: &mut Vec<String>, items: Vec<String>) {
    for item in items {
        add(list, item);
    }
}

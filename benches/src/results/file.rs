//! A run's file: written anew after every value, found again by its plan.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Absent, Cell, FORMAT, Machine, Plan, Run, Value};

/// A run and its file.
#[derive(Debug)]
pub struct RunFile<V> {
    path: PathBuf,
    run: Run<V>,
    machine: usize,
}

impl<V: Value + Serialize + DeserializeOwned> RunFile<V> {
    /// Continues the run of this plan in `dir` that isn't complete (`cells` values make it so), or begins one.
    ///
    /// # Errors
    /// When the folder can't be used, or the unfinished run is from a machine of another kind.
    pub fn open(
        dir: &Path,
        kind: &str,
        plan: Plan,
        machine: Machine,
        now: &str,
        cells: usize,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
        if let Some((path, mut run)) = unfinished::<V>(dir, kind, &plan, cells)? {
            let Some(first) = run.machines.first() else { bail!("{} names no machine", path.display()) };
            if !machine.is_like(first) {
                bail!(
                    "{} is unfinished, and of another kind of machine or other programs:\n  there {first:?}\n  here  \
                     {machine:?}\nremove the file to begin anew",
                    path.display()
                );
            }
            let at = run.machines.iter().position(|known| *known == machine).unwrap_or_else(|| {
                run.machines.push(machine);
                run.machines.len() - 1
            });
            return Ok(Self { path, run, machine: at });
        }
        let name = format!("{kind}-{}.json", now.replace([':', '-'], ""));
        let run = Run {
            format: FORMAT,
            kind: kind.to_owned(),
            begun: now.to_owned(),
            plan,
            machines: vec![machine],
            absent: Vec::new(),
            values: Vec::new(),
        };
        Ok(Self { path: dir.join(name), run, machine: 0 })
    }

    /// What is there so far.
    pub fn run(&self) -> &Run<V> {
        &self.run
    }

    /// The file; it may not exist before the first value.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This machine's place among the run's.
    pub fn machine(&self) -> usize {
        self.machine
    }

    /// Whether a repeat of a cell was measured already.
    pub fn has(&self, workload: &str, system: &str, network: &str, repeat: u32) -> bool {
        self.run.values.iter().any(|value| value.cell().is(workload, system, network, repeat))
    }

    /// Says which systems aren't there.
    pub fn set_absent(&mut self, absent: Vec<Absent>) {
        self.run.absent = absent;
    }

    /// Adds a value and writes the file: what was measured is kept whatever happens next.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn add(&mut self, value: V) -> Result<()> {
        self.run.values.push(value);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.run)?;
        let temporary = self.path.with_extension("json.new");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)
        };
        write().with_context(|| format!("can't write {}", self.path.display()))
    }
}

/// Reads a run.
///
/// # Errors
/// When it can't be read, is of another kind or format.
pub fn read<V: DeserializeOwned>(path: &Path, kind: &str) -> Result<Run<V>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let head: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let (format, has) = (head["format"].as_u64(), head["kind"].as_str());
    if format != Some(u64::from(FORMAT)) || has != Some(kind) {
        bail!("{} is {has:?} in format {format:?}, not {kind:?} in format {FORMAT}", path.display());
    }
    serde_json::from_str(&text).with_context(|| format!("{} can't be understood", path.display()))
}

/// The newest run of this plan that isn't complete.
fn unfinished<V: DeserializeOwned>(
    dir: &Path,
    kind: &str,
    plan: &Plan,
    cells: usize,
) -> Result<Option<(PathBuf, Run<V>)>> {
    let mut found: Option<(PathBuf, Run<V>)> = None;
    for entry in std::fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(&format!("{kind}-")) || !name.ends_with(".json") {
            continue;
        }
        // One that can't be read is an older format's or somebody else's.
        let Ok(run) = read::<V>(&path, kind) else { continue };
        let newer = found.as_ref().is_none_or(|(_, other)| other.begun < run.begun);
        if run.plan == *plan && run.values.len() < cells && newer {
            found = Some((path, run));
        }
    }
    Ok(found)
}

/// A cell of this run, measured now.
pub fn cell<V>(
    file: &RunFile<V>,
    at: String,
    workload: &str,
    system: &str,
    network: &str,
    repeat: u32,
) -> Cell {
    Cell {
        machine: file.machine,
        at,
        workload: workload.to_owned(),
        system: system.to_owned(),
        network: network.to_owned(),
        repeat,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::Outcome;
    use crate::results::start::{self, Image};

    fn value(file: &RunFile<start::Value>, repeat: u32) -> start::Value {
        start::Value {
            cell: cell(file, "2026-01-01T00:00:00Z".to_owned(), "busybox", "spandrel", "lan", repeat),
            image: Image::default(),
            outcome: Outcome::Failed("a reason".to_owned()),
        }
    }

    #[test]
    fn an_unfinished_run_is_continued_by_machines_of_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::this(dir.path(), BTreeMap::new());
        let plan = Plan { workloads: vec!["busybox".to_owned()], repeats: 2, ..Plan::default() };
        let open = |plan: &Plan, machine: &Machine, now: &str| {
            RunFile::<start::Value>::open(dir.path(), "start", plan.clone(), machine.clone(), now, 2)
        };
        let mut file = open(&plan, &machine, "2026-01-01T00:00:00Z").unwrap();
        let first = value(&file, 1);
        file.add(first.clone()).unwrap();
        let path = file.path().to_owned();

        let mut like = machine.clone();
        like.memory_mib += 1;
        let mut file = open(&plan, &like, "2026-01-02T00:00:00Z").unwrap();
        assert_eq!((file.path(), file.machine(), &file.run().values), (path.as_path(), 1, &vec![first]));
        assert!(file.has("busybox", "spandrel", "lan", 1) && !file.has("busybox", "spandrel", "lan", 2));
        let mut other = machine.clone();
        other.cores += 1;
        let error = open(&plan, &other, "2026-01-02T00:00:00Z").unwrap_err().to_string();
        assert!(error.contains("another kind of machine"), "{error}");
        // Another plan is another run; a complete one isn't continued.
        let another = open(&Plan { repeats: 3, ..plan.clone() }, &machine, "2026-01-03T00:00:00Z").unwrap();
        assert_ne!(another.path(), path);
        file.add(value(&file, 2)).unwrap();
        assert_ne!(open(&plan, &machine, "2026-01-03T00:00:00Z").unwrap().path(), path);
        assert_eq!(read::<start::Value>(&path, "start").unwrap(), *file.run());
        assert!(read::<start::Value>(&path, "fs").unwrap_err().to_string().contains("not \"fs\""));
    }
}

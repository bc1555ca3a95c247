//! `./dev bench-fs`: reads and metadata in a container, cold, filled and warm, beside containerd's overlayfs.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use spandrel_benches::depot::Depot;
use spandrel_benches::fs::{FsTest, Station};
use spandrel_benches::layout::Layout;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::progress::Progress;
use spandrel_benches::results::file::{RunFile, cell};
use spandrel_benches::results::fs::{State, Test, Value};
use spandrel_benches::system::System;
use spandrel_benches::workload::Workload;
use spandrel_benches::{clock, interrupt, program, say};
use tokio::runtime::Runtime;

/// The workload whose image the tests run in.
const IMAGE: &str = "fs";

/// Reads and metadata in a container. WORKLOADS are tests here; `short` stands for one of each sort.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("bench-fs", || run(&arguments))
}

/// Whether it came to the end.
fn run(arguments: &Arguments) -> Result<bool> {
    let all: Vec<_> = FsTest::all().into_iter().map(|test| test.name).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let defaults = Defaults {
        workloads: &all,
        systems: &["overlayfs", "soci", "spandrel"],
        networks: &["lan"],
        repeats: 1, // a full run takes minutes, and asks for patience enough
    };
    let mut plan = arguments.options.plan(defaults)?;
    let tests = FsTest::named(&plan.workloads)?;
    plan.workloads = tests.iter().map(|test| test.name.clone()).collect();
    let (systems, absent) = options::present(&plan)?;
    let networks = plan.networks.clone();
    let repeats = plan.repeats;
    let states: usize = tests.iter().map(|test| test.states().len()).sum();
    let cells = states * networks.len() * systems.len() * usize::try_from(repeats)?;
    let (file, mut progress) = program::open(&arguments.options, "fs", plan, (&systems, absent), cells)?;
    let workload = Workload::named(IMAGE)?.into_iter().next().context("a workload")?;
    let layout = progress.aside(|| workload.image())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let depot = Depot::open()?;
    let mut bench = Bench { stations: BTreeMap::new(), runtime, depot, layout, file, progress };

    for network in &networks {
        for repeat in 1..=repeats {
            let round = Round { network, repeat, repeats };
            if !bench.round(round, &tests, &systems)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// All tests once, in all states.
#[derive(Debug, Clone, Copy)]
struct Round<'a> {
    network: &'a str,
    repeat: u32,
    repeats: u32,
}

/// Where a system's tests are done.
enum Place {
    Open(Box<Station>),
    /// It can't be opened, for this reason: nobody waits for that a second time.
    Broken(String),
}

struct Bench {
    /// By system. Fields are dropped in this order: stations need the runtime and the registry.
    stations: BTreeMap<String, Place>,
    runtime: Runtime,
    depot: Depot,
    layout: Layout,
    file: RunFile<Value>,
    progress: Progress,
}

impl Bench {
    /// Whether it came to the end.
    ///
    /// Cold tests first, each of a lazy system on a node of its own: two tests share files (programs, the big file's
    /// pieces), and a snapshotter may fetch in the background what the next test would read. Only one node works then: the
    /// others are gone, or have all their bytes. The node of the last cold test is filled and serves the other two states.
    fn round(&mut self, round: Round<'_>, tests: &[FsTest], systems: &[Box<dyn System>]) -> Result<bool> {
        let cold: Vec<_> = tests.iter().filter(|test| test.states().contains(&State::Cold)).collect();
        for (turn, &test) in (round.repeat..).zip(&cold) {
            for system in program::in_turns(systems, turn).map(AsRef::as_ref) {
                if self.has(round, test, system, State::Cold) {
                    continue;
                }
                if system.is_lazy() {
                    self.close(system);
                }
                if !self.step(round, test, system, State::Cold)? {
                    return Ok(false);
                }
                let is_last = cold.last() == Some(&test);
                if !is_last && system.is_lazy() {
                    self.close(system);
                } else if !self.fill(system)? {
                    return Ok(false);
                }
            }
        }
        for (turn, test) in (round.repeat..).zip(tests) {
            for system in program::in_turns(systems, turn).map(AsRef::as_ref) {
                // One after the other: nothing comes between a test and its repetition.
                for state in [State::Filled, State::Warm] {
                    if !self.has(round, test, system, state) && !self.step(round, test, system, state)? {
                        return Ok(false);
                    }
                }
            }
        }
        for system in systems {
            self.close(system.as_ref());
        }
        Ok(true)
    }

    fn has(&self, round: Round<'_>, test: &FsTest, system: &dyn System, state: State) -> bool {
        self.file.run().values.iter().any(|value| {
            value.state == state && value.cell.is(&test.name, &system.name(), round.network, round.repeat)
        })
    }

    /// Measures one value and keeps it; whether it wasn't interrupted.
    fn step(&mut self, round: Round<'_>, test: &FsTest, system: &dyn System, state: State) -> Result<bool> {
        let measured = self.measure(round.network, test, system, state);
        let Some(outcome) = program::outcome(measured) else { return Ok(false) };
        let state_name = format!("{state:?}").to_lowercase();
        let Round { network, repeat, repeats } = round;
        let what = format!("{} {state_name} {network} {} {repeat}/{repeats}", test.name, system.name());
        self.progress.step(&what, &program::tell(&outcome, tell));
        let cell = cell(&self.file, clock::now(), &test.name, &system.name(), network, repeat);
        self.file.add(Value { cell, state, outcome })?;
        Ok(true)
    }

    /// `None` when it was interrupted.
    fn measure(
        &mut self,
        network: &str,
        test: &FsTest,
        system: &dyn System,
        state: State,
    ) -> Result<Option<Test>> {
        if interrupt::told() {
            return Ok(None);
        }
        if !self.stations.contains_key(&system.name()) {
            let (runtime, depot, layout) = (&self.runtime, &self.depot, &self.layout);
            let opened = program::guarded(|| {
                let prepared = depot.prepare(layout, IMAGE, system)?;
                runtime.block_on(interrupt::or(Station::open(system, network, depot, &prepared))).transpose()
            });
            let place = match opened {
                Ok(None) => return Ok(None),
                Ok(Some(station)) => Place::Open(Box::new(station)),
                Err(error) => Place::Broken(format!("{error:#}")),
            };
            self.stations.insert(system.name(), place);
        }
        let station = match self.stations.get_mut(&system.name()) {
            Some(Place::Open(station)) => station,
            Some(Place::Broken(why)) => bail!(why.clone()),
            None => bail!("{} was closed", system.name()),
        };
        let runtime = &self.runtime;
        let measured =
            program::guarded(|| runtime.block_on(interrupt::or(station.measure(test, state))).transpose());
        if measured.is_err() {
            // Whatever broke there shall not break the next test.
            self.close(system);
        }
        measured
    }

    /// Fills a system's node, if it has one, so that it is idle while others are measured; whether it wasn't interrupted.
    /// What fails here fails again where a value is wanted.
    fn fill(&mut self, system: &dyn System) -> Result<bool> {
        let Some(Place::Open(station)) = self.stations.get_mut(&system.name()) else { return Ok(true) };
        let runtime = &self.runtime;
        match program::guarded(|| runtime.block_on(interrupt::or(station.fill())).transpose()) {
            Ok(done) => Ok(done.is_some()),
            Err(error) => {
                say(&format!("{}: {error:#}", system.name()));
                self.close(system);
                Ok(true)
            }
        }
    }

    fn close(&mut self, system: &dyn System) {
        if let Some(Place::Open(station)) = self.stations.remove(&system.name()) {
            let runtime = &self.runtime;
            let closed = program::guarded(|| {
                runtime.block_on(station.close());
                Ok(())
            });
            if let Err(error) = closed {
                say(&format!("{}: {error:#}", system.name()));
            }
        }
    }
}

fn tell(test: &Test) -> String {
    let rate = test.bytes.map(|bytes| format!(", {:.0} MB/s", bytes as f64 / 1e6 / test.seconds));
    let requests = test.fuse_requests.map(|requests| format!(", {requests} FUSE requests"));
    let network = format!(", {:.1} MB fetched", test.network_bytes as f64 / 1e6);
    format!("{:.3} s{}{}{network}", test.seconds, rate.unwrap_or_default(), requests.unwrap_or_default())
}

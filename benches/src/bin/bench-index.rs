//! `./dev bench-index`: what making an image's index takes, with Spandrel's tool and with soci's.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use spandrel_benches::depot::Depot;
use spandrel_benches::guard::guarded;
use spandrel_benches::index::Tool;
use spandrel_benches::network::Network;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::progress::Progress;
use spandrel_benches::results::file::{RunFile, cell};
use spandrel_benches::results::index::{Made, Value};
use spandrel_benches::results::start::Image;
use spandrel_benches::results::{Machine, Outcome};
use spandrel_benches::system::Overlayfs;
use spandrel_benches::workload::Workload;
use spandrel_benches::{clock, interrupt, say};

/// Images that take an index some time; without a network in the way, since it is the tools that are compared.
const DEFAULTS: Defaults<'_> = Defaults {
    workloads: &["python", "tensorflow", "node", "readall", "smallfiles"],
    systems: &["spandrel", "soci"],
    networks: &["local"],
    repeats: 3,
};

/// What making an image's index takes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("interrupted; the same command continues");
            ExitCode::from(130)
        }
        Err(error) => {
            say(&format!("bench-index: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether it came to the end.
fn run(arguments: &Arguments) -> Result<bool> {
    interrupt::listen()?;
    let plan = arguments.options.plan(DEFAULTS);
    let mut workloads = Vec::new();
    for name in &plan.workloads {
        workloads.extend(Workload::named(name)?);
    }
    for name in &plan.networks {
        if !Network::names().contains(name) {
            bail!("there is no network {name:?}; there are: {}", Network::names().join(", "));
        }
    }
    let (systems, absent) = options::present(&plan)?;
    let mut tools = Vec::new();
    for system in &systems {
        tools.push((system.name(), Tool::of(&system.name())?));
    }
    let repeats = plan.repeats;
    let cells = workloads.len() * plan.networks.len() * tools.len() * usize::try_from(repeats)?;
    let machine = Machine::this(&std::env::temp_dir(), options::versions(&systems));
    let networks = plan.networks.clone();
    let results = arguments.options.results();
    let mut file = RunFile::<Value>::open(&results, "index", plan, machine, &clock::now(), cells)?;
    file.set_absent(absent);
    say(&format!("results: {}", file.path().display()));
    let mut progress = Progress::new(cells, file.run().values.len());
    let depot = Depot::open()?;

    for workload in &workloads {
        let mut layout = None;
        for name in &networks {
            for repeat in 1..=repeats {
                // Interleaved, and each time another one first: what changes on the machine meanwhile meets all alike.
                for at in 0..tools.len() {
                    let (system, tool) = &tools[(at + usize::try_from(repeat)?) % tools.len()];
                    if file.has(&workload.name, system, name, repeat) {
                        continue;
                    }
                    if interrupt::told() {
                        return Ok(false);
                    }
                    let layout = match &layout {
                        Some(layout) => layout,
                        None => layout.insert(workload.image()?),
                    };
                    let mut image = Image::default();
                    let measured = guarded(|| {
                        // The image alone, with no index beside it: the repository that a plain pull uses.
                        let prepared = depot.prepare(layout, &workload.script, &Overlayfs)?;
                        image = prepared.image.clone();
                        tool.measure(&Network::start(name, &depot)?, &depot, &prepared)
                    });
                    let outcome = match measured {
                        Ok(Some(made)) => Outcome::Measured(made),
                        Ok(None) => return Ok(false),
                        Err(error) => Outcome::Failed(format!("{error:#}")),
                    };
                    let what = format!("{} {name} {system} {repeat}/{repeats}", workload.name);
                    progress.step(&what, &tell(&outcome));
                    let cell = cell(&file, clock::now(), &workload.name, system, name, repeat);
                    file.add(Value { cell, image, outcome })?;
                }
            }
        }
    }
    Ok(true)
}

fn tell(outcome: &Outcome<Made>) -> String {
    match outcome {
        Outcome::Measured(made) => format!(
            "{:.2} s (before it {:.2} s), CPU {:.2} s, {:.1} MB of memory, {:.1} MB of the network, index {:.2} MB of {} layers",
            made.seconds,
            made.pull_seconds,
            made.cpu,
            made.memory as f64 / 1e6,
            made.network_bytes as f64 / 1e6,
            made.index_bytes as f64 / 1e6,
            made.indexed_layers,
        ),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}

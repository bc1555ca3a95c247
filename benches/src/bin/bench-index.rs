//! `./dev bench-index`: what making an image's index takes, with Spandrel's tool and with soci's.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use spandrel_benches::depot::Depot;
use spandrel_benches::index::Tool;
use spandrel_benches::network::Network;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::results::file::cell;
use spandrel_benches::results::index::{Made, Value};
use spandrel_benches::results::start::Image;
use spandrel_benches::system::Overlayfs;
use spandrel_benches::workload::Workload;
use spandrel_benches::{clock, interrupt, program};

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
    let arguments = Arguments::parse();
    program::run("bench-index", || run(&arguments))
}

/// Whether it came to the end.
fn run(arguments: &Arguments) -> Result<bool> {
    let plan = arguments.options.plan(DEFAULTS)?;
    let workloads = Workload::all_named(&plan.workloads)?;
    let (systems, absent) = options::present(&plan)?;
    let mut tools = Vec::new();
    for system in &systems {
        tools.push((system.name(), Tool::of(&system.name())?));
    }
    let repeats = plan.repeats;
    let cells = workloads.len() * plan.networks.len() * tools.len() * usize::try_from(repeats)?;
    let networks = plan.networks.clone();
    let (mut file, mut progress) =
        program::open::<Value>(&arguments.options, "index", plan, (&systems, absent), cells)?;
    let depot = Depot::open()?;

    for workload in &workloads {
        let mut layout = None;
        for name in &networks {
            for repeat in 1..=repeats {
                for (system, tool) in program::in_turns(&tools, repeat) {
                    if file.has(&workload.name, system, name, repeat) {
                        continue;
                    }
                    if interrupt::told() {
                        return Ok(false);
                    }
                    let layout = match &layout {
                        Some(layout) => layout,
                        None => layout.insert(progress.aside(|| workload.image())?),
                    };
                    let mut image = Image::default();
                    let measured = program::guarded(|| {
                        // The image alone, with no index beside it: the repository that a plain pull uses.
                        let prepare = || depot.prepare(layout, &workload.script, &Overlayfs);
                        let prepared = progress.aside(prepare)?;
                        image = prepared.image.clone();
                        tool.measure(&Network::start(name, &depot)?, &depot, &prepared)
                    });
                    let Some(outcome) = program::outcome(measured) else { return Ok(false) };
                    let what = format!("{} {name} {system} {repeat}/{repeats}", workload.name);
                    progress.step(&what, &program::tell(&outcome, tell));
                    let cell = cell(&file, clock::now(), &workload.name, system, name, repeat);
                    file.add(Value { cell, image, outcome })?;
                }
            }
        }
    }
    Ok(true)
}

fn tell(made: &Made) -> String {
    format!(
        "{:.2} s (before it {:.2} s), CPU {:.2} s, {:.1} MB of memory, {:.1} MB of the network, index {:.2} MB of {} layers",
        made.seconds,
        made.pull_seconds,
        made.cpu,
        made.memory as f64 / 1e6,
        made.network_bytes as f64 / 1e6,
        made.index_bytes as f64 / 1e6,
        made.indexed_layers,
    )
}

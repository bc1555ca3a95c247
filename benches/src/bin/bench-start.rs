//! `./dev bench-start`: how soon a container is ready, and what that takes, for each workload, network and system.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use spandrel_benches::depot::Depot;
use spandrel_benches::network::Network;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::results::file::cell;
use spandrel_benches::results::start::{Image, Start, Value};
use spandrel_benches::start::{self, Asked};
use spandrel_benches::system::System;
use spandrel_benches::workload::Workload;
use spandrel_benches::{clock, interrupt, program, trace};

/// Every workload that is started for its own sake; the density sweep is asked for by name.
const DEFAULTS: Defaults<'_> = Defaults {
    workloads: &[
        "busybox",
        "python",
        "node",
        "java",
        "postgres",
        "redis",
        "layers32",
        "tensorflow",
        "readall",
        "smallfiles",
    ],
    systems: &["overlayfs", "soci", "stargz", "spandrel", "spandrel-eager"],
    networks: &["lan"],
    repeats: 3,
};

/// How soon a container is ready, and what that takes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Watch the network for 30 s more, once for each cell of a lazy system; that repeat has no second container.
    #[arg(long, env = "FULL", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    full: bool,
    /// Folder for a file about where the time went, one for each measurement: bench-trace reads them.
    #[arg(long, env = "TRACE")]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("bench-start", || run(&arguments))
}

/// Whether it came to the end.
fn run(arguments: &Arguments) -> Result<bool> {
    let plan = arguments.options.plan(DEFAULTS)?;
    let workloads = Workload::all_named(&plan.workloads)?;
    let (systems, absent) = options::present(&plan)?;
    let repeats = plan.repeats;
    let cells = workloads.len() * plan.networks.len() * systems.len() * usize::try_from(repeats)?;
    let networks = plan.networks.clone();
    let (mut file, mut progress) =
        program::open::<Value>(&arguments.options, "start", plan, (&systems, absent), cells)?;
    if let Some(dir) = &arguments.trace {
        if arguments.full {
            bail!("FULL and TRACE exclude each other: watching the network begins its log anew");
        }
        std::fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    }
    let depot = Depot::open()?;

    for workload in &workloads {
        let mut layout = None;
        for name in &networks {
            for repeat in 1..=repeats {
                for system in program::in_turns(&systems, repeat) {
                    let system_name = system.name();
                    if file.has(&workload.name, &system_name, name, repeat) {
                        continue;
                    }
                    if interrupt::told() {
                        return Ok(false);
                    }
                    // Made now at the latest, and not at all when there is nothing left to measure with it.
                    let layout = match &layout {
                        Some(layout) => layout,
                        None => layout.insert(progress.aside(|| workload.image())?),
                    };
                    let mut image = Image::default();
                    let after = arguments.full && repeat == 1 && system.is_lazy();
                    let what = format!("{} {name} {system_name} {repeat}/{repeats}", workload.name);
                    let trace = arguments.trace.as_deref().map(|dir| {
                        trace::file(
                            dir,
                            &cell(&file, clock::now(), &workload.name, &system_name, name, repeat),
                        )
                    });
                    let measured = program::guarded(|| {
                        let prepare = || depot.prepare(layout, &workload.script, system.as_ref());
                        let prepared = progress.aside(prepare)?;
                        image = prepared.image.clone();
                        let network = Network::logging(name, &depot, trace.as_deref())?;
                        let asked = Asked {
                            network: &network,
                            depot: &depot,
                            prepared: &prepared,
                            workload,
                            after,
                            lazy: system.leaves_some(&prepared.image),
                            trace: trace.as_deref().map(|file| (file, what.as_str())),
                        };
                        one(system.as_ref(), asked)
                    });
                    let Some(outcome) = program::outcome(measured) else { return Ok(false) };
                    progress.step(&what, &program::tell(&outcome, tell));
                    let cell = cell(&file, clock::now(), &workload.name, &system_name, name, repeat);
                    file.add(Value { cell, image, outcome })?;
                }
            }
        }
    }
    Ok(true)
}

/// One start on a fresh node; `None` when it was interrupted.
fn one(system: &dyn System, asked: Asked<'_>) -> Result<Option<Start>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let node = system.start(asked.network)?;
    runtime.block_on(interrupt::or(start::measure(&node, asked))).transpose()
}

fn tell(start: &Start) -> String {
    let again = start.second_ready.map(|seconds| format!(", again {seconds:.2} s")).unwrap_or_default();
    format!(
        "ready {:.2} s (pulled {:.2} s){again}, {:.1} MB in {} requests",
        start.ready,
        start.pulled,
        start.until_ready.bytes as f64 / 1e6,
        start.until_ready.requests.values().sum::<u64>(),
    )
}

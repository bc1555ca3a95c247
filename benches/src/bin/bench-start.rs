//! `./dev bench-start`: how soon a container is ready, and what that takes, for each workload, network and system.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use spandrel_benches::depot::Depot;
use spandrel_benches::guard::guarded;
use spandrel_benches::network::Network;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::progress::Progress;
use spandrel_benches::results::file::{RunFile, cell};
use spandrel_benches::results::start::{Image, Start, Value};
use spandrel_benches::results::{Machine, Outcome};
use spandrel_benches::system::System;
use spandrel_benches::workload::Workload;
use spandrel_benches::{clock, interrupt, say, start};

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
    /// Watch the network for 30 s more, once for each cell of a lazy system.
    #[arg(long, env = "FULL", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    full: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("interrupted; the same command continues");
            ExitCode::from(130)
        }
        Err(error) => {
            say(&format!("bench-start: {error:#}"));
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
    let repeats = plan.repeats;
    let cells = workloads.len() * plan.networks.len() * systems.len() * usize::try_from(repeats)?;
    let machine = Machine::this(&std::env::temp_dir(), options::versions(&systems));
    let networks = plan.networks.clone();
    let results = arguments.options.results();
    let mut file = RunFile::<Value>::open(&results, "start", plan, machine, &clock::now(), cells)?;
    file.set_absent(absent);
    say(&format!("results: {}", file.path().display()));
    let mut progress = Progress::new(cells, file.run().values.len());
    let depot = Depot::open()?;

    for workload in &workloads {
        let todo = |network: &str, system: &str, repeat| !file.has(&workload.name, system, network, repeat);
        let any = networks.iter().any(|network| {
            systems.iter().any(|system| (1..=repeats).any(|repeat| todo(network, &system.name(), repeat)))
        });
        if !any {
            continue;
        }
        let layout = workload.image()?;
        for name in &networks {
            for repeat in 1..=repeats {
                // Interleaved, and each time another one first: what changes on the machine meanwhile meets all alike.
                for at in 0..systems.len() {
                    let system = &systems[(at + usize::try_from(repeat)?) % systems.len()];
                    let system_name = system.name();
                    if file.has(&workload.name, &system_name, name, repeat) {
                        continue;
                    }
                    if interrupt::told() {
                        return Ok(false);
                    }
                    let mut image = Image::default();
                    let after = arguments.full && repeat == 1 && system.is_lazy();
                    let measured = guarded(|| {
                        let prepared = depot.prepare(&layout, &workload.script, system.as_ref())?;
                        image = prepared.image.clone();
                        let network = Network::start(name, &depot)?;
                        one(system.as_ref(), &network, &depot, &prepared, workload, after)
                    });
                    let outcome = match measured {
                        Ok(Some(start)) => Outcome::Measured(start),
                        Ok(None) => return Ok(false),
                        Err(error) => Outcome::Failed(format!("{error:#}")),
                    };
                    progress.step(
                        &format!("{} {name} {system_name} {repeat}/{repeats}", workload.name),
                        &tell(&outcome),
                    );
                    let cell = cell(&file, clock::now(), &workload.name, &system_name, name, repeat);
                    file.add(Value { cell, image, outcome })?;
                }
            }
        }
    }
    Ok(true)
}

/// One start on a fresh node; `None` when it was interrupted.
fn one(
    system: &dyn System,
    network: &Network,
    depot: &Depot,
    prepared: &spandrel_benches::depot::Prepared,
    workload: &Workload,
    after: bool,
) -> Result<Option<Start>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let node = system.start(network)?;
    let measuring = start::measure(&node, network, depot, prepared, workload, after);
    runtime.block_on(interrupt::or(measuring)).transpose()
}

fn tell(outcome: &Outcome<Start>) -> String {
    match outcome {
        Outcome::Measured(start) => format!(
            "ready {:.2} s (pulled {:.2} s), again {:.2} s, {:.1} MB in {} requests",
            start.ready,
            start.pulled,
            start.second_ready,
            start.until_ready.bytes as f64 / 1e6,
            start.until_ready.requests.values().sum::<u64>(),
        ),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}

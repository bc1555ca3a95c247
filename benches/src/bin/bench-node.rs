//! `./dev bench-node`: what very many images on one node take, and what they do to a container's start.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use spandrel_benches::options::{self, Defaults, Options};
use spandrel_benches::results::Absent;
use spandrel_benches::results::file::cell;
use spandrel_benches::results::node::{Node, Value};
use spandrel_benches::scale::{Images, Kind, Question, Session, most_images};
use spandrel_benches::{clock, interrupt, program, say};

/// Points of a curve, up to the images of a node that runs something of everything.
const DEFAULTS: Defaults<'_> = Defaults {
    workloads: &["images:0", "images:1", "images:50", "images:100", "images:200", "starts:16", "restart"],
    systems: &["spandrel", "spandrel-mounted", "overlayfs"],
    networks: &["local"],
    repeats: 1,
};

/// What very many images on one node take. WORKLOADS are questions: images:N, starts:N, restart.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("bench-node", || run(&arguments))
}

/// Whether it came to the end.
fn run(arguments: &Arguments) -> Result<bool> {
    let plan = arguments.options.plan(DEFAULTS)?;
    let mut questions = plan.workloads.iter().map(|text| text.parse()).collect::<Result<Vec<Question>>>()?;
    // A node only gets more images.
    questions.sort();
    questions.dedup();
    let (mut kinds, mut absent, mut systems) = (Vec::new(), Vec::new(), Vec::new());
    for name in &plan.systems {
        let kind = Kind::named(name)?;
        let system = kind.system();
        match system.absent() {
            None => kinds.push(kind),
            Some(why) => {
                say(&format!("{name} isn't there: {why}"));
                absent.push(Absent { system: name.clone(), why });
            }
        }
        systems.push(system);
    }
    if kinds.is_empty() {
        bail!("{}", options::nothing_there(&absent));
    }
    let repeats = plan.repeats;
    let asked: usize =
        kinds.iter().map(|kind| questions.iter().filter(|question| kind.answers(**question)).count()).sum();
    let cells = asked * plan.networks.len() * usize::try_from(repeats)?;
    let networks = plan.networks.clone();
    let (mut file, mut progress) =
        program::open::<Value>(&arguments.options, "node", plan, (&systems, absent), cells)?;
    let most = most_images(&questions);
    let mut images = Images::new()?;
    say(&format!("making {most} images of {} layers", Images::layers(most)));
    let indexed = kinds.iter().any(|kind| *kind != Kind::Overlayfs);
    if !images.push(most)? || (indexed && !images.index()?) {
        return Ok(false);
    }

    for name in &networks {
        let network = images.network(name)?;
        for repeat in 1..=repeats {
            for &kind in program::in_turns(&kinds, repeat) {
                let left: Vec<_> = questions
                    .iter()
                    .filter(|question| kind.answers(**question))
                    .filter(|question| !file.has(&question.to_string(), kind.name(), name, repeat))
                    .collect();
                if left.is_empty() {
                    continue;
                }
                let mut session = program::guarded(|| Session::start(kind, &network));
                for &question in left {
                    if interrupt::told() {
                        return Ok(false);
                    }
                    let answer = match &mut session {
                        Ok(session) => {
                            program::guarded(|| session.answer(question, question.images_before(&questions)))
                        }
                        Err(error) => Err(anyhow::anyhow!("{error:#}")),
                    };
                    let Some(outcome) = program::outcome(answer) else { return Ok(false) };
                    let what = format!("{question} {name} {} {repeat}/{repeats}", kind.name());
                    progress.step(&what, &program::tell(&outcome, tell));
                    let held = session.as_ref().map_or(0, Session::images);
                    let cell = cell(&file, clock::now(), &question.to_string(), kind.name(), name, repeat);
                    file.add(Value { cell, images: held, layers: Images::layers(held), outcome })?;
                }
            }
        }
    }
    Ok(true)
}

fn tell(node: &Node) -> String {
    let times = node.seconds.iter().map(|(what, seconds)| {
        let mut seconds = seconds.clone();
        seconds.sort_by(f64::total_cmp);
        format!("{what} {:.3} s, ", seconds.get(seconds.len() / 2).copied().unwrap_or_default())
    });
    format!(
        "{}{:.1} MB of memory, {} descriptors, {} threads, {} mounts, CPU {:.2} s",
        times.collect::<String>(),
        node.memory as f64 / 1e6,
        node.descriptors,
        node.threads,
        node.mounts,
        node.cpu,
    )
}

//! Results as a run could have left them: plausible, the same every time, and with everything that a report must cope with (failed
//! repeats, a system that isn't there, ten workloads by five systems).
//!
//! To look at the pictures: `REPORT_SAMPLE=folder cargo test -p spandrel-benches report` leaves results, page and pictures there.

use std::collections::BTreeMap;

use crate::report::units::{float, float_len};
use crate::results::start::{Image, Passed, Start};
use crate::results::{Absent, Cell, FORMAT, Machine, Outcome, Plan, Run, fs, index, node, start};

const SYSTEMS: [&str; 5] = ["overlayfs", "soci", "soci-parallel", "spandrel-eager", "spandrel"];

/// Name, layers, MB in the registry, share of it that a start reads, seconds that the program needs.
const WORKLOADS: [(&str, usize, f64, f64, f64); 10] = [
    ("busybox", 1, 0.9, 1.0, 0.05),
    ("python", 4, 152.0, 0.37, 1.4),
    ("node", 5, 71.0, 0.3, 0.8),
    ("java", 4, 118.0, 0.45, 1.1),
    ("postgres", 6, 96.0, 0.35, 1.9),
    ("redis", 3, 41.0, 0.2, 0.2),
    ("layers32", 32, 384.0, 0.05, 0.4),
    ("tensorflow", 3, 489.0, 0.55, 6.5),
    ("readall", 5, 231.0, 1.0, 1.2),
    ("smallfiles", 3, 148.0, 1.0, 9.0),
];

const PERCENTS: [usize; 6] = [5, 20, 40, 60, 80, 100];

pub fn machine() -> Machine {
    Machine {
        processor: "A processor of the sample".to_owned(),
        cores: 2,
        memory_mib: 7_936,
        kernel: "6.18.2".to_owned(),
        distribution: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        file_system: "ext2/ext3".to_owned(),
        unpigz: true,
        versions: [("containerd", "2.1.4"), ("runc", "1.3.0"), ("spandrel", "0.1.0"), ("soci", "0.4.1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
    }
}

pub fn run<V>(kind: &str, plan: Plan, values: Vec<V>) -> Run<V> {
    Run {
        format: FORMAT,
        kind: kind.to_owned(),
        begun: "2026-01-01T00:00:00Z".to_owned(),
        plan,
        machines: vec![machine()],
        absent: Vec::new(),
        values,
    }
}

pub fn plan(workloads: &[&str], systems: &[&str], networks: &[&str], repeats: u32) -> Plan {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Plan { workloads: owned(workloads), systems: owned(systems), networks: owned(networks), repeats }
}

pub fn cell(workload: &str, system: &str, network: &str, repeat: u32) -> Cell {
    Cell {
        machine: 0,
        at: format!("2026-01-01T00:0{}:00Z", repeat % 10),
        workload: workload.to_owned(),
        system: system.to_owned(),
        network: network.to_owned(),
        repeat,
    }
}

/// A start that took so many seconds; of an image of 100 MB in 4 layers.
pub fn started(workload: &str, system: &str, repeat: u32, pulled: f64, ready: f64) -> start::Value {
    start::Value {
        cell: cell(workload, system, "lan", repeat),
        image: Image { layers: 4, compressed: 100_000_000, uncompressed: 300_000_000, index: 0 },
        outcome: Outcome::Measured(Start {
            pulled,
            ready,
            second_ready: Some(ready / 2.0),
            until_ready: Passed {
                requests: BTreeMap::from([("blob".to_owned(), 4), ("manifest".to_owned(), 2)]),
                bytes: 37_000_000,
                longest_chain: 5,
                highest_concurrency: 4,
            },
            after: None,
            others: None,
            cpu: BTreeMap::from([("containerd".to_owned(), 0.5), ("snapshotter".to_owned(), 1.25)]),
            memory: BTreeMap::from([
                ("containerd".to_owned(), 40_000_000),
                ("snapshotter".to_owned(), 55_000_000),
            ]),
            disk: 120_000_000,
        }),
    }
}

/// Between 0.95 and 1.05, by a hash of the number.
fn noise(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    0.95 + float(*seed >> 54) / 10_240.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made-up sizes")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// What a start could take: a pull at the network's speed for eager systems, requests for lazy ones.
fn model(
    system: &str,
    network: &str,
    (layers, mb, share, program): (usize, f64, f64, f64),
    noise: f64,
) -> Start {
    let (speed, trip) = if network == "lan" { (125.0, 0.01) } else { (312.0, 0.03) };
    let lazy = matches!(system, "soci" | "spandrel") && mb > 10.0;
    let fetched = if lazy { mb * share + 0.3 } else { mb };
    let unpack = if lazy { 0.0 } else { mb / if system == "overlayfs" { 60.0 } else { 110.0 } };
    let overhead = if system == "soci" { 2.4 } else { 1.35 };
    let (pulled, waited) = if lazy {
        (0.15 + 6.0 * trip, fetched / speed * overhead + mb * share * trip * 0.12 * overhead)
    } else {
        (0.1 + 4.0 * trip + mb / speed + unpack, 0.0)
    };
    let pulled = pulled * noise;
    let ready = pulled + (0.35 + program + waited) * noise;
    let bytes = whole(fetched * 1e6);
    let has_daemon = system != "overlayfs";
    let mut cpu = BTreeMap::from([
        ("containerd".to_owned(), if lazy { 0.2 } else { mb / 70.0 }),
        ("shim".to_owned(), 0.12),
    ]);
    let mut memory = BTreeMap::from([("containerd".to_owned(), 48_000_000), ("shim".to_owned(), 14_000_000)]);
    if has_daemon {
        cpu.insert("snapshotter".to_owned(), fetched / 90.0 * noise);
        memory.insert(
            "snapshotter".to_owned(),
            whole((22.0 + float_len(layers) * 1.7 + fetched / 8.0) * 1e6 * noise),
        );
    }
    let kind = if lazy { "blob_range" } else { "blob" };
    let ranges = if lazy { whole(fetched / 4.0) + 1 } else { float_to_count(layers) };
    Start {
        pulled,
        ready,
        second_ready: Some((0.35 + program) * noise),
        others: None,
        until_ready: Passed {
            requests: BTreeMap::from([("manifest".to_owned(), 2), (kind.to_owned(), ranges)]),
            bytes,
            longest_chain: if lazy { 12 } else { 4 },
            highest_concurrency: if lazy { 8 } else { 3 },
        },
        after: lazy.then(|| Passed { bytes: whole((mb - fetched).max(0.0) * 0.6e6), ..Passed::default() }),
        cpu,
        memory,
        disk: whole(mb * 3.1e6),
    }
}

fn float_to_count(value: usize) -> u64 {
    whole(float_len(value))
}

pub fn starts() -> Run<start::Value> {
    let mut seed = 4;
    let mut values = Vec::new();
    let mut names: Vec<String> = WORKLOADS.iter().map(|workload| workload.0.to_owned()).collect();
    for network in ["lan", "s3"] {
        for (name, layers, mb, share, program) in WORKLOADS {
            for (system, repeat) in
                SYSTEMS.into_iter().flat_map(|system| (1..=3).map(move |repeat| (system, repeat)))
            {
                let image = Image {
                    layers,
                    compressed: whole(mb * 1e6),
                    uncompressed: whole(mb * 2.9e6),
                    index: if system == "soci" { whole(mb * 9e3) } else { 0 },
                };
                let start = model(system, network, (layers, mb, share, program), noise(&mut seed));
                let outcome = match (name, system, repeat) {
                    ("smallfiles", "soci", _) => {
                        Outcome::Failed("not ready after 180 s | log: <nothing>\nnothing".to_owned())
                    }
                    ("java", "spandrel", 2) => {
                        Outcome::Failed("StartContainer: context deadline exceeded".to_owned())
                    }
                    _ => Outcome::Measured(start),
                };
                values.push(start::Value { cell: cell(name, system, network, repeat), image, outcome });
            }
        }
    }
    for order in ["random", "tar"] {
        for percent in PERCENTS {
            let name = format!("density:{percent}:{order}");
            names.push(name.clone());
            for (system, repeat) in ["overlayfs", "spandrel"]
                .into_iter()
                .flat_map(|system| (1..=3).map(move |repeat| (system, repeat)))
            {
                let share = float_len(percent) / 100.0 * if order == "random" { 2.4 } else { 1.0 };
                let start = model(system, "lan", (5, 152.0, share, 0.2 + share * 0.4), noise(&mut seed));
                let image = Image { layers: 5, compressed: 152_000_000, uncompressed: 440_000_000, index: 0 };
                values.push(start::Value {
                    cell: cell(&name, system, "lan", repeat),
                    image,
                    outcome: Outcome::Measured(start),
                });
            }
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let systems: Vec<&str> = SYSTEMS.into_iter().chain(["stargz"]).collect();
    let mut run = run("start", plan(&names, &systems, &["lan", "s3"], 3), values);
    run.absent.push(Absent { system: "stargz".to_owned(), why: "no binaries in STARGZ".to_owned() });
    run
}

pub fn file_system() -> Run<fs::Value> {
    let mut seed = 5;
    let mut values = Vec::new();
    let tests =
        ["fio:read:buffered:1m:1", "fio:randread:buffered:4k:1", "fio:randread:mmap:4k:8", "find", "tar"];
    let systems = ["overlayfs", "soci", "spandrel"];
    for state in [fs::State::Cold, fs::State::Filled, fs::State::Warm] {
        for (test, system) in tests.into_iter().flat_map(|test| systems.map(|system| (test, system))) {
            let slow = if system == "overlayfs" { 1.0 } else { 1.3 }
                * if state == fs::State::Warm { 0.2 } else { 1.0 };
            let fio = test.starts_with("fio");
            let outcome = Outcome::Measured(fs::Test {
                seconds: 1.1 * slow * noise(&mut seed),
                bytes: fio.then_some(256 << 20),
                operations: fio.then_some(65_536),
                latency_99: fio.then_some(0.0004 * slow),
                fuse_requests: (system != "overlayfs").then_some(if system == "soci" { 5_512 } else { 484 }),
                snapshotter_cpu: (system != "overlayfs").then_some(0.31),
                network_bytes: 0,
            });
            values.push(fs::Value { cell: cell(test, system, "lan", 1), state, outcome });
        }
    }
    run("fs", plan(&tests, &systems, &["lan"], 1), values)
}

pub fn indexes() -> Run<index::Value> {
    let mut values = Vec::new();
    for (name, layers, mb, ..) in WORKLOADS.into_iter().take(3) {
        for (tool, slow) in [("soci create", 2.0), ("spandrel create", 1.0)] {
            let soci = if tool == "soci create" { 1.0 } else { 0.0 };
            let outcome = Outcome::Measured(index::Made {
                seconds: 0.2 + mb / 90.0 * slow,
                pull_seconds: soci * (1.0 + mb / 40.0),
                cpu: mb / 80.0 * slow,
                pull_cpu: soci * mb / 70.0,
                memory: whole(40e6 * slow),
                network_bytes: whole(mb * 1e6),
                index_bytes: whole(mb * 9e3),
                indexed_layers: layers.min(3),
            });
            let image = Image { layers, compressed: whole(mb * 1e6), uncompressed: 0, index: 0 };
            values.push(index::Value { cell: cell(name, tool, "lan", 1), image, outcome });
        }
    }
    run(
        "index",
        plan(&["busybox", "python", "node"], &["soci create", "spandrel create"], &["lan"], 1),
        values,
    )
}

pub fn nodes() -> Run<node::Value> {
    let mut values = Vec::new();
    for images in [1, 10, 50, 100, 200] {
        let node = node::Node {
            seconds: BTreeMap::from([("start".to_owned(), vec![0.3, 0.31, 0.35])]),
            memory: 31_000_000 + images * 420_000,
            descriptors: 20 + images,
            threads: 14,
            mounts: 30 + images * 8,
            cpu: 0.4,
        };
        let count = usize::try_from(images).unwrap();
        let cell = cell(&format!("images:{images}"), "spandrel", "lan", 1);
        values.push(node::Value { cell, images: count, layers: count * 8, outcome: Outcome::Measured(node) });
    }
    let node = node::Node {
        seconds: BTreeMap::from([("restart".to_owned(), vec![1.4, 1.5])]),
        ..node::Node::default()
    };
    values.push(node::Value {
        cell: cell("restart", "spandrel", "lan", 1),
        images: 200,
        layers: 1600,
        outcome: Outcome::Measured(node),
    });
    let names = ["images:1", "images:10", "images:50", "images:100", "images:200", "restart"];
    run("node", plan(&names, &["spandrel"], &["lan"], 1), values)
}

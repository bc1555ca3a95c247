//! Micro-benchmarks: each part that is on the way from a registry's bytes to a program's read, beside what one would
//! otherwise call for it. docs/development.md says what the groups compare.
//!
//! One file a subject; `input` makes what they work on. `cargo bench` measures; under `cargo test` every benchmark runs
//! once, on small inputs.

mod device;
mod device_child;
mod index;
mod input;
mod manifest;
mod planner;
mod span;
mod table;
mod tar_walk;
mod ztoc;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

/// Samples of each benchmark: the slowest takes a second for one, and the whole is to take about 3 minutes.
const SAMPLES: usize = 12;
/// How long each is run before it is measured: caches and branch predictors are warm after a few runs.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long each is measured.
const MEASURE: Duration = Duration::from_millis(1500);

fn main() {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some(device_child::SERVE), None) => return device_child::serve(),
        (Some(device_child::MOUNTER), None) => return device_child::mounter(),
        (Some(device_child::PROBE), Some(file)) if file != "--bench" => {
            return device_child::probe_read(&file);
        }
        _ => {}
    }
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURE)
        .configure_from_args();
    index::bench(&mut criterion);
    tar_walk::bench(&mut criterion);
    span::bench(&mut criterion);
    ztoc::bench(&mut criterion);
    table::bench(&mut criterion);
    manifest::bench(&mut criterion);
    planner::bench(&mut criterion);
    device::bench(&mut criterion);
    criterion.final_summary();
}

/// A group in which `len` bytes are worked on each time, and MB/s are printed.
fn bytes<'a>(criterion: &'a mut Criterion, name: &str, len: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::BytesDecimal(len as u64));
    group
}

/// A group in which `count` things are worked on each time.
fn elements<'a>(criterion: &'a mut Criterion, name: &str, count: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(count as u64));
    group
}

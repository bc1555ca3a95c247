//! How far starts are from what the network and the program allow.
//!
//! The limit of a workload: the same program started again where its image is there and warm (overlayfs' second container),
//! the bytes that a start cannot do without (the fewest that a lazy system of ours fetched until ready: spans that were read,
//! index and manifests) at the network's rate, and four round trips, which is the longest chain from a pull to a file's first
//! byte.

use spandrel_fixtures::proxy::Shape;

use super::Starts;
use crate::report::systems::{self, BASELINE};
use crate::report::table::Table;
use crate::report::units::{bytes, float, seconds};

/// Requests that wait for each other before a file's first byte: manifest, index, zTOC, blob.
const ROUND_TRIPS: f64 = 4.0;

/// The limit of one workload.
struct Limit {
    warm: f64,
    bytes: f64,
    seconds: f64,
}

fn limit(starts: &Starts<'_>, network: &str, workload: &str) -> Option<Limit> {
    let shape = Shape::named(network)?;
    let rate = float(shape.rate?);
    // What every request waits for, whatever it asks for.
    let round_trip = (shape.latency + shape.api.max(shape.first_byte)).as_secs_f64();
    let warm = starts.groups.get(network, workload, BASELINE)?.some(|start| start.second_ready)?.median;
    let lazy = starts.names.systems.iter().filter(|system| systems::is_lazy_of_ours(system));
    let fetched = lazy.filter_map(|system| {
        let cell = starts.groups.get(network, workload, system)?;
        Some(cell.stat(|start| float(start.until_ready.bytes))?.median)
    });
    let bytes = fetched.min_by(f64::total_cmp)?;
    Some(Limit { warm, bytes, seconds: warm + bytes / rate + ROUND_TRIPS * round_trip })
}

/// Workloads down, how many times the limit each system takes across; no rows where there is no limit to be known.
pub fn table(starts: &Starts<'_>, network: &str) -> Table {
    let systems = &starts.names.systems;
    let head = ["workload", "limit", "program alone", "bytes"].into_iter();
    let mut table = Table::new(1, head.chain(systems.iter().map(String::as_str)));
    for workload in starts.workloads(network) {
        let Some(limit) = limit(starts, network, workload) else { continue };
        let times = systems.iter().map(|system| {
            let ready = starts.groups.get(network, workload, system);
            let ready = ready.and_then(|cell| cell.stat(|start| start.ready));
            ready.map_or_else(
                || starts.without(network, workload, system).to_owned(),
                |ready| format!("{:.1}", ready.median / limit.seconds),
            )
        });
        let figures = [workload.to_owned(), seconds(limit.seconds), seconds(limit.warm), bytes(limit.bytes)];
        table.row(figures.into_iter().chain(times));
    }
    table
}

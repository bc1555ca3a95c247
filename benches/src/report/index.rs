//! The index section: making an image's index.

use super::groups::{Group, Groups, names};
use super::page::Page;
use super::start::layers;
use super::table::Table;
use super::units::{bytes, count, float, float_len, percent, seconds, whole_bytes};
use crate::results::Run;
use crate::results::index::{Made, Value};

/// Writes the section.
pub fn write(page: &mut Page, run: &Run<Value>) {
    let names = names(&run.plan, &run.values);
    let groups = Groups::of(&run.values, |value| &value.outcome);
    page.heading(2, "Making an index");
    page.prose(
        "Medians. *Before it*: what the tool needs and doesn't do itself (soci's wants the image in containerd); CPU seconds likewise. \
         Bytes from the registry are of both. The page cache is dropped before all of it, so soci's tool finds in memory what its pull \
         has just written. Peak memory is read every 5 ms.",
    );
    for network in &names.networks {
        let mut table = Table::new(
            2,
            [
                "image",
                "tool",
                "time (least to greatest)",
                "before it",
                "CPU",
                "CPU before it",
                "peak memory",
                "from the registry",
                "index",
                "of the image",
                "layers indexed",
            ],
        );
        for workload in &names.workloads {
            for system in &names.systems {
                if let Some(group) = groups.get(network, workload, system) {
                    table.row(row(group));
                }
            }
        }
        if !table.rows.is_empty() {
            page.heading(3, format!("At {network}"));
        }
        page.table(table);
    }
}

fn row(group: &Group<'_, Value, Made>) -> Vec<String> {
    let image = group.values.iter().map(|value| &value.image).max_by_key(|image| image.compressed);
    let name = image.filter(|image| image.compressed > 0).map_or_else(
        || group.workload.to_owned(),
        |image| format!("{} ({}, {})", group.workload, layers(image.layers), whole_bytes(image.compressed)),
    );
    let median = |figure: fn(&Made) -> f64| group.stat(figure).map(|stat| stat.median);
    let written =
        |figure: fn(&Made) -> f64, write: fn(f64) -> String| median(figure).map_or_else(String::new, write);
    let Some(time) = group.stat(|made| made.seconds) else {
        return vec![name, group.system.to_owned(), "failed".to_owned()];
    };
    let size = image.map(|image| float(image.compressed)).filter(|size| *size > 0.0);
    let share = median(|made| float(made.index_bytes)).zip(size).map(|(index, size)| percent(index / size));
    vec![
        name,
        group.system.to_owned(),
        super::start::spread(&time),
        written(|made| made.pull_seconds, seconds),
        written(|made| made.cpu, seconds),
        written(|made| made.pull_cpu, seconds),
        written(|made| float(made.memory), bytes),
        written(|made| float(made.network_bytes), bytes),
        written(|made| float(made.index_bytes), bytes),
        share.unwrap_or_default(),
        written(|made| float_len(made.indexed_layers), count),
    ]
}

//! Pictures of starts: times, bytes, memory.

use anyhow::Result;

use super::{Cell, Starts};
use crate::report::draw::curves::{self, Axis, Curves, Point, Series};
use crate::report::draw::panels::{self, Bar, Panel, Panels};
use crate::report::groups::{Groups, names};
use crate::report::page::Page;
use crate::report::stats::Stat;
use crate::report::systems::colour;
use crate::report::units::{bytes as write_bytes, float, float_len, percent, seconds, whole_bytes};
use crate::results::{Run, node};

/// Time to ready, split in pull and start.
pub fn times(page: &mut Page, starts: &Starts<'_>, network: &str) -> Result<()> {
    let bar = |cell: &Cell<'_>| {
        let ready = cell.stat(|start| start.ready)?;
        let pulled = cell.stat(|start| start.pulled)?.median.min(ready.median);
        let says =
            format!("{}  ({} + {})", seconds(ready.median), seconds(pulled), seconds(ready.median - pulled));
        Some(([pulled, ready.median - pulled], Some(ready), says))
    };
    let picture = Panels {
        title: format!("Time to ready at {network}"),
        parts: ["pull", "start"],
        note: "Medians; lines: least to greatest. Each workload has its own scale, from 0.".to_owned(),
        panels: panels(starts, network, bar, |_| None),
    };
    let alt =
        format!("Bars: time to ready at {network}, split in pull and start, for each workload and system");
    page.picture(&format!("start-{network}"), alt, panels::draw(&picture)?);
    Ok(())
}

/// Bytes fetched, beside the image's size.
pub fn bytes(page: &mut Page, starts: &Starts<'_>, network: &str) -> Result<()> {
    let bar = |cell: &Cell<'_>| {
        let until = cell.stat(|start| float(start.until_ready.bytes))?.median;
        let after = cell.some(|start| start.after.as_ref().map(|after| float(after.bytes)));
        let image = starts.image(network, cell.workload).map(|image| float(image.compressed));
        let mut says = write_bytes(until);
        if let Some(image) = image.filter(|size| *size > 0.0) {
            says.push_str(&format!("  ({})", percent(until / image)));
        }
        if let Some(after) = after.filter(|after| after.median > 0.0) {
            says.push_str(&format!(" + {}", write_bytes(after.median)));
        }
        Some(([until, after.map_or(0.0, |after| after.median)], None, says))
    };
    let picture = Panels {
        title: format!("Bytes from the registry at {network}"),
        parts: ["until ready", "in the 30 s after"],
        note: "Medians. Upright line: the image's size in the registry, and the scale's measure.".to_owned(),
        panels: panels(starts, network, bar, |compressed| (compressed > 0).then(|| float(compressed))),
    };
    let alt =
        format!("Bars: bytes fetched at {network} against each image's size, for each workload and system");
    page.picture(&format!("bytes-{network}"), alt, panels::draw(&picture)?);
    Ok(())
}

type Figures = ([f64; 2], Option<Stat>, String);

fn panels<'a>(
    starts: &Starts<'a>,
    network: &str,
    bar: impl Fn(&Cell<'a>) -> Option<Figures>,
    line: impl Fn(u64) -> Option<f64>,
) -> Vec<Panel> {
    let panel = |workload: &str| {
        let image = starts.image(network, workload);
        let cells =
            starts.names.systems.iter().filter_map(|system| starts.groups.get(network, workload, system));
        let bars = cells.map(|cell| {
            let (parts, spread, says) = match bar(cell) {
                Some((parts, spread, says)) => (Some(parts), spread, says),
                None => (None, None, "failed".to_owned()),
            };
            let colour = colour(cell.system, starts.place(cell.system));
            Bar { name: cell.system.to_owned(), colour, parts, spread, says }
        });
        let about = image.filter(|image| image.compressed > 0).map(|image| {
            format!("{}, {}", super::tables::layers(image.layers), whole_bytes(image.compressed))
        });
        Panel {
            name: workload.to_owned(),
            about: about.unwrap_or_default(),
            bars: bars.collect(),
            line: image.and_then(|image| line(image.compressed)),
        }
    };
    starts.workloads(network).into_iter().map(panel).collect()
}

/// The role whose memory grows with layers.
const SNAPSHOTTER: &str = "snapshotter";

/// Memory of snapshotters over the number of layers.
pub fn memory(page: &mut Page, starts: Option<&Starts<'_>>, node: Option<&Run<node::Value>>) -> Result<()> {
    let mut series = starts.map(peaks).unwrap_or_default();
    series.extend(node.map(resident).unwrap_or_default());
    if series.is_empty() {
        return Ok(());
    }
    page.background("## Memory against the number of layers");
    page.background(
        "Resident memory of the snapshotter's processes. Rings: peak until the first container was ready, one image on the node. \
         Joined dots: a node with many images mounted. containerd's own snapshotter has no process of its own, and isn't there.",
    );
    let picture = Curves {
        title: "Memory of snapshotters over the number of layers".to_owned(),
        note: "Rings: peak of one image's start. Joined dots: with many images mounted. Both axes are logarithmic.".to_owned(),
        x: Axis { name: "layers", logarithmic: true, write: |value| format!("{value:.0}") },
        y: Axis { name: "resident memory", logarithmic: true, write: axis_bytes },
        series,
        marks: Vec::new(),
    };
    let alt = "Dots: memory of snapshotters over the number of layers";
    page.picture("memory", alt, curves::draw(&picture)?);
    Ok(())
}

/// Peaks of starts: one point for each system, network and workload.
fn peaks(starts: &Starts<'_>) -> Vec<Series> {
    let of = |system: &String| {
        let cells = starts.groups.0.iter().filter(|cell| cell.system == system);
        let points = cells.filter(|cell| super::density::parse(cell.workload).is_none()).filter_map(|cell| {
            let image = starts.image(cell.network, cell.workload).filter(|image| image.layers > 0)?;
            let stat = cell.some(|start| start.memory.get(SNAPSHOTTER).map(|bytes| float(*bytes)))?;
            point(float_len(image.layers), &stat)
        });
        let mut points: Vec<Point> = points.collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
        let colour = colour(system, starts.place(system));
        Series { name: system.clone(), colour, points, joined: false }
    };
    let all = starts.names.systems.iter().map(of);
    all.filter(|series| !series.points.is_empty()).collect()
}

/// What a full node holds: one point for each number of layers.
fn resident(run: &Run<node::Value>) -> Vec<Series> {
    let names = names(&run.plan, &run.values);
    let of = |(place, system): (usize, &String)| {
        let values = run.values.iter().filter(|value| value.cell.system == *system && is_look(value));
        let groups = Groups::of(values, |value| &value.outcome);
        let points = groups.0.iter().filter_map(|group| {
            let layers = group.values.first().map(|value| float_len(value.layers))?;
            point(layers, &group.stat(|node| float(node.memory))?)
        });
        let mut points: Vec<Point> = points.collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
        Series { name: format!("{system}, full node"), colour: colour(system, place), points, joined: true }
    };
    let all = names.systems.iter().enumerate().map(of);
    all.filter(|series| !series.points.is_empty()).collect()
}

/// `None` for a memory of 0: nothing was measured, and a logarithmic axis has no place for it.
fn point(x: f64, stat: &Stat) -> Option<Point> {
    (stat.min > 0.0).then_some(Point { x, y: stat.median, min: stat.min, max: stat.max })
}

/// Round numbers of bytes, without digits that say nothing.
fn axis_bytes(value: f64) -> String {
    let written = write_bytes(value * 1.000_001);
    written.replace(".00 ", " ").replace(".0 ", " ")
}

/// Whether a question is how a node with so many images is found, not what happens on it.
fn is_look(value: &node::Value) -> bool {
    value.layers > 0 && value.cell.workload.starts_with("images:")
}

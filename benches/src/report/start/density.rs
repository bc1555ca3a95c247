//! The density sweep: how much of an image may be read before lazy loading no longer pays.

use anyhow::Result;

use super::Starts;
use crate::report::draw::curves::{self, Axis, Curves, Point, Series};
use crate::report::page::Page;
use crate::report::stats::Stat;
use crate::report::systems::colour;
use crate::report::table::Table;
use crate::report::units::seconds;

/// `density:PERCENT:ORDER` as its percent and order, `None` for other workloads.
pub fn parse(workload: &str) -> Option<(f64, &str)> {
    let (percent, order) = workload.strip_prefix("density:")?.split_once(':')?;
    let percent: f64 = percent.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some((percent, order))
}

/// A curve: percent and seconds, by percent.
pub type Curve = Vec<(f64, Stat)>;

/// Where ours stops being sooner, or later, than another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crossing {
    /// At this percent and these seconds, on straight lines between the points; from there on it is the other way round.
    At {
        /// Percent of the image.
        percent: f64,
        /// Seconds of both there.
        seconds: f64,
        /// Whether ours is sooner before and later after.
        then_later: bool,
    },
    /// Never: sooner, or as soon, everywhere.
    Sooner,
    /// Never: later, or as soon, everywhere.
    Later,
}

/// The first crossing of two curves over the percents that both have; `None` when they share fewer than two.
///
/// Curves that only touch don't cross.
pub fn crossing(ours: &Curve, other: &Curve) -> Option<Crossing> {
    let shared = ours.iter().filter_map(|(percent, ours)| {
        let (_, other) = other.iter().find(|(at, _)| at == percent)?;
        Some((*percent, ours.median, other.median))
    });
    let shared: Vec<(f64, f64, f64)> = shared.collect();
    if shared.len() < 2 {
        return None;
    }
    // The last point at which one of them was ahead, and what lay between: ties.
    let mut ahead: Option<(f64, f64, f64)> = None;
    let mut tie: Option<(f64, f64)> = None;
    for &(percent, mine, theirs) in &shared {
        let lead = mine - theirs;
        if lead == 0.0 {
            tie = tie.or(Some((percent, mine)));
            continue;
        }
        if let Some((before, mine_before, lead_before)) = ahead
            && (lead_before < 0.0) != (lead < 0.0)
        {
            let share = lead_before / (lead_before - lead);
            let between = (before + share * (percent - before), mine_before + share * (mine - mine_before));
            let (percent, seconds) = tie.unwrap_or(between);
            return Some(Crossing::At { percent, seconds, then_later: lead > 0.0 });
        }
        (ahead, tie) = (Some((percent, mine, lead)), None);
    }
    let later = ahead.is_some_and(|(_, _, lead)| lead > 0.0);
    Some(if later { Crossing::Later } else { Crossing::Sooner })
}

/// Writes the section, where a sweep was made.
///
/// # Errors
/// When a picture can't be drawn.
pub fn write(page: &mut Page, starts: &Starts<'_>) -> Result<()> {
    let sweeps = sweeps(starts);
    if sweeps.is_empty() {
        return Ok(());
    }
    page.heading(2, "How much may be read before lazy loading loses");
    page.prose(
        "The same image, of which a container reads a share of all bytes, file by file, and then is ready: in random \
         order, or as the files lie in the layers (tar). The crossing is where Spandrel with lazy loading stops being \
         sooner, on straight lines between the points; where there are several, the first.",
    );
    let mut crossings = Table::new(4, ["network", "order", "against", "crossing"]);
    for (network, order) in &sweeps {
        let of = |system: &str| curve(starts, network, order, system);
        let systems: Vec<&String> = starts.names.systems.iter().filter(|name| !of(name).is_empty()).collect();
        let mut marks = Vec::new();
        for other in systems.iter().filter(|name| **name != starts.ours()) {
            let Some(crossing) = crossing(&of(starts.ours()), &of(other)) else { continue };
            crossings.row([*network, *order, other.as_str(), &says(crossing, &of(starts.ours()))]);
            if let Crossing::At { percent, seconds, .. } = crossing {
                marks.push((percent, seconds, format!("{percent:.0} %")));
            }
        }
        marks.sort_by(|a, b| a.0.total_cmp(&b.0));
        page.heading(3, format!("{order} order at {network}"));
        page.table(points(&systems, &of));
        let series = systems.iter().map(|system| series(system, starts.place(system), &of(system)));
        let picture = Curves {
            title: format!(
                "Time to ready over the share of the image that is read ({order} order, {network})"
            ),
            note: "Medians with least and greatest; rings: where Spandrel's curve is crossed.".to_owned(),
            x: Axis { name: "share of the image's bytes that is read", logarithmic: false, write: percent },
            y: Axis { name: "time to ready", logarithmic: false, write: at_axis },
            series: series.collect(),
            marks,
        };
        let alt = format!("Curves: time to ready over percent read in {order} order at {network}");
        page.picture(&format!("density-{network}-{order}"), alt, curves::draw(&picture)?);
    }
    page.heading(3, "Crossings");
    page.table(crossings);
    Ok(())
}

/// Networks and orders for which there are points, in the plan's order.
fn sweeps<'s>(starts: &'s Starts<'_>) -> Vec<(&'s str, &'s str)> {
    let mut sweeps = Vec::new();
    for network in &starts.names.networks {
        for workload in &starts.names.workloads {
            let Some((_, order)) = parse(workload) else { continue };
            let sweep = (network.as_str(), order);
            if starts.groups.tried(network, workload) && !sweeps.contains(&sweep) {
                sweeps.push(sweep);
            }
        }
    }
    sweeps
}

fn curve(starts: &Starts<'_>, network: &str, order: &str, system: &str) -> Curve {
    let points = starts.names.workloads.iter().filter_map(|workload| {
        let (percent, has) = parse(workload)?;
        let cell = starts.groups.get(network, workload, system).filter(|_| has == order)?;
        Some((percent, cell.stat(|start| start.ready)?))
    });
    let mut curve: Curve = points.collect();
    curve.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    curve
}

fn points(systems: &[&String], of: &impl Fn(&str) -> Curve) -> Table {
    let mut table = Table::new(1, std::iter::once("read").chain(systems.iter().map(|name| name.as_str())));
    let curves: Vec<Curve> = systems.iter().map(|system| of(system)).collect();
    let mut percents: Vec<f64> = curves.iter().flatten().map(|(percent, _)| *percent).collect();
    percents.sort_by(f64::total_cmp);
    percents.dedup();
    for at in percents {
        let cells = curves.iter().map(|curve| {
            let point = curve.iter().find(|(percent, _)| *percent == at);
            point.map_or_else(|| "–".to_owned(), |(_, stat)| super::tables::spread(stat))
        });
        table.row(std::iter::once(percent(at)).chain(cells));
    }
    table
}

fn says(crossing: Crossing, ours: &Curve) -> String {
    let ends = |at: Option<&(f64, Stat)>| at.map_or_else(String::new, |(at, _)| percent(*at));
    match crossing {
        Crossing::At { percent, seconds: at, then_later } => {
            let way = if then_later { "later" } else { "sooner" };
            format!("{percent:.1} %, {}; {way} from there", seconds(at))
        }
        Crossing::Sooner => format!("none up to {}: sooner throughout", ends(ours.last())),
        Crossing::Later => format!("none: later from {} on", ends(ours.first())),
    }
}

fn series(system: &str, place: usize, curve: &Curve) -> Series {
    let point = |(x, stat): &(f64, Stat)| Point { x: *x, y: stat.median, min: stat.min, max: stat.max };
    Series {
        name: system.to_owned(),
        colour: colour(system, place),
        points: curve.iter().map(point).collect(),
        joined: true,
    }
}

fn percent(value: f64) -> String {
    format!("{value} %")
}

fn at_axis(value: f64) -> String {
    format!("{value} s")
}

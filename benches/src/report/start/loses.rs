//! Where Spandrel loses: every cell where another system's program was ready sooner.

use super::{Cell, Starts};
use crate::report::page::Page;
use crate::report::stats::Stat;
use crate::report::table::Table;
use crate::report::units::{ratio, seconds};
use crate::results::start::Start;

/// A cell in which another is sooner.
#[derive(Debug, PartialEq)]
struct Loss<'a> {
    network: &'a str,
    workload: &'a str,
    other: &'a str,
    ours: Stat,
    theirs: Stat,
}

impl Loss<'_> {
    /// Whether either is one value, which has no spread.
    fn is_single(&self) -> bool {
        self.ours.count.min(self.theirs.count) < 2
    }
}

/// Writes the section.
pub fn write(page: &mut Page, starts: &Starts<'_>) {
    if !starts.groups.0.iter().any(|cell| cell.system == starts.ours()) {
        return;
    }
    page.heading(2, "Where Spandrel loses");
    page.prose(
        "Every cell where the median of Spandrel with lazy loading is later than another system's, the largest \
         difference first. Where the repeats of either are further apart than the two medians, or there is one value, more \
         repeats may turn it round.",
    );
    for (what, figure) in FIGURES {
        let losses = losses(starts, figure);
        let both =
            |(ours, other): &(&Cell<'_>, &Cell<'_>)| ours.some(figure).and(other.some(figure)).is_some();
        let compared = pairs(starts).filter(both).count();
        if compared == 0 {
            continue;
        }
        if losses.is_empty() {
            page.prose(format!("**{what}**: never later, in {compared} comparisons."));
            continue;
        }
        page.prose(format!(
            "**{what}**: later in {} of {compared} comparisons{}.",
            losses.len(),
            sure(&losses)
        ));
        page.table(table(&losses));
    }
    let failed = failed(starts);
    if !failed.is_empty() {
        page.prose(format!("**Not ready at all**, where another was: {}.", failed.join(", ")));
    }
}

type Figure = fn(&Start) -> Option<f64>;

const FIGURES: [(&str, Figure); 2] = [
    ("The first container on a fresh node", |start| Some(start.ready)),
    ("A second container on the same node", |start| start.second_ready),
];

/// Our cells beside each other system's, where both have a figure.
fn pairs<'s, 'a>(starts: &'s Starts<'a>) -> impl Iterator<Item = (&'s Cell<'a>, &'s Cell<'a>)> {
    let cells = || starts.groups.0.iter().filter(|cell| !cell.measured.is_empty());
    cells().filter(|cell| cell.system == starts.ours()).flat_map(move |ours| {
        let others = cells().filter(|cell| cell.system != starts.ours());
        others
            .filter(|other| (other.network, other.workload) == (ours.network, ours.workload))
            .map(move |other| (ours, other))
    })
}

fn losses<'a>(starts: &Starts<'a>, figure: Figure) -> Vec<Loss<'a>> {
    let losses = pairs(starts).filter_map(|(cell, other)| {
        let (ours, theirs) = (cell.some(figure)?, other.some(figure)?);
        let (network, workload, other) = (cell.network, cell.workload, other.system);
        (ours.median > theirs.median).then_some(Loss { network, workload, other, ours, theirs })
    });
    let mut losses: Vec<Loss<'_>> = losses.collect();
    losses.sort_by(|a, b| {
        let later = |loss: &Loss<'_>| loss.ours.median - loss.theirs.median;
        let name = |loss: &Loss<'a>| (loss.network, loss.workload, loss.other);
        later(b).total_cmp(&later(a)).then_with(|| name(a).cmp(&name(b)))
    });
    losses
}

/// How many of them chance can't have made, as far as their repeats say.
fn sure(losses: &[Loss<'_>]) -> String {
    let single = losses.iter().filter(|loss| loss.is_single()).count();
    if single == losses.len() {
        return ", of one value each: how far repeats would be apart isn't known".to_owned();
    }
    let clear = losses.iter().filter(|loss| !loss.ours.blurs(&loss.theirs)).count();
    let single = if single == 0 { String::new() } else { format!("; {single} are of one value") };
    format!(", in {clear} of them by more than the spread{single}")
}

fn table(losses: &[Loss<'_>]) -> Table {
    let head = ["network", "workload", "against", "Spandrel", "the other", "later by", "", "spread"];
    let mut table = Table::new(3, head);
    for loss in losses {
        let (ours, theirs) = (loss.ours, loss.theirs);
        let spread = if loss.is_single() {
            "–".to_owned()
        } else {
            let larger = if ours.blurs(&theirs) { ", larger than the difference" } else { "" };
            format!("{}{larger}", seconds(ours.spread().max(theirs.spread())))
        };
        table.row([
            loss.network.to_owned(),
            loss.workload.to_owned(),
            loss.other.to_owned(),
            seconds(ours.median),
            seconds(theirs.median),
            seconds(ours.median - theirs.median),
            ratio(ours.median, theirs.median),
            spread,
        ]);
    }
    table
}

/// Cells in which every repeat of ours failed and another's didn't.
fn failed(starts: &Starts<'_>) -> Vec<String> {
    let none = starts.groups.0.iter().filter(|cell| cell.system == starts.ours() && cell.measured.is_empty());
    let others = |network: &str, workload: &str| {
        starts
            .groups
            .0
            .iter()
            .any(|cell| (cell.network, cell.workload) == (network, workload) && !cell.measured.is_empty())
    };
    none.filter(|cell| others(cell.network, cell.workload))
        .map(|cell| format!("{} at {}", cell.workload, cell.network))
        .collect()
}

//! Requests from the first Prepare to the first byte of a file, and how long the chain of those is that wait for one another.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use spandrel_fixtures::scripted::{Kind, Rounds, Seen};

use super::image::{SMALL, content, hello, wide};
use super::node::{Node, read_start};
use super::sheet::Sheet;
use super::values::{STARTS, Start};

/// How long the requests of a round may take to come. It ends only where fewer come than are written down. (The daemon asks
/// again after 15 s without an answer.)
const PATIENCE: Duration = Duration::from_secs(12);

/// How long a round stays open when all have come that are written down: more may, and then they are told as part of this
/// round. Where as many come as should, nothing depends on it.
const GRACE: Duration = Duration::from_millis(50);

type Counts = BTreeMap<Kind, u64>;

fn counts<'a>(requests: impl IntoIterator<Item = &'a Seen>) -> Counts {
    let mut counts = Counts::new();
    for seen in requests {
        *counts.entry(seen.kind).or_default() += 1;
    }
    counts
}

/// Does `work` while the registry answers in rounds: the next begins when as many requests wait as are `written` down for
/// this one.
async fn in_rounds<T>(
    rounds: &Rounds,
    written: &[u64],
    work: impl Future<Output = T>,
) -> (T, Vec<Vec<Seen>>) {
    let mut work = pin!(work);
    let mut seen = Vec::new();
    loop {
        let wanted = written.get(seen.len()).map_or(1, |n| usize::try_from(*n).expect("few"));
        let round = async {
            let come = tokio::time::timeout(PATIENCE, rounds.wait(wanted)).await.is_ok();
            if come {
                tokio::time::sleep(GRACE).await;
            }
            let round = rounds.let_go();
            assert!(!round.is_empty(), "no request came within {PATIENCE:?}, after {seen:#?}");
            round
        };
        tokio::select! {
            biased;
            done = &mut work => return (done, seen),
            round = round => seen.push(round),
        }
    }
}

async fn measure(figure: &Start, sheet: &mut Sheet) -> Option<()> {
    let mut node = Node::start(&wide(figure.layers), figure.way).await?;
    let written: Vec<Counts> = figure.rounds.iter().map(|round| round.iter().copied().collect()).collect();
    let sizes: Vec<u64> = written.iter().map(|round| round.values().sum()).collect();
    let rounds = node.registry.hold_in_rounds();
    let work = async {
        let merged = node.start_container().await;
        read_start(merged.join(hello(0)), SMALL).await
    };
    let (bytes, seen) = in_rounds(&rounds, &sizes, work).await;
    assert!(bytes == content(0, SMALL), "{}: other bytes", figure.what);
    // What came too late to be waited for is counted too.
    rounds.open();
    node.registry.wait_until_idle().await;
    let all = counts(&node.registry.log());

    let total = |counts: &Counts| counts.values().sum::<u64>();
    let what = |of: &str| format!("{of} until the first byte, {}", figure.what);
    sheet.see_that(&what("requests"), sizes.iter().sum(), total(&all));
    let mut by_kind = Counts::new();
    written.iter().flatten().for_each(|(kind, n)| *by_kind.entry(*kind).or_default() += n);
    for kind in by_kind.keys().chain(all.keys()).collect::<std::collections::BTreeSet<_>>() {
        let of = |counts: &Counts| counts.get(kind).copied().unwrap_or(0);
        sheet.see_that(&what(&format!("requests of kind {}", kind.name())), of(&by_kind), of(&all));
    }
    sheet.see_that(&what("requests in a chain"), written.len() as u64, seen.len() as u64);
    let seen: Vec<Counts> = seen.iter().map(counts).collect();
    if seen != written {
        sheet.otherwise(format!("{}: {written:?} written down, {seen:?} seen", what("rounds")));
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_until_the_first_byte() {
    let mut sheet = Sheet::default();
    for figure in STARTS {
        if measure(figure, &mut sheet).await.is_none() {
            return;
        }
    }
}

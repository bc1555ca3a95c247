//! A small run's text, word for word.

use super::sample::{cell, plan, run, started};
use super::save;
use crate::report::{Which, text};
use crate::results::start::{Image, Others, Start, Value};
use crate::results::{Absent, Outcome, Run};

/// Two workloads, three systems of which one isn't there: Spandrel wins one, loses one, and fails once.
fn small() -> Run<Value> {
    let mut values = Vec::new();
    for (repeat, pulled, ready) in [(1, 4.0, 5.0), (2, 4.2, 5.2), (3, 4.1, 5.4)] {
        values.push(started("python", "overlayfs", repeat, pulled, ready));
        values.push(started("python", "spandrel", repeat, pulled / 10.0, ready / 2.0));
        values.push(started("readall", "overlayfs", repeat, pulled, ready));
        let mut ours = started("readall", "spandrel", repeat, 0.5, ready + 1.0);
        if repeat == 3 {
            ours = Value {
                cell: cell("readall", "spandrel", "lan", 3),
                image: Image::default(),
                outcome: Outcome::Failed("a | reason".to_owned()),
            };
        }
        values.push(ours);
    }
    let mut run =
        run("start", plan(&["python", "readall"], &["overlayfs", "soci", "spandrel"], &["lan"], 3), values);
    run.absent.push(Absent { system: "soci".to_owned(), why: "no program soci-snapshotter-grpc".to_owned() });
    run
}

#[test]
fn a_small_run_reads_like_this() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "start.json", &small());
    let text = text(&[dir.path().to_owned()], Which::All).unwrap();
    let want = include_str!("golden.txt");
    assert_eq!(text, want, "\n{text}");
}

/// A start's value, of which there is none in this file when it failed.
fn measured(value: &mut Value) -> &mut Start {
    match &mut value.outcome {
        Outcome::Measured(start) => start,
        Outcome::Failed(why) => panic!("{why}"),
    }
}

#[test]
fn disturbed_starts_are_marked_and_single_values_are_not_sure() {
    let dir = tempfile::tempdir().unwrap();
    let mut base = started("python", "overlayfs", 1, 1.0, 2.0);
    measured(&mut base).others = Some(Others { cpu: 0.1, stolen: 0.2 });
    let mut ours = started("python", "spandrel", 1, 1.0, 5.0);
    *measured(&mut ours) = Start {
        second_ready: None,
        others: Some(Others { cpu: 0.5, stolen: 0.6 }),
        ..measured(&mut ours).clone()
    };
    let plan = plan(&["python"], &["overlayfs", "spandrel"], &["lan"], 1);
    save(dir.path(), "start.json", &run("start", plan, vec![base, ours]));
    let text = text(&[dir.path().to_owned()], Which::All).unwrap();
    for want in [
        "5.00 s†, ~2.5× later",
        "overlayfs   2.00 s  1.00 s            1.00 s",
        "spandrel   5.00 s†  1.00 s                 –",
        "†: a repeat was disturbed",
        "later in 1 of 1 comparisons, of one value each",
        "2.5× later       –",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
    assert!(!text.contains("**A second container on the same node**"), "{text}");
}

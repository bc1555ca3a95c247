//! A small run's text, word for word.

use super::sample::{cell, plan, run, started};
use super::save;
use crate::report::text;
use crate::results::start::{Image, Value};
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
    let text = text(&[dir.path().to_owned()]).unwrap();
    let want = include_str!("golden.txt");
    assert_eq!(text, want, "\n{text}");
}

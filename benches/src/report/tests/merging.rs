//! Several files of one kind.

use super::sample::{cell, plan, run, started};
use super::save;
use crate::report::load::{Which, load};
use crate::report::text;
use crate::results::start::Value;
use crate::results::{Absent, Outcome, Run};

fn one(repeat: u32) -> Run<Value> {
    run(
        "start",
        plan(&["python"], &["spandrel"], &["lan"], 3),
        vec![started("python", "spandrel", repeat, 0.5, 2.0)],
    )
}

#[test]
fn runs_of_like_machines_are_put_together_each_value_once() {
    let dir = tempfile::tempdir().unwrap();
    let (first, mut second) = (one(1), one(2));
    second.begun = "2026-01-02T00:00:00Z".to_owned();
    second.machines[0].memory_mib += 3;
    second.plan.workloads.push("redis".to_owned());
    second.absent.push(Absent { system: "stargz".to_owned(), why: "no binaries".to_owned() });
    save(dir.path(), "start-2.json", &first);
    save(dir.path(), "start-1.json", &second);
    // Named twice: as a file and by its folder.
    let results =
        load(&[dir.path().to_owned(), dir.path().join("start-2.json")], Which::All).unwrap().start.unwrap();
    assert_eq!(results.plan.workloads, ["python", "redis"]);
    assert_eq!(results.absent, second.absent);
    let repeats: Vec<_> =
        results.values.iter().map(|value| (value.cell.repeat, value.cell.machine)).collect();
    assert_eq!(repeats, [(1, 0), (2, 1)]);
    assert_eq!(results.machines.len(), 2);
    assert_eq!(results.begun, first.begun);
}

#[test]
fn runs_of_machines_that_differ_are_refused_with_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (first, mut second) = (one(1), one(2));
    second.machines[0].cores = 64;
    second.machines[0].versions.insert("containerd".to_owned(), "1.6.20".to_owned());
    second.machines[0].versions.remove("soci");
    save(dir.path(), "a.json", &first);
    save(dir.path(), "b.json", &second);
    let error = load(&[dir.path().to_owned()], Which::All).unwrap_err().to_string();
    for part in ["cores: 2 / 64", "containerd: 2.1.4 / 1.6.20", "`start`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("kernel") && !error.contains("runc"), "{error}");
    // What only one of them used is no difference.
    assert!(!error.contains("soci"), "{error}");
}

#[test]
fn what_is_no_result_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let empty = load(&[dir.path().to_owned()], Which::All).unwrap_err().to_string();
    assert!(empty.contains("there are no results"), "{empty}");
    let mut odd = one(1);
    odd.values.push(Value {
        cell: cell("python", "spandrel", "lan", 2),
        image: odd.values[0].image.clone(),
        outcome: Outcome::Failed(String::new()),
    });
    odd.values[1].cell.machine = 7;
    for (text, want) in [
        ("{".to_owned(), "is no JSON"),
        ("{}".to_owned(), "no result file"),
        ("{\"kind\": \"dance\"}".to_owned(), "`dance`"),
        ("{\"kind\": \"start\", \"format\": 99}".to_owned(), "not \"start\" in format"),
        (serde_json::to_string(&odd).unwrap(), "names machine 7"),
    ] {
        let path = dir.path().join("odd.json");
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", load(&[path], Which::All).unwrap_err());
        assert!(error.contains(want), "{want}: {error}");
    }
}

/// A run of a version of ours and of overlayfs.
fn of_version(version: &str, begun: &str, ready: f64) -> Run<Value> {
    let values =
        vec![started("python", "overlayfs", 1, 1.0, 4.0), started("python", "spandrel", 1, 0.5, ready)];
    let mut run = run("start", plan(&["python"], &["overlayfs", "spandrel"], &["lan"], 1), values);
    run.begun = begun.to_owned();
    let version = format!("spandrel-snapshotter 0.1.0 ({version})");
    run.machines[0].versions.insert("spandrel".to_owned(), version);
    run
}

#[test]
fn versions_stand_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    // Named so that the order of files isn't that of time.
    save(dir.path(), "b.json", &of_version("aaa", "2026-01-01T00:00:00Z", 2.0));
    save(dir.path(), "a.json", &of_version("bbb-dirty-12", "2026-01-02T00:00:00Z", 1.0));
    let results = load(&[dir.path().to_owned()], Which::All).unwrap().start.unwrap();
    assert_eq!(results.plan.systems, ["overlayfs", "spandrel@aaa", "spandrel@bbb-dirty-12"]);
    let text = text(&[dir.path().to_owned()], Which::All).unwrap();
    for want in [
        "workload  spandrel@aaa  spandrel@bbb-dirty-12      the last",
        "python          2.00 s                 1.00 s  ~2.0× sooner",
        "0.1.0 (aaa); spandrel-snapshotter 0.1.0 (bbb-dirty-12)",
        "**The first container on a fresh node**: never later, in 2 comparisons.",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn soci_as_it_was_measured_before_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let run = |repeat, set_up: Option<&str>| {
        let values = ["soci", "spandrel"].map(|system| started("python", system, repeat, 1.0, 2.0));
        let mut run = run("start", plan(&["python"], &["soci", "spandrel"], &["lan"], 1), values.to_vec());
        run.machines[0].versions.extend(set_up.map(|version| ("set-up".to_owned(), version.to_owned())));
        run
    };
    save(dir.path(), "a.json", &run(1, None));
    let old = load(&[dir.path().to_owned()], Which::All).unwrap().start.unwrap();
    assert_eq!(old.plan.systems, ["soci", "spandrel"]);
    save(dir.path(), "b.json", &run(2, Some("2")));
    let both = load(&[dir.path().to_owned()], Which::All).unwrap().start.unwrap();
    assert_eq!(both.plan.systems, ["soci@set-up-1", "soci@set-up-2", "spandrel"]);
    let systems: Vec<_> = both.values.iter().map(|value| value.cell.system.as_str()).collect();
    assert_eq!(systems, ["soci@set-up-1", "spandrel", "soci@set-up-2", "spandrel"]);
}

#[test]
fn the_newest_stand_alone_and_the_others_are_named() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "a.json", &of_version("aaa", "2026-01-01T00:00:00Z", 2.0));
    save(dir.path(), "b.json", &of_version("bbb", "2026-01-02T00:00:00Z", 1.0));
    let mut other = of_version("bbb", "2026-01-01T12:00:00Z", 3.0);
    other.machines[0].cores = 64;
    save(dir.path(), "c.json", &other);
    let results = load(&[dir.path().to_owned()], Which::Newest).unwrap();
    let start = results.start.unwrap();
    assert_eq!(
        (start.plan.systems.as_slice(), start.values.len()),
        (["overlayfs", "spandrel"].map(str::to_owned).as_slice(), 2)
    );
    assert_eq!(results.left_out.len(), 2);
    assert!(results.left_out[0].contains("a.json (spandrel: "), "{:?}", results.left_out);
    assert!(results.left_out[1].contains("c.json (cores: 64 / 2"), "{:?}", results.left_out);
    let text = text(&[dir.path().to_owned()], Which::Newest).unwrap();
    assert!(text.contains("Left out, since they weren't measured like the newest: "), "{text}");
}

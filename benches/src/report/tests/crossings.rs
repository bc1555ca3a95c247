//! Where two curves cross.

use crate::report::start::density::{Crossing, Curve, crossing, parse};
use crate::report::stats::Stat;

/// Percent and seconds.
type Points = &'static [(f64, f64)];

fn curve(points: &[(f64, f64)]) -> Curve {
    points.iter().map(|(percent, seconds)| (*percent, Stat::of([*seconds]).unwrap())).collect()
}

fn at(percent: f64, seconds: f64, then_later: bool) -> Option<Crossing> {
    Some(Crossing::At { percent, seconds, then_later })
}

#[test]
fn the_first_crossing_is_found_on_straight_lines() {
    let flat: Points = &[(0.0, 5.0), (50.0, 5.0), (100.0, 5.0)];
    let cases: [(&str, Points, Points, Option<Crossing>); 11] = [
        ("once", &[(0.0, 1.0), (50.0, 4.0), (100.0, 6.0)], flat, at(75.0, 5.0, true)),
        ("never, sooner", &[(0.0, 1.0), (50.0, 2.0), (100.0, 3.0)], flat, Some(Crossing::Sooner)),
        ("never, later", &[(0.0, 6.0), (50.0, 7.0), (100.0, 8.0)], flat, Some(Crossing::Later)),
        ("touching", &[(0.0, 1.0), (50.0, 5.0), (100.0, 3.0)], flat, Some(Crossing::Sooner)),
        ("touching at the end", &[(0.0, 1.0), (50.0, 3.0), (100.0, 5.0)], flat, Some(Crossing::Sooner)),
        ("through a point", &[(0.0, 1.0), (50.0, 5.0), (100.0, 9.0)], flat, at(50.0, 5.0, true)),
        ("twice", &[(0.0, 4.0), (50.0, 6.0), (100.0, 4.0)], flat, at(25.0, 5.0, true)),
        ("the other way", &[(0.0, 6.0), (50.0, 4.0), (100.0, 4.0)], flat, at(25.0, 5.0, false)),
        ("everywhere equal", flat, flat, Some(Crossing::Sooner)),
        ("one shared point", &[(0.0, 1.0), (20.0, 2.0)], flat, None),
        ("shared points only", &[(0.0, 4.0), (20.0, 99.0), (100.0, 6.0)], flat, at(50.0, 5.0, true)),
    ];
    for (name, ours, other, want) in cases {
        assert_eq!(crossing(&curve(ours), &curve(other)), want, "{name}");
    }
}

#[test]
fn density_workloads_are_told_by_their_name() {
    for (name, want) in [
        ("density:5:random", Some((5.0, "random"))),
        ("density:100:tar", Some((100.0, "tar"))),
        ("density:101:tar", None),
        ("density:x:tar", None),
        ("density:5", None),
        ("python", None),
    ] {
        assert_eq!(parse(name), want, "{name}");
    }
}

//! Repeats of one cell, put together.

use super::stats::Stat;
use crate::results::{Outcome, Plan, Value};

/// All repeats of one cell.
#[derive(Debug, Clone)]
pub struct Group<'a, V, T> {
    /// Name of the workload.
    pub workload: &'a str,
    /// Name of the system.
    pub system: &'a str,
    /// Name of the network.
    pub network: &'a str,
    /// Every value, failed ones too.
    pub values: Vec<&'a V>,
    /// Those that came to an end.
    pub measured: Vec<&'a T>,
}

/// All cells, in the order in which they were first met.
#[derive(Debug, Clone)]
pub struct Groups<'a, V, T>(pub Vec<Group<'a, V, T>>);

impl<'a, V: Value, T> Groups<'a, V, T> {
    /// Puts values together by cell.
    pub fn of(values: impl IntoIterator<Item = &'a V>, outcome: impl Fn(&'a V) -> &'a Outcome<T>) -> Self {
        let mut groups: Vec<Group<'a, V, T>> = Vec::new();
        for value in values {
            let cell = value.cell();
            let (workload, system, network) =
                (cell.workload.as_str(), cell.system.as_str(), cell.network.as_str());
            let at = groups
                .iter()
                .position(|group| {
                    (group.workload, group.system, group.network) == (workload, system, network)
                })
                .unwrap_or_else(|| {
                    let (values, measured) = (Vec::new(), Vec::new());
                    groups.push(Group { workload, system, network, values, measured });
                    groups.len() - 1
                });
            groups[at].values.push(value);
            if let Outcome::Measured(measured) = outcome(value) {
                groups[at].measured.push(measured);
            }
        }
        Self(groups)
    }

    /// One cell, where it was tried.
    pub fn get(&self, network: &str, workload: &str, system: &str) -> Option<&Group<'a, V, T>> {
        self.0
            .iter()
            .find(|group| (group.network, group.workload, group.system) == (network, workload, system))
    }

    /// Whether a workload was tried on a network with any system.
    pub fn tried(&self, network: &str, workload: &str) -> bool {
        self.0.iter().any(|group| (group.network, group.workload) == (network, workload))
    }
}

impl<V, T> Group<'_, V, T> {
    /// Median and spread of one figure of the repeats that came to an end.
    pub fn stat(&self, figure: impl Fn(&T) -> f64) -> Option<Stat> {
        Stat::of(self.measured.iter().map(|value| figure(value)))
    }

    /// Likewise, of a figure that not every repeat has.
    pub fn some(&self, figure: impl Fn(&T) -> Option<f64>) -> Option<Stat> {
        Stat::of(self.measured.iter().filter_map(|value| figure(value)))
    }

    /// How many repeats failed.
    pub fn failed(&self) -> usize {
        self.values.len() - self.measured.len()
    }
}

/// Names of all systems, workloads and networks: as planned, then what has values without being planned.
pub fn names<V: Value>(plan: &Plan, values: &[V]) -> Plan {
    let mut names = plan.clone();
    for value in values {
        let cell = value.cell();
        for (list, name) in [
            (&mut names.workloads, &cell.workload),
            (&mut names.systems, &cell.system),
            (&mut names.networks, &cell.network),
        ] {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    names
}

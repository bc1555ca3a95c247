//! What all benchmarks take: which workloads, systems and networks, how often, and where results go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::cache;
use crate::network::Network;
use crate::results::{Absent, Plan};
use crate::system::{self, Systems};

/// Options of every benchmark; each can be said as a variable too, as `./dev bench-start SYSTEMS=soci` does.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Workloads, with commas between them.
    #[arg(long, env = "WORKLOADS", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Systems, with commas between them.
    #[arg(long, env = "SYSTEMS", value_delimiter = ',')]
    pub systems: Vec<String>,
    /// Networks, with commas between them: local, lan, s3, wan.
    #[arg(long, env = "NETWORKS", value_delimiter = ',')]
    pub networks: Vec<String>,
    /// How often each cell is measured.
    #[arg(long, env = "REPEATS", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    /// Folder of the result files; an unfinished run of the same plan there is continued.
    #[arg(long, env = "RESULTS")]
    pub results: Option<PathBuf>,
}

/// What isn't said by options.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// Workloads.
    pub workloads: &'a [&'a str],
    /// Systems.
    pub systems: &'a [&'a str],
    /// Networks.
    pub networks: &'a [&'a str],
    /// Repeats.
    pub repeats: u32,
}

impl Options {
    /// The plan that the options and defaults make.
    ///
    /// # Errors
    /// When it names a network that there isn't.
    pub fn plan(&self, defaults: Defaults<'_>) -> Result<Plan> {
        let or = |given: &[String], default: &[&str]| {
            let given: Vec<_> = given.iter().filter(|name| !name.is_empty()).cloned().collect();
            if given.is_empty() { default.iter().map(|&name| name.to_owned()).collect() } else { given }
        };
        let plan = Plan {
            workloads: or(&self.workloads, defaults.workloads),
            systems: or(&self.systems, defaults.systems),
            networks: or(&self.networks, defaults.networks),
            repeats: self.repeats.unwrap_or(defaults.repeats),
        };
        let known = Network::names();
        if let Some(name) = plan.networks.iter().find(|name| !known.contains(name)) {
            bail!("there is no network {name:?}; there are: {}", known.join(", "));
        }
        Ok(plan)
    }

    /// Where results go.
    pub fn results(&self) -> PathBuf {
        self.results.clone().unwrap_or_else(cache::results)
    }
}

/// The systems of a plan that can run here, and those that can't.
///
/// # Errors
/// When one has a name that there isn't, and when none of them can run.
pub fn present(plan: &Plan) -> Result<(Systems, Vec<Absent>)> {
    let mut absent = Vec::new();
    let mut systems = system::named(&plan.systems)?;
    systems.retain(|system| match system.absent() {
        None => true,
        Some(why) => {
            crate::say(&format!("{} isn't there: {why}", system.name()));
            absent.push(Absent { system: system.name(), why });
            false
        }
    });
    if systems.is_empty() {
        bail!("{}", nothing_there(&absent));
    }
    Ok((systems, absent))
}

/// What is said where no system of a plan can run.
pub fn nothing_there(absent: &[Absent]) -> String {
    let why: Vec<_> = absent.iter().map(|absent| format!("{}: {}", absent.system, absent.why)).collect();
    format!("none of the systems asked for can run here ({})", why.join("; "))
}

/// Versions of these systems' programs and of what all share.
pub fn versions(systems: &Systems) -> BTreeMap<String, String> {
    let mut versions = system::shared_versions();
    versions.extend(systems.iter().flat_map(|system| system.versions()));
    versions
}

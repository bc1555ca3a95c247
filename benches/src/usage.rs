//! What processes have used, from `/proc`: the figures that the kernel keeps anyway, so that measuring costs nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What some processes have used, together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds, user and system, of the processes and of the children that they waited for.
    pub cpu: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The sum of the processes' peaks of resident memory in bytes.
    pub peak: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// What the processes `roots` and all that descend from them have used until now. One that has ended counts only with
/// its CPU time, and only if its parent waited for it.
pub fn of(roots: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in with_descendants(roots) {
        let Some(stat) = Stat::read(pid) else { continue };
        sum.cpu += stat.cpu;
        sum.threads += stat.threads;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.resident += kib(&status, "VmRSS");
        sum.peak += kib(&status, "VmHWM");
        sum.descriptors += std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.count() as u64);
    }
    sum
}

/// Makes the peaks of these processes and their descendants begin anew.
pub fn reset_peaks(roots: &[u32]) {
    // What the kernel's documentation of /proc/PID/clear_refs names so.
    const RESET_PEAK: &str = "5";
    for pid in with_descendants(roots) {
        // One that has just ended has no peak.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK);
    }
}

/// The peak of a process's resident memory in bytes; 0 when it has ended.
pub fn peak(pid: u32) -> u64 {
    kib(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmHWM")
}

/// These processes and all that descend from them.
fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children.get(pid).cloned().unwrap_or_default();
        found.extend(more.into_iter().filter(|pid| !roots.contains(pid)));
        next += 1;
    }
    found
}

/// A line of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    cpu: f64,
    threads: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let path: PathBuf = format!("/proc/{pid}/stat").into();
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// The fields after the program's name, which stands in parentheses and may hold any character: proc(5).
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        // From the third field (state) on; the manual counts from 1.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
            cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            threads: field(20)?,
        })
    }
}

/// A line such as `VmRSS:   1234 kB` in bytes, 0 when it isn't there (kernel threads, zombies).
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_passed_over() {
        let line = "7 (a) b) (c) S 3 7 7 0 -1 4194560 100 200 0 0 150 50 25 75 20 0 9 0 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.threads), (3, 9));
        assert!((stat.cpu - 3.0).abs() < 1e-9, "{}", stat.cpu);
        assert!(Stat::parse("7 (a) S").is_none());
    }

    #[test]
    fn children_count_with_their_parents() {
        let alone = of(&[std::process::id()]);
        assert!(
            alone.resident > 0 && alone.peak >= alone.resident && alone.descriptors >= 3 && alone.threads > 0
        );
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let both = with_descendants(&[std::process::id()]);
        assert!(both.contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!with_descendants(&[std::process::id()]).contains(&child.id()));
        assert_eq!(of(&[child.id()]), Usage::default());
    }
}

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
    of_each(&with_descendants(roots))
}

/// What these processes have used until now, and nobody else: as [`of`].
pub fn of_each(pids: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for &pid in pids {
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

/// Makes the peaks of these processes begin anew.
pub fn reset_peaks(pids: &[u32]) {
    // What the kernel's documentation of /proc/PID/clear_refs names so.
    const RESET_PEAK: &str = "5";
    for pid in pids {
        // One that has just ended has no peak.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK);
    }
}

/// The peak of a process's resident memory in bytes; 0 when it has ended.
pub fn peak(pid: u32) -> u64 {
    kib(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmHWM")
}

/// The processes of these shims, parted: shims with the runc that they start, and what runs in their containers.
///
/// A container's first process is runc's until it becomes the program, and then a child of the shim. What it starts stays
/// below it.
pub fn of_shims(shims: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut own, mut programs) = (Vec::new(), Vec::new());
    for pid in with_descendants(shims) {
        let Some(stat) = Stat::read(pid) else { continue };
        let is_program = !shims.contains(&pid) && (programs.contains(&stat.parent) || !is_runc(&stat.name));
        if is_program { &mut programs } else { &mut own }.push(pid);
    }
    (own, programs)
}

/// Whether a process of this name prepares a container: `runc`, `runc:[2:INIT]`, and a shim's child before it is either.
fn is_runc(name: &str) -> bool {
    name == "runc" || name.starts_with("runc:[") || name.starts_with("containerd-shim")
}

/// CPU seconds of this whole machine since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Machine {
    /// Seconds in which a core did something for this machine, the kernel's own work included.
    pub busy: f64,
    /// Seconds in which a core had something to do, and the host gave it to others.
    pub stolen: f64,
}

impl Machine {
    /// What the kernel says now; zeros where it says nothing.
    pub fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line of `/proc/stat`: user, nice, system, idle, waiting, interrupts, soft interrupts, stolen; guests' are
    /// among the first two (proc(5)).
    fn parse(text: &str) -> Self {
        let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let seconds = |places: &[usize]| {
            let ticks: u64 = places.iter().filter_map(|&place| ticks.get(place)).sum();
            ticks as f64 / rustix::param::clock_ticks_per_second() as f64
        };
        Self { busy: seconds(&[0, 1, 2, 5, 6]), stolen: seconds(&[7]) }
    }
}

/// These processes and all that descend from them, children after their parents.
pub fn with_descendants(roots: &[u32]) -> Vec<u32> {
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
    name: String,
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
        let (before, after) = line.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_whitespace().collect();
        // From the third field (state) on; the manual counts from 1.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
        Some(Self {
            name,
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
        assert_eq!((stat.name.as_str(), stat.parent, stat.threads), ("a) b) (c", 3, 9));
        assert!((stat.cpu - 3.0).abs() < 1e-9, "{}", stat.cpu);
        assert!(Stat::parse("7 (a) S").is_none());
    }

    #[test]
    fn what_a_container_runs_is_not_the_shims() {
        for (name, runc) in [
            ("runc", true),
            ("runc:[2:INIT]", true),
            ("containerd-shim", true),
            ("runcible", false),
            ("python3", false),
        ] {
            assert_eq!(is_runc(name), runc, "{name}");
        }
        // A "shim" with a child, which is no runc.
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (own, programs) = of_shims(&[std::process::id()]);
        assert!(own.contains(&std::process::id()) && !own.contains(&child.id()));
        assert!(programs.contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_machines_time_is_busy_or_stolen() {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let machine = Machine::parse("cpu  1 2 3 1000 1000 4 5 6 1 2\ncpu0 9 9 9 9\n");
        assert_eq!(machine, Machine { busy: 15.0 / ticks, stolen: 6.0 / ticks });
        assert_eq!(Machine::parse("intr 1"), Machine::default());
        assert!(Machine::now().busy > 0.0);
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

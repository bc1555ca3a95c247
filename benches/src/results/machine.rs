//! Where values were measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use spandrel_fixtures::require;

const MIB: u64 = 1 << 20;

/// A machine, and the programs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor as `/proc/cpuinfo` names it.
    pub processor: String,
    /// How many of its cores are ours.
    pub cores: usize,
    /// Main memory in MiB.
    pub memory_mib: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub distribution: String,
    /// File system that everything lay on: `ext4`, `xfs`.
    pub file_system: String,
    /// Whether unpigz is on the PATH: containerd inflates with it where it is.
    pub unpigz: bool,
    /// Versions of programs, by name.
    pub versions: BTreeMap<String, String>,
}

/// The program in [`Machine::versions`] whose versions are compared with one another.
pub const OURS: &str = "spandrel";

/// What [`Machine::versions`] calls the version of the measurements themselves.
const SET_UP: &str = "set-up";

/// Changed whenever values of some system can't stand beside older ones any more. 1, which isn't written: the registry answered
/// 500 where soci asks for a layer as a manifest, and soci tried again for nine seconds. 2: 404.
const SET_UP_NOW: &str = "2";

impl Machine {
    /// This machine; `scratch` is where measurements have their files, `versions` what the benchmark uses.
    pub fn this(scratch: &Path, mut versions: BTreeMap<String, String>) -> Self {
        versions.insert(SET_UP.to_owned(), SET_UP_NOW.to_owned());
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, separator: char| {
            let value = text.lines().find_map(|line| {
                let (key, value) = line.split_once(separator)?;
                (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
            });
            value.unwrap_or_else(|| "unknown".to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib * 1024 / MIB,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            distribution: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            file_system: output(Command::new("findmnt").args(["-n", "-o", "FSTYPE", "-T"]).arg(scratch)),
            unpigz: require::find_program("unpigz").is_some(),
            versions,
        }
    }

    /// Whether values from here may stand beside values from `other`: all that both have is the same. A program that only
    /// one of them names was of no use to the other.
    pub fn is_like(&self, other: &Self) -> bool {
        // A virtual machine of the same kind may have a few pages less.
        const MEMORY_MAY_DIFFER_MIB: u64 = 256;
        let memory = self.memory_mib.abs_diff(other.memory_mib) <= MEMORY_MAY_DIFFER_MIB;
        let versions = self
            .versions
            .iter()
            .all(|(program, version)| other.versions.get(program).is_none_or(|other| other == version));
        let (memory_mib, same) = (other.memory_mib, other.versions.clone());
        memory && versions && Self { memory_mib, versions: same, ..self.clone() } == *other
    }
}

impl Machine {
    /// The same without what is said about [`OURS`]: what all versions of it are measured on.
    #[must_use]
    pub fn without_ours(&self) -> Self {
        let mut without = self.clone();
        without.versions.remove(OURS);
        without
    }

    /// The version of the measurements.
    pub fn set_up(&self) -> &str {
        self.versions.get(SET_UP).map_or("1", String::as_str)
    }

    /// Short for the version of [`OURS`]: what stands in brackets, the state of its source; `None` where it isn't one of the
    /// programs.
    pub fn ours(&self) -> Option<&str> {
        let version = self.versions.get(OURS)?;
        let source = version.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        Some(source.unwrap_or(version))
    }
}

/// The first line of what a command prints, `unknown` when it can't be run or prints nothing.
pub fn output(command: &mut Command) -> String {
    let printed = command.output().map(|output| {
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    });
    printed.ok().filter(|line| !line.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_like_itself_and_not_like_another() {
        let versions = BTreeMap::from([("containerd".to_owned(), "2.1".to_owned())]);
        let this = Machine::this(Path::new("/"), versions);
        assert!(this.cores > 0 && this.memory_mib > 0 && !this.kernel.is_empty());
        let mut other = this.clone();
        other.memory_mib += 10;
        assert!(this.is_like(&other));
        other.memory_mib += 4096;
        assert!(!this.is_like(&other));
        let mut other = this.clone();
        other.versions.insert("soci".to_owned(), "0.4.1".to_owned());
        assert!(this.is_like(&other) && other.is_like(&this));
        other.versions.insert("containerd".to_owned(), "1.6".to_owned());
        assert!(!this.is_like(&other) && !other.is_like(&this));
    }
}

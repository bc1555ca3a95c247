//! A node under measurement: a containerd, its snapshotter, and what the kernel and the disk say of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use spandrel_fixtures::cri::Cri;
use spandrel_fixtures::peers::{self, Containerd};

use crate::depot::PAUSE;
use crate::say;
use crate::system::Daemon;
use crate::usage::{self, Usage};

/// What fills the containers' files.
#[derive(Debug)]
pub enum Snapshotter {
    /// containerd itself.
    Containerd,
    /// Spandrel's daemon.
    Spandrel(Daemon),
    /// soci-snapshotter.
    Soci(peers::Soci),
    /// stargz-snapshotter.
    Stargz(peers::Stargz),
}

impl Snapshotter {
    /// The process id of one that has a process of its own.
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Containerd => None,
            Self::Spandrel(daemon) => Some(daemon.process.pid()),
            Self::Soci(soci) => Some(soci.pid()),
            Self::Stargz(daemon) => Some(daemon.pid()),
        }
    }
}

/// A node. Dropping it ends all that runs on it and removes all that it had.
// Fields are dropped in this order: whoever uses the others goes first.
#[derive(Debug)]
pub struct Node {
    /// Its containerd.
    pub containerd: Containerd,
    /// Its snapshotter.
    pub snapshotter: Snapshotter,
    /// The registry as references on this node name it.
    pub host: String,
}

/// Roles of a node's processes, as results name them: [`Start::cpu`](crate::results::start::Start::cpu).
pub const ROLES: [&str; 4] = ["containerd", "shim", "program", "snapshotter"];

impl Node {
    /// A node of these parts.
    pub fn new(containerd: Containerd, snapshotter: Snapshotter, host: String) -> Self {
        Self { containerd, snapshotter, host }
    }

    /// The reference of an image by its repository and tag.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Its CRI, with the image of sandboxes pulled, as on a node that has run a pod before.
    ///
    /// # Errors
    /// When that image can't be pulled.
    pub async fn cri(&self) -> Result<Cri> {
        let mut cri = Cri::connect(&self.containerd.socket(), self.containerd.dir()).await;
        cri.pull(&self.reference(PAUSE)).await.context("the image of sandboxes can't be pulled")?;
        Ok(cri)
    }

    /// The processes of a role, those that descend from them included.
    pub fn processes(&self, role: &str) -> Vec<u32> {
        match role {
            "containerd" => {
                self.containerd.pid().map(|pid| usage::with_descendants(&[pid])).unwrap_or_default()
            }
            "shim" => usage::of_shims(&self.containerd.shims()).0,
            "program" => usage::of_shims(&self.containerd.shims()).1,
            _ => self.snapshotter.pid().map(|pid| usage::with_descendants(&[pid])).unwrap_or_default(),
        }
    }

    /// What each role has used until now; a role without a process isn't there.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let used = ROLES.iter().map(|role| ((*role).to_owned(), self.processes(role)));
        used.filter(|(_, pids)| !pids.is_empty()).map(|(role, pids)| (role, usage::of_each(&pids))).collect()
    }

    /// Makes peaks begin anew.
    pub fn reset_peaks(&self) {
        for role in ROLES {
            usage::reset_peaks(&self.processes(role));
        }
    }

    /// The files of its own programs, as they run now; not what runs in containers.
    pub fn programs(&self) -> Vec<PathBuf> {
        let roles = ROLES.iter().filter(|role| **role != "program");
        let pids = roles.flat_map(|role| self.processes(role));
        pids.filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok()).collect()
    }

    /// Bytes allocated on disk below all that is the node's, without what is mounted there.
    pub fn disk(&self) -> u64 {
        let snapshotter = match &self.snapshotter {
            Snapshotter::Containerd => None,
            Snapshotter::Spandrel(daemon) => Some(daemon.root()),
            Snapshotter::Soci(soci) => Some(soci.state()),
            Snapshotter::Stargz(daemon) => Some(daemon.root()),
        };
        let dirs = std::iter::once(self.containerd.dir().join("root")).chain(snapshotter);
        dirs.map(|dir| allocated(&dir)).sum()
    }

    /// Names what went wrong with this node, and shows the snapshotter's or containerd's last words to whoever looks on: they have
    /// paths of the machine, and results don't need them.
    ///
    /// # Errors
    /// The one in `result`.
    pub fn told<T>(&self, result: Result<T>, what: &str) -> Result<T> {
        result.inspect_err(|_| say(&self.tail())).with_context(|| what.to_owned())
    }

    fn tail(&self) -> String {
        match &self.snapshotter {
            Snapshotter::Spandrel(daemon) => daemon.process.tail(),
            Snapshotter::Soci(soci) => soci.tail(),
            Snapshotter::Stargz(stargz) => stargz.tail(),
            Snapshotter::Containerd => self.containerd.tail(),
        }
    }
}

/// Bytes allocated for `dir` and all below it on the same file system; a file with several names counts once.
fn allocated(dir: &Path) -> u64 {
    const BLOCK: u64 = 512; // what st_blocks counts, whatever the file system's blocks are
    let Ok(top) = dir.symlink_metadata() else { return 0 };
    let mut seen = std::collections::HashSet::new();
    let mut sum = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if meta.dev() != top.dev() || !seen.insert(meta.ino()) {
                continue;
            }
            sum += meta.blocks() * BLOCK;
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    sum
}

/// Empties the page cache, then reads these files into it: the registry's, which isn't on the node, and programs that
/// ran before.
///
/// # Errors
/// When the kernel refuses.
pub fn drop_caches(keep: &[PathBuf]) -> Result<()> {
    rustix::fs::sync();
    File::options()
        .write(true)
        .open("/proc/sys/vm/drop_caches")
        .and_then(|mut file| file.write_all(b"3"))
        .context("the page cache can't be dropped")?;
    for path in keep {
        let mut file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let before = allocated(dir.path());
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/b"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("a/b"), dir.path().join("c")).unwrap();
        // A hole has no blocks.
        File::create(dir.path().join("d")).unwrap().set_len(1 << 30).unwrap();
        File::open(dir.path().join("a/b")).unwrap().sync_all().unwrap();
        let more = allocated(dir.path()) - before;
        assert!((100_000..200_000).contains(&more), "{more}");
        assert_eq!(allocated(&dir.path().join("no")), 0);
    }
}

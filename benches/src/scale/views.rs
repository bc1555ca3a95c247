//! Views of images: as long as one is there its layers are in use, as by a container that runs, and stay mounted.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use spandrel_fixtures::peers::Containerd;

/// Where CRI has its snapshots.
const NAMESPACE: &str = "k8s.io";

/// The views of a node.
#[derive(Debug, Default)]
pub struct Views(BTreeSet<String>);

impl Views {
    /// Makes a view of every image that has none.
    ///
    /// # Errors
    /// containerd's.
    pub fn hold_all(&mut self, containerd: &Containerd) -> Result<()> {
        let snapshots = |arguments: &[&str]| {
            let all =
                [&["--namespace", NAMESPACE, "snapshots", "--snapshotter", "spandrel"], arguments].concat();
            containerd.ctr(&all).map_err(|error| anyhow!("ctr {}: {error}", all.join(" ")))
        };
        for top in tops(&snapshots(&["list"])?) {
            if !self.0.contains(&top) {
                snapshots(&["view", &format!("view-{}", self.0.len()), &top])?;
                self.0.insert(top);
            }
        }
        Ok(())
    }
}

/// The committed snapshots that none is built on, of a list as `ctr` prints it: key, parent (if any) and kind.
fn tops(list: &str) -> Vec<String> {
    let lines: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let parents: BTreeSet<&str> =
        lines.iter().filter(|fields| fields.len() == 3).map(|fields| fields[1]).collect();
    let committed = lines.iter().filter(|fields| fields.last() == Some(&"Committed"));
    committed.map(|fields| fields[0]).filter(|key| !parents.contains(key)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_stands_on_is_on_top() {
        let list =
            "KEY PARENT KIND\na  Committed\nb a Committed\nc b Committed\nd a Committed\nview-0 c View\n";
        assert_eq!(tops(list), ["d"], "c is held already");
    }
}

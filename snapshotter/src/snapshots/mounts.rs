//! The mounts that containerd is handed: exactly those of its own overlayfs snapshotter. Pure but for [`Overlay::probe`].

use std::path::Path;

use super::dirs::Dirs;
use super::store::Chain;
use crate::service::{Kind, Mount};

/// What this kernel's overlayfs wants to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlay {
    /// `index=off`: without it, a lower directory that serves two mounts gives EBUSY warnings.
    pub index_off: bool,
    /// `userxattr`: in a user namespace trusted.* can't be written.
    pub userxattr: bool,
}

impl Overlay {
    /// Finds out.
    pub fn probe() -> Self {
        // The map of the initial namespace is the identity over all IDs.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self {
            index_off: Path::new("/sys/module/overlay/parameters/index").exists(),
            userxattr: !map.is_empty() && !initial,
        }
    }

    /// The mounts of an active or view snapshot.
    pub fn mounts(self, dirs: &Dirs, chain: &Chain) -> Vec<Mount> {
        let path = |number| dirs.fs(number).to_string_lossy().into_owned();
        let number = chain.record.number;
        let active = chain.record.kind == Kind::Active;
        let bind = |source, flag: &str| {
            vec![Mount { kind: "bind", source, options: vec![flag.to_owned(), "rbind".to_owned()] }]
        };
        match chain.ancestors.as_slice() {
            [] => return bind(path(number), if active { "rw" } else { "ro" }),
            [only] if !active => return bind(path(only.number), "ro"),
            _ => {}
        }
        let mut options = Vec::new();
        if self.index_off {
            options.push("index=off".to_owned());
        }
        if self.userxattr {
            options.push("userxattr".to_owned());
        }
        if active {
            options.push(format!("workdir={}", dirs.work(number).to_string_lossy()));
            options.push(format!("upperdir={}", path(number)));
        }
        let lowers: Vec<_> = chain.ancestors.iter().map(|ancestor| path(ancestor.number)).collect();
        options.push(format!("lowerdir={}", lowers.join(":")));
        vec![Mount { kind: "overlay", source: "overlay".to_owned(), options }]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::service::Usage;
    use crate::snapshots::record::Record;
    use crate::snapshots::store::Ancestor;

    #[test]
    fn the_mounts_are_those_of_containerds_overlayfs() {
        let root = tempfile::tempdir().expect("tempdir");
        let dirs = Dirs::open(root.path()).expect("dirs");
        let base = root.path().display();
        let overlay = Overlay { index_off: true, userxattr: false };
        type Case = (Kind, Vec<u64>, &'static str, String, Vec<String>);
        let cases: [Case; 6] = [
            (
                Kind::Active,
                vec![],
                "bind",
                format!("{base}/snapshots/9/fs"),
                vec!["rw".into(), "rbind".into()],
            ),
            (Kind::View, vec![], "bind", format!("{base}/snapshots/9/fs"), vec!["ro".into(), "rbind".into()]),
            (
                Kind::View,
                vec![4],
                "bind",
                format!("{base}/snapshots/4/fs"),
                vec!["ro".into(), "rbind".into()],
            ),
            (
                Kind::View,
                vec![4, 2],
                "overlay",
                "overlay".into(),
                vec!["index=off".into(), format!("lowerdir={base}/snapshots/4/fs:{base}/snapshots/2/fs")],
            ),
            (
                Kind::Active,
                vec![4],
                "overlay",
                "overlay".into(),
                vec![
                    "index=off".into(),
                    format!("workdir={base}/snapshots/9/work"),
                    format!("upperdir={base}/snapshots/9/fs"),
                    format!("lowerdir={base}/snapshots/4/fs"),
                ],
            ),
            (
                Kind::Active,
                vec![4, 2],
                "overlay",
                "overlay".into(),
                vec![
                    "index=off".into(),
                    format!("workdir={base}/snapshots/9/work"),
                    format!("upperdir={base}/snapshots/9/fs"),
                    format!("lowerdir={base}/snapshots/4/fs:{base}/snapshots/2/fs"),
                ],
            ),
        ];
        for (kind, parents, want_kind, source, options) in cases {
            let chain = Chain {
                record: Record {
                    number: 9,
                    parent: String::new(),
                    kind,
                    labels: BTreeMap::new(),
                    created: SystemTime::UNIX_EPOCH,
                    updated: SystemTime::UNIX_EPOCH,
                    usage: Usage::default(),
                    remote: None,
                },
                ancestors: parents
                    .iter()
                    .map(|&number| Ancestor { key: number.to_string(), number, remote: None })
                    .collect(),
            };
            let want = vec![Mount { kind: want_kind, source, options }];
            assert_eq!(overlay.mounts(&dirs, &chain), want, "{kind:?} on {parents:?}");
        }
    }
}

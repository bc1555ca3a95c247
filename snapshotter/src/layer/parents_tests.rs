//! Which directory of which layer a name without an entry gets its attributes from.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use spandrel_fixtures::require;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use tempfile::TempDir;

use super::*;

/// Some layers below, the uppermost first.
struct Lowers(#[expect(dead_code, reason = "deletes the directory")] TempDir, Vec<PathBuf>);

impl Lowers {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let lowers: Vec<PathBuf> = (0..count).map(|n| dir.path().join(n.to_string())).collect();
        lowers.iter().for_each(|lower| fs::create_dir(lower).expect("made"));
        Self(dir, lowers)
    }

    /// Makes a directory in the layer number `lower`.
    fn directory(&self, lower: usize, path: &str, mode: u32, owner: u32) {
        let path = self.1[lower].join(path);
        fs::create_dir_all(&path).expect("made");
        chown(&path, Some(owner), Some(owner + 1)).expect("root may");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("root may");
    }

    fn whiteout(&self, lower: usize, path: &str) {
        mknodat(CWD, self.1[lower].join(path), FileType::CharacterDevice, Mode::empty(), 0)
            .expect("root may");
    }

    fn path(&self, lower: usize, path: &str) -> PathBuf {
        self.1[lower].join(path)
    }

    /// Mode and owner that the directory `path` of a layer gets that has nothing but a file in it.
    fn seen(&self, path: &str) -> (u16, u32, u32) {
        let inode = self.described(path);
        (inode.mode, inode.uid, inode.gid)
    }

    fn described(&self, path: &str) -> Inode {
        let mut tree = tree_with(&[&format!("{path}/x")]);
        describe(&mut tree, &self.1, None).expect("described");
        let (id, _) =
            implied(&tree).into_iter().find(|(_, found)| found == path.as_bytes()).expect("it is implied");
        tree.inodes[id as usize].clone()
    }
}

/// What a directory is like that no layer below has.
const UNKNOWN: (u16, u32, u32) = (0o755, 0, 0);

fn tree_with(files: &[&str]) -> Tree {
    let mut tar = spandrel_fixtures::layer::TarBuilder::default();
    for name in files {
        tar.add(&spandrel_fixtures::layer::Entry::file(name, "x"));
    }
    let tar = tar.finish();
    let mut walk = TarWalk::new(TarRules::Fill);
    walk.push(&tar).expect("a tar");
    Tree::new(&walk.finish().expect("whole").entries, tar.len() as u64).expect("a tree")
}

#[test]
fn the_uppermost_layer_that_has_the_directory_says_what_it_is_like() {
    if !require::root() {
        return;
    }
    let lowers = Lowers::new(3);
    assert_eq!(lowers.seen("tmp"), UNKNOWN);
    lowers.directory(2, "tmp", 0o1777, 0);
    assert_eq!(lowers.seen("tmp"), (0o1777, 0, 1));
    lowers.directory(1, "tmp", 0o2700, 1000);
    assert_eq!(lowers.seen("tmp"), (0o2700, 1000, 1001));
    // Each directory by itself: the upper layer knows only one of them.
    lowers.directory(2, "tmp/in", 0o711, 7);
    assert_eq!(lowers.seen("tmp/in"), (0o711, 7, 8));
    assert_eq!(lowers.seen("tmp/nowhere"), UNKNOWN);
}

#[test]
fn what_was_replaced_or_removed_says_nothing() {
    if !require::root() {
        return;
    }
    let lowers = Lowers::new(2);
    for name in ["removed", "file", "above/in", "dangling"] {
        lowers.directory(1, name, 0o700, 1000);
    }
    lowers.whiteout(0, "removed");
    fs::write(lowers.path(0, "file"), "").expect("written");
    lowers.whiteout(0, "above");
    for name in ["removed", "file", "above", "above/in"] {
        assert_eq!(lowers.seen(name), UNKNOWN, "{name}");
    }
    // containerd goes on to the next layer where a link leads to nothing in its own.
    symlink("nothing", lowers.path(0, "dangling")).expect("made");
    assert_eq!(lowers.seen("dangling"), (0o700, 1000, 1001));
    symlink("loop", lowers.path(0, "loop")).expect("made");
    assert_eq!(lowers.seen("loop"), UNKNOWN);
}

#[test]
fn links_lead_to_directories_of_the_same_layer_and_never_out_of_it() {
    if !require::root() {
        return;
    }
    let lowers = Lowers::new(2);
    lowers.directory(0, "usr/lib", 0o711, 5);
    symlink("/usr/lib", lowers.path(0, "lib")).expect("made");
    symlink("../../../../../../../../etc", lowers.path(0, "out")).expect("made");
    assert_eq!(lowers.seen("lib"), (0o711, 5, 6));
    assert!(Path::new("/etc").is_dir());
    assert_eq!(lowers.seen("out"), UNKNOWN);
    lowers.directory(0, "etc", 0o700, 9);
    assert_eq!(lowers.seen("out"), (0o700, 9, 10));
}

#[test]
fn times_and_attributes_come_along_but_for_those_of_overlayfs() {
    if !require::root() {
        return;
    }
    let Some(disk) = require::plain_disk() else { return };
    let lower = disk.path().join("lower");
    fs::create_dir_all(lower.join("a")).expect("made");
    for (name, value) in [("user.some", "thing"), ("trusted.overlay.opaque", "y")] {
        setxattr(lower.join("a"), name, value.as_bytes(), XattrFlags::empty()).expect("root may");
    }
    let meta = fs::metadata(lower.join("a")).expect("there");
    let mut tree = tree_with(&["a/x"]);
    describe(&mut tree, &[lower], None).expect("described");
    let inode = &tree.inodes[1];
    assert_eq!(inode.xattrs, [(b"user.some".to_vec(), b"thing".to_vec())]);
    let mtime = std::os::unix::fs::MetadataExt::mtime(&meta);
    assert_eq!(inode.mtime.seconds, mtime);
    assert!(matches!(inode.kind, InodeKind::Directory { opaque: false, .. }));
}

#[test]
fn a_layer_below_that_is_not_there_is_an_error() {
    let mut tree = tree_with(&["a/x"]);
    let error = describe(&mut tree, &[PathBuf::from("/nonexistent")], None);
    assert!(matches!(error, Err(Error::NotFound(_))), "{error:?}");
}

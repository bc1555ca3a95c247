//! An image's layers as tables, the kernel's overlay of them compared with what containerd unpacks of the same image.

mod containerd;
#[path = "../../src/layer/files.rs"]
#[expect(dead_code, reason = "the daemon's own; some of it is needed here")]
mod files;
mod image;
#[path = "../../src/layer/parents.rs"]
mod parents;
mod place;
mod seen;
#[path = "../../src/layer/table.rs"]
mod table;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use spandrel_fixtures::require;
// What `table` calls it in the daemon.
use spandrel_snapshotter::Error;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::tree::Tree;

use containerd::Containerd;
use place::Place;

/// The layers whose tars are `tars`, the lowest first, as tables, mounted; the uppermost first.
fn mount_tables(place: &mut Place, tars: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let mut walk = TarWalk::new(TarRules::Fill);
        walk.push(tar).expect("a tar");
        let toc = walk.finish().expect("a whole tar");
        let mut tree = Tree::new(&toc.entries, tar.len() as u64).expect("a tree");
        parents::describe(&mut tree, &lowers).expect("the layers below can be looked into");
        let table = table::build(&tree, tar.len() as u64).expect("a table");
        lowers.insert(0, place.table(&format!("layer-{number}"), tar, &table));
    }
    lowers
}

/// Whether there is what the tests need.
fn has_programs() -> bool {
    ["containerd", "ctr", "tar", "find"].iter().all(|program| require::program(program).is_some())
}

/// Compares an overlay of tables of `tars` with what containerd unpacks of them; says how many names there are, and where
/// ours is.
fn compare(place: &mut Place, tars: &[Vec<u8>], timeless: &[&str]) -> (usize, PathBuf) {
    let lowers = mount_tables(place, tars);
    let lowers: Vec<&Path> = lowers.iter().map(AsRef::as_ref).collect();
    let ours = place.overlay("ours", &lowers);
    let containerd = Containerd::start(place.path());
    let theirs = place.folder("theirs");
    containerd.import_and_mount(tars, &theirs);
    place.adopt(&theirs);
    (seen::assert_same(&ours, &theirs, timeless), ours)
}

#[test]
fn an_overlay_of_tables_is_what_containerd_unpacks() {
    let Some(mut place) = Place::new() else { return };
    if !has_programs() {
        return;
    }
    let (count, ours) = compare(&mut place, &image::layers(), &[]);
    assert!(count > 1000, "only {count} names");
    // The same is to be seen by name as by listing.
    assert!(!ours.join(image::HIDDEN).exists());
}

#[test]
fn directories_without_entries_are_what_containerd_makes_of_them() {
    let Some(mut place) = Place::new() else { return };
    if !has_programs() {
        return;
    }
    let (count, ours) = compare(&mut place, &image::odd(), &image::WITHOUT_ENTRY);
    assert_eq!(count, 25);
    let mode = |name: &str| {
        let meta = std::fs::metadata(ours.join(name)).expect("there");
        (meta.permissions().mode() & 0o7777, meta.uid())
    };
    assert_eq!((mode("tmp"), mode("app"), mode("removed")), ((0o1777, 0), (0o700, 1000), (0o755, 0)));
}

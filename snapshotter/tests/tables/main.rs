//! An image's layers as tables, the kernel's overlay of them compared with what containerd unpacks of the same image.

mod containerd;
mod image;
mod place;
mod seen;
#[path = "../../src/layer/table.rs"]
mod table;

use std::path::Path;

use spandrel_fixtures::require;
// What `table` calls it in the daemon.
use spandrel_snapshotter::Error;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::tree::Tree;

use containerd::Containerd;
use place::Place;

/// The table of the layer whose tar is `tar`.
fn table_of(tar: &[u8]) -> Vec<u8> {
    let mut walk = TarWalk::new(TarRules::Fill);
    walk.push(tar).expect("a tar");
    let toc = walk.finish().expect("a whole tar");
    let tree = Tree::new(&toc.entries, tar.len() as u64).expect("a tree");
    table::build(&tree, tar.len() as u64).expect("a table")
}

#[test]
fn an_overlay_of_tables_is_what_containerd_unpacks() {
    let Some(mut place) = Place::new() else { return };
    for program in ["containerd", "ctr", "tar", "find"] {
        if require::program(program).is_none() {
            return;
        }
    }
    let tars = image::layers();
    let lowers: Vec<_> = tars
        .iter()
        .zip(["bottom", "middle", "top"])
        .map(|(tar, name)| place.table(name, tar, &table_of(tar)))
        .collect();
    let lowers: Vec<&Path> = lowers.iter().rev().map(AsRef::as_ref).collect();
    let ours = place.overlay("ours", &lowers);

    let containerd = Containerd::start(place.path());
    let theirs = place.folder("theirs");
    containerd.import_and_mount(&tars, &theirs);
    place.adopt(&theirs);
    let count = seen::assert_same(&ours, &theirs);
    assert!(count > 1000, "only {count} names");
    // The same is to be seen by name as by listing.
    assert!(!ours.join(image::HIDDEN).exists());
}

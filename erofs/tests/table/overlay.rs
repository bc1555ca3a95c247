//! Tables as lower layers of an overlay.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use spandrel_erofs::OpaqueXattr;

use crate::compare::see;
use crate::model::{Node, Tree, What};
use crate::mounts::{Place, place};

/// Three layers, and the names (with the content of files) that their overlay has.
fn layers() -> ([Tree; 3], Vec<(&'static str, &'static str)>) {
    let mut bottom = Tree::new();
    let etc = bottom.add(0, "etc", Node::directory());
    bottom.add(etc, "hosts", Node::file("bottom"));
    bottom.add(etc, "passwd", Node::file("bottom"));
    let opt = bottom.add(0, "opt", Node::directory());
    bottom.add(opt, "old", Node::file("bottom"));
    let deep = bottom.add(opt, "deep", Node::directory());
    bottom.add(deep, "deeper", Node::file("bottom"));
    let var = bottom.add(0, "var", Node::directory());
    bottom.add(var, "log", Node::directory());
    bottom.add(0, "file then directory", Node::file("bottom"));
    let was = bottom.add(0, "directory then file", Node::directory());
    bottom.add(was, "gone", Node::file("bottom"));
    bottom.add(0, "comes back", Node::file("bottom"));

    let mut middle = Tree::new();
    let etc = middle.add(0, "etc", Node::directory());
    middle.add(etc, "hosts", Node::new(What::Whiteout));
    middle.add(etc, "group", Node::file("middle"));
    let opt = middle.add(0, "opt", Node::opaque());
    middle.add(opt, "new", Node::file("middle"));
    middle.add(0, "var", Node::new(What::Whiteout));
    let now = middle.add(0, "file then directory", Node::directory());
    middle.add(now, "inside", Node::file("middle"));
    middle.add(0, "directory then file", Node::file("middle"));
    middle.add(0, "comes back", Node::new(What::Whiteout));

    let mut top = Tree::new();
    let etc = top.add(0, "etc", Node::directory().mode(0o700));
    top.add(etc, "passwd", Node::file("top"));
    let opt = top.add(0, "opt", Node::directory());
    // What is opaque hides it from a layer above, too.
    let deep = top.add(opt, "deep", Node::directory());
    top.add(deep, "other", Node::file("top"));
    top.add(0, "comes back", Node::file("top"));
    top.add(0, "never was", Node::new(What::Whiteout));

    let names = vec![
        ("", ""),
        ("/comes back", "top"),
        ("/directory then file", "middle"),
        ("/etc", ""),
        ("/etc/group", "middle"),
        ("/etc/passwd", "top"),
        ("/file then directory", ""),
        ("/file then directory/inside", "middle"),
        ("/opt", ""),
        ("/opt/deep", ""),
        ("/opt/deep/other", "top"),
        ("/opt/new", "middle"),
    ];
    ([bottom, middle, top], names)
}

/// Mounts the three and an overlay of them.
fn overlay(place: &mut Place, opaque: OpaqueXattr, flags: &[&str]) -> PathBuf {
    let ([mut bottom, mut middle, mut top], _) = layers();
    let bottom = place.mount_tar_as("bottom", &mut bottom, opaque);
    let middle = place.mount_tar_as("middle", &mut middle, opaque);
    let top = place.mount_tar_as("top", &mut top, opaque);
    place.mount_overlay("overlay", &[&top, &middle, &bottom], flags)
}

fn assert_merged(root: &Path) {
    let (_, want) = layers();
    let got = see(root);
    let names: Vec<_> = got.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let want_names: Vec<_> = want.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, want_names);
    for (name, content) in want {
        let path = format!("{}{name}", root.display());
        if !content.is_empty() {
            assert_eq!(fs::read_to_string(&path).expect("a file"), content, "{name}");
        }
        // Overlayfs keeps its marks to itself.
        assert!(
            got[name.as_bytes()].xattrs.keys().all(|name| !name.starts_with(b"trusted.overlay")),
            "{name}"
        );
    }
    assert_eq!(got[b"/etc".as_slice()].mode & 0o7777, 0o700);
}

#[test]
fn three_tables_merge_with_whiteouts_and_opaque_directories() {
    let Some(mut place) = place() else { return };
    let root = overlay(&mut place, OpaqueXattr::Trusted, &[]);
    assert_merged(&root);
}

#[test]
fn user_attributes_mark_opaque_directories_for_userxattr() {
    let Some(mut place) = place() else { return };
    let root = overlay(&mut place, OpaqueXattr::User, &["userxattr"]);
    assert_merged(&root);
}

#[test]
fn the_wrong_attribute_marks_nothing() {
    let Some(mut place) = place() else { return };
    let root = overlay(&mut place, OpaqueXattr::User, &[]);
    assert!(root.join("opt/old").exists());
}

#[test]
fn an_inode_keeps_its_number_when_it_is_copied_up() {
    let Some(mut place) = place() else { return };
    let ([mut bottom, mut middle, mut top], _) = layers();
    let bottom = place.mount_tar("bottom", &mut bottom);
    let middle = place.mount_tar("middle", &mut middle);
    let top = place.mount_tar("top", &mut top);
    let lowers = [top.as_path(), &middle, &bottom];
    let root = place.mount_overlay("overlay", &lowers, &[]);
    // Of two layers: overlayfs finds a copy's origin by the UUID of its file system.
    let files = ["etc/passwd", "etc/group"].map(|name| root.join(name));
    let number = |path: &PathBuf| fs::metadata(path).expect("a file").ino();
    let before = files.each_ref().map(number);
    for path in &files {
        fs::write(path, "changed").expect("copy it up");
    }
    assert_eq!(files.each_ref().map(number), before);
    place.unmount(&root);
    place.mount_overlay("overlay", &lowers, &[]);
    assert_eq!(files.each_ref().map(number), before);
    fs::remove_file(&files[0]).expect("remove it");
    assert!(!files[0].exists());
}

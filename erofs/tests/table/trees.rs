//! The kernel's view of a table over a tar against what GNU `tar` extracts from the same tar.

use std::path::Path;
use std::process::Command;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spandrel_fixtures::require;

use crate::compare::{assert_like, assert_same};
use crate::model::{Node, Tree, What, Xattrs};
use crate::mounts::{Place, place};

/// Mounts are slow beside what proptest usually tries.
const CASES: u32 = 24;

/// Version 2 of a file capability: CAP_NET_RAW, permitted and effective.
const CAP_NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Mounts `tree` and extracts its tar; both must be as it says.
fn check(place: &mut Place, tar: &Path, name: &str, tree: &mut Tree) {
    let mounted = place.mount_tar(name, tree);
    let extracted = place.folder(&format!("{name}.tree"));
    let done = Command::new(tar)
        .args(["--extract", "--numeric-owner", "--same-owner", "--preserve-permissions"])
        .args(["--delay-directory-restore", "--xattrs", "--xattrs-include=*", "--file"])
        .arg(place.path(&format!("{name}.tar")))
        .arg("--directory")
        .arg(&extracted)
        .output()
        .expect("run tar");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_like(&mounted, tree);
    assert_same(&mounted, &extracted);
}

#[test]
fn a_tree_with_everything_is_as_tar_extracts_it() {
    let (Some(mut place), Some(tar)) = (place(), require::program("tar")) else { return };
    let mut tree = Tree::new();
    tree.nodes[0].mtime = (1_234_567_890, 987_654_321);
    tree.nodes[0].xattrs = vec![(b"user.root".to_vec(), b"yes".to_vec())];
    let usr = tree.add(0, "usr", Node::directory().mode(0o1777).owner(1000, 70_000));
    let bin = tree.add(usr, "bin", Node::directory());
    let ping = tree.add(
        bin,
        "ping",
        Node::file(vec![0x7f; 70_001]).mode(0o755).xattr("security.capability", CAP_NET_RAW),
    );
    tree.link(usr, "ping6", ping);
    tree.link(0, "another", ping);
    tree.add(bin, "su", Node::file("#!").mode(0o4755));
    tree.add(bin, "wall", Node::file("w").mode(0o2755).owner(0, 5));
    tree.add(0, "empty", Node::file(""));
    tree.add(0, "one block", Node::file(vec![1; 512]));
    tree.add(0, "a block and a byte", Node::file(vec![2; 513]));
    tree.add(0, "none", Node::directory().mode(0o700));
    tree.add(0, "link", Node::symlink("usr/bin/ping"));
    tree.add(0, "dangling", Node::symlink("/nowhere"));
    tree.add(0, "long link", Node::symlink(vec![b'x'; 4095]));
    tree.add(0, "null", Node::new(What::Char(1, 3)).mode(0o666));
    tree.add(0, "large", Node::new(What::Block(4095, 0xf_ffff)));
    let fifo = tree.add(0, "fifo", Node::new(What::Fifo));
    tree.link(bin, "fifo again", fifo);
    tree.add(0, "whiteout", Node::new(What::Whiteout));
    tree.add(0, "before the epoch", Node::file("old").mtime(-1_000_000_000, 750_000_000));
    tree.add(0, "after 2038", Node::file("new").mtime(5_000_000_000, 1));
    tree.add(0, b"not \xff\xfe UTF-8", Node::file("x"));
    for early in ["!", "-", "+x", ".-", ".!", "...", "..a", ".a"] {
        tree.add(0, early, Node::file(early));
    }
    tree.add(
        0,
        "attributes",
        Node::file("x")
            .xattr("user.binary", b"\0\xff=\n".as_slice())
            .xattr("user.empty", "")
            .xattr("trusted.t", "1")
            .xattr("security.s", "2"),
    );
    check(&mut place, &tar, "everything", &mut tree);
}

#[test]
fn thousands_of_names_are_listed_and_found() {
    let (Some(mut place), Some(tar)) = (place(), require::program("tar")) else { return };
    let mut tree = Tree::new();
    let many = tree.add(0, "many", Node::directory());
    for number in 0..7000 {
        let name = format!("{:x>1$}", number * 7919 % 100_003, 1 + number % 60);
        tree.add(many, format!("{name}-{number}"), Node::file(format!("{number}")));
    }
    let wide = tree.add(0, "wide", Node::directory());
    for number in 0..600 {
        tree.add(wide, format!("{number:0255}"), Node::directory());
    }
    check(&mut place, &tar, "many", &mut tree);
    for absent in ["", ".", "0", "x", "zzzz", "x-7000", "\u{7f}", "!"] {
        let path = place.path("many").join("many").join(format!("{absent}~"));
        assert!(std::fs::symlink_metadata(&path).is_err(), "{}", path.display());
    }
}

#[test]
fn generated_trees_are_as_tar_extracts_them() {
    let Some(tar) = require::program("tar") else { return };
    if place().is_none() {
        return;
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let mut place = place().expect("there was one");
            check(&mut place, &tar, "generated", &mut grow(&steps));
            Ok(())
        })
        .expect("every tree is alike");
}

/// One more name in a tree.
#[derive(Debug, Clone)]
enum Step {
    Add(Vec<u8>, Box<Node>),
    Link(Vec<u8>, prop::sample::Index),
}

/// What a tree is grown from: each step happens in a directory that is there by then.
fn steps() -> impl Strategy<Value = Vec<(prop::sample::Index, Step)>> {
    let step = prop_oneof![
        9 => (name(), node()).prop_map(|(name, node)| Step::Add(name, Box::new(node))),
        1 => (name(), any::<prop::sample::Index>()).prop_map(|(name, of)| Step::Link(name, of)),
    ];
    vec((any::<prop::sample::Index>(), step), 0..150)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name has it", |byte| !matches!(byte, 0 | b'/'));
    let readable = "[ -.0-~]{1,20}".prop_map(String::into_bytes);
    prop_oneof![3 => readable, 1 => vec(byte, 1..=255)]
        .prop_filter("not a name", |name| !matches!(name.as_slice(), b"." | b".."))
}

fn node() -> impl Strategy<Value = Node> {
    let what = prop_oneof![
        4 => vec(any::<u8>(), 0..3000).prop_map(What::File),
        4 => Just(Node::directory().what),
        2 => vec(1u8.., 1..1200).prop_map(What::Symlink),
        1 => (0u32..=0xfff, 0u32..=0xf_ffff).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => (0u32..=0xfff, 0u32..=0xf_ffff).prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
    ];
    // The times that ext4 has.
    let mtime = (-(1i64 << 31)..15_000_000_000, 0u32..1_000_000_000);
    // What uids -1 means for chown is another matter.
    let owner = (0..u32::MAX, 0..u32::MAX);
    (what, 0u16..=0o7777, owner, mtime, xattrs()).prop_map(|(what, mode, owner, mtime, xattrs)| {
        let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { mode };
        // Linux has user's attributes on files and directories only.
        let keep = matches!(what, What::File(_) | What::Directory { .. });
        let xattrs = xattrs.into_iter().filter(|(name, _)| keep || !name.starts_with(b"user.")).collect();
        let (uid, gid) = owner;
        Node { mode, uid, gid, mtime, xattrs, ..Node::new(what) }
    })
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    // Together they fit the one block that ext4 has for them.
    btree_map("(user|trusted|security)\\.[a-z]{1,30}", vec(any::<u8>(), 0..600), 0..4)
        .prop_map(|xattrs| xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect())
}

fn grow(steps: &[(prop::sample::Index, Step)]) -> Tree {
    let mut tree = Tree::new();
    for (at, step) in steps {
        let directories: Vec<u32> =
            (0u32..).zip(&tree.nodes).filter(|(_, node)| node.is_directory()).map(|(id, _)| id).collect();
        let parent = *at.get(&directories);
        let (Step::Add(name, _) | Step::Link(name, _)) = step;
        let What::Directory { names, .. } = &tree.nodes[parent as usize].what else { unreachable!() };
        if names.contains_key(name) {
            continue;
        }
        match step {
            Step::Add(name, node) => {
                tree.add(parent, name, node.as_ref().clone());
            }
            Step::Link(name, of) => {
                let id = u32::try_from(of.index(tree.nodes.len())).expect("few");
                if !tree.nodes[id as usize].is_directory() {
                    tree.link(parent, name, id);
                }
            }
        }
    }
    tree
}

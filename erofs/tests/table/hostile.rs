//! Sources that no table can be made of: a named error, never a panic.

use proptest::collection::vec;
use proptest::prelude::*;
use spandrel_erofs::limits::{MAX_DEVICE_LEN, MAX_TARGET_LEN, MAX_XATTRS_LEN};
use spandrel_erofs::{Error, Inode, Kind, OpaqueXattr, Options, Source, write};

use crate::model::{Node, Tree, What};
use crate::mounts::options;

const GIB: u64 = 1 << 30;

/// The error of a tree that `change` is made to.
fn refused(change: impl FnOnce(&mut Tree)) -> Error {
    let mut tree = Tree::new();
    change(&mut tree);
    write(&tree, &options(GIB)).expect_err("no table")
}

/// The error of a tree with `node` in it.
fn refused_node(node: Node) -> Error {
    refused(|tree| _ = tree.add(0, "node", node))
}

#[test]
fn what_is_too_large_is_named() {
    let long = |len| vec![b'x'; usize::try_from(len).expect("small")];
    let many = |node: Node| (0..5).fold(node, |node, n| node.xattr(&format!("user.{n}"), vec![0; 65_000]));
    for (error, name, excess, most) in [
        (refused(|tree| _ = tree.add(0, long(256), Node::file(""))), "length of a name", 256, 255),
        (
            refused_node(Node::symlink(long(MAX_TARGET_LEN + 1))),
            "length of a symbolic link's target",
            4096,
            4095,
        ),
        (refused_node(Node::file("").mode(0o10_000)), "mode", 0o10_000, 0o7777),
        (
            refused_node(Node::file("").mtime(0, 1_000_000_000)),
            "nanoseconds of a time",
            1_000_000_000,
            999_999_999,
        ),
        (refused_node(Node::new(What::Char(4096, 0))), "major device number", 4096, 4095),
        (refused_node(Node::new(What::Block(0, 1 << 20))), "minor device number", 1 << 20, (1 << 20) - 1),
        (
            refused_node(Node::file("").xattr("user.a", long(65_536))),
            "length of an extended attribute's value",
            65_536,
            65_535,
        ),
        (
            refused_node(Node::file("").xattr(&format!("user.{}", "a".repeat(251)), "")),
            "length of an extended attribute's name",
            256,
            255,
        ),
        (
            refused_node(many(Node::file(""))),
            "length of an inode's extended attributes",
            5 * 65_000,
            MAX_XATTRS_LEN,
        ),
    ] {
        let Error::TooLarge { what, value, limit } = error else { panic!("{error}") };
        assert_eq!((what, limit), (name, most));
        assert!(value >= excess.min(most + 1), "{what}: {value}");
    }
    let error = write(&Tree::new(), &options(MAX_DEVICE_LEN + 1)).expect_err("no table");
    assert!(error.to_string().starts_with("length of the device is 2199023255041"), "{error}");
}

#[test]
fn what_is_no_name_is_named() {
    for name in ["", ".", "..", "a/b", "/", "a\0"] {
        let error = refused(|tree| _ = tree.add(0, name, Node::file("")));
        assert_eq!(error, Error::Name(name.to_owned()));
    }
    for target in ["", "a\0b"] {
        assert_eq!(refused_node(Node::symlink(target)), Error::Target(target.to_owned()));
    }
}

#[test]
fn data_must_lie_in_the_device_by_blocks() {
    for (offset, size) in
        [(1, 1), (511, 1), (GIB, 1), (512, GIB), (u64::MAX, 1), (512, u64::MAX), (u64::MAX - 511, u64::MAX)]
    {
        let error = refused_node(Node::new(What::Placed { offset, size }));
        assert_eq!(error, Error::Misplaced { offset, size, device_len: GIB });
    }
    // Nothing may lie anywhere.
    let mut tree = Tree::new();
    tree.add(0, "empty", Node::new(What::Placed { offset: u64::MAX, size: 0 }));
    assert!(write(&tree, &options(GIB)).is_ok());
}

#[test]
fn only_a_tree_is_written() {
    let message = |change: fn(&mut Tree)| refused(change).to_string();
    let root = "no tree: inode 0, the root, must be a directory";
    assert_eq!(message(|tree| tree.nodes.clear()), root);
    assert_eq!(message(|tree| tree.nodes[0] = Node::file("")), root);
    let twice = |id| format!("no tree: directory {id} has more than one name");
    assert_eq!(message(|tree| tree.link(0, "loop", 0)), twice(0));
    let two_names = |tree: &mut Tree| {
        let id = tree.add(0, "one", Node::directory());
        tree.link(0, "two", id);
    };
    assert_eq!(message(two_names), twice(1));
    let in_itself = |tree: &mut Tree| {
        let id = tree.add(0, "one", Node::directory());
        tree.link(id, "itself", id);
    };
    assert_eq!(message(in_itself), twice(1));
    let absent = |tree: &mut Tree| {
        let What::Directory { names, .. } = &mut tree.nodes[0].what else { unreachable!() };
        names.insert(b"absent".to_vec(), 1);
    };
    assert_eq!(message(absent), "no tree: directory 0 names inode 1, which there isn't");
    let unnamed = |tree: &mut Tree| {
        tree.add(0, "unnamed", Node::file(""));
        tree.nodes[1].nlink = 0;
    };
    assert_eq!(message(unnamed), "no tree: inode 1 counts no names");
}

/// A source that says anything at all.
#[derive(Debug)]
struct Anything(Vec<Thing>);

#[derive(Debug)]
struct Thing {
    kind: u8,
    numbers: (u64, u64, u32, i64),
    bytes: Vec<u8>,
    names: Vec<(Vec<u8>, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Source for Anything {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("few")
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let thing = &self.0[id as usize];
        let (a, b, c, mtime) = thing.numbers;
        let kind = match thing.kind % 10 {
            0 => Kind::File { offset: a, size: b },
            1 => Kind::File { offset: a & 0xfe00, size: b & 0xffff },
            2 => Kind::Symlink(&thing.bytes),
            3 => Kind::Char(c, c >> 8),
            4 => Kind::Block(c >> 20, c & 0xf_ffff),
            5 => Kind::Fifo,
            6 => Kind::Whiteout,
            _ => Kind::Directory { opaque: c % 2 == 0 },
        };
        // Mostly right, so that there is something to write.
        let odd = a % 64 == 0;
        let mode = u16::from_le_bytes([thing.kind, thing.kind]);
        Inode {
            kind,
            mode: if odd { mode } else { mode & 0o7777 },
            uid: c,
            gid: !c,
            mtime,
            mtime_nsec: if odd { c } else { c % 1_000_000_000 },
            nlink: if odd { c % 2 } else { 1 },
        }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        self.0[id as usize].names.iter().for_each(|(name, id)| each(name, *id));
    }

    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.0[id as usize].xattrs.iter().for_each(|(name, value)| each(name, value));
    }
}

fn thing(sorted: bool) -> impl Strategy<Value = Thing> {
    let xattr = prop_oneof![
        Just(b"trusted.overlay.opaque".to_vec()),
        (
            prop::sample::select(vec!["user.", "trusted.", "security.", "system.", "com."]),
            vec(any::<u8>(), 0..260)
        )
            .prop_map(|(prefix, rest)| [prefix.as_bytes(), &rest].concat()),
        vec(any::<u8>(), 0..300),
    ];
    let names = vec((vec(any::<u8>(), 0..270), 0u32..40), 0..30).prop_map(move |mut names| {
        if sorted {
            names.sort();
            names.dedup_by(|a, b| a.0 == b.0);
        }
        names
    });
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<i64>());
    (any::<u8>(), numbers, vec(1u8.., 0..5000), names, vec((xattr, vec(any::<u8>(), 0..700)), 0..5))
        .prop_map(|(kind, numbers, bytes, names, xattrs)| Thing { kind, numbers, bytes, names, xattrs })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_source_makes_it_panic(
        things in any::<bool>().prop_flat_map(|sorted| vec(thing(sorted), 0..40)),
        device_len in any::<u64>(),
        user in any::<bool>(),
    ) {
        let opaque = if user { OpaqueXattr::User } else { OpaqueXattr::Trusted };
        let options = Options { device_len: device_len % (2 * MAX_DEVICE_LEN), opaque };
        if let Ok(table) = write(&Anything(things), &options) {
            prop_assert_eq!(table.len() % 4096, 0);
        }
    }
}

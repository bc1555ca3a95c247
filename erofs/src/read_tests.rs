//! Tests of the reader with what the writer wrote, and with what was made of it. (tests/table has those with the kernel.)

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Inode, Kind, OpaqueXattr, Options, Source};

/// A file, a link, a pipe or a directory with `names`.
#[derive(Debug, Clone)]
enum What {
    File(u64, u64),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Fifo,
    Directory(BTreeMap<Vec<u8>, u32>),
}

#[derive(Debug, Clone)]
struct One {
    what: What,
    mode: u16,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone)]
struct Ones(Vec<One>);

const DEVICE_LEN: u64 = MAX_DEVICE_LEN;

impl Source for Ones {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("few")
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let one = &self.0[id as usize];
        let kind = match &one.what {
            What::File(offset, size) => Kind::File { offset: *offset, size: *size },
            What::Symlink(target) => Kind::Symlink(target),
            What::Char(major, minor) => Kind::Char(*major, *minor),
            What::Fifo => Kind::Fifo,
            What::Directory(_) => Kind::Directory { opaque: false },
        };
        let ((uid, gid), (mtime, mtime_nsec)) = (one.owner, one.mtime);
        Inode { kind, mode: one.mode, uid, gid, mtime, mtime_nsec, nlink: 1 }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        if let What::Directory(names) = &self.0[id as usize].what {
            names.iter().for_each(|(name, &id)| each(name, id));
        }
    }

    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.0[id as usize].xattrs.iter().for_each(|(name, value)| each(name, value));
    }
}

fn table(ones: &Ones) -> Vec<u8> {
    crate::write(ones, &Options { device_len: DEVICE_LEN, opaque: OpaqueXattr::Trusted }).expect("fits")
}

fn open(bytes: Vec<u8>) -> Result<Table<Vec<u8>>, Error> {
    let len = bytes.len() as u64;
    Table::open(bytes, len)
}

/// Compares inode `nid` and what is below it with `id`.
fn assert_same(table: &Table<Vec<u8>>, nid: Nid, ones: &Ones, id: u32) {
    let (node, one) = (table.node(nid).expect("there"), &ones.0[id as usize]);
    assert_eq!((node.mode, node.uid, node.gid), (one.mode, one.owner.0, one.owner.1));
    assert_eq!((node.mtime, node.mtime_nsec, node.nlink), (one.mtime.0, one.mtime.1, 1));
    let mut xattrs = Vec::new();
    table.xattrs(&node, |name, value| xattrs.push((name.to_vec(), value.to_vec()))).expect("reads");
    assert_eq!(xattrs, one.xattrs);
    match &one.what {
        What::File(offset, size) => {
            assert_eq!(node.size, *size);
            assert_eq!(node.kind, NodeKind::File { offset: if *size == 0 { 0 } else { *offset } });
        }
        What::Symlink(target) => assert_eq!(&table.target(&node).expect("reads"), target),
        What::Char(major, minor) => {
            assert_eq!(node.kind, NodeKind::Char(crate::format::device_number(*major, *minor)));
        }
        What::Fifo => assert_eq!(node.kind, NodeKind::Fifo),
        What::Directory(names) => {
            let mut found = Vec::new();
            table
                .entries(&node, 0, |entry| {
                    found.push((entry.name.to_vec(), entry.nid, entry.next));
                    Ok(ControlFlow::Continue(()))
                })
                .expect("reads");
            assert!(found.is_sorted_by(|one, other| one.0 < other.0));
            // From behind each one the rest comes.
            for (at, (_, _, next)) in found.iter().enumerate().step_by(7) {
                let mut first = None;
                let one = |entry: Entry<'_>| {
                    first = Some(entry.name.to_vec());
                    Ok(ControlFlow::Break(()))
                };
                table.entries(&node, *next, one).expect("reads");
                assert_eq!(first.as_ref(), found.get(at + 1).map(|(name, ..)| name));
            }
            let listed = found.iter().filter(|(name, ..)| name != b"." && name != b"..");
            assert!(listed.map(|(name, ..)| name).eq(names.keys()));
            for (name, nid, _) in &found {
                assert_eq!(table.find(&node, name).expect("reads"), Some(*nid));
                // Whatever lies before, behind and between isn't there.
                for not in [[&name[..], b"\x01"].concat(), name[..name.len() - 1].to_vec()] {
                    let there = names.contains_key(&not) || not == b".";
                    assert_eq!(table.find(&node, &not).expect("reads").is_some(), there, "{not:?}");
                }
            }
            for (name, &child) in names {
                assert_same(table, table.find(&node, name).expect("reads").expect("there"), ones, child);
            }
        }
    }
}

fn any_one() -> impl Strategy<Value = One> {
    let what = prop_oneof![
        (0..1u64 << 20, prop_oneof![Just(0), Just(1), 0..100_000u64, Just((1 << 40) + 5)])
            .prop_map(|(block, size)| What::File(block * 512, size)),
        prop::collection::vec(1..=255u8, 1..1200).prop_map(What::Symlink),
        (0..0x1000u32, 0..0x10_0000u32).prop_map(|(major, minor)| What::Char(major, minor)),
        Just(What::Fifo),
        Just(What::Directory(BTreeMap::new())),
    ];
    let xattrs = prop::collection::btree_map("(user|security)\\.[a-z]{1,40}", any::<Vec<u8>>(), 0..4)
        .prop_map(|all| all.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect());
    (what, 0..0o10000u16, any::<(u32, u32)>(), (any::<i64>(), 0..1_000_000_000u32), xattrs)
        .prop_map(|(what, mode, owner, mtime, xattrs)| One { what, mode, owner, mtime, xattrs })
}

fn any_ones() -> impl Strategy<Value = Ones> {
    let names = prop::collection::btree_set("[!-.0-~]{1,60}", 0..120usize)
        .prop_filter("the writer's own", |names| !names.contains(".") && !names.contains(".."));
    (prop::collection::vec(any_one(), 120), names, any::<usize>()).prop_map(|(others, names, mix)| {
        let root = One {
            what: What::Directory(BTreeMap::new()),
            mode: 0o755,
            owner: (0, 0),
            mtime: (0, 0),
            xattrs: Vec::new(),
        };
        let mut ones = vec![root];
        // Each goes into one of the directories before it.
        let mut directories = vec![0usize];
        for (number, (name, one)) in (1u32..).zip(names.into_iter().zip(others)) {
            let at = directories[mix.rotate_left(number) % directories.len()];
            let What::Directory(names) = &mut ones[at].what else { unreachable!("they are directories") };
            names.insert(name.into_bytes(), number);
            if matches!(one.what, What::Directory(_)) {
                directories.push(number as usize);
            }
            ones.push(one);
        }
        Ones(ones)
    })
}

/// Makes the checksum of a table's head right again.
fn seal(bytes: &mut [u8]) {
    let Some(block) = bytes.get_mut(SUPERBLOCK_AT..SUPERBLOCK_AT + BLOCK_LEN) else { return };
    block[4..8].fill(0);
    let checksum = crate::crc32c::crc32c(block);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
}

proptest! {
    // Each has a hundred inodes.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read(ones in any_ones()) {
        let table = open(table(&ones)).expect("opens");
        let root = table.root().expect("there").nid;
        assert_same(&table, root, &ones, 0);
    }

    #[test]
    fn damage_is_an_error_or_another_tree(ones in any_ones(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = table(&ones);
        let mut inodes = bytes.split_off(INODES_AT);
        for (at, to) in changes {
            let at = at.index(inodes.len());
            inodes[at] = to;
        }
        bytes.append(&mut inodes);
        seal(&mut bytes);
        let Ok(table) = open(bytes) else { return Ok(()) };
        // Each number once: a damaged directory may have itself in it.
        for nid in 0..table.nid_end() + 2 {
            let Ok(node) = table.node(nid) else { continue };
            table.target(&node).ok();
            table.xattrs(&node, |_, _| ()).ok();
            // Directories may claim any length; those of the writer are short.
            if node.size < 1 << 20 {
                let mut entries = 0u64;
                table.entries(&node, 0, |_| { entries += 1; Ok(ControlFlow::Continue(())) }).ok();
                table.find(&node, b"name").ok();
                prop_assert!(entries <= node.size);
            }
        }
    }
}

#[test]
fn what_is_no_table_is_refused_by_name() {
    let whole = table(&Ones(vec![One {
        what: What::Directory(BTreeMap::new()),
        mode: 0o755,
        owner: (0, 0),
        mtime: (0, 0),
        xattrs: Vec::new(),
    }]));
    assert!(open(whole.clone()).is_ok());
    // The root is the first inode.
    const MODE_AT: usize = INODES_AT + 4;
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, bool, &str); 7] = [
        (|bytes| bytes.clear(), false, "outside"),
        (|bytes| bytes.truncate(2048), false, "blocks"),
        (|bytes| bytes[SUPERBLOCK_AT] ^= 1, true, "isn't one"),
        (|bytes| bytes[SUPERBLOCK_AT + 12] = 12, true, "of a kind"),
        (|bytes| bytes[SUPERBLOCK_AT + 14] ^= 1, false, "checksum"),
        (|bytes| bytes[MODE_AT..MODE_AT + 2].fill(0xff), true, "what it is"),
        (
            |bytes| bytes[MODE_AT..MODE_AT + 2].copy_from_slice(&0o120_777u16.to_le_bytes()),
            true,
            "its root is a Symlink",
        ),
    ];
    for (change, sealed, want) in cases {
        let mut bytes = whole.clone();
        change(&mut bytes);
        if sealed {
            seal(&mut bytes);
        }
        let error = open(bytes).expect_err(want).to_string();
        assert!(error.contains("the table is damaged") && error.contains(want), "{want}: {error}");
    }
}

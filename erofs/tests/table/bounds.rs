//! Lengths at and around the format's bounds: blocks of 512 bytes, the longest there can be, devices beyond 4 GiB and 1 TiB.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use spandrel_erofs::limits::MAX_DEVICE_LEN;
use spandrel_erofs::write;

use crate::compare::{assert_like, xattrs};
use crate::model::{Node, Tree, What};
use crate::mounts::{options, place};
use crate::tarball::tar;

/// An inode has 64 bytes, a block 512: what is behind an inode begins a new block within these lengths.
const AROUND_A_BLOCK: std::ops::Range<usize> = 380..520;

#[test]
fn directories_of_every_length_are_listed_and_found() {
    let Some(mut place) = place() else { return };
    let mut tree = Tree::new();
    // `.` and `..` take 27 bytes, and each name 12 more than it has.
    for len in (1..=255).chain(1..=255) {
        let folder = tree.add(0, format!("{}", tree.nodes.len()), Node::directory());
        tree.add(folder, "n".repeat(len), Node::file("x"));
        if tree.nodes.len() > 2 * 255 {
            tree.add(folder, "m".repeat(255), Node::file("x"));
            tree.add(folder, "o".repeat(len), Node::file("x"));
        }
    }
    let mounted = place.mount_tar("lengths", &mut tree);
    assert_like(&mounted, &tree);
}

#[test]
fn links_of_every_length_lead_where_they_should() {
    let Some(mut place) = place() else { return };
    let mut tree = Tree::new();
    for len in (1..=1100).chain([2047, 2048, 2049, 4094, 4095]) {
        let target: Vec<u8> = (b'a'..=b'z').cycle().take(len).collect();
        tree.add(0, format!("{len}"), Node::symlink(target.clone()));
        if AROUND_A_BLOCK.contains(&len) {
            // Together they fill a block, or a bit more.
            let node = Node::symlink(target).xattr("trusted.x", vec![1; 520 - len]);
            tree.add(0, format!("{len} with attributes"), node);
        }
    }
    let mounted = place.mount_tar("links", &mut tree);
    assert_like(&mounted, &tree);
}

#[test]
fn attributes_of_every_length_are_read() {
    let Some(mut place) = place() else { return };
    let mut tree = Tree::new();
    for len in (0..10).chain(AROUND_A_BLOCK).chain([1023, 1024, 1025, 4095, 4096, 4097, 20_000, 65_535]) {
        let value: Vec<u8> = (0..=255).cycle().take(len).collect();
        let name = "trusted.some";
        tree.add(0, format!("{len} f"), Node::file("x").xattr(name, value.clone()).xattr("user.z", "z"));
        tree.add(0, format!("{len} e"), Node::file("").xattr(name, value.clone()));
        tree.add(0, format!("{len} n"), Node::new(What::Char(1, 3)).xattr(name, value.clone()));
        let folder = tree.add(0, format!("{len} d"), Node::directory().xattr(name, value.clone()));
        tree.add(folder, "name", Node::file("x"));
        tree.add(0, format!("{len} l"), Node::symlink("target").xattr(name, value));
    }
    // Names that cross a block, and as many as there is room for.
    let many = (0..100).fold(Node::file("x"), |node, n| {
        node.xattr(&format!("user.{n:0width$}", width = 1 + n * 2), vec![7; n * 3])
    });
    tree.add(0, "many", many);
    let most = (0..4).fold(Node::file("x"), |node, n| node.xattr(&format!("user.{n}"), vec![n; 65_500]));
    tree.add(0, "most", most);
    let mounted = place.mount_tar("attributes", &mut tree);
    assert_like(&mounted, &tree);
}

#[test]
fn attributes_that_no_file_system_keeps_are_left_out() {
    let Some(mut place) = place() else { return };
    let mut tree = Tree::new();
    // Any rwx for uid 5, and the three that there must be, in the form that getxattr gives.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 7, 5),
        entry(4, 4, none),
        entry(16, 7, none),
    ];
    let acl = [acl.concat(), entry(32, 4, none)].concat();
    let node = Node::directory()
        .mode(0o674)
        .xattr("system.posix_acl_access", acl.clone())
        .xattr("system.posix_acl_default", acl.clone());
    let kept = node.clone().xattr("trusted.overlay.opaque", "y");
    let mut given = kept.clone();
    for name in ["com.apple.provenance", "user", "user.", "system.nfs4_acl", "", "USER.x"] {
        given = given.xattr(name, "x");
    }
    let What::Directory { opaque, .. } = &mut given.what else { unreachable!() };
    *opaque = true;
    tree.add(0, "given", given);
    let mounted = place.mount_tar("kept", &mut tree);
    assert_eq!(xattrs(&mounted.join("given")), kept.xattrs.into_iter().collect());
}

#[test]
fn a_device_may_be_as_long_as_blocks_can_be_counted() {
    let Some(mut place) = place() else { return };
    let device = place.path("device");
    let file = File::create(&device).expect("create the device");
    file.set_len(MAX_DEVICE_LEN).expect("a sparse file of 2 TiB");
    // Where something is, and what: its own offset.
    let marks: Vec<u64> =
        [0, 512, 4 << 30, (4 << 30) + 512, 5 << 30, 1 << 40, (1 << 40) + 4096, (1 << 40) + 5120]
            .into_iter()
            .chain([MAX_DEVICE_LEN - 512])
            .collect();
    for mark in &marks {
        file.write_all_at(&mark.to_le_bytes(), *mark).expect("write a mark");
    }
    let mut tree = Tree::new();
    let files = [
        ("whole", 0, MAX_DEVICE_LEN),
        ("one TiB", 0, 1 << 40),
        ("one TiB and a block", 4096, (1 << 40) + 512),
        ("5 GiB from 4 GiB", 4 << 30, 5 << 30),
        ("one byte at 5 GiB", 5 << 30, 1),
        ("the last block", MAX_DEVICE_LEN - 512, 512),
    ];
    for (name, offset, size) in files {
        tree.add(0, name, Node::new(What::Placed { offset, size }));
    }
    let table = write(&tree, &options(MAX_DEVICE_LEN)).expect("a table");
    let mounted = place.mount_table("large", &table, &device);
    for (name, offset, size) in files {
        let file = File::open(mounted.join(name)).expect("open it");
        assert_eq!(file.metadata().expect("stat it").len(), size, "{name}");
        for mark in marks.iter().filter(|&&mark| mark >= offset && mark + 8 <= offset + size) {
            let mut got = [0; 8];
            file.read_exact_at(&mut got, mark - offset).expect("read it");
            assert_eq!(u64::from_le_bytes(got), *mark, "{name}");
        }
    }
}

#[test]
fn a_stream_that_ends_within_a_block_needs_a_device_with_all_of_it() {
    let Some(mut place) = place() else { return };
    let mut tree = Tree::new();
    tree.add(0, "file", Node::file(vec![5; 5000]));
    // A tar that was cut behind the last file's last byte: containerd unpacks it, and zTOCs have been made of such.
    let mut stream = tar(&mut tree);
    stream.truncate(usize::try_from(tree.nodes[1].offset).expect("small") + 5000);
    let table = write(&tree, &options(stream.len() as u64)).expect("a table");
    let device = place.path("cut.tar");
    fs::write(&device, &stream).expect("write the tar");
    // Kernels that take a short read for what it is give EIO without this.
    let file = File::options().write(true).open(&device).expect("open the device");
    file.set_len((stream.len() as u64).next_multiple_of(512)).expect("make it longer");
    let mounted = place.mount_table("cut", &table, &device);
    assert_like(&mounted, &tree);
}

//! The image's bytes: the same for the same input, today and with the next release.

use sha2::{Digest, Sha256};
use spandrel_erofs::{OpaqueXattr, Options, write};

use crate::model::{Node, Tree, What};
use crate::tarball::tar;

/// The table of [`small`]. A change here means that tables on nodes are written anew: note it in the changelog.
const SMALL: &str = "89382ceae70065fba14dcfd8cf1ffb57f25af0df3d3b136ef23742e73e15af3a";

fn small() -> (Tree, Options) {
    let mut tree = Tree::new();
    let etc = tree.add(0, "etc", Node::opaque().mtime(-5, 5));
    let file = tree.add(etc, "passwd", Node::file("root:x:0:0").owner(1, 2).xattr("user.a", "b"));
    tree.link(0, "hard link", file);
    tree.add(0, "link", Node::symlink("etc/passwd"));
    tree.add(0, "long", Node::symlink(vec![b'l'; 1000]));
    tree.add(0, "null", Node::new(What::Char(1, 3)));
    tree.add(0, "gone", Node::new(What::Whiteout));
    tree.add(0, "empty", Node::file(""));
    for number in 0..40 {
        tree.add(etc, format!("file{number}"), Node::file(vec![0; 1000 * number]));
    }
    let device_len = tar(&mut tree).len() as u64;
    let options = Options { device_len, opaque: OpaqueXattr::Trusted };
    (tree, options)
}

#[test]
fn a_small_table_has_the_bytes_it_always_had() {
    let (tree, options) = small();
    let table = write(&tree, &options).expect("a table");
    let digest: String = Sha256::digest(&table).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, SMALL);
    assert_eq!(write(&tree, &options), Ok(table));
}

#[test]
fn the_superblock_says_what_the_kernel_wants_to_know() {
    let (tree, options) = small();
    let table = write(&tree, &options).expect("a table");
    let u16_at = |at: usize| u16::from_le_bytes([table[at], table[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().expect("four"));
    assert_eq!(table.len() % 4096, 0);
    assert!(table[..1024].iter().all(|&byte| byte == 0));
    assert_eq!(u32_at(1024), 0xe0f5_e1e2);
    assert_eq!(table[1024 + 12], 9, "blkszbits");
    assert_eq!(u16_at(1024 + 14), 1280 / 32, "root_nid");
    assert_eq!(u64::from(u32_at(1024 + 16)), tree.nodes.len() as u64, "inos");
    assert_eq!(u32_at(1024 + 36) as usize, table.len() / 512, "blocks");
    assert_eq!(u32_at(1024 + 40), 0, "meta_blkaddr");
    assert_eq!((table[1024 + 54] >> 4, table[1024 + 56] >> 6), (8, 2), "version and variant of the uuid");
    assert_eq!(u32_at(1024 + 80), 0xc, "feature_incompat");
    assert_eq!(u16_at(1024 + 86), 1, "extra_devices");
    assert_eq!(u16_at(1024 + 88), 9, "devt_slotoff");
    assert_eq!(table[1024 + 90], 0, "dirblkbits");
    assert_ne!(table[1152], 0, "tag of the device");
    assert_eq!(u64::from(u32_at(1152 + 64)), options.device_len / 512, "blocks of the device");
    assert_eq!(u32_at(1152 + 68), 0, "mapped_blkaddr");
}

#[test]
fn an_inode_of_a_usual_tree_takes_130_bytes() {
    let mut tree = Tree::new();
    // A directory in ten, as many links, names of 16 bytes: a Debian with Python.
    let mut folders = vec![0];
    for number in 0..5000 {
        let name = format!("a-usual-name{number:04}");
        let folder = folders[folders.len() * 2 / 3];
        match number % 10 {
            0 => folders.push(tree.add(folder, name, Node::directory())),
            1 => _ = tree.add(folder, name, Node::symlink("../lib/libsomething.so.1")),
            _ => _ = tree.add(folder, name, Node::file("x")),
        }
    }
    let device_len = tar(&mut tree).len() as u64;
    let options = Options { device_len, opaque: OpaqueXattr::Trusted };
    let table = write(&tree, &options).expect("a table");
    assert!(table.len() < 135 * tree.nodes.len(), "{}", table.len() / tree.nodes.len());
}

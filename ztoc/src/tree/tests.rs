//! Tests of the inode tree: what odd sequences of entries mean.

use super::*;
use crate::limits::{MAX_LINK_LEN, MAX_NAME_LEN, MAX_PATH_LEN};
use crate::model::EntryKind::{self, Block, Char, Directory, Fifo, Hardlink, Regular, Symlink};

/// Length of the stream that the entries below lie in.
const STREAM_LEN: u64 = 1 << 20;

fn entry(kind: EntryKind, name: &str) -> Entry {
    Entry {
        name: name.into(),
        kind,
        offset: 512,
        size: 0,
        linkname: Vec::new(),
        mode: 0o644,
        uid: 1,
        gid: 2,
        uname: Vec::new(),
        gname: Vec::new(),
        mtime: Some(Timestamp { seconds: 7, nanoseconds: 8 }),
        devmajor: 0,
        devminor: 0,
        pax: Vec::new(),
    }
}

/// A file that its size tells from others.
fn file(name: &str, size: u64) -> Entry {
    Entry { size, ..entry(Regular, name) }
}

fn dir(name: &str, mode: i64) -> Entry {
    Entry { mode, ..entry(Directory, name) }
}

fn link(kind: EntryKind, name: &str, target: &str) -> Entry {
    Entry { linkname: target.into(), ..entry(kind, name) }
}

fn with_xattrs(entry: Entry, xattrs: &[(&str, &str)]) -> Entry {
    let pax = xattrs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Entry { pax, ..entry }
}

fn tree(entries: &[Entry]) -> Tree {
    let tree = Tree::new(entries, STREAM_LEN).expect("entries that make a tree");
    check(&tree);
    tree
}

/// What holds for every tree.
fn check(tree: &Tree) {
    let mut names = vec![0; tree.inodes.len()];
    let mut last = 0;
    for inode in &tree.inodes {
        assert!(inode.mode <= 0o7777 && inode.nlink > 0);
        assert!(inode.xattrs.is_sorted());
        let InodeKind::Directory { children, .. } = &inode.kind else { continue };
        let mut directories = 0;
        for (name, &child) in children {
            assert!(!name.is_empty() && name.len() <= MAX_NAME_LEN && !name.contains(&b'/'));
            assert!(name != b"." && name != b".." && !name.starts_with(b".wh."));
            let kind = &tree.inodes[child as usize].kind;
            directories += u32::from(matches!(kind, InodeKind::Directory { .. }));
            if names[child as usize] == 0 {
                assert_eq!(child, last + 1, "numbered as found");
                last = child;
            }
            names[child as usize] += 1;
        }
        assert_eq!(inode.nlink, 2 + directories);
    }
    for (inode, names) in tree.inodes.iter().zip(names).skip(1) {
        match inode.kind {
            InodeKind::Directory { .. } => assert_eq!(names, 1),
            _ => assert_eq!(inode.nlink, names),
        }
    }
}

/// All paths, with a word for what is there.
fn list(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![(String::new(), 0)];
    while let Some((path, id)) = left.pop() {
        let inode = &tree.inodes[id as usize];
        let what = match &inode.kind {
            InodeKind::Directory { children, opaque } => {
                for (name, child) in children {
                    left.push((format!("{path}/{}", String::from_utf8_lossy(name)), *child));
                }
                format!("{}{:o}", if *opaque { "opaque " } else { "" }, inode.mode)
            }
            InodeKind::File { size, .. } => format!("file {size} {}", inode.nlink),
            InodeKind::Symlink(target) => format!("-> {} {}", String::from_utf8_lossy(target), inode.nlink),
            InodeKind::Char(major, minor) => format!("char {major}:{minor}"),
            InodeKind::Block(major, minor) => format!("block {major}:{minor}"),
            InodeKind::Fifo => "fifo".to_owned(),
            InodeKind::Whiteout => "gone".to_owned(),
        };
        lines.push(format!("{} {what}", if id == 0 { "/" } else { &path }));
    }
    lines.sort();
    lines
}

fn lists(entries: &[Entry], want: &[&str]) {
    assert_eq!(list(&tree(entries)), want);
}

fn refused(entries: &[Entry]) -> TreeError {
    Tree::new(entries, STREAM_LEN).expect_err("entries that make no tree")
}

#[test]
fn no_entries_are_an_empty_root() {
    let root = &tree(&[]).inodes[0];
    assert_eq!((root.mode, root.uid, root.gid, root.nlink), (0o755, 0, 0, 2));
    assert_eq!(root.mtime.seconds, -62_135_596_800);
}

#[test]
fn every_kind_has_its_inode() {
    let device = |kind, name, devmajor, devminor| Entry { devmajor, devminor, ..entry(kind, name) };
    let tree = tree(&[
        file("file", 9),
        dir("dir/", 0o41_777),
        link(Symlink, "sym", "../file"),
        link(Hardlink, "hard", "./file"),
        device(Char, "char", 1, 3),
        device(Block, "block", -1, 0x1234_5678), // as mknod cuts them
        entry(Fifo, "fifo"),
    ]);
    let want = [
        "/ 755",
        "/block block 4095:284280",
        "/char char 1:3",
        "/dir 1777",
        "/fifo fifo",
        "/file file 9 2",
        "/hard file 9 2",
        "/sym -> ../file 1",
    ];
    assert_eq!(list(&tree), want);
    let InodeKind::Directory { children, .. } = &tree.inodes[0].kind else { panic!("the root") };
    let inode = |name: &[u8]| &tree.inodes[children[name] as usize];
    assert_eq!(inode(b"sym").mode, 0o777, "a link's mode is never another");
    let file = inode(b"file");
    assert_eq!((file.mode, file.uid, file.gid), (0o644, 1, 2));
    assert_eq!(file.mtime, Timestamp { seconds: 7, nanoseconds: 8 });
    assert_eq!(file.kind, InodeKind::File { offset: 512, size: 9 });
}

#[test]
fn names_lead_from_the_root_and_never_out_of_it() {
    lists(
        &[file("./a", 1), file("/b", 2), file("x/../c", 3), file("../../d", 4), file("e//f/./g/", 5)],
        &[
            "/ 755",
            "/a file 1 1",
            "/b file 2 1",
            "/c file 3 1",
            "/d file 4 1",
            "/e 755",
            "/e/f 755",
            "/e/f/g file 5 1",
        ],
    );
    // What is the root can be nothing but a directory.
    lists(&[dir("./", 0o700), file("", 1), file("a/..", 2), file("/", 3)], &["/ 700"]);
    let root = &tree(&[dir("..", 0o711)]).inodes[0];
    assert_eq!((root.mode, root.uid, root.mtime.seconds), (0o711, 1, 7));
}

#[test]
fn the_last_entry_of_a_name_wins() {
    lists(&[file("a", 1), file("./a", 2)], &["/ 755", "/a file 2 1"]);
    lists(&[file("a", 1), dir("a/", 0o700), file("a/b", 2)], &["/ 755", "/a 700", "/a/b file 2 1"]);
    lists(&[dir("a/", 0o700), file("a/b/c", 2), file("a", 1)], &["/ 755", "/a file 1 1"]);
    lists(&[file("a", 1), link(Symlink, "a", "a")], &["/ 755", "/a -> a 1"]);
    lists(&[link(Symlink, "a", "b"), dir("a", 0o700), dir("b", 0o711)], &["/ 755", "/a 700", "/b 711"]);
}

#[test]
fn a_directory_named_again_keeps_what_is_in_it() {
    let again =
        with_xattrs(dir("a/", 0o700), &[("SCHILY.xattr.user.b", "new"), ("SCHILY.xattr.user.c", "3")]);
    let first = with_xattrs(dir("a", 0o755), &[("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.b", "2")]);
    let tree = tree(&[first, file("a/x", 1), Entry { uid: 9, mtime: None, ..again }]);
    assert_eq!(list(&tree), ["/ 755", "/a 700", "/a/x file 1 1"]);
    let a = &tree.inodes[1];
    assert_eq!((a.uid, a.mtime), (9, Timestamp::default()), "a time that can't be read is the epoch");
    let xattrs = [("user.a", "1"), ("user.b", "new"), ("user.c", "3")];
    assert_eq!(a.xattrs, xattrs.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn missing_parents_are_made_and_may_be_named_later() {
    let tree = tree(&[file("a/b/c", 1), dir("a/", 0o700)]);
    assert_eq!(list(&tree), ["/ 755", "/a 700", "/a/b 755", "/a/b/c file 1 1"]);
    let b = &tree.inodes[2];
    assert_eq!((b.uid, b.gid, b.mtime.seconds), (0, 0, -62_135_596_800));
}

#[test]
fn what_is_no_directory_has_nothing_in_it() {
    lists(&[file("a", 1), file("a/b", 2), dir("a/c/d", 0o700)], &["/ 755", "/a file 1 1"]);
    lists(&[entry(Fifo, "a"), entry(Regular, "a/.wh.b")], &["/ 755", "/a fifo"]);
}

#[test]
fn parents_may_be_symbolic_links() {
    lists(
        &[link(Symlink, "lib", "usr/lib"), dir("usr/lib", 0o711), file("lib/x/y", 1)],
        &[
            "/ 755",
            "/lib -> usr/lib 1",
            "/usr 755",
            "/usr/lib 711",
            "/usr/lib/x 755",
            "/usr/lib/x/y file 1 1",
        ],
    );
    // What one leads to is made where it isn't; it stays below the root; links lead to links.
    lists(
        &[link(Symlink, "a/l", "../../../b/./c"), link(Symlink, "m", "/a/l/../l"), file("m/x", 1)],
        &[
            "/ 755",
            "/a 755",
            "/a/l -> ../../../b/./c 1",
            "/b 755",
            "/b/c 755",
            "/b/c/x file 1 1",
            "/m -> /a/l/../l 1",
        ],
    );
    lists(&[link(Symlink, "a", "/"), file("a/x", 1)], &["/ 755", "/a -> / 1", "/x file 1 1"]);
    // One that leads nowhere is none.
    lists(&[link(Symlink, "a", "a"), file("a/x", 1)], &["/ 755", "/a -> a 1"]);
    lists(&[link(Symlink, "a", "b/../a"), file("a/x", 1)], &["/ 755", "/a -> b/../a 1"]);
    lists(&[link(Symlink, "a", "b"), file("b", 1), file("a/x", 2)], &["/ 755", "/a -> b 1", "/b file 1 1"]);
}

#[test]
fn hard_links_are_names_of_what_is_there_before_them() {
    lists(
        &[file("a", 1), link(Hardlink, "b", "/a"), link(Hardlink, "d/c", "./b"), file("a", 2)],
        &["/ 755", "/a file 2 1", "/b file 1 2", "/d 755", "/d/c file 1 2"],
    );
    // A name may be lost with its directory; the file lives by its other one.
    lists(
        &[file("d/a", 1), link(Hardlink, "b", "d/a"), entry(Fifo, "d")],
        &["/ 755", "/b file 1 1", "/d fifo"],
    );
    lists(
        &[
            link(Symlink, "s", "x"),
            link(Hardlink, "t", "s"),
            link(Symlink, "l", "d"),
            file("d/a", 1),
            link(Hardlink, "h", "l/a"),
        ],
        &["/ 755", "/d 755", "/d/a file 1 2", "/h file 1 2", "/l -> d 1", "/s -> x 2", "/t -> x 2"],
    );
    lists(&[file("a", 1), file("b", 2), link(Hardlink, "b", "a")], &["/ 755", "/a file 1 2", "/b file 1 2"]);
    lists(&[file("a", 1), link(Hardlink, "./a", "a")], &["/ 755", "/a file 1 1"]);
}

#[test]
fn hard_links_to_what_is_not_there_are_refused() {
    for entries in [
        vec![link(Hardlink, "b", "a"), file("a", 1)],
        vec![dir("a", 0o700), link(Hardlink, "b", "a")],
        vec![link(Hardlink, "b", "/")],
        vec![file("a/b", 1), link(Hardlink, "a", "a/b")],
        vec![entry(Regular, ".wh.a"), link(Hardlink, "b", "a")],
        vec![file("a", 1), link(Hardlink, "b", "a/c")],
        vec![link(Symlink, "l", "l"), link(Hardlink, "b", "l/c")],
    ] {
        let TreeError::HardlinkTarget { name, .. } = refused(&entries) else { panic!("another error") };
        assert!(name == "b" || name == "a");
    }
}

#[test]
fn whiteouts_hide_names_below_and_none_of_this_layer() {
    lists(
        &[
            file("d/.wh.a", 9),
            dir("d/.wh.b/", 0o755),
            file("d/.wh.b/in", 1),
            file("e/.wh..wh..opq", 0),
            file("kept", 1),
            file(".wh.kept", 0),
            file(".wh.back", 0),
            file("back", 2),
            file(".wh.dir", 0),
            file("dir/x", 3),
            file("a.wh.b", 4),
            file(".wh..opq", 0),
        ],
        &[
            "/ 755",
            "/.opq gone",
            "/a.wh.b file 4 1",
            "/back file 2 1",
            "/d 755",
            "/d/a gone",
            "/d/b gone",
            "/dir 755",
            "/dir/x file 3 1",
            "/e opaque 755",
            "/kept file 1 1",
        ],
    );
    let tree = tree(&[Entry { mode: 0o777, ..file(".wh.a", 0) }]);
    assert_eq!((tree.inodes[1].mode, tree.inodes[1].uid), (0, 1));
}

#[test]
fn whiteouts_of_nothing_are_passed_over() {
    for name in ["d/.wh.", "d/.wh..", "d/.wh...", "d/.wh..wh.plnk", "d/.wh..wh.", "d/.wh..wh..opqx"] {
        lists(&[file(name, 1)], &["/ 755", "/d 755"]);
    }
    // AUFS kept files with several names there.
    lists(
        &[dir(".wh..wh.plnk/", 0o700), file(".wh..wh.plnk/1.2", 5), link(Hardlink, "a", ".wh..wh.plnk/1.2")],
        &["/ 755", "/a file 5 1"],
    );
}

#[test]
fn only_a_name_makes_a_directory_opaque() {
    let marked = with_xattrs(dir("a", 0o755), &[("SCHILY.xattr.trusted.overlay.opaque", "y")]);
    lists(std::slice::from_ref(&marked), &["/ 755", "/a 755"]);
    lists(&[marked, file("a/.wh..wh..opq", 0), dir("a", 0o700)], &["/ 755", "/a opaque 700"]);
}

/// Paths of directories that no entry describes.
fn implied(entries: &[Entry]) -> Vec<String> {
    let tree = tree(entries);
    let mut paths = Vec::new();
    let mut left = vec![(String::new(), 0)];
    while let Some((path, id)) = left.pop() {
        if tree.implied.contains(&id) {
            paths.push(path.clone());
        }
        if let InodeKind::Directory { children, .. } = &tree.inodes[id as usize].kind {
            left.extend(
                children.iter().map(|(name, id)| (format!("{path}/{}", String::from_utf8_lossy(name)), *id)),
            );
        }
    }
    assert_eq!(paths.len(), tree.implied.len());
    paths.sort();
    paths
}

#[test]
fn directories_without_an_entry_are_implied() {
    assert_eq!(implied(&[file("x", 1), dir("a", 0o755), file("a/x", 1)]), [""; 0]);
    assert_eq!(implied(&[file("a/b/x", 1), dir("a/b", 0o700), file("c/d/x", 1)]), ["/a", "/c", "/c/d"]);
    // What hides something lies in a directory, too.
    assert_eq!(implied(&[file("a/.wh.x", 0), file("b/.wh..wh..opq", 0)]), ["/a", "/b"]);
    // Through a link, and over what hid it; not what has lost its name.
    assert_eq!(implied(&[link(Symlink, "l", "a"), file("l/x", 1)]), ["/a"]);
    assert_eq!(implied(&[file(".wh.a", 0), file("a/x", 1)]), ["/a"]);
    assert_eq!(implied(&[file("a/x", 1), file("a", 1)]), [""; 0]);
}

#[test]
fn a_hard_link_describes_its_target_again() {
    let target = with_xattrs(
        Entry { mode: 0o755, ..file("a", 1) },
        &[("SCHILY.xattr.security.capability", "c"), ("SCHILY.xattr.user.a", "1")],
    );
    let symlink = link(Symlink, "s", "x");
    let link = |target| Entry { mode: 0o4700, uid: 7, gid: 8, ..link(Hardlink, "b", target) };
    let again = tree(&[target.clone(), with_xattrs(link("a"), &[("SCHILY.xattr.user.b", "2")])]);
    let inode = &again.inodes[1];
    assert_eq!((inode.mode, inode.uid, inode.gid, inode.nlink), (0o4700, 7, 8, 2));
    assert_eq!(inode.xattrs, [(b"user.a".into(), b"1".into()), (b"user.b".into(), b"2".into())]);
    let capable = tree(&[target, with_xattrs(link("a"), &[("SCHILY.xattr.security.capability", "d")])]);
    assert_eq!(capable.inodes[1].xattrs[0], (b"security.capability".into(), b"d".into()));
    // A symbolic link has no mode of its own.
    let inode = &tree(&[symlink, link("s")]).inodes[1];
    assert_eq!((inode.mode, inode.uid), (0o777, 7));
}

#[test]
fn extended_attributes_are_some_of_the_pax_records() {
    let entry = with_xattrs(
        file("a", 1),
        &[
            ("path", "a"),
            ("LIBARCHIVE.xattr.user.a", "no"),
            ("SCHILY.xattr.user.z", ""),
            ("SCHILY.xattr.", "no name"),
            ("SCHILY.xattr.security.capability", "\x01\0"),
            ("SCHILY.xattr.user.z", "last"),
        ],
    );
    let xattrs = &tree(&[entry]).inodes[1].xattrs;
    let want = [("security.capability", "\x01\0"), ("user.z", "last")];
    assert_eq!(*xattrs, want.map(|(name, value)| (name.into(), value.into())));
}

#[test]
fn what_is_too_long_is_refused_and_what_just_fits_is_not() {
    let name = "n".repeat(MAX_NAME_LEN);
    let too_long = format!("{name}n");
    lists(&[file(&format!(".wh.{name}"), 0)], &["/ 755", &format!("/{name} gone")]);
    tree(&[
        file(&name, 1),
        dir(&format!("d/{name}/x"), 0o755),
        link(Symlink, "l", &"x".repeat(MAX_LINK_LEN)),
    ]);
    for (entry, what, len) in [
        (file(&too_long, 1), "name", 256),
        (file(&format!(".wh.{too_long}"), 1), "name", 256),
        (file(&format!("{too_long}/a"), 1), "name", 256),
        (link(Symlink, "l", &"x".repeat(MAX_LINK_LEN + 1)), "link target", MAX_LINK_LEN + 1),
    ] {
        match refused(&[entry]) {
            TreeError::TooLong { what: named, len: has, .. } => assert_eq!((named, has), (what, len)),
            other => panic!("{other}"),
        }
    }
    let path = "a/".repeat(MAX_PATH_LEN / 2 + 2);
    assert!(matches!(refused(&[file(&path, 1)]), TreeError::TooLong { what: "path", .. }));
    assert_eq!(tree(&[file(&"a/".repeat(MAX_PATH_LEN / 2), 1)]).inodes.len(), 1 + MAX_PATH_LEN / 2);
    // By way of a link, too.
    let long = format!("{0}/{0}/{0}/{0}/{0}/{0}/{0}/{0}", "n".repeat(250));
    let entries = [link(Symlink, "a", &long), link(Symlink, &format!("{long}/b"), &long), file("a/b/c", 1)];
    tree(&entries);
    let further =
        [link(Symlink, &format!("{long}/{long}/c"), &long[..251]), file(&format!("a/{long}/c/x"), 1)];
    let error = refused(&[&entries[..1], &further].concat());
    assert!(matches!(error, TreeError::TooLong { what: "path", .. }), "{error}");
}

#[test]
fn nul_is_in_no_name() {
    for entry in [
        file("a\0b", 1),
        link(Symlink, "a", "b\0"),
        with_xattrs(file("a", 1), &[("SCHILY.xattr.user.\0", "x")]),
    ] {
        assert!(matches!(refused(&[entry]), TreeError::Nul { .. }));
    }
}

#[test]
fn data_lie_in_the_stream_by_blocks() {
    let at = |offset, size| Entry { offset, size, ..file("a", 0) };
    for entry in [at(0, STREAM_LEN), at(STREAM_LEN, 0), at(STREAM_LEN - 512, 512)] {
        tree(&[entry]);
    }
    for entry in [at(511, 1), at(512, STREAM_LEN), at(STREAM_LEN + 512, 0), at(u64::MAX - 511, 512)] {
        assert!(matches!(refused(&[entry]), TreeError::Misplaced { .. }));
    }
    // What isn't a file has none.
    tree(&[Entry { offset: 513, ..dir("a", 0o755) }]);
}

#[test]
fn links_that_only_cost_time_are_refused() {
    // 2,000 names to each link, 255 links to each file: without a limit the work would be the product.
    let chain = |number: usize| {
        link(Symlink, &format!("l{number}"), &format!("{}l{}", "a/../".repeat(800), number + 1))
    };
    let mut entries: Vec<_> = (0..200).map(chain).collect();
    entries.push(dir("l200", 0o755));
    entries.extend((0..1000).map(|number| file(&format!("l0/{number}"), 1)));
    assert!(matches!(refused(&entries), TreeError::TooMany { .. }));
    assert_eq!(tree(&entries[..210]).inodes.len(), 1 + 210);
}

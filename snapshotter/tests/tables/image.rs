//! Three layers: programs and libraries of the machine that the test runs on, and two that change them. And three small
//! ones that lack entries for directories.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use spandrel_fixtures::layer::{Entry, TarBuilder};
use spandrel_ztoc::EntryKind;
use spandrel_ztoc::tar::{TarRules, TarWalk};

/// Real files, as many as a test has time for: setuid programs, hard and symbolic links, scripts and libraries.
const ROOTS: [&str; 5] = ["usr/bin", "usr/sbin", "usr/share/perl", "usr/share/zoneinfo", "usr/lib/python3"];

/// The largest file that is taken.
const MAX_FILE: &str = "1000k";

/// Something that the top layer hides.
pub const HIDDEN: &str = "srv/hidden";

/// A file capability, version 2: CAP_NET_RAW, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The tars, the lowest first.
pub fn layers() -> Vec<Vec<u8>> {
    let bottom = bottom();
    let names = names(&bottom);
    vec![bottom, middle(&names), top(&names)]
}

/// What GNU tar makes of the machine's files.
fn bottom() -> Vec<u8> {
    let found = Command::new("find")
        .current_dir("/")
        .args(ROOTS.iter().filter(|root| std::path::Path::new("/").join(root).is_dir()))
        .args(["(", "-type", "d", "-o", "-type", "l", "-o", "-size", &format!("-{MAX_FILE}"), ")", "-print0"])
        .output()
        .expect("run find");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let mut tar = Command::new("tar")
        .args(["--directory=/", "--create", "--format=pax", "--xattrs", "--xattrs-include=*"])
        .args(["--no-recursion", "--null", "--verbatim-files-from", "--files-from=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run tar");
    let mut stdin = tar.stdin.take().expect("a pipe");
    let list = [b".\0usr\0usr/share\0usr/lib\0".as_slice(), &found.stdout].concat();
    let writer = std::thread::spawn(move || stdin.write_all(&list));
    let done = tar.wait_with_output().expect("tar");
    assert!(done.status.success(), "tar failed");
    writer.join().expect("no panic").expect("write the list");
    done.stdout
}

/// What a layer has, directories and others.
struct Names {
    directories: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
}

fn names(tar: &[u8]) -> Names {
    let mut walk = TarWalk::new(TarRules::Fill);
    walk.push(tar).expect("a tar");
    let entries = walk.finish().expect("a whole tar").entries;
    let (directories, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.kind == EntryKind::Directory);
    let clean = |entry: spandrel_ztoc::Entry| entry.name.strip_suffix(b"/").unwrap_or(&entry.name).to_vec();
    Names {
        directories: directories.into_iter().map(clean).collect(),
        others: others.into_iter().map(clean).collect(),
    }
}

/// A layer in the making; every directory on the way to a name has an entry, as docker and buildkit write them.
#[derive(Default)]
struct Changes {
    tar: TarBuilder,
    directories: BTreeSet<Vec<u8>>,
}

impl Changes {
    fn add(&mut self, name: &[u8], entry: Entry) {
        self.parents(name);
        self.tar.add(&entry);
    }

    fn parents(&mut self, name: &[u8]) {
        for (at, _) in name.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            self.directory(&name[..at]);
        }
    }

    fn directory(&mut self, name: &[u8]) {
        if !self.directories.contains(name) {
            self.parents(name);
            self.directories.insert(name.to_vec());
            // Not as it was below.
            let number = i64::try_from(self.directories.len()).expect("few");
            let mode = if number % 3 == 0 { 0o2750 } else { 0o755 };
            self.tar.add(&Entry::dir(name).mode(mode).mtime(1_700_000_000 + number, 500));
        }
    }

    /// Removes what is below, where nothing was put into it here: a layer that does both can't be unpacked.
    fn remove(&mut self, name: &[u8]) {
        if !self.directories.contains(name) {
            self.add(name, Entry::whiteout(name));
        }
    }

    fn opaque(&mut self, name: &[u8]) {
        let inside = [name, b"/new in an opaque directory"].concat();
        self.add(&inside, Entry::opaque(name));
        self.tar.add(&Entry::file(&inside, "new"));
    }
}

/// Removes and replaces every so many files and directories, and adds what there was none of.
fn middle(below: &Names) -> Vec<u8> {
    let mut changes = Changes::default();
    for (number, name) in below.others.iter().enumerate() {
        match number % 40 {
            3 => changes.remove(name),
            7 => changes
                .add(name, Entry::file(name, format!("replaced {number}")).mode(0o4711).owner(1, 100_000)),
            11 => changes.add(name, Entry::symlink(name, "replaced by a link")),
            19 => changes.add(name, Entry::fifo(name)),
            23 => {
                let inside = [name.as_slice(), b"/a file is a directory now"].concat();
                changes.add(&inside, Entry::file(&inside, "x"));
            }
            _ => {}
        }
    }
    for name in below.directories.iter().filter(|name| name.len() > 20).step_by(25) {
        changes.opaque(name);
    }
    let directory = b"usr/share/middle";
    changes.directory(directory);
    let file = [directory.as_slice(), b"/capable"].concat();
    // A hard link's entry says the same as its target's, as all writers have it: containerd sets it again.
    let attributes = |entry: Entry| {
        let entry = entry.xattr("security.capability", CAPABILITY).xattr("user.some", b"\0\xff");
        entry.xattr("trusted.overlay.redirect", "/nowhere").mtime(-5, 250_000_000)
    };
    changes.add(&file, attributes(Entry::file(&file, vec![7; 5000])));
    for number in 0..1500 {
        let name =
            [directory.as_slice(), format!("/{number:x}-{}", "n".repeat(number % 200)).as_bytes()].concat();
        let entry = match number % 2 {
            0 => attributes(Entry::hard_link(&name, &file)),
            _ => Entry::file(&name, ""),
        };
        changes.add(&name, entry);
    }
    for (name, time) in
        [("last", "9223372036.854775807"), ("too late", "9223372036.854775808"), ("early", "-1")]
    {
        let name = format!("usr/share/middle/{name}");
        changes.add(name.as_bytes(), Entry::file(&name, "").pax("mtime", time));
    }
    changes.add(b"dev/x", Entry::char_device("dev/x", 1, 3).mode(0o666));
    changes.add(b"dev/y", Entry::block_device("dev/y", 259, 70_000));
    changes.add(HIDDEN.as_bytes(), Entry::dir(HIDDEN));
    changes.add(b"srv/hidden/x", Entry::file("srv/hidden/x", "x"));
    changes.tar.finish()
}

/// Undoes some of it, and removes what the middle one added.
fn top(below: &Names) -> Vec<u8> {
    let mut changes = Changes::default();
    changes.tar.add(&Entry::dir("./").mode(0o711).mtime(1_650_000_000, 5));
    for (number, name) in below.others.iter().enumerate() {
        match number % 80 {
            3 | 7 => changes.add(name, Entry::file(name, "back again").xattr("user.back", "again")),
            19 | 51 | 60 => changes.remove(name),
            _ => {}
        }
    }
    let some = || below.directories.iter().filter(|name| name.len() > 20).skip(25).step_by(25);
    some().step_by(2).for_each(|name| changes.opaque(name));
    some().skip(1).step_by(4).for_each(|name| changes.directory(name));
    changes.remove(HIDDEN.as_bytes());
    changes.remove(b"usr/share/middle/capable");
    changes.add(b"dev/x", Entry::file("dev/x", "no device any more"));
    some().skip(3).step_by(4).for_each(|name| changes.remove(name));
    changes.tar.finish()
}

/// What the top layer of [`odd`] has no entries for.
pub const WITHOUT_ENTRY: [&str; 9] =
    ["/tmp", "/app", "/app/data", "/removed", "/opaque", "/opaque/in", "/lib", "/new", "/new/deep"];

/// Directories with odd modes and owners; some of them changed, one said to be opaque by an attribute; a layer as umoci or
/// bazel writes it, which names only files, one of them twice and differently.
pub fn odd() -> Vec<Vec<u8>> {
    let mut bottom = TarBuilder::default();
    let entries = [
        Entry::dir("tmp").mode(0o1777),
        Entry::dir("app").mode(0o755).owner(7, 7),
        Entry::dir("app/data").mode(0o2750).owner(1000, 5).xattr("user.some", "thing"),
        Entry::dir("removed").mode(0o700).owner(1, 1),
        Entry::dir("opaque").mode(0o711),
        Entry::dir("opaque/in").mode(0o700).owner(9, 9),
        Entry::dir("usr").mode(0o755),
        Entry::dir("usr/lib").mode(0o711).owner(3, 3),
        Entry::symlink("lib", "usr/lib"),
        Entry::dir("kept").mode(0o1700),
        Entry::file("kept/x", "x"),
    ];
    for entry in entries {
        bottom.add(&entry.mtime(1_600_000_000, 5));
    }
    let mut middle = TarBuilder::default();
    let entries = [
        Entry::dir("app").mode(0o700).owner(1000, 1000),
        Entry::whiteout("removed"),
        Entry::dir("kept").mode(0o1711).xattr("trusted.overlay.opaque", "y"),
        Entry::dir("opaque").mode(0o2711),
        Entry::opaque("opaque"),
    ];
    for entry in entries {
        middle.add(&entry.mtime(1_610_000_000, 5));
    }
    let mut top = TarBuilder::default();
    for name in
        ["tmp/x", "app/y", "app/data/x", "removed/x", "opaque/in/x", "lib/x", "new/deep/x", "new/y", "z"]
    {
        top.add(&Entry::file(name, name).mtime(1_620_000_000, 5));
    }
    top.add(&Entry::file("first", "x").xattr("security.capability", CAPABILITY).xattr("user.a", "1"));
    let again = Entry::hard_link("second", "first").mode(0o4711).owner(3, 4).xattr("user.b", "2");
    top.add(&again.mtime(1_630_000_000, 7));
    vec![bottom.finish(), middle.finish(), top.finish()]
}

/// A file that one user may read by an access control list, and no other.
pub const GUARDED: &str = "guarded";

/// Who may read it.
pub const FRIEND: u32 = 1000;

/// An access control list as Linux keeps it: `user:FRIEND:r` besides what a mode of 640 says.
fn acl() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, NOBODY), (0x02, 4, FRIEND), (0x04, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// What the machine's own files don't have: files that end anywhere in a page with others right behind them, one of many
/// reads, long link targets, long values, an access control list.
pub fn every_kind() -> Vec<u8> {
    let mut tar = TarBuilder::default();
    for len in [0, 1, 511, 512, 513, 4095, 4096, 4097, 3_000_001] {
        // No two blocks of a file are the same, and none is zero.
        let content: Vec<u8> = (1..=u8::MAX).cycle().take(len).collect();
        tar.add(&Entry::file(format!("{len}"), content).mtime(1_600_000_000, 999_999_999));
    }
    for len in [1, 59, 60, 500, 4095] {
        tar.add(&Entry::symlink(format!("link {len}"), "t".repeat(len)).owner(u64::from(u32::MAX), 7));
    }
    tar.add(&Entry::file("values", "x").xattr("user.long", [9; 60_000]).xattr("user.empty", ""));
    tar.add(&Entry::file(GUARDED, "for friends").mode(0o640).xattr("system.posix_acl_access", acl()));
    tar.add(&Entry::dir("empty").mode(0o7777));
    tar.add(&Entry::char_device("dev", 0xfff, 0xf_ffff));
    tar.add(&Entry::whiteout("gone"));
    tar.add(&Entry::opaque("empty"));
    tar.finish()
}

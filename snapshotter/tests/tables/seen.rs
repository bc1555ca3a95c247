//! Everything that can be seen of two trees of files, compared.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// What is seen of one name.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    rdev: u64,
    nlink: u64,
    /// Of all but directories.
    size: u64,
    /// Target of a link, or digest of a file's content.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same inode.
    same_as: Vec<u8>,
}

/// All names, and what is seen of them. Nothing of a whiteout in a directory that isn't merged: overlayfs lists its name, but
/// there is no such file.
type Names = BTreeMap<Vec<u8>, Option<Seen>>;

/// Panics at the first name that isn't the same below `got` as below `want`; says how many there are. Times of `timeless`
/// directories aren't compared: containerd doesn't set them, they are those of its unpacking.
pub fn assert_same(got: &Path, want: &Path, timeless: &[&str]) -> usize {
    let (mut got, mut want) = (see(got), see(want));
    for name in timeless {
        for names in [&mut got, &mut want] {
            if let Some(Some(seen)) = names.get_mut(name.as_bytes()) {
                seen.mtime = (0, 0);
            }
        }
    }
    for (name, want) in &want {
        assert_eq!(got.get(name), Some(want), "{}", String::from_utf8_lossy(name));
    }
    let more = got.keys().find(|name| !want.contains_key(*name));
    assert_eq!(more.map(|name| String::from_utf8_lossy(name)), None, "should not be there");
    want.len()
}

/// Panics where anything about `got` isn't as it is about `want`, an overlay's doings left out: also how directories are
/// listed, and what space things take. Says how many names there are.
pub fn assert_identical(got: &Path, want: &Path) -> usize {
    let (got_names, want_names) = (see(got), see(want));
    for (name, want_seen) in &want_names {
        let text = String::from_utf8_lossy(name).into_owned();
        assert_eq!(got_names.get(name), Some(want_seen), "{text}");
        let path = |root: &Path| root.join(OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name)));
        let space = |root: &Path| {
            let meta = fs::symlink_metadata(path(root)).expect("it was there");
            (meta.size(), meta.blocks(), meta.blksize(), meta.mtime(), meta.mtime_nsec(), meta.ctime())
        };
        assert_eq!(space(got), space(want), "{text}");
        if want_seen.as_ref().is_some_and(|seen| seen.mode & 0o170_000 == 0o040_000) {
            assert_eq!(listed(&path(got)), listed(&path(want)), "{text}");
        }
    }
    assert_eq!(got_names.len(), want_names.len());
    want_names.len()
}

/// Names and types in a directory, in the order in which they come.
fn listed(path: &Path) -> Vec<(OsString, fs::FileType)> {
    let entries = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.file_name(), entry.file_type().expect("a type"))).collect()
}

fn see(root: &Path) -> Names {
    let mut names = Names::new();
    see_one(root, b"", &mut BTreeMap::new(), &mut names);
    names
}

fn see_one(path: &Path, name: &[u8], inodes: &mut BTreeMap<(u64, u64), Vec<u8>>, names: &mut Names) {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            names.insert(name.to_vec(), None);
            return;
        }
        Err(error) => panic!("stat {}: {error}", path.display()),
    };
    let content = if meta.is_symlink() {
        fs::read_link(path).expect("a target").into_os_string().into_encoded_bytes()
    } else if meta.is_file() {
        Sha256::digest(fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))).to_vec()
    } else {
        Vec::new()
    };
    // containerd makes the root when it unpacks; what a layer says of it, it passes over.
    let mtime = if name.is_empty() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
    let seen = Seen {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime,
        rdev: meta.rdev(),
        nlink: meta.nlink(),
        size: if meta.is_dir() { 0 } else { meta.size() },
        content,
        xattrs: xattrs(path),
        same_as: inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_vec()).clone(),
    };
    names.insert(name.to_vec(), Some(seen));
    if meta.is_dir() {
        // Sorted, so that the first name of an inode is the same on both sides.
        let entries =
            fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        for entry in entries {
            see_one(&path.join(&entry), &[name, b"/", entry.as_bytes()].concat(), inodes, names);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names = names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(path, name, &mut value)
                .unwrap_or_else(|e| panic!("{} of {}: {e}", String::from_utf8_lossy(name), path.display()));
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

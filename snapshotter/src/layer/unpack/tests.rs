//! Tests of unpacking: GNU tar is the oracle.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::fetch::testing::noise;

fn run(command: &mut Command) {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn unpacked(tar: &[u8]) -> (TempDir, Result<(), Error>) {
    let dir = tempfile::tempdir().expect("a directory");
    let stream = dir.path().join("stream");
    fs::write(&stream, tar).expect("written");
    let result = unpack(&stream, tar.len() as u64, dir.path(), &CancellationToken::new());
    (dir, result)
}

/// All that matters of a tree, name by name.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let stat = fs::symlink_metadata(&full).expect("stats");
        let kind = stat.file_type();
        let content = if kind.is_file() {
            format!("{}", spandrel_registry::Digest::sha256(&fs::read(&full).expect("reads")))
        } else if kind.is_symlink() {
            format!("{}", fs::read_link(&full).expect("reads").display())
        } else {
            format!("{}", stat.rdev())
        };
        let times = if path.as_os_str().is_empty() { (0, 0) } else { (stat.mtime(), stat.mtime_nsec()) };
        let size = if kind.is_dir() { 0 } else { stat.len() };
        let links = stat.nlink();
        lines.push(format!(
            "{path:?} {:o} {}:{} {size} {times:?} {links} {content} {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.blocks()
        ));
        if kind.is_dir() {
            pending.extend(
                fs::read_dir(&full).expect("lists").map(|entry| path.join(entry.expect("one").file_name())),
            );
        }
    }
    lines.sort();
    lines
}

/// A tree with holes, links, devices and odd modes.
fn sample(dir: &Path) {
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("written");
    fs::create_dir_all(dir.join("usr/lib")).expect("made");
    put("usr/lib/plain", &noise(1, 5000));
    fs::hard_link(dir.join("usr/lib/plain"), dir.join("usr/hard")).expect("linked");
    symlink("lib/plain", dir.join("usr/soft")).expect("linked");
    symlink("nowhere", dir.join("dangling")).expect("linked");
    run(Command::new("mknod").arg(dir.join("null")).args(["c", "1", "3"]));
    run(Command::new("mkfifo").arg(dir.join("pipe")));
    for (name, holes) in [("one-hole", 1u64), ("many-holes", 60), ("all-hole", 0)] {
        let file = File::create(dir.join(name)).expect("made");
        for hole in 1..=holes {
            file.write_all_at(&noise(hole, 4096), hole * 128 * 1024).expect("written");
        }
        file.set_len((holes + 1) * 128 * 1024 + 77).expect("sized");
    }
    fs::set_permissions(dir.join("usr/lib/plain"), fs::Permissions::from_mode(0o4711)).expect("set");
    fs::set_permissions(dir.join("usr/lib"), fs::Permissions::from_mode(0o1777)).expect("set");
    std::os::unix::fs::lchown(dir.join("usr/soft"), Some(1234), Some(70_000)).expect("set");
}

#[test]
fn what_comes_out_is_what_gnu_tar_makes_of_it() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    let source = tempfile::tempdir().expect("a directory");
    sample(source.path());
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=ustar"],
    ] {
        let out = tempfile::tempdir().expect("a directory");
        let tar = out.path().join("tar");
        let mut command = Command::new("tar");
        command.args(format).arg("--numeric-owner");
        if format[0] != "--format=ustar" {
            command.args(["-S", "--hole-detection=seek"]);
        }
        run(command.arg("-cf").arg(&tar).arg("-C").arg(source.path()).arg("."));
        let want = out.path().join("want");
        fs::create_dir(&want).expect("made");
        run(Command::new("tar")
            .args(["--numeric-owner", "-p", "--same-owner", "-xf"])
            .arg(&tar)
            .arg("-C")
            .arg(&want));
        let (dir, result) = unpacked(&fs::read(&tar).expect("reads"));
        result.expect("unpacks");
        // The root itself is containerd's.
        let root_aside =
            |path: &Path| listing(path).into_iter().filter(|line| !line.starts_with("\"\" ")).collect();
        let (have, want): (Vec<String>, Vec<String>) = (root_aside(&dir.path().join(DIR)), root_aside(&want));
        assert_eq!(have, want, "{format:?}");
        assert!(!dir.path().join("stream").exists());
    }
}

/// One entry of a tar in the making.
fn entry(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &[u8], link: &[u8], data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_cksum();
    builder.append(&header, data).expect("in memory");
}

#[test]
fn no_name_and_no_link_leads_out_of_the_tree() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    use tar::EntryType;
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("victim"), "untouched").expect("written");
    let out = outside.path().to_str().expect("text").as_bytes();
    let through = [b"link/".as_slice(), b"victim"].concat();
    let up = [b"../../../../../../../../".as_slice(), &out[1..], b"/victim"].concat();
    let mut builder = tar::Builder::new(Vec::new());
    entry(&mut builder, EntryType::Symlink, b"link", out, b"");
    entry(&mut builder, EntryType::Symlink, b"up", b"../../../../../../..", b"");
    entry(&mut builder, EntryType::Regular, &up, b"", b"written by name");
    // Within the tree, where the link leads, the directories are there by now.
    entry(&mut builder, EntryType::Regular, &through, b"", b"written through a link");
    entry(&mut builder, EntryType::Regular, b"up/etc-file", b"", b"written above");
    entry(&mut builder, EntryType::Regular, b"link/.wh.victim", b"", b"");
    let (dir, result) = unpacked(&builder.into_inner().expect("in memory"));
    result.expect("unpacks");
    assert_eq!(fs::read_to_string(outside.path().join("victim")).expect("reads"), "untouched");
    let root = dir.path().join(DIR);
    assert_eq!(fs::read_to_string(root.join("etc-file")).expect("`..` ends at the root"), "written above");
    let inside = root.join(outside.path().strip_prefix("/").expect("absolute")).join("victim");
    assert_eq!(fs::symlink_metadata(inside).expect("hidden within the tree").rdev(), 0);

    // A hard link to something outside is a link to nothing.
    let mut builder = tar::Builder::new(Vec::new());
    let victim = [out, b"/victim"].concat();
    entry(&mut builder, EntryType::Link, b"hard", &victim, b"");
    let (_, result) = unpacked(&builder.into_inner().expect("in memory"));
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

#[test]
fn later_entries_replace_earlier_ones_and_whiteouts_are_overlayfs_s() {
    if !spandrel_fixtures::require::root() {
        return;
    }
    use tar::EntryType;
    let mut builder = tar::Builder::new(Vec::new());
    entry(&mut builder, EntryType::Regular, b"dir/deep/file", b"", b"1");
    entry(&mut builder, EntryType::Directory, b"dir/", b"", b"");
    entry(&mut builder, EntryType::Regular, b"swap", b"", b"2");
    entry(&mut builder, EntryType::Directory, b"swap/", b"", b"");
    entry(&mut builder, EntryType::Regular, b"swap/in", b"", b"3");
    entry(&mut builder, EntryType::Directory, b"gone/", b"", b"");
    entry(&mut builder, EntryType::Regular, b"gone/x", b"", b"4");
    entry(&mut builder, EntryType::Symlink, b"gone", b"dir", b"");
    entry(&mut builder, EntryType::Regular, b"dir/.wh.hidden", b"", b"");
    entry(&mut builder, EntryType::Regular, b"opaque/.wh..wh..opq", b"", b"");
    entry(&mut builder, EntryType::Regular, b".wh..wh.plnk", b"", b"");
    entry(&mut builder, EntryType::Regular, b".wh.", b"", b"");
    let (dir, result) = unpacked(&builder.into_inner().expect("in memory"));
    result.expect("unpacks");
    let root = dir.path().join(DIR);
    assert_eq!(fs::read(root.join("dir/deep/file")).expect("a directory is merged"), b"1");
    assert_eq!(fs::read(root.join("swap/in")).expect("a file gives way"), b"3");
    assert_eq!(fs::read_link(root.join("gone")).expect("a directory gives way"), Path::new("dir"));
    let hidden = fs::symlink_metadata(root.join("dir/hidden")).expect("there");
    assert_eq!((hidden.mode() & 0o170_000, hidden.rdev()), (0o020_000, 0));
    let mut value = [0; 8];
    let len =
        rustix::fs::getxattr(root.join("opaque"), "trusted.overlay.opaque", &mut value).expect("is set");
    assert_eq!(&value[..len], b"y");
    let mut names: Vec<_> =
        fs::read_dir(&root).expect("lists").map(|entry| entry.expect("one").file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "gone", "opaque", "swap"]);
}

#[test]
fn no_attribute_of_the_administrator_is_set() {
    let mut builder = tar::Builder::new(Vec::new());
    let records = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y".as_slice()),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.kept", b"yes"),
    ];
    builder.append_pax_extensions(records).expect("in memory");
    entry(&mut builder, tar::EntryType::Directory, b"dir", b"", b"");
    let (dir, result) = unpacked(&builder.into_inner().expect("in memory"));
    result.expect("unpacks");
    let mut names = vec![0; 1000];
    let len = rustix::fs::listxattr(dir.path().join(DIR).join("dir"), names.as_mut_slice()).expect("lists");
    let names = String::from_utf8_lossy(&names[..len]).into_owned();
    assert!(!names.contains("trusted."), "{names:?}");
}

#[test]
fn a_broken_tar_leaves_nothing() {
    for bytes in [vec![7; 2048], {
        let mut tar = crate::fetch::testing::tar(&[("a", 3000)]);
        tar.truncate(2000);
        tar
    }] {
        let (dir, result) = unpacked(&bytes);
        assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
        assert!(!dir.path().join(DIR).exists() && !dir.path().join(DIR_NEW).exists());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bits that were flipped, wherever they are: an error or another tree, never a panic, and never a hang.
    #[test]
    fn damage_is_survived(flips in prop::collection::vec((0usize..6144, 0u8..8), 1..6)) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(512);
        let pax: [(&str, &[u8]); 3] = [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"99999")];
        builder.append_pax_extensions(pax).expect("in memory");
        let mut map = b"1\n1000\n512\n".to_vec();
        map.resize(1024, 0);
        header.set_size(1024);
        header.set_mode(0o644);
        builder.append_data(&mut header, "sparse", map.as_slice()).expect("in memory");
        entry(&mut builder, tar::EntryType::Regular, b"plain", b"", &noise(1, 700));
        let mut tar = builder.into_inner().expect("in memory");
        for (at, bit) in flips {
            if let Some(byte) = tar.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        // Checksums would refuse nearly everything.
        for block in tar.chunks_exact_mut(512) {
            let sum: u32 = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
            if block[257..262] == *b"ustar" {
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let _ = unpacked(&tar);
    }
}

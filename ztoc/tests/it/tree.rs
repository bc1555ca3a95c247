//! The tree that a table of contents means, held against what others make of the same layers: GNU tar on disk, SOCI's
//! snapshotter by its mounts, containerd by its own unpacking.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::RngSeed;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::tree::{Tree, TreeError};
use spandrel_ztoc::{Entry, EntryKind};

use crate::archive::{Format, Item, tar};
use crate::disk::{Listing, Node, What, difference, of_folder, of_tree};
use crate::support::{Layer, run};
use crate::vectors::vectors;

/// The tree of a tar, as it is made where a layer is filled.
fn tree(stream: &[u8]) -> Result<Listing, TreeError> {
    let mut walk = TarWalk::new(TarRules::Fill);
    walk.push(stream).unwrap();
    let toc = walk.finish().unwrap();
    let tree = Tree::new(&toc.entries, toc.archive_end)?;
    Ok(of_tree(&tree, |range| {
        stream[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    }))
}

/// Whether this test can make devices, owners and attributes; where not, it says so.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "this test needs root, and CI has it");
    if !root {
        eprintln!("skipped: this test unpacks owners and devices, which needs root");
    }
    root
}

fn file_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(String::into_bytes),
        "[a-z]{90,120}".prop_map(String::into_bytes),
        "[ \\-*?\"'\\\\äß日]{1,20}".prop_map(String::into_bytes),
        prop::collection::vec(prop_oneof![1..=b'.', b'0'..=255], 1..20).prop_map(|mut name| {
            name.push(b'~'); // neither `.` nor `..`
            name
        }),
        Just([b'n'; 255].to_vec()),
    ]
}

fn times() -> impl Strategy<Value = (i64, u32)> {
    (
        prop_oneof![0..2_000_000_000_i64, -1_000_000_000..0_i64, Just(-1), Just(8_589_934_592)],
        prop_oneof![Just(0), 0..1_000_000_000_u32],
    )
}

/// An entry to be given its name; the number chooses a target for links.
fn item() -> impl Strategy<Value = (Item, prop::sample::Index)> {
    let kind = prop::sample::select(
        b"000055123467".iter().map(|&kind| if kind == b'7' { 0 } else { kind }).collect::<Vec<_>>(),
    );
    let owner = || prop_oneof![0..70_000_u64, Just(2_097_152), Just(4_294_967_294)];
    let xattrs =
        prop::collection::btree_map("user\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..40), 0..3);
    let data = prop::collection::vec(any::<u8>(), 0..1500);
    (
        kind,
        0..0o10000_u32,
        owner(),
        owner(),
        times(),
        (0..0xfff_u32, 0..0x7fff_u32),
        xattrs,
        data,
        any::<(bool, prop::sample::Index)>(),
    )
        .prop_map(|(kind, mode, uid, gid, mtime, device, xattrs, data, (pax, index))| {
            let format = if pax { Format::Pax } else { Format::Gnu };
            let has_xattrs = pax && matches!(kind, b'0' | b'5' | 0);
            let item = Item {
                format,
                mode,
                uid,
                gid,
                mtime: if pax { mtime } else { (mtime.0, 0) },
                device: if matches!(kind, b'3' | b'4') { device } else { (0, 0) },
                xattrs: if has_xattrs { xattrs.into_iter().collect() } else { Vec::new() },
                data: if matches!(kind, b'0' | 0) { data } else { Vec::new() },
                ..Item::new(kind, "")
            };
            (item, index)
        })
}

/// A tar as tools write them: each name once, parents first, links to what is there.
fn sane_tar() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::btree_map(file_name(), (item(), any::<prop::sample::Index>()), 1..14).prop_map(
        |named| {
            let mut folders = vec![Vec::new()];
            let mut targets: Vec<Item> = Vec::new();
            let mut items = Vec::new();
            for (name, ((mut item, target), folder)) in named {
                let folder: &Vec<u8> = folder.get(&folders);
                item.name = [&folder[..], &name].concat();
                match item.kind {
                    b'5' => {
                        item.name.push(b'/');
                        if item.name.len() < 900 {
                            folders.push(item.name.clone());
                        }
                    }
                    b'1' if targets.is_empty() => item.kind = b'6',
                    b'1' => {
                        // Its attributes are those of its target: which of two would count differs from tool to tool.
                        let target = target.get(&targets).clone();
                        item = Item {
                            linkname: target.name.clone(),
                            kind: b'1',
                            name: item.name,
                            data: Vec::new(),
                            ..target
                        };
                    }
                    b'2' => item.linkname = name,
                    _ => {}
                }
                if !matches!(item.kind, b'1' | b'2' | b'5') {
                    targets.push(item.clone());
                }
                items.push(item);
            }
            items
        },
    )
}

/// Settings of these tests: the same cases each time.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_124),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn a_generated_layer_is_what_gnu_tar_unpacks(items in sane_tar()) {
        if !is_root() {
            return Ok(());
        }
        let stream = tar(&items);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(dir.path().join("tar"), &stream).unwrap();
        let options = ["-xpf", "../tar", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "--delay-directory-restore"];
        run(&out, "tar", &options);
        let mut unpacked = of_folder(&out);
        let mut tree = tree(&stream).unwrap();
        // The folder that it is unpacked into isn't of the layer.
        unpacked.remove(&b""[..]);
        tree.remove(&b""[..]);
        for node in unpacked.values_mut().chain(tree.values_mut()) {
            if node.what == What::Directory {
                node.nlink = 0; // not every file system counts here
            }
        }
        prop_assert_eq!(difference(&tree, &unpacked), None);
    }

    #[test]
    fn a_generated_layer_has_the_entries_that_the_tar_crate_sees(mut items in sane_tar()) {
        // It splits PAX records at line breaks.
        for item in &mut items {
            let values = item.xattrs.iter_mut().map(|(_, value)| value);
            for text in [&mut item.name, &mut item.linkname].into_iter().chain(values) {
                text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'?');
            }
        }
        let stream = tar(&items);
        let mut walk = TarWalk::new(TarRules::Index);
        walk.push(&stream).unwrap();
        let toc = walk.finish().unwrap();
        prop_assert_eq!(toc.archive_end, stream.len() as u64);
        let mut archive = tar::Archive::new(&stream[..]);
        let mut seen = 0;
        for (theirs, ours) in archive.entries().unwrap().zip(&toc.entries) {
            let mut theirs = theirs.unwrap();
            prop_assert_eq!(&*theirs.path_bytes(), &ours.name[..]);
            prop_assert_eq!(theirs.raw_file_position(), ours.offset);
            prop_assert_eq!(theirs.size(), ours.size);
            prop_assert_eq!(theirs.link_name_bytes().map(|name| name.to_vec()).unwrap_or_default(), &ours.linkname[..]);
            let header = theirs.header().clone();
            prop_assert_eq!(i64::from(header.mode().unwrap()), ours.mode);
            let records: Vec<_> = theirs
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .filter_map(|record| record.ok().map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec())))
                .collect();
            if !records.is_empty() {
                let mut sorted = records;
                sorted.sort();
                prop_assert_eq!(&sorted, &ours.pax);
            }
            seen += 1;
        }
        prop_assert_eq!((seen, toc.entries.len()), (items.len(), items.len()));
    }
}

/// What an odd tar is made of: names that meet one another, links, and what hides.
fn odd_tar() -> impl Strategy<Value = Vec<Item>> {
    let component = || prop::sample::select(vec!["a", "b", "c", "a", "b", "c", ".", "..", "", "d"]);
    let last = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c", "d"]),
        1 => prop::sample::select(vec![".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq"]),
        1 => prop::sample::select(vec!["..", ".", "", ".wh..wh.x", ".wh.", ".wh.."]),
    ];
    let name =
        (prop::collection::vec(component(), 0..3), last, any::<bool>()).prop_map(|(parents, last, slash)| {
            format!(
                "{}{}{last}",
                if slash { "/" } else { "" },
                parents.iter().map(|name| format!("{name}/")).collect::<String>()
            )
        });
    let target = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "a/b",
        "./b",
        "../a",
        "../../b",
        "/c",
        "/",
        "..",
        "a/../b",
        "b/c/",
        "/d/./a",
        "nowhere/at/all",
    ]);
    let kind = prop::sample::select(b"0000555522112360".to_vec());
    let item = (
        kind,
        name,
        target,
        prop::sample::select(vec![0o755_u32, 0o700, 0o1777]),
        0..700_usize,
        any::<prop::sample::Index>(),
    );
    prop::collection::vec(item, 1..9).prop_map(|list| {
        let mut names: Vec<String> = Vec::new();
        let mut items = Vec::new();
        for (kind, name, target, mode, len, earlier) in list {
            let mut item = Item::new(kind, name.clone());
            item.uid = 5;
            match kind {
                b'5' => item.mode = mode,
                b'0' => item.data = vec![b'x'; len],
                b'2' => item.linkname = target.into(),
                b'3' => item.device = (1, 3),
                // Mostly to something that is there.
                b'1' if len > 100 && !names.is_empty() => item.linkname = earlier.get(&names).clone().into(),
                b'1' => item.linkname = target.into(),
                _ => {}
            }
            if kind != b'5' {
                names.push(name);
            }
            items.push(item);
        }
        items
    })
}

/// Containerd's unpacking, as a program: built of its own package where there is a Go toolchain.
fn containerd_apply() -> Option<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerd-apply");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containerd-apply");
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .output();
    let problem = match built {
        Ok(output) if output.status.success() => return Some(program),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("go: {error}"),
    };
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs Go from 1.24 on and its module proxy: {problem}"
    );
    eprintln!("SKIPPED: what containerd unpacks needs Go from 1.24 on and its module proxy: {problem}");
    None
}

/// How many odd layers are compared: a few seconds' worth. Ten times as many were, once.
const ODD_LAYERS: usize = 600;

/// Odd sequences of entries, hundreds of them: what containerd has on disk in the end is the tree. Where containerd gives up,
/// so may we.
#[test]
fn odd_layers_are_what_containerd_unpacks() {
    let (true, Some(apply)) = (is_root(), containerd_apply()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(cases(1));
    let strategy = odd_tar();
    let mut args = Vec::new();
    let tars: Vec<Vec<Item>> = (0..ODD_LAYERS)
        .map(|number| {
            let items = strategy.new_tree(&mut runner).unwrap().current();
            let (file, out) = (dir.path().join(format!("{number}.tar")), dir.path().join(number.to_string()));
            fs::write(&file, tar(&items)).unwrap();
            fs::create_dir(&out).unwrap();
            args.extend([file, out]);
            items
        })
        .collect();
    let output: Vec<u8> = args
        .chunks(400)
        .flat_map(|args| std::process::Command::new(&apply).args(args).output().unwrap().stdout)
        .collect();
    let output = String::from_utf8(output).unwrap();
    let mut unpacked = 0;
    let mut wrong = Vec::new();
    for (number, (items, line)) in tars.iter().zip(output.lines()).enumerate() {
        let ours = tree(&tar(items));
        if !line.ends_with(": ok") {
            continue;
        }
        unpacked += 1;
        let mut theirs = of_folder(&dir.path().join(number.to_string()));
        // It gives a whiteout the time of its making.
        let gone = |node: &&mut Node| node.what == What::Char(0, 0) && node.mode == 0;
        theirs.values_mut().filter(gone).for_each(|node| node.mtime = Some((1_600_000_000, 0)));
        theirs.retain(|path, _| !path.split(|&byte| byte == b'/').any(|name| name.starts_with(b".wh.")));
        let problem = match ours {
            // A hard link to what hides something would hide something itself: containerd makes it, we refuse it.
            Err(TreeError::HardlinkTarget { .. })
                if items.iter().any(|item| {
                    item.name.starts_with(b".wh.") || item.name.windows(5).any(|part| part == b"/.wh.")
                }) =>
            {
                None
            }
            Err(error) => Some(error.to_string()),
            Ok(mut ours) => {
                // Containerd takes no attributes for the root but this one.
                let root = ours.get_mut(&b""[..]).unwrap();
                let there = &theirs[&b""[..]];
                (root.mode, root.owner, root.mtime, root.nlink) =
                    (there.mode, there.owner, there.mtime, there.nlink);
                difference(&ours, &theirs)
            }
        };
        if let Some(problem) = problem {
            wrong.push(format!("{items:#?}\n{problem}"));
        }
    }
    assert_eq!(output.lines().count(), tars.len());
    assert!(unpacked * 5 > tars.len(), "containerd took only {unpacked} of {}", tars.len());
    wrong.sort_by_key(String::len);
    assert!(
        wrong.is_empty(),
        "{} of {unpacked} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(4)].join("\n")
    );
}

/// A path as the vectors' listings have it: Python's `unicode_escape`, with bytes that are no text as low surrogates.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut left = text;
    while let Some(char) = left.chars().next() {
        left = &left[char.len_utf8()..];
        if char != '\\' {
            bytes.extend(char.to_string().bytes());
            continue;
        }
        let kind = left.as_bytes()[0];
        left = &left[1..];
        let digits = match kind {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            b'n' => {
                bytes.push(b'\n');
                continue;
            }
            b't' => {
                bytes.push(b'\t');
                continue;
            }
            b'r' => {
                bytes.push(b'\r');
                continue;
            }
            other => {
                bytes.push(other);
                continue;
            }
        };
        let code = u32::from_str_radix(&left[..digits], 16).unwrap();
        left = &left[digits..];
        match char::from_u32(code) {
            Some(char) => bytes.extend(char.to_string().bytes()),
            None => bytes.push(u8::try_from(code - 0xdc00).unwrap()),
        }
    }
    bytes
}

/// What a hard link's entry says of itself SOCI passes over; containerd sets it.
fn describe_links_as_their_targets(entries: &mut [Entry]) {
    let clean = |name: &[u8]| {
        let parts = name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        parts.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    for at in 0..entries.len() {
        let (before, rest) = entries.split_at_mut(at);
        let link = &mut rest[0];
        if link.kind != EntryKind::Hardlink {
            continue;
        }
        let target = clean(&link.linkname);
        if let Some(target) = before.iter().rev().find(|entry| clean(&entry.name) == target) {
            (link.mode, link.uid, link.gid) = (target.mode, target.uid, target.gid);
            (link.mtime, link.pax) = (target.mtime, target.pax.clone());
        }
    }
}

/// What SOCI's snapshotter shows of each layer that it mounts is the tree of its zTOC, but for what its README lists.
#[test]
fn vectors_are_what_soci_mounts() {
    let mut compared = 0;
    for vector in vectors() {
        let Ok(text) = fs::read_to_string(vector.dir.join("mounted.txt")) else { continue };
        if text.starts_with("not mounted") {
            continue;
        }
        let ztoc = vector.build(vector.spans[0]).unwrap();
        let layer = Layer::new(&ztoc, &vector.blob);
        let mut entries = ztoc.entries.clone();
        describe_links_as_their_targets(&mut entries);
        let tree = match Tree::new(&entries, ztoc.uncompressed_size) {
            Err(TreeError::TooLong { what: "name", .. }) => continue, // its mount shows them all the same
            tree => tree.unwrap_or_else(|error| panic!("{}: {error}", vector.name)),
        };
        let ours = of_tree(&tree, |range| layer.read(range));
        let mut shown = 0;
        for line in text.lines() {
            let context = format!("{}: {line}", vector.name);
            let mut fields = line.split(' ');
            let path = unescape(fields.next().unwrap());
            let kind = fields.next().unwrap();
            if matches!(kind, "lstat:" | "readdir:") {
                continue; // `.wh.`, by which its own mount fails
            }
            let node = &ours[if path == b"." { &b""[..] } else { &path }];
            shown += 1;
            let mut mode = u32::from_str_radix(fields.next().unwrap(), 8).unwrap();
            let mut nlink = None;
            let mut xattrs = Vec::new();
            let mut what = None;
            // 2^32 - 1 is no owner to Linux, which shows nobody's.
            let shown_id = |id: u32| if id == u32::MAX { 65_534 } else { id };
            let owner = format!("{}:{}", shown_id(node.owner.0), shown_id(node.owner.1));
            // An owner of 0 in a directory's later entry it doesn't take.
            let kept = vector.name == "t-dotslash" && path == b".";
            assert!(fields.next() == Some(&owner) || kept, "{context}: {owner}");
            for (at, field) in line.split(' ').enumerate().skip(4) {
                let (key, value) = field.split_once(['=', ':']).unwrap_or((field, ""));
                match (key, &node.what) {
                    ("nlink", _) => nlink = value.parse().ok(),
                    ("size", What::File(len, _)) => assert_eq!(value, len.to_string(), "{context}"),
                    ("mtime", _) => {
                        let (seconds, nanoseconds) = value.split_once('.').unwrap();
                        let time = (seconds.parse::<i64>().unwrap(), nanoseconds.parse().unwrap());
                        // A time that can't be read is the year 1 to it, which we say of directories that are implied alone.
                        let ours = node.mtime.unwrap_or((-62_135_596_800, 0));
                        assert!(ours == time || (ours, time.0) == ((0, 0), -62_135_596_800), "{context}");
                    }
                    ("sha256", What::File(_, digest)) => assert_eq!(value, digest.hex(), "{context}"),
                    ("dev", What::Char(major, minor) | What::Block(major, minor)) => {
                        assert_eq!(value, format!("{major}:{minor}"), "{context}");
                    }
                    ("->", What::Symlink(target)) => {
                        let text = line.split(' ').nth(at + 1).unwrap_or_default();
                        assert_eq!(*target, unescape(text), "{context}");
                    }
                    ("xattr", _) => {
                        let (name, value) = value.split_once('=').unwrap();
                        xattrs.push((String::from_utf8(unescape(name)).unwrap(), value.to_owned()));
                    }
                    _ => {}
                }
                if at == 4 {
                    what = Some(match node.what {
                        What::File(..) => "reg",
                        What::Directory => "dir",
                        What::Symlink(_) => "lnk",
                        What::Char(..) => "chr",
                        What::Block(..) => "blk",
                        What::Fifo => "fifo",
                    });
                }
            }
            assert_eq!(what, Some(kind), "{context}");
            if kind == "lnk" {
                mode = 0o777; // on Linux a link has no other
            }
            assert_eq!(node.mode, mode, "{context}");
            // A name that is lost stays counted with it, and a directory in a file's place has one name less; directories
            // called `.wh.*` are counted, too, and the root by each of its entries.
            let miscounted = path == b"." || ["t-dups", "t-whiteouts"].contains(&vector.name.as_str());
            assert!(nlink == Some(node.nlink) || miscounted, "{context}: {}", node.nlink);
            // One without a value it loses, or not, by chance.
            let kept: Vec<_> = node.xattrs.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
            xattrs.retain(|(_, value)| !value.is_empty());
            xattrs.sort();
            assert_eq!(kept, xattrs, "{context}");
        }
        // It leaves out what has a very long line, and can't list a folder with a `.wh.` in it.
        let left_out = ours.keys().filter(|path| path.len() > 100 || path.starts_with(b"d/")).count();
        assert!(
            shown <= ours.len() && shown + left_out >= ours.len(),
            "{}: {shown} of {}",
            vector.name,
            ours.len()
        );
        compared += 1;
    }
    assert!(compared >= 40, "only {compared} layers were compared");
}

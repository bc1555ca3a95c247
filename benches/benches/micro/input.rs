//! What is worked on: a layer of mixed content, the same on every machine, and its blob as each kind of tool packs it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use spandrel_fixtures::layer::{Entry, TarBuilder, gzip, gzip_members};
use spandrel_fixtures::random::Random;
use spandrel_fixtures::require;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, Ztoc};

/// Length of the layer's stream while measuring, in bytes: eight spans, more than fits a cache, and an index of it is
/// built several times a second.
const STREAM_LEN: usize = 32 << 20;
/// The same under `cargo test`: two spans.
const TEST_LEN: usize = 5 << 20;
/// What tools compress with where nobody says otherwise.
const LEVEL: u32 = 6;
/// Content of one gzip member where there are many, in bytes: as `pigz -i` cuts, and about a file each as eStargz does.
const MEMBER_LEN: usize = 128 << 10;

/// Whether this is a measurement, and not a test that the benchmarks run.
pub fn measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// `count` while measuring, a hundredth of it in a test.
pub fn scaled(count: usize) -> usize {
    if measuring() { count } else { count.div_ceil(100) }
}

/// The layer's stream.
pub static TAR: LazyLock<Vec<u8>> = LazyLock::new(|| tar(if measuring() { STREAM_LEN } else { TEST_LEN }));

/// [`TAR`] as gzip's own library packs it: one member.
pub static GZIP: LazyLock<Vec<u8>> = LazyLock::new(|| gzip(&TAR, LEVEL));

/// The index of [`GZIP`].
pub static ZTOC: LazyLock<Ztoc> = LazyLock::new(|| {
    build(GZIP.as_slice(), Compression::Gzip, &BuildOptions::default())
        .expect("a layer that can be indexed")
        .ztoc
});

/// The layer as some tool packs it.
pub struct Packed {
    /// The tool's name.
    pub name: &'static str,
    /// How it is compressed.
    pub compression: Compression,
    /// Its bytes.
    pub blob: Vec<u8>,
}

/// [`TAR`] as each tool packs it; those whose program isn't here say so and are left out. A test does with those that
/// need none.
pub fn packed() -> Vec<Packed> {
    let gzip = |name, blob| Packed { name, compression: Compression::Gzip, blob };
    let mut all = vec![
        gzip("zlib", GZIP.clone()),
        gzip("members", gzip_members(&TAR, TAR.len().div_ceil(MEMBER_LEN), LEVEL)),
    ];
    if measuring() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tar = dir.path().join("layer.tar");
        std::fs::write(&tar, TAR.as_slice()).expect("room for the layer");
        if let Some(pigz) = require::program("pigz") {
            all.push(gzip("pigz", output(Command::new(pigz).args(["-n", "-c"]), &tar)));
        }
        if let Some(go) = require::program("go") {
            let source = dir.path().join("main.go");
            std::fs::write(&source, GO_GZIP).expect("room for the program");
            let mut run = Command::new(go);
            // What is installed will do; nothing is to be fetched.
            run.arg("run").arg(&source).current_dir(dir.path()).env("GOTOOLCHAIN", "local");
            all.push(gzip("go", output(&mut run, &tar)));
        }
    }
    all.push(Packed { name: "plain", compression: Compression::Uncompressed, blob: TAR.clone() });
    all
}

/// What docker, buildkit and containerd compress layers with.
const GO_GZIP: &str = r#"package main

import (
	"compress/gzip"
	"io"
	"os"
)

func main() {
	w := gzip.NewWriter(os.Stdout)
	if _, err := io.Copy(w, os.Stdin); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
"#;

/// What `command` writes when it reads the file `input`.
fn output(command: &mut Command, input: &Path) -> Vec<u8> {
    let input = File::open(input).expect("was just written");
    let done =
        command.stdin(input).stderr(Stdio::inherit()).output().expect("a program that was found starts");
    assert!(done.status.success(), "{command:?}: {}", done.status);
    done.stdout
}

/// A tar of about `len` bytes as a language's packages make it: many small texts, some objects of machine code, some
/// files that are compressed already, in directories of twenty.
fn tar(len: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    let mut tar = TarBuilder::new();
    let mut dir = String::new();
    for nth in 0.. {
        if tar.len() >= len {
            break;
        }
        if nth % 20 == 0 {
            dir = format!("usr/lib/python3/dist-packages/package-{:03}/module-{nth}", nth / 200);
            tar.add(&Entry::dir(&dir));
        }
        // From 256 bytes to half a MiB; small ones are frequent.
        let power = 8 + random.below(11).min(random.below(11));
        let size = usize::try_from((1 << power) + random.below(1 << power)).expect("small");
        let kind = random.below(10);
        let content = match kind {
            0 => random.bytes(size),
            1..4 if size > 8192 => code(&mut random, size),
            _ => text(&mut random, size),
        };
        tar.add(&Entry::file(format!("{dir}/file-{nth}"), content).mtime(1_700_000_000 + nth, 0));
        if nth % 15 == 0 {
            tar.add(&Entry::symlink(format!("{dir}/link-{nth}"), format!("file-{nth}")));
        }
    }
    tar.finish()
}

/// Words, the first of which are the frequent ones.
static WORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    const LETTERS: &[u8] = b"eeeeettttaaaaooooiiiinnnnsssshhrrddlluucmfwygpbvk_";
    let mut random = Random::new(2);
    let mut letter = || LETTERS[usize::try_from(random.next_u64() >> 32).expect("32 bits") % LETTERS.len()];
    (0..2048).map(|nth| (0..2 + nth % 11).map(|_| letter()).collect()).collect()
});

/// Something like source code: indented lines of words, a third of which were there a moment ago.
fn text(random: &mut Random, len: usize) -> Vec<u8> {
    const BETWEEN: [&[u8]; 8] = [b" ", b" ", b" ", b".", b"(", b", ", b" = ", b"): "];
    let words = WORDS.as_slice();
    let mut out = Vec::with_capacity(len + 128);
    let mut lines: Vec<std::ops::Range<usize>> = Vec::new();
    while out.len() < len {
        let start = out.len();
        if lines.len() > 4 && random.below(3) == 0 {
            let back = index(random, lines.len().min(60));
            let line = lines[lines.len() - 1 - back].clone();
            out.extend_from_within(line);
        } else {
            out.resize(out.len() + 4 * index(random, 4), b' ');
            for _ in 0..2 + index(random, 7) {
                let nth = index(random, words.len()) * index(random, words.len()) / words.len();
                out.extend_from_slice(&words[nth]);
                out.extend_from_slice(BETWEEN[index(random, BETWEEN.len())]);
            }
            out.push(b'\n');
        }
        lines.push(start..out.len());
    }
    out.truncate(len);
    out
}

/// Something like machine code: short instructions of few kinds, with operands that are mostly small.
pub fn code(random: &mut Random, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        let bits = random.next_u64().to_le_bytes();
        let kind = bits[0] & bits[1] & 0x3f;
        out.extend_from_slice(&[0x48 | (bits[2] & 1), kind]);
        match bits[3] % 4 {
            0 => out.extend_from_slice(&[bits[4] & 0x1f, 0, 0, 0]),
            1 => out.extend_from_slice(&[bits[4], bits[5] & 7, 0xff, 0xff]),
            _ => out.push(bits[4] & bits[5]),
        }
    }
    out.truncate(len);
    out
}

fn index(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below a usize")
}

/// The index of a layer with 50,000 small files (a hundredth in a test): what a big tree of a language's packages has.
pub static MANY: LazyLock<Ztoc> = LazyLock::new(|| {
    let mut tar = TarBuilder::new();
    for nth in 0..scaled(50_000) {
        let name = format!("usr/lib/node_modules/package-{}/lib/module-{nth}.js", nth / 40);
        tar.add(&Entry::file(name, format!("module.exports = {nth};\n")));
    }
    // Quickly: only the entries matter.
    let blob = gzip(&tar.finish(), 1);
    build(blob.as_slice(), Compression::Gzip, &BuildOptions::default())
        .expect("a layer that can be indexed")
        .ztoc
});

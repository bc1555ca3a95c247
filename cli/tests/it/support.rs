//! What the tests share: the tool with a store of its own, and images that it is tried on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use spandrel_fixtures::client::Client;
use spandrel_fixtures::image::push::{push_blob, push_manifest};
use spandrel_fixtures::image::{Image, ImageBuilder};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::random::Random;
use spandrel_registry::Digest;
use spandrel_soci::index::{CONFIG, IndexManifest, LayerZtoc, Version, ZTOC, annotation, descriptor};
use tempfile::TempDir;

/// The tool with a home and a store that nobody else has.
pub(crate) struct Tool {
    dir: TempDir,
    environment: Vec<(String, String)>,
}

/// What a run of the tool gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Tool {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), environment: Vec::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// A place for files of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
        command.args(args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("SPANDREL_STORE", self.store());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs it, and it must be content; what it printed.
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        ran.text()
    }

    /// Runs it, and it must fail so; what it said.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, b"", "{args:?}");
        ran.err
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn text(self) -> String {
        String::from_utf8(self.out).unwrap()
    }
}

/// A golden layer or zTOC of this repository.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/vectors/layers").join(name)
}

/// A gzip layer of a large file, a small one in a folder, and links to them.
pub(crate) fn large_layer(seed: u64) -> (Layer, Vec<u8>) {
    let content = Random::new(seed).content(3 << 20, 30);
    let tar = TarBuilder::new()
        .with(Entry::dir("bin"))
        .with(Entry::file("bin/small", b"small\n".as_slice()))
        .with(Entry::file("bin/large", content.as_slice()).mode(0o755))
        .with(Entry::file("end", b"the end\n".as_slice()))
        .with(Entry::symlink("link", "bin/small"))
        .with(Entry::hard_link("hard", "end"))
        .finish();
    (Layer::gzip(&tar), content)
}

/// A small layer.
pub(crate) fn small_layer(name: &str) -> Layer {
    Layer::gzip(&TarBuilder::new().with(Entry::file(name, name.as_bytes())).finish())
}

/// An image of layers of every kind: large, zstd, one that can't be indexed, small.
pub(crate) fn mixed_image() -> Image {
    let noise = Random::new(9).bytes(1 << 20);
    let content = TarBuilder::new().with(Entry::file("noise", noise));
    let zstd = Layer::zstd(&content.clone().finish());
    let global = Layer::gzip(&content.with_global(&[("comment", "x")]).finish());
    ImageBuilder::new().layer(large_layer(1).0).layer(zstd).layer(global).layer(small_layer("small")).build()
}

/// Splits what a command printed into sorted lines: layers are done in any order.
pub(crate) fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Who made the index of [`push_with_index`]; a terminal would go on in red.
pub(crate) const SOMEBODY: &str = "somebody \u{1b}[31m";

/// Pushes an image that names an index of version 2, with these zTOCs for its layers: true ones, false ones, or none. Gives
/// the index's digest.
pub(crate) fn push_with_index(
    registry: &Client,
    repo: &str,
    layers: Vec<Layer>,
    ztocs: &[Option<Vec<u8>>],
) -> String {
    let digest = |bytes: &[u8]| Digest::sha256(bytes);
    let listed = layers.iter().zip(ztocs).filter_map(|(layer, ztoc)| {
        let bytes = ztoc.clone()?;
        push_blob(registry, repo, digest(&bytes).as_str(), bytes.clone().into());
        Some(LayerZtoc {
            layer: layer.digest.parse().unwrap(),
            layer_media_type: layer.media_type.clone(),
            ztoc: descriptor(ZTOC, digest(&bytes), bytes.len() as u64),
            span_size: None,
            disable_xattrs: false,
        })
    });
    let index = IndexManifest {
        version: Version::V2,
        build_tool: SOMEBODY.to_owned(),
        layers: listed.collect(),
        prefetch: Vec::new(),
        subject: None,
    };
    push_blob(registry, repo, digest(CONFIG).as_str(), CONFIG.into());
    let pushed = push_manifest(
        registry,
        repo,
        "",
        "application/vnd.oci.image.manifest.v1+json",
        index.to_bytes().into(),
    );
    let image = ImageBuilder::new().annotation(annotation::INDEX_DIGEST, &pushed);
    layers.into_iter().fold(image, ImageBuilder::layer).build().push(registry, repo, "1");
    pushed
}

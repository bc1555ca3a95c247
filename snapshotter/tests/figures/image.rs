//! The images: the same bytes on every machine and with every version of a compressor. So layers are gzip of stored blocks:
//! a figure in bytes mustn't change because a library compresses better.

use std::ops::Range;
use std::sync::OnceLock;

use serde_json::json;
use spandrel_fixtures::image::{Image, ImageBuilder, MANIFEST};
use spandrel_fixtures::layer::{Entry, Layer, TAR_GZIP, TarBuilder};
use spandrel_fixtures::random::Random;
use spandrel_fixtures::scripted::ScriptedRegistry;
use spandrel_soci::index::{IndexManifest, LayerZtoc, Version};
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, DEFAULT_SPAN_SIZE, SpanTable, Ztoc};

/// Name of the repository.
pub const REPOSITORY: &str = "team/app";

/// Layers from this size on are lazy here (`index.min_layer_size`), in bytes: so that those of [`wide`] can be small.
pub const MIN_LAYER_SIZE: u64 = 1 << 20;

/// Length of a small file, in bytes: a page.
pub const SMALL: usize = 4096;

/// Length of the large file of [`deep`], in bytes.
pub const LARGE: usize = 64 << 20;

/// Parts that [`deep`] has before its large file.
pub const PARTS: u64 = 12;

/// Small files in each of them.
pub const SMALL_FILES: u64 = 100;

/// Span size of [`wide`], in bytes of stream; that of [`deep`] is the usual one.
const WIDE_SPAN: u64 = 256 << 10;

/// A file behind the small ones of a part, in bytes: with them it is longer than a span, so each part begins in another.
const FILLER: usize = 4 << 20;

/// Longest stored block of deflate, in bytes (RFC 1951).
const STORED: usize = 65_535;

/// Layers with their zTOCs.
#[derive(Debug, Clone)]
pub struct Indexed {
    layers: Vec<(Layer, Vec<u8>)>,
}

/// So many bytes that are all alike for the same `seed`.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Random::new(seed).bytes(SMALL).repeat(len.div_ceil(SMALL));
    bytes.truncate(len);
    bytes
}

/// Where small file `file` of part `part` of [`deep`] is.
pub fn small(part: u64, file: u64) -> String {
    format!("part-{part}/small-{file:03}")
}

/// What is in it.
pub fn small_content(part: u64, file: u64) -> Vec<u8> {
    content(1 + part * SMALL_FILES + file, SMALL)
}

/// What is in the filler of part `part`.
pub fn filler_content(part: u64) -> Vec<u8> {
    content(10_000 + part, FILLER)
}

/// The large file of [`deep`].
pub const LARGE_FILE: &str = "large";

/// One layer of 29 spans of the usual size: [`PARTS`] directories of small files, each with a file of 4 MiB behind them, then
/// a file of 64 MiB. Made once.
pub fn deep() -> Indexed {
    static DEEP: OnceLock<Indexed> = OnceLock::new();
    let make = || {
        let mut tar = TarBuilder::new();
        for part in 0..PARTS {
            tar = tar.with(Entry::dir(format!("part-{part}")));
            for file in 0..SMALL_FILES {
                tar = tar.with(Entry::file(small(part, file), small_content(part, file)));
            }
            tar = tar.with(Entry::file(format!("part-{part}/filler"), filler_content(part)));
        }
        let tar = tar.with(Entry::file(LARGE_FILE, content(0, LARGE))).finish();
        Indexed { layers: vec![indexed(&tar, DEFAULT_SPAN_SIZE)] }
    };
    DEEP.get_or_init(make).clone()
}

/// Where the small file of layer `layer` of [`wide`] is.
pub fn hello(layer: u64) -> String {
    format!("layer-{layer}/hello")
}

/// `count` layers, lazy ones, of some short spans. Each has a small file in a directory of its own, in its first span.
pub fn wide(count: u64) -> Indexed {
    let layers = (0..count).map(|layer| {
        let tar = TarBuilder::new()
            .with(Entry::dir(format!("layer-{layer}")))
            .with(Entry::file(hello(layer), content(layer, SMALL)))
            .with(Entry::file(format!("layer-{layer}/rest"), content(layer, 1 << 20)));
        indexed(&tar.finish(), WIDE_SPAN)
    });
    Indexed { layers: layers.collect() }
}

fn indexed(tar: &[u8], span_size: u64) -> (Layer, Vec<u8>) {
    let layer = Layer::new(TAR_GZIP, gzip_stored(tar), tar);
    let options = BuildOptions { span_size, ..BuildOptions::default() };
    let ztoc = build(&*layer.blob, Compression::Gzip, &options).expect("a layer").ztoc.encode();
    (layer, ztoc)
}

/// A gzip file (RFC 1952) of stored blocks.
fn gzip_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]; // no name, no time, no operating system
    let last = bytes.len().div_ceil(STORED) - 1;
    for (number, block) in bytes.chunks(STORED).enumerate() {
        let len = u16::try_from(block.len()).expect("a block's length");
        out.push(u8::from(number == last));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("under 4 GiB").to_le_bytes());
    out
}

impl Indexed {
    /// The compressed bytes of each span of the first layer.
    pub fn spans(&self) -> Vec<Range<u64>> {
        let ztoc = Ztoc::decode(&self.layers[0].1).expect("a zTOC");
        SpanTable::new(&ztoc).expect("spans").iter().map(|span| span.compressed).collect()
    }

    /// Puts the image with an index of `version` into `registry`.
    pub fn put(self, registry: &ScriptedRegistry, version: Version) -> Image {
        let descriptor = |media_type: &str, digest: &str, size: usize| {
            let json = json!({ "mediaType": media_type, "digest": digest, "size": size });
            serde_json::from_value(json).expect("a descriptor")
        };
        let mut builder = ImageBuilder::new();
        let mut listed = Vec::new();
        for (layer, ztoc) in self.layers {
            let size = ztoc.len();
            let digest = registry.put_blob(REPOSITORY, ztoc);
            listed.push(LayerZtoc {
                layer: layer.digest.parse().expect("a digest"),
                layer_media_type: layer.media_type.clone(),
                ztoc: descriptor("application/octet-stream", &digest, size),
                span_size: None,
                disable_xattrs: false,
            });
            builder = builder.layer(layer);
        }
        let mut index = IndexManifest {
            version,
            build_tool: "test".to_owned(),
            layers: listed,
            prefetch: Vec::new(),
            subject: None,
        };
        if version == Version::V2 {
            let digest = registry.put_manifest(REPOSITORY, "", MANIFEST, index.to_bytes());
            builder = builder.annotation("com.amazon.soci.index-digest", &digest);
        }
        let image = builder.build();
        image.put(registry, REPOSITORY, "1");
        if version == Version::V1 {
            index.subject = Some(descriptor(MANIFEST, &image.digest(), image.manifest.len()));
            registry.put_manifest(REPOSITORY, "", MANIFEST, index.to_bytes());
        }
        image
    }
}

#[test]
fn a_layer_of_stored_blocks_is_what_gunzip_reads() {
    use std::io::Read as _;
    let bytes = content(1, 3 * STORED + 5);
    let mut found = Vec::new();
    flate2::read::GzDecoder::new(&*gzip_stored(&bytes)).read_to_end(&mut found).expect("a gzip file");
    assert!(found == bytes);
}

//! Reading manifests, of an image and of its index, beside serde_json into the least that would do and into anything.

use std::hint::black_box;

use criterion::Criterion;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::layer::{Layer, TAR_GZIP};
use spandrel_registry::manifest::Manifest;
use spandrel_soci::index::{IndexManifest, LayerZtoc, Version, ZTOC};

/// Layers of the image: many, but not more than images have.
const LAYERS: u32 = 32;

pub fn bench(criterion: &mut Criterion) {
    let layer = |nth: u32| Layer::new(TAR_GZIP, format!("blob {nth}"), format!("stream {nth}").as_bytes());
    let layers: Vec<Layer> = (0..LAYERS).map(layer).collect();
    let index = index(&layers);
    let builder = layers.into_iter().fold(ImageBuilder::new(), ImageBuilder::layer);
    let image = builder.annotation("org.opencontainers.image.title", "a benchmark").build();

    let bytes = &*image.manifest;
    let mut group = crate::bytes(criterion, "manifest-image", bytes.len());
    group.bench_function("spandrel: all members kept", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Manifest>(black_box(bytes)).expect("a manifest"));
    });
    others(&mut group, bytes);
    group.finish();

    let bytes = index.to_bytes();
    let mut group = crate::bytes(criterion, "manifest-index", bytes.len());
    group.bench_function("spandrel: read and checked", |bencher| {
        bencher.iter(|| IndexManifest::parse(black_box(&bytes)).expect("an index"));
    });
    others(&mut group, &bytes);
    group.finish();
}

/// The least that a puller needs of a manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for the time that it takes")]
struct Least {
    config: LeastDescriptor,
    layers: Vec<LeastDescriptor>,
}

/// The least that a puller needs of a descriptor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for the time that it takes")]
struct LeastDescriptor {
    media_type: String,
    digest: String,
    size: u64,
}

fn others(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, bytes: &[u8]) {
    group.bench_function("serde_json: three members of each", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Least>(black_box(bytes)).expect("a manifest"));
    });
    group.bench_function("serde_json: any JSON", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Value>(black_box(bytes)).expect("JSON"));
    });
    group.bench_function("sha2: digest", |bencher| bencher.iter(|| Sha256::digest(black_box(bytes))));
}

/// An index of version 2 with a zTOC for each layer.
fn index(layers: &[Layer]) -> IndexManifest {
    let ztoc = |layer: &Layer| LayerZtoc {
        layer: layer.digest.parse().expect("a digest"),
        layer_media_type: layer.media_type.clone(),
        ztoc: serde_json::from_value(
            json!({ "mediaType": ZTOC, "digest": layer.diff_id, "size": 1_234_567 }),
        )
        .expect("a descriptor"),
        span_size: Some(4 << 20),
        disable_xattrs: true,
    };
    IndexManifest {
        version: Version::V2,
        build_tool: "spandrel".to_owned(),
        layers: layers.iter().map(ztoc).collect(),
        prefetch: Vec::new(),
        subject: None,
    }
}

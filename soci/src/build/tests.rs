//! Tests of building indexes: of images in memory, and beside what SOCI's own tool made of the same.

use std::io::Write as _;
use std::sync::Mutex;

use serde_json::json;
use spandrel_registry::media_type;

use super::*;
use crate::image::resolve;
use crate::platform::Platforms;
use crate::testing::{
    MULTI, MULTI_IMAGES, MemorySource, SINGLE, SINGLE_V1, WITH_TWIN, WITH_ZSTD, golden_index, sha256,
};

/// What SOCI's tools were asked for when they made the golden indexes.
fn as_soci() -> BuildOptions {
    BuildOptions {
        span_size: 65536,
        min_layer_size: 0,
        build_tool: "AWS SOCI CLI v0.2".to_owned(),
        ..BuildOptions::default()
    }
}

async fn images(source: &MemorySource, part: &str, platforms: &Platforms) -> Vec<Image> {
    resolve(source, part, platforms).await.unwrap().images
}

async fn one(source: &MemorySource, digest: &Digest) -> Image {
    images(source, digest.as_str(), &Platforms::All).await.remove(0)
}

fn nobody() -> Tell {
    Arc::new(|_| {})
}

/// Builds with a source that then lets go of it.
async fn build_it(
    source: &Arc<MemorySource>,
    image: &Image,
    options: &BuildOptions,
) -> Result<BuiltIndex, Error> {
    build(Arc::<MemorySource>::clone(source), image, options, &Nothing, nobody()).await
}

#[tokio::test]
async fn indexes_equal_soci_s_byte_for_byte() {
    let source = Arc::new(MemorySource::golden());
    let mut all = vec![(one(&source, &sha256(SINGLE)).await, SINGLE_V1)];
    let multi = images(&source, &format!("sha256:{MULTI}"), &Platforms::All).await;
    all.extend(multi.into_iter().zip(MULTI_IMAGES.map(|(_, index)| index)));
    for (image, want) in all {
        let built = build_it(&source, &image, &as_soci()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&built.bytes), String::from_utf8_lossy(&golden_index(want)));
        assert_eq!(built.digest, sha256(want));
        for (digest, bytes) in &built.ztocs {
            assert_eq!(*digest, Digest::sha256(bytes));
        }
        let descriptor = built.descriptor();
        assert_eq!((descriptor.digest, descriptor.size), (sha256(want), built.bytes.len() as u64));
    }
}

#[tokio::test]
async fn zstd_is_skipped_and_a_twin_is_built_once_and_listed_twice() {
    let source = Arc::new(MemorySource::golden());
    for (image, index) in [WITH_ZSTD, WITH_TWIN] {
        source.asked();
        let image = one(&source, &sha256(image)).await;
        let built = build_it(&source, &image, &as_soci()).await.unwrap();
        assert_eq!(built.index.layers.iter().map(LayerZtoc::descriptor).collect::<Vec<_>>(), {
            let golden = IndexManifest::parse(&golden_index(index)).unwrap();
            golden.layers.iter().map(LayerZtoc::descriptor).collect::<Vec<_>>()
        });
        let ranges = source.asked().iter().filter(|what| what.contains(" 0..")).count();
        assert_eq!(ranges, built.ztocs.len());
        assert_eq!(built.layers.len(), 3);
        let lines: Vec<String> = built.layers.iter().map(LayerReport::to_string).collect();
        if index == WITH_ZSTD.1 {
            let want = "ztoc skipped - layer \
                sha256:a8731b126c022985e24d02b88d86316633239d228c06f05d9dc4ab84f810738e \
                (application/vnd.oci.image.layer.v1.tar+zstd) is compressed in an unsupported format. \
                expect: [tar, gzip, unknown] but got \"zstd\"";
            assert!(lines.contains(&want.to_owned()), "{lines:?}");
        } else {
            assert_eq!(lines[0], lines[2]);
        }
    }
}

#[tokio::test]
async fn layers_below_the_minimum_are_skipped_in_soci_s_words() {
    let source = Arc::new(MemorySource::golden());
    let image = one(&source, &sha256(SINGLE)).await;
    let options = BuildOptions { min_layer_size: 88532, ..as_soci() };
    let built = build_it(&source, &image, &options).await.unwrap();
    assert_eq!(built.index.layers.len(), 2); // one is exactly that long
    let lines: Vec<String> = built.layers.iter().map(LayerReport::to_string).collect();
    assert_eq!(
        lines[2..],
        [
            "ztoc skipped - layer sha256:6361277cdb4a51d212262d2c7e12dfaa5d23ede306b340ff3669585e1de76fbc \
             (application/vnd.oci.image.layer.v1.tar+gzip) size 12809 is less than min-layer-size 88532",
            "ztoc skipped - layer sha256:4c3117f775484c9ba36c41aedda9cd9e683d638c9eb6b793e7afc2fcb288b4b4 \
             (application/vnd.oci.image.layer.v1.tar+gzip) size 2959 is less than min-layer-size 88532",
        ]
    );
    let error = build_it(&source, &image, &BuildOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "no ztocs created, all layers either skipped or produced errors");
}

/// The list that soci's golden artifacts were made of.
const PREFETCH: [&str; 6] =
    ["usr/share/f002.so", "/usr/share/f055.so", "/bin/ping", "d/kept", "usr/../bin/a", "no/such/file"];

#[tokio::test]
async fn prefetch_artifacts_equal_soci_s_byte_for_byte() {
    let source = Arc::new(MemorySource::golden());
    let image = one(&source, &sha256(SINGLE)).await;
    let all = PREFETCH.map(str::to_owned).to_vec();
    for (version, paths, want, artifacts) in [
        (Version::V2, all, "3d10f44f7bf80e469530bee864451453f547113b2c99e2ffb165218553099dcb", 3),
        (
            Version::V1,
            vec!["/bin/ping".to_owned()],
            "496c0c9c8137f8e929dba2d7e60b9eb35aa2ad1afb19313e71a8d63f744ef04f",
            1,
        ),
    ] {
        let options = BuildOptions { version, prefetch: Wanted::new(paths).unwrap(), ..as_soci() };
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let tell: Tell = Arc::new(move |event| match event {
            BuildEvent::Prefetch { artifact, .. } => hears.lock().unwrap().push(artifact.to_string()),
            BuildEvent::Missing(path) => hears.lock().unwrap().push(path),
            _ => {}
        });
        let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
        let built = build(from, &image, &options, &Nothing, tell).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&built.bytes), String::from_utf8_lossy(&golden_index(want)));
        let told = told.lock().unwrap().clone();
        assert_eq!(told.len(), artifacts + usize::from(version == Version::V2));
        assert_eq!(told.contains(&"no/such/file".to_owned()), version == Version::V2);
        for descriptor in &built.index.prefetch {
            let bytes = &built.ztocs[&descriptor.digest];
            assert_eq!(
                (Digest::sha256(bytes), bytes.len() as u64),
                (descriptor.digest.clone(), descriptor.size)
            );
        }
    }
}

#[tokio::test]
async fn what_is_short_of_memory_is_worked_on_one_by_one() {
    let source = Arc::new(MemorySource::golden());
    let image = one(&source, &sha256(SINGLE)).await;
    for (budget, most) in [(0, 1), (20 << 20, 2), (1 << 40, 4)] {
        let parallel = NonZeroUsize::new(4).unwrap();
        let options = BuildOptions { memory: budget, parallel, ..as_soci() };
        let counts = Arc::new(Mutex::new((0, 0)));
        let hears = Arc::clone(&counts);
        let tell: Tell = Arc::new(move |event| {
            let mut counts = hears.lock().unwrap();
            match event {
                BuildEvent::Start { .. } => counts.0 += 1,
                BuildEvent::Done(_) => counts.0 -= 1,
                _ => {}
            }
            counts.1 = counts.1.max(counts.0);
        });
        let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
        let built = build(from, &image, &options, &Nothing, tell).await.unwrap();
        assert_eq!(built.digest, sha256(SINGLE_V1));
        assert_eq!(counts.lock().unwrap().1, most);
    }
}

#[tokio::test]
async fn a_layer_is_kept_when_it_is_done_whatever_becomes_of_the_others() {
    let (mut source, image) = image_of(&[
        (media_type::OCI_LAYER, tar(b'0', b"x")),
        (media_type::OCI_LAYER_GZIP, gzip(&tar(b'0', &noise()))),
    ])
    .await;
    source.breaks.push(image.manifest.layers[1].digest.clone());
    let dir = tempfile::tempdir().unwrap();
    let cache = crate::cache::ZtocCache::new(dir.path(), 1 << 20);
    let options = BuildOptions { parallel: NonZeroUsize::MIN, ..as_soci() };
    let source = Arc::new(source);
    let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
    assert!(build(from, &image, &options, &cache, nobody()).await.is_err());
    // The next build goes on from there.
    let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
    let mut again = image.clone();
    again.manifest.layers.truncate(1);
    source.asked();
    let built = build(from, &again, &options, &cache, nobody()).await.unwrap();
    assert!(built.layers[0].to_string().ends_with(" (already exists)"));
    assert_eq!(source.asked(), Vec::<String>::new());
}

struct Kept(BTreeMap<Digest, Bytes>);

impl KnownZtocs for Kept {
    fn get(&self, layer: &Digest, span_size: u64, build_tool: &str) -> Option<Bytes> {
        assert_eq!((span_size, build_tool), (65536, "AWS SOCI CLI v0.2"));
        self.0.get(layer).cloned()
    }
}

#[tokio::test]
async fn what_was_built_before_is_not_fetched_again() {
    let source = Arc::new(MemorySource::golden());
    let image = one(&source, &sha256(SINGLE)).await;
    let first = build_it(&source, &image, &as_soci()).await.unwrap();
    let kept = first.index.layers[..3]
        .iter()
        .map(|entry| (entry.layer.clone(), first.ztocs[&entry.ztoc.digest].clone()))
        .collect();
    source.asked();
    let (options, kept) = (as_soci(), Kept(kept));
    let again = build(Arc::<MemorySource>::clone(&source), &image, &options, &kept, nobody());
    let again = again.await.unwrap();
    assert_eq!(again.digest, first.digest);
    assert_eq!(source.asked().len(), 1);
    let known = again.layers.iter().filter(|report| report.to_string().ends_with(" (already exists)"));
    assert_eq!(known.count(), 3);
}

#[tokio::test]
async fn progress_counts_every_byte_of_what_is_indexed() {
    let source = Arc::new(MemorySource::golden());
    let image = one(&source, &sha256(SINGLE)).await;
    let counts = Arc::new(Mutex::new((0, 0, 0)));
    let told = Arc::clone(&counts);
    let tell: Tell = Arc::new(move |event| {
        let mut counts = told.lock().unwrap();
        match event {
            BuildEvent::Start { size, .. } => counts.0 += size,
            BuildEvent::Bytes { len, .. } => counts.1 += len,
            BuildEvent::Done(_) => counts.2 += 1,
            _ => {}
        }
    });
    build(source, &image, &as_soci(), &Nothing, tell).await.unwrap();
    let size: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
    assert_eq!(*counts.lock().unwrap(), (size, size, 4));
}

/// An image of these layers (media type, bytes) in a source of its own.
async fn image_of(layers: &[(&str, Vec<u8>)]) -> (MemorySource, Image) {
    let mut source = MemorySource::default();
    let config = json!({"os": "linux", "architecture": "amd64"}).to_string();
    let config =
        json!({"mediaType": media_type::OCI_CONFIG, "size": config.len(), "digest": source.add_blob(config)});
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, bytes)| {
            json!({"mediaType": media_type, "size": bytes.len(), "digest": source.add_blob(bytes.clone())})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let digest = source.add_manifest(media_type::OCI_MANIFEST, manifest);
    let image = one(&source, &digest).await;
    (source, image)
}

/// A tar of one file, whose header has `kind` for a type.
fn tar(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Enough bytes that don't compress, for several pieces.
fn noise() -> Vec<u8> {
    (0..40_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test]
async fn first_bytes_tell_gzip_that_is_called_tar() {
    let blob = gzip(&tar(b'0', &noise()));
    for name in [media_type::OCI_LAYER, "application/vnd.docker.image.rootfs.diff.tar"] {
        let (source, image) = image_of(&[(name, blob.clone())]).await;
        let built = build_it(&Arc::new(source), &image, &as_soci()).await.unwrap();
        let ztoc = spandrel_ztoc::Ztoc::decode(built.ztocs.values().next().unwrap()).unwrap();
        assert_eq!(ztoc.compression, spandrel_ztoc::Compression::Gzip);
        assert_eq!(built.index.layers[0].layer_media_type, name);
    }
}

#[tokio::test]
async fn what_can_t_be_indexed_is_skipped_with_the_reason() {
    let good = (media_type::OCI_LAYER, tar(b'0', b"x"));
    for (name, blob, want) in [
        (media_type::OCI_LAYER, tar(b'7', &noise()), "can't be indexed: unsupported tar entry type"),
        (
            media_type::OCI_LAYER_GZIP,
            gzip(&tar(b'S', &noise())),
            "can't be indexed: unsupported tar entry type",
        ),
        (media_type::OCI_LAYER_GZIP, tar(b'0', &noise()), "can't be indexed: corrupt gzip stream"),
        (media_type::OCI_LAYER_GZIP, gzip(&noise()), "can't be indexed: invalid tar header"),
        (
            media_type::OCI_LAYER,
            vec![0x28, 0xb5, 0x2f, 0xfd, 0],
            "unsupported format. expect: [tar, gzip, unknown] but got \"zstd\"",
        ),
        ("application/vnd.example.encrypted", tar(b'0', b"y"), "is not a layer that can be read"),
    ] {
        let (source, image) = image_of(&[(name, blob.clone()), good.clone()]).await;
        let built = build_it(&Arc::new(source), &image, &as_soci()).await.unwrap();
        assert_eq!(built.index.layers.len(), 1);
        let line = built.layers[0].to_string();
        assert!(
            line.starts_with("ztoc skipped - layer sha256:") && line.contains(want),
            "{want:?}: {line:?}"
        );
        // Alone it leaves nothing.
        let (source, image) = image_of(&[(name, blob)]).await;
        assert!(matches!(build_it(&Arc::new(source), &image, &as_soci()).await, Err(Error::EmptyIndex)));
    }
}

#[tokio::test]
async fn bytes_that_are_not_the_layer_s_are_an_error_and_no_odd_layer() {
    let blob = gzip(&tar(b'0', &noise()));
    let mut odd = blob.clone();
    odd[50_000] ^= 1;
    for changed in [gzip(&tar(b'7', &noise())), odd] {
        let (mut source, image) = image_of(&[(media_type::OCI_LAYER_GZIP, blob.clone())]).await;
        let layer = image.manifest.layers[0].clone();
        let mut changed = changed;
        changed.resize(blob.len(), 0);
        source.blobs.insert(layer.digest.clone(), changed.clone().into());
        let error = build_it(&Arc::new(source), &image, &as_soci()).await.unwrap_err();
        let got = Digest::sha256(&changed).to_string();
        assert!(matches!(&error, Error::LayerDigest { got: text, .. } if *text == got), "{error}");
        assert!(error.to_string().contains(layer.digest.as_str()));
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_says_why() {
    let (mut source, image) = image_of(&[(media_type::OCI_LAYER_GZIP, gzip(&tar(b'0', &noise())))]).await;
    source.breaks.push(image.manifest.layers[0].digest.clone());
    let error = build_it(&Arc::new(source), &image, &as_soci()).await.unwrap_err();
    assert!(matches!(&error, Error::Registry(error) if error.message == "told to fail"), "{error}");
}

#[tokio::test]
async fn sha512_layers_are_checked_too() {
    use sha2::Digest as _;
    let blob = tar(b'0', &noise());
    let (mut source, mut image) = image_of(&[(media_type::OCI_LAYER, blob.clone())]).await;
    let hex: String = sha2::Sha512::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
    let digest: Digest = format!("sha512:{hex}").parse().unwrap();
    source.blobs.insert(digest.clone(), blob.into());
    image.manifest.layers[0].digest = digest.clone();
    let source = Arc::new(source);
    let built = build_it(&source, &image, &as_soci()).await.unwrap();
    assert_eq!(built.index.layers[0].layer, digest);
}

#[tokio::test]
async fn giving_up_leaves_no_thread_behind() {
    let (source, image) = image_of(&[(media_type::OCI_LAYER, tar(b'0', &noise()))]).await;
    let source: Arc<dyn ImageSource> = Arc::new(source);
    // The runtime's end waits for its threads: were one left waiting for bytes, this test wouldn't end.
    let (started, seen) = tokio::sync::oneshot::channel();
    let started = Mutex::new(Some(started));
    let tell: Tell = Arc::new(move |event| {
        if let (BuildEvent::Bytes { .. }, Some(started)) = (event, started.lock().unwrap().take()) {
            let _ = started.send(());
        }
    });
    let options = as_soci();
    let work = build(source, &image, &options, &Nothing, tell);
    tokio::select! {
        biased;
        _ = seen => {}
        _ = work => {}
    }
}

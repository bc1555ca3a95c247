//! Conversions of golden images beside what soci made of them; order, sharing and failures of what goes to the target.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use spandrel_registry::ErrorKind;
use tempfile::TempDir;

use super::*;
use crate::build::Nothing;
use crate::platform;
use crate::prefetch::Wanted;
use crate::source::LayoutSource;
use crate::target::{ArchiveTarget, Content, LayoutTarget};
use crate::testing::{
    DOCKER_LIST, MULTI, MULTI_IMAGES, MemorySource, SINGLE, WITH_TWIN, WITH_ZSTD, failure, golden, sha256,
};

/// Image indexes that soci made with these options.
const GOLDEN: [(&str, &str); 4] = [
    (SINGLE, "c4fea16d773efc6e16eed3a5af272fc019f88b270d3846e1acf6629ae4f13981"),
    (DOCKER_LIST, "a1e8d81489c014f04283dfe1d7feca978620da2a106a8f2f991b269460ed9797"),
    (WITH_TWIN.0, "d14b14e959e7e916383abcde17643ff4fa4462987c3ea830b618b263dc0b6562"),
    (WITH_ZSTD.0, "abd4969fd7677d67b673ba279d012387ceaa1187f09a0066dbfe35818ce8ffc9"),
];

fn as_soci() -> ConvertOptions {
    ConvertOptions {
        platforms: Platforms::All,
        build: BuildOptions {
            span_size: 65536,
            min_layer_size: 0,
            build_tool: "AWS SOCI CLI v0.2".to_owned(),
            ..BuildOptions::default()
        },
        v1: false,
        parallel: NonZeroUsize::new(3).unwrap(),
    }
}

fn nobody() -> Tell {
    Arc::new(|_| {})
}

/// A target in memory that notes the order of what comes, and checks that what a manifest names is there.
#[derive(Debug, Default)]
struct MemoryTarget {
    blobs: Mutex<BTreeMap<Digest, Bytes>>,
    log: Mutex<Vec<String>>,
    root: Mutex<Option<FetchedManifest>>,
    /// What fails: a prefix of the log's line.
    fails: Option<&'static str>,
}

impl MemoryTarget {
    fn note(&self, line: String) -> Result<(), Error> {
        let fails = self.fails.is_some_and(|prefix| line.starts_with(prefix));
        self.log.lock().unwrap().push(line.clone());
        if fails { Err(failure(ErrorKind::Unavailable, line)) } else { Ok(()) }
    }

    fn put(&self, manifest: &FetchedManifest) {
        let blobs = self.blobs.lock().unwrap();
        if let Ok(Parts { config, layers, manifests, .. }) = serde_json::from_slice(&manifest.bytes) {
            let absent: Vec<_> = config
                .into_iter()
                .chain(layers)
                .chain(manifests)
                .filter(|part| !blobs.contains_key(&part.digest))
                .collect();
            assert!(absent.is_empty(), "{} names what isn't there: {absent:?}", manifest.digest);
        }
        drop(blobs);
        self.blobs.lock().unwrap().insert(manifest.digest.clone(), manifest.bytes.clone());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[async_trait]
impl ImageTarget for MemoryTarget {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error> {
        if self.blobs.lock().unwrap().contains_key(digest) {
            return Ok(Put::Exists);
        }
        self.note(format!("blob {digest}"))?;
        let (mut stream, mut bytes) = (content.open().await?, Vec::new());
        while let Some(piece) = stream.chunk().await? {
            bytes.extend_from_slice(&piece);
        }
        assert_eq!((Digest::sha256(&bytes), bytes.len() as u64), (digest.clone(), size));
        self.blobs.lock().unwrap().insert(digest.clone(), bytes.into());
        Ok(Put::Sent)
    }

    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error> {
        self.note(format!("manifest {}", manifest.digest))?;
        self.put(manifest);
        Ok(Put::Sent)
    }

    async fn put_referrer(&self, manifest: &FetchedManifest) -> Result<(), Error> {
        self.note(format!("referrer {}", manifest.digest))?;
        self.put(manifest);
        Ok(())
    }

    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error> {
        self.note(format!("root {}", root.digest))?;
        self.put(root);
        *self.root.lock().unwrap() = Some(root.clone());
        Ok(())
    }
}

async fn to_memory(
    source: &Arc<MemorySource>,
    part: &str,
    options: &ConvertOptions,
) -> (Converted, MemoryTarget) {
    let target = Arc::new(MemoryTarget::default());
    let into: Arc<dyn ImageTarget> = Arc::<MemoryTarget>::clone(&target);
    let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(source);
    let converted = convert(from, part, into, options, &Nothing, nobody()).await.unwrap();
    (converted, Arc::into_inner(target).unwrap())
}

fn part(hex: &str) -> String {
    format!("sha256:{hex}")
}

fn converted(hex: &str) -> String {
    let bytes = golden("converted").into_iter().find(|(name, _)| name == hex).unwrap().1;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn images_equal_soci_s_byte_for_byte() {
    let source = Arc::new(MemorySource::golden());
    for (image, want) in GOLDEN {
        let (made, target) = to_memory(&source, &part(image), &as_soci()).await;
        assert_eq!(String::from_utf8_lossy(&made.root.bytes), converted(want));
        assert_eq!(made.root.digest, sha256(want));
        assert_eq!(target.root.into_inner().unwrap().unwrap().digest, sha256(want));
    }
    let hint = ConvertOptions { build: BuildOptions { hint_xattrs: true, ..as_soci().build }, ..as_soci() };
    let (made, _) = to_memory(&source, &part(SINGLE), &hint).await;
    assert_eq!(made.root.digest.hex(), "67841257ccada43e77ec85f16aad9fbf623d3ce6b1b76a92ac9482bfebdcd918");
    let small =
        ConvertOptions { build: BuildOptions { min_layer_size: 20000, ..as_soci().build }, ..as_soci() };
    let (made, _) = to_memory(&source, &part(SINGLE), &small).await;
    assert_eq!(made.root.digest.hex(), "a1fd5b483d5f222c9846748f27c50fda6c060c5b48da3300aceabe67c4eda1fb");
    let wanted = ["usr/share/f002.so", "/usr/share/f055.so", "/bin/ping", "d/kept", "usr/../bin/a"];
    let prefetch = Wanted::new(wanted.map(str::to_owned)).unwrap();
    let prefetch = ConvertOptions { build: BuildOptions { prefetch, ..as_soci().build }, ..as_soci() };
    let (made, _) = to_memory(&source, &part(SINGLE), &prefetch).await;
    assert_eq!(made.root.digest.hex(), "6d2826f4888d5afbb9b7ab0a886dbd9b9f8c55809c14c7e3c5de5b56b8dd0488");
}

#[tokio::test]
async fn the_same_image_gives_the_same_digests_with_our_own_identifier() {
    // Ours, pinned: whatever changes these changes what every user's images are called.
    let source = Arc::new(MemorySource::golden());
    let options =
        ConvertOptions { build: BuildOptions { min_layer_size: 0, ..BuildOptions::default() }, ..as_soci() };
    for cores in [1, 2, 7] {
        let parallel = NonZeroUsize::new(cores).unwrap();
        let options = ConvertOptions {
            parallel,
            build: BuildOptions { parallel, ..options.build.clone() },
            ..options.clone()
        };
        let digests: Vec<_> = {
            let mut digests = Vec::new();
            for image in [SINGLE, MULTI, DOCKER_LIST] {
                digests.push(to_memory(&source, &part(image), &options).await.0.root.digest.hex().to_owned());
            }
            digests
        };
        assert_eq!(digests, PINNED);
    }
}

const PINNED: [&str; 3] = [
    "2e144d76ba7899e278707ef1f155a53c7b91193cd4c1c862c56fd41ea1199d9a",
    "f5239acda0c9ca694c13a3c3063c76577a3dd2d9db4b88c46ca2c591739cd87e",
    "6f7523fbff5a41fc2b18e0c8ff0bde62d46c63f45e487027e3b3dcdcd9d17f23",
];

#[tokio::test]
async fn what_names_comes_behind_what_is_named_and_the_root_last() {
    let source = Arc::new(MemorySource::golden());
    let options = ConvertOptions { v1: true, ..as_soci() };
    let (made, target) = to_memory(&source, &part(MULTI), &options).await;
    let log = target.log();
    assert_eq!(*log.last().unwrap(), format!("root {}", made.root.digest));
    let at = |line: String| log.iter().position(|other| *other == line).unwrap();
    for image in &made.images {
        let v1 = image.v1.as_ref().unwrap();
        assert_eq!(v1.index.subject.as_ref().unwrap().digest, image.digest);
        assert_eq!(v1.index.layers, image.index.index.layers);
        assert!(at(format!("manifest {}", image.digest)) < at(format!("referrer {}", v1.digest)));
        assert!(at(format!("manifest {}", image.index.digest)) < at(format!("manifest {}", image.digest)));
    }
    // The attestations are there, named by what they are about.
    let index: Index = serde_json::from_slice(&made.root.bytes).unwrap();
    let about: Vec<_> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.annotations.get("vnd.docker.reference.digest"))
        .collect();
    let new: Vec<_> = made.images.iter().map(|image| image.digest.as_str()).collect();
    assert_eq!(about, new);
}

#[tokio::test]
async fn a_layer_is_read_once_to_be_indexed_and_copied() {
    let source = Arc::new(MemorySource::golden());
    source.asked();
    to_memory(&source, &part(SINGLE), &as_soci()).await;
    let reads: Vec<_> = source.asked().into_iter().filter(|line| line.contains(" 0..")).collect();
    assert_eq!(reads.len(), 5, "{reads:?}"); // four layers and the configuration
    let distinct: BTreeSet<_> = reads.iter().collect();
    assert_eq!(distinct.len(), reads.len());
}

#[tokio::test]
async fn every_blob_is_told_of_before_and_when_it_is_there() {
    let source = Arc::new(MemorySource::golden());
    let first = to_memory(&source, &part(MULTI), &as_soci()).await.1;
    // Into an empty target, and into one that has it all.
    for target in [MemoryTarget::default(), MemoryTarget { blobs: first.blobs, ..MemoryTarget::default() }] {
        let events: Arc<Mutex<Vec<ConvertEvent>>> = Arc::default();
        let hears = Arc::clone(&events);
        let tell: Tell = Arc::new(move |event| hears.lock().unwrap().push(event));
        let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
        convert(from, &part(MULTI), Arc::new(target), &as_soci(), &Nothing, tell).await.unwrap();
        let (mut left, mut bytes) = (BTreeMap::new(), 0);
        for event in events.lock().unwrap().drain(..) {
            match event {
                ConvertEvent::Expect(blobs) => left.extend(blobs),
                ConvertEvent::Bytes { blob, len }
                | ConvertEvent::Build(BuildEvent::Bytes { layer: blob, len }) => {
                    *left.get_mut(&blob).unwrap() -= len;
                    bytes += len;
                }
                ConvertEvent::Copied { blob, put } => {
                    let left = left.remove(&blob).unwrap();
                    assert!(left == 0 || put == Put::Exists, "{blob}: {left}");
                }
                _ => {}
            }
        }
        assert!(left.is_empty() && bytes > 0, "{left:?}");
    }
}

#[tokio::test]
async fn nothing_has_a_name_when_something_fails() {
    let source = Arc::new(MemorySource::golden());
    for fails in ["blob", "manifest", "referrer", "root"] {
        let target = Arc::new(MemoryTarget { fails: Some(fails), ..MemoryTarget::default() });
        let into: Arc<dyn ImageTarget> = Arc::<MemoryTarget>::clone(&target);
        let options = ConvertOptions { v1: true, ..as_soci() };
        let from: Arc<dyn ImageSource> = Arc::<MemorySource>::clone(&source);
        let error = convert(from, &part(MULTI), into, &options, &Nothing, nobody()).await.unwrap_err();
        assert!(error.to_string().contains("told to fail"), "{error}");
        assert!(target.root.lock().unwrap().is_none());
        let later = |line: &String| line.starts_with("root") && fails != "root";
        assert!(!target.log().iter().any(later), "{:?}", target.log());
    }
}

#[test]
fn a_download_that_breaks_off_says_why() {
    let mut source = MemorySource::golden();
    source.breaks.push(sha256("06339c329d2f1d6072efa50c01a4f32992f9e15b687bdd10d517838b16fe9038"));
    let from: Arc<dyn ImageSource> = Arc::new(source);
    let dir = TempDir::new().unwrap();
    let into = Arc::new(LayoutTarget::new(dir.path().join("out"), None));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let options = as_soci();
    let image = part(SINGLE);
    let work = convert(from, &image, into, &options, &Nothing, nobody());
    let error = runtime.block_on(work).unwrap_err();
    // What was under way is given up with the runtime, as when the tool ends.
    drop(runtime);
    assert!(error.to_string().contains("told to fail"), "{error}");
    assert!(!dir.path().join("out/index.json").exists());
    assert_eq!(temporary(dir.path()), 0);
}

/// Files that were meant to go.
fn temporary(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let is = entry.file_name().to_string_lossy().starts_with(".tmp-");
            usize::from(is) + temporary(&entry.path())
        })
        .sum()
}

#[tokio::test]
async fn platforms_without_large_layers_stay_as_they_are() {
    let source = Arc::new(MemorySource::golden());
    // The largest layer of arm64 has 46,951 bytes.
    let options =
        ConvertOptions { build: BuildOptions { min_layer_size: 50_000, ..as_soci().build }, ..as_soci() };
    let (made, target) = to_memory(&source, &part(MULTI), &options).await;
    assert_eq!(made.without.iter().map(platform::name).collect::<Vec<_>>(), ["linux/arm64/v8"]);
    assert!(target.log().contains(&format!("manifest sha256:{}", MULTI_IMAGES[1].0)));
    let options =
        ConvertOptions { build: BuildOptions { min_layer_size: 500_000, ..as_soci().build }, ..as_soci() };
    let from: Arc<dyn ImageSource> = source;
    let into = Arc::new(MemoryTarget::default());
    let error = convert(from, &part(MULTI), into, &options, &Nothing, nobody()).await.unwrap_err();
    assert_eq!(error.to_string(), "no ztocs created, all layers either skipped or produced errors");
}

/// Converts from one layout to another; digest of what came out.
async fn layout_to_layout(from: &Path, to: &Path, platforms: Platforms) -> Digest {
    let source = LayoutSource::folder(from).await.unwrap();
    let root = source.root(None).unwrap().to_string();
    let target = Arc::new(LayoutTarget::new(to, None));
    let options = ConvertOptions { platforms, ..as_soci() };
    let made = convert(Arc::new(source), &root, target, &options, &Nothing, nobody()).await.unwrap();
    made.root.digest
}

#[tokio::test]
async fn converted_twice_is_converted_once() {
    let dir = TempDir::new().unwrap();
    let place = |name: &str| dir.path().join(name);
    for image in [SINGLE, MULTI, DOCKER_LIST] {
        let first = place(&format!("{image}-1"));
        let options = as_soci();
        let from: Arc<dyn ImageSource> = Arc::new(MemorySource::golden());
        let into = Arc::new(LayoutTarget::new(&first, None));
        let made = convert(from, &part(image), into, &options, &Nothing, nobody()).await.unwrap();
        // All platforms, and one that the index has beside others; where it came from and elsewhere.
        for (nth, platforms) in
            [Platforms::All, Platforms::Listed(vec![platform::parse("linux/amd64").unwrap()])]
                .into_iter()
                .enumerate()
        {
            let to = place(&format!("{image}-again-{nth}"));
            assert_eq!(layout_to_layout(&first, &to, platforms.clone()).await, made.root.digest);
            assert_eq!(layout_to_layout(&first, &first, platforms).await, made.root.digest);
            // Every blob that is needed came along, and nothing else.
            let names = |dir: &Path| -> BTreeSet<_> {
                std::fs::read_dir(dir.join("blobs/sha256"))
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name())
                    .collect()
            };
            assert_eq!(names(&to), names(&first));
        }
    }
}

#[tokio::test]
async fn a_layout_is_what_soci_writes() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let from: Arc<dyn ImageSource> = Arc::new(MemorySource::golden());
    let into = Arc::new(LayoutTarget::new(&out, None));
    convert(from, &part(SINGLE), into, &as_soci(), &Nothing, nobody()).await.unwrap();
    let want = "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[{\
        \"mediaType\":\"application/vnd.oci.image.index.v1+json\",\
        \"digest\":\"sha256:c4fea16d773efc6e16eed3a5af272fc019f88b270d3846e1acf6629ae4f13981\",\"size\":851}]}";
    assert_eq!(std::fs::read_to_string(out.join("index.json")).unwrap(), want);
    // Others under their tags stay.
    let source: Arc<dyn ImageSource> = Arc::new(MemorySource::golden());
    for (image, tag) in [(MULTI, "multi"), (DOCKER_LIST, "multi"), (WITH_TWIN.0, "twin")] {
        let into = Arc::new(LayoutTarget::new(&out, Some(tag.to_owned())));
        convert(Arc::clone(&source), &part(image), into, &as_soci(), &Nothing, nobody()).await.unwrap();
    }
    let layout = LayoutSource::folder(&out).await.unwrap();
    let tags: Vec<_> = layout.images().into_iter().map(|image| image.tag).collect();
    assert_eq!(tags, [None, Some("multi".to_owned()), Some("twin".to_owned())]);
    assert_eq!(layout.root(Some("multi")).unwrap(), sha256(GOLDEN[1].1));
    let error = layout.root(None).unwrap_err().to_string();
    assert!(error.contains("several images") && error.contains("multi, twin"), "{error}");
    assert!(layout.root(Some("gone")).unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_archive_has_the_same_bytes_however_it_was_made() {
    let dir = TempDir::new().unwrap();
    let mut archives = Vec::new();
    for (nth, cores) in [1, 2, 5].into_iter().enumerate() {
        let path = dir.path().join(format!("{nth}.tar"));
        let parallel = NonZeroUsize::new(cores).unwrap();
        let options = ConvertOptions {
            parallel,
            v1: true,
            build: BuildOptions { parallel, ..as_soci().build },
            ..as_soci()
        };
        let from: Arc<dyn ImageSource> = Arc::new(MemorySource::golden());
        let into = Arc::new(ArchiveTarget::new(&path, Some("1".to_owned())).unwrap());
        convert(from, &part(MULTI), into, &options, &Nothing, nobody()).await.unwrap();
        archives.push(std::fs::read(path).unwrap());
    }
    assert!(archives.iter().all(|archive| *archive == archives[0]));
    // It is a tar as others read it, and a layout as we do.
    let mut tar = tar::Archive::new(&archives[0][..]);
    let names: Vec<_> =
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names.last().map(String::as_str), Some("oci-layout"));
    let layout = LayoutSource::archive(&dir.path().join("0.tar")).await.unwrap();
    let again = dir.path().join("again");
    let into = Arc::new(LayoutTarget::new(&again, None));
    let root = layout.root(Some("1")).unwrap();
    let made =
        convert(Arc::new(layout.clone()), root.as_str(), into, &as_soci(), &Nothing, nobody()).await.unwrap();
    assert_eq!(made.root.digest, root);
    for image in &made.images {
        let found = layout.referrers(&image.digest, Version::V1).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(layout.manifest(found[0].as_str()).await.is_ok());
    }
    assert_eq!(temporary(dir.path()), 0);
}

#[tokio::test]
async fn hostile_images_are_refused() {
    let mut source = MemorySource::golden();
    let digest = Digest::sha256(b"x");
    // An index that holds itself can't be made; one that is as deep as it likes can.
    let mut inner = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"{}\",\"digest\":\"sha256:{SINGLE}\",\"size\":914}}]}}",
        media_type::OCI_MANIFEST
    );
    for _ in 0..MAX_INDEX_DEPTH + 1 {
        let digest = source.add_manifest(media_type::OCI_INDEX, inner.clone());
        inner = format!(
            "{{\"schemaVersion\":2,\"manifests\":[\
             {{\"mediaType\":\"{}\",\"digest\":\"sha256:{SINGLE}\",\"size\":914}},\
             {{\"mediaType\":\"{}\",\"digest\":\"{digest}\",\"size\":{}}}]}}",
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            inner.len()
        );
    }
    let deep = source.add_manifest(media_type::OCI_INDEX, inner);
    // Two manifests that say of one blob that it has different lengths.
    let image = |size: u64| {
        format!(
            "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"{}\",\"digest\":\"{digest}\",\"size\":{size}}},\"layers\":[]}}",
            media_type::OCI_CONFIG
        )
    };
    let entries: Vec<_> = [1, 2]
        .map(|size| {
            let digest = source.add_manifest(media_type::OCI_MANIFEST, image(size));
            format!(
                "{{\"mediaType\":\"{}\",\"digest\":\"{digest}\",\"size\":9,\
                 \"platform\":{{\"os\":\"linux\",\"architecture\":\"amd64\"}}}}",
                media_type::OCI_MANIFEST
            )
        })
        .into();
    let two = source.add_manifest(
        media_type::OCI_INDEX,
        format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(",")),
    );
    let source: Arc<dyn ImageSource> = Arc::new(source);
    for (root, want) in [(deep, "depth of indexes within indexes"), (two, "this blob has 1 bytes, and 2")] {
        let into = Arc::new(MemoryTarget::default());
        let error = convert(Arc::clone(&source), root.as_str(), into, &as_soci(), &Nothing, nobody())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

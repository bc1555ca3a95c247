//! Tests of images.

use std::time::Duration;

use spandrel_registry::ErrorKind;
use spandrel_soci::index::Version;

use super::testing::{GZIP, Listed, MemoryImage, Nothing, descriptor};
use super::*;

/// A layer as decisions see it.
pub(super) fn layer(media_type: &str, size: u64, indexed: bool) -> ImageLayer {
    let digest = Digest::sha256(b"layer");
    let ztoc = indexed.then(|| LayerZtoc {
        descriptor: descriptor("application/octet-stream", &digest, 1),
        bytes: Mutex::default(),
        unfit: AtomicBool::new(false),
    });
    let diff_id = Digest::sha256(b"tar");
    ImageLayer {
        digest,
        size,
        media_type: media_type.to_owned(),
        chain_id: diff_id.to_string(),
        diff_id,
        ztoc,
        prefetch: None,
    }
}

fn image(version: Version) -> Arc<MemoryImage> {
    let layers = vec![
        Listed::new(GZIP, &[1; 2000], b"one", Some(b"ztoc of one")),
        Listed::new(GZIP, &[2; 10], b"two", Some(b"ztoc of a small layer")),
        Listed::new(GZIP, &[3; 3000], b"three", None),
    ];
    MemoryImage::new(layers, version)
}

fn images(image: &Arc<MemoryImage>, memory: Duration) -> (Arc<Images>, Arc<Metrics>) {
    let metrics = Metrics::new();
    let source = Arc::clone(image);
    let sources: ImageSources = Box::new(move |_| -> Arc<dyn ImageSource> { Arc::clone(&source) as _ });
    let options = ImageOptions { v1: true, v2: true, min_layer_size: 1000, deadline: DEADLINE, memory };
    (Arc::new(Images::new(sources, None, options, Arc::clone(&metrics))), metrics)
}

const DEADLINE: Duration = Duration::from_secs(20);

const MEMORY: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn an_image_is_asked_for_once_with_all_its_ztocs() {
    for (version, wanted) in [(Version::V1, 5), (Version::V2, 4)] {
        let image = image(version);
        let (images, _) = images(&image, MEMORY);
        let requests: Vec<_> = (0..3).map(|position| image.request(position)).collect();
        let found =
            futures_util::future::join_all(requests.iter().map(|request| images.resolve(request, &Nothing)))
                .await;
        let first = found[0].as_ref().expect("resolves");
        assert!(found.iter().all(|other| Arc::ptr_eq(first, other.as_ref().expect("resolves"))));
        for (position, request) in requests.iter().enumerate() {
            assert_eq!(first.position(request), Ok(position));
        }
        // Manifest, configuration, (referrers,) index, and one zTOC: that of the small layer isn't needed.
        assert_eq!(image.asked().len(), wanted, "{:?}", image.asked());
        let ztoc = first.layers[0].ztoc.as_ref().expect("has one");
        assert!(first.layers[1].ztoc.is_none() && first.layers[2].ztoc.is_none());
        assert_eq!(&*first.ztoc_bytes(ztoc).await.expect("kept"), b"ztoc of one");
        assert_eq!(image.asked().len(), wanted);
        assert_eq!(&*first.ztoc_bytes(ztoc).await.expect("fetched again"), b"ztoc of one");
        assert_eq!(image.asked().len(), wanted + 1);

        // It is believed for a while, and then looked for again.
        tokio::time::advance(MEMORY / 2).await;
        images.resolve(&requests[0], &Nothing).await.expect("resolves");
        assert_eq!(image.asked().len(), wanted + 1);
        tokio::time::advance(MEMORY / 2).await;
        images.resolve(&requests[0], &Nothing).await.expect("resolves");
        assert_eq!(image.asked().len(), wanted * 2 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_asked_is_asked_again_soon() {
    for kind in ["manifest", "blob", "referrers"] {
        for (error, class) in [
            (ErrorKind::Unavailable, Class::Unreachable),
            (ErrorKind::RateLimited, Class::Unreachable),
            (ErrorKind::Unauthorized, Class::Refused),
        ] {
            let image = image(Version::V1);
            let (images, _) = images(&image, MEMORY);
            image.fail(kind, Some(error));
            let request = image.request(0);
            let failed = images.resolve(&request, &Nothing).await;
            assert!(
                matches!(failed, Err(Unresolved::Failed(found, Error::Unavailable(_))) if found == class),
                "{kind} {error:?}: {failed:?}"
            );
            let asked = image.asked().len();
            // The other layers of the image don't wait for it again.
            assert!(images.resolve(&image.request(1), &Nothing).await.is_err());
            image.fail(kind, None);
            tokio::time::advance(class.memory() - Duration::from_millis(1)).await;
            assert!(images.resolve(&request, &Nothing).await.is_err());
            assert_eq!(image.asked().len(), asked);
            tokio::time::advance(Duration::from_millis(1)).await;
            images.resolve(&request, &Nothing).await.expect("resolves");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_begins_above_the_lowest_layer_asks_again_too() {
    // The lowest layer is another image's, too, and there already: containerd begins with the next.
    let image = image(Version::V2);
    let (images, _) = images(&image, MEMORY);
    image.fail("manifest", Some(ErrorKind::Unavailable));
    let (second, third) = (image.request(1), image.request(2));
    assert!(images.resolve(&second, &Nothing).await.is_err());
    tokio::time::advance(Class::Unreachable.memory()).await;
    assert!(images.resolve(&third, &Nothing).await.is_err());
    assert_eq!(image.asked().len(), 1, "the same pull");
    assert!(images.resolve(&second, &Nothing).await.is_err());
    assert_eq!(image.asked().len(), 2, "the next one");
    image.fail("manifest", None);
    tokio::time::advance(Class::Unreachable.memory()).await;
    images.resolve(&second, &Nothing).await.expect("resolves");
}

#[tokio::test(start_paused = true)]
async fn what_was_absent_or_corrupt_is_looked_for_again_after_a_time_of_its_own() {
    let ztoc = Digest::sha256(b"ztoc of one");
    let index = |image: &MemoryImage| image.index().expect("has one");
    for (broken, bytes, class) in [
        ("index", None, Class::Absent),
        ("index", Some(b"no index".to_vec()), Class::Corrupt),
        ("ztoc", None, Class::Absent),
        ("ztoc", Some(b"no zTOC".to_vec()), Class::Corrupt),
    ] {
        let image = image(Version::V2);
        let digest = if broken == "index" { index(&image) } else { ztoc.clone() };
        let good = image.content(&digest);
        image.put(&digest, bytes);
        let (images, _) = images(&image, MEMORY);
        let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
        assert!(found.layers[0].ztoc.is_none());
        image.put(&digest, Some(good));
        let asked = image.asked().len();
        tokio::time::advance(class.memory() - Duration::from_millis(1)).await;
        images.resolve(&image.request(0), &Nothing).await.expect("resolves");
        assert_eq!(image.asked().len(), asked, "{broken} {class:?}");
        tokio::time::advance(Duration::from_millis(1)).await;
        // A pull that has begun sees one image throughout.
        images.resolve(&image.request(1), &Nothing).await.expect("resolves");
        assert_eq!(image.asked().len(), asked, "{broken} {class:?}");
        let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
        assert!(found.layers[0].ztoc.is_some(), "{broken} {class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_pushed_after_the_first_pull_is_found_by_a_later_one() {
    let image = image(Version::V1);
    let (images, _) = images(&image, MEMORY);
    let index = image.refer(None);
    assert!(index.is_some());
    let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    assert!(found.layers[0].ztoc.is_none());
    image.refer(index);
    tokio::time::advance(Class::Absent.memory()).await;
    let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    assert!(found.layers[0].ztoc.is_some());
}

/// A node that has some layers: by digest, and the zTOC that each is read by.
struct Holding(Vec<(Digest, Digest)>);

impl Present for Holding {
    fn has_any(&self, layer: &Digest) -> bool {
        self.0.iter().any(|(have, _)| have == layer)
    }

    fn has(&self, layer: &Digest, ztoc: &Digest) -> bool {
        self.0.iter().any(|(have, by)| have == layer && by == ztoc)
    }
}

#[tokio::test(start_paused = true)]
async fn the_places_of_all_layers_that_are_missing_are_found_beside_the_index() {
    let mut image = image(Version::V2);
    let blobs = [Digest::sha256(&[1; 2000]), Digest::sha256(&[2; 10]), Digest::sha256(&[3; 3000])];
    // With the manifest in hand, before the index has come.
    image.fail("manifest", Some(ErrorKind::Unavailable));
    let (images, _) = images(&image, MEMORY);
    assert!(images.resolve(&image.request(0), &Nothing).await.is_err());
    tokio::task::yield_now().await;
    assert!(image.places().is_empty(), "without a manifest");
    image = self::image(Version::V1);
    image.fail("referrers", Some(ErrorKind::Unavailable));
    let (images, _) = self::images(&image, MEMORY);
    assert!(images.resolve(&image.request(0), &Nothing).await.is_err());
    tokio::task::yield_now().await;
    assert_eq!(image.places(), blobs);
    // What the node has is left out, and its zTOC isn't fetched.
    image = self::image(Version::V2);
    let (images, _) = self::images(&image, MEMORY);
    let ztoc = Digest::sha256(b"ztoc of one");
    let present = Holding(vec![(blobs[0].clone(), ztoc.clone())]);
    let found = images.resolve(&image.request(0), &present).await.expect("resolves");
    tokio::task::yield_now().await;
    assert_eq!(image.places(), blobs[1..]);
    assert!(!image.asked().contains(&format!("blob {ztoc}")), "{:?}", image.asked());
    // Should it go meanwhile, the zTOC can still be had.
    let layer = found.layers[0].ztoc.as_ref().expect("has one");
    assert_eq!(&*found.ztoc_bytes(layer).await.expect("fetched"), b"ztoc of one");
    // A layer that is read by another zTOC is another layer.
    let present = Holding(vec![(blobs[0].clone(), Digest::sha256(b"another"))]);
    let (images, _) = self::images(&image, MEMORY);
    images.resolve(&image.request(0), &present).await.expect("resolves");
    assert!(image.asked().contains(&format!("blob {ztoc}")));
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_by_digest_is_not_asked_for_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    for (version, first, again) in [(Version::V2, 4, 0), (Version::V1, 5, 1)] {
        let image = image(version);
        let dir = dir.path().join(format!("{version:?}"));
        for wanted in [first, again, again] {
            let kept = Kept::open(&dir, MAX_KEPT).expect("opens");
            let (images, _) = images(&image, MEMORY);
            let images = Arc::into_inner(images).expect("one").keeping(Arc::clone(&kept));
            let before = image.asked().len();
            let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
            let ztoc = found.layers[0].ztoc.as_ref().expect("has one");
            assert_eq!(&*found.ztoc_bytes(ztoc).await.expect("is there"), b"ztoc of one");
            // The list of referrers changes: it is asked for each time.
            assert_eq!(image.asked().len() - before, wanted, "{version:?} {:?}", image.asked());
            kept.written().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_costs_a_pull_one_deadline() {
    let image = image(Version::V1);
    let (images, _) = images(&image, MEMORY);
    image.hang(true);
    let start = Instant::now();
    for position in 0..3 {
        let failed = images.resolve(&image.request(position), &Nothing).await;
        assert!(matches!(failed, Err(Unresolved::Failed(_, Error::Unavailable(_)))), "{failed:?}");
        // containerd unpacks the layer.
        tokio::time::advance(PULL_MEMORY * 2 / 3).await;
    }
    assert_eq!(start.elapsed(), DEADLINE + PULL_MEMORY * 2);
    assert_eq!(image.asked().len(), 1);
    // The next pull asks again.
    image.hang(false);
    images.resolve(&image.request(0), &Nothing).await.expect("resolves");
}

#[tokio::test(start_paused = true)]
async fn an_index_or_ztoc_that_is_absent_or_corrupt_means_full_layers() {
    let image = image(Version::V2);
    let (images, metrics) = images(&image, MEMORY);
    let count = |class| metrics.errors.get_or_create(&[("class", class)]).get();
    image.put(&Digest::sha256(b"ztoc of one"), Some(b"something else".to_vec()));
    let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    assert!(found.layers[0].ztoc.is_none());
    assert_eq!(count("ztoc-invalid"), 1);

    // The image names an index that isn't there: no other one stands in for it.
    let image = self::image(Version::V2);
    let index = image.index().expect("has one");
    for (bytes, class) in [(Some(b"no index".to_vec()), "index-invalid"), (None, "index-absent")] {
        image.put(&index, bytes);
        let (images, metrics) = self::images(&image, MEMORY);
        let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
        assert!(found.layers.iter().all(|layer| layer.ztoc.is_none()));
        assert_eq!(metrics.errors.get_or_create(&[("class", class)]).get(), 1, "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ztoc_is_fetched_once_whatever_it_is_named_for() {
    let layers = (1..6).map(|seed| Listed::new(GZIP, &[seed; 2000], &[seed], Some(b"the same ztoc")));
    let image = MemoryImage::new(layers.collect(), Version::V2);
    let (images, metrics) = images(&image, MEMORY);
    let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    assert_eq!(found.layers.iter().filter(|layer| layer.ztoc.is_some()).count(), 1);
    assert_eq!(image.asked().len(), 4, "{:?}", image.asked());
    assert_eq!(metrics.errors.get_or_create(&[("class", "ztoc-invalid")]).get(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_image_of_too_many_layers_is_left_to_containerd() {
    let layers = (0..501_u32).map(|seed| Listed::new(GZIP, &seed.to_le_bytes(), &seed.to_le_bytes(), None));
    let image = MemoryImage::new(layers.collect(), Version::V2);
    let (images, _) = images(&image, MEMORY);
    let found = images.resolve(&image.request(0), &Nothing).await;
    assert!(matches!(found, Err(Unresolved::Ordinary("manifest-layers"))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_left_to_containerd() {
    let image = image(Version::V2);
    let (images, _) = images(&image, MEMORY);
    let cases = [
        ("containerd.io/snapshot/cri.image-ref", "UPPER CASE", "image-reference"),
        ("containerd.io/snapshot/cri.manifest-digest", "sha256:12", "manifest-digest"),
        ("containerd.io/snapshot/remote/soci.index.digest", "md5:12", "index-digest"),
    ];
    for (label, value, reason) in cases {
        let mut request = image.request(0);
        request.labels.insert(label.to_owned(), value.to_owned());
        let found = images.resolve(&request, &Nothing).await;
        assert!(matches!(found, Err(Unresolved::Ordinary(found)) if found == reason), "{label}: {found:?}");
    }
    let found = images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    let mut request = image.request(1);
    request.chain_id = image.request(0).chain_id;
    assert_eq!(found.position(&request), Err("layer-digest"), "another layer than the chain ID's");
    request.chain_id = "sha256:00".to_owned();
    assert_eq!(found.position(&request), Err("chain-id"));
}

#[tokio::test(start_paused = true)]
async fn images_that_nobody_asks_for_are_forgotten() {
    let image = image(Version::V2);
    let (images, _) = images(&image, MEMORY);
    images.resolve(&image.request(0), &Nothing).await.expect("resolves");
    tokio::time::advance(MEMORY * 2).await;
    let mut request = image.request(0);
    let other = "registry.example/other:1".to_owned();
    request.labels.insert("containerd.io/snapshot/cri.image-ref".to_owned(), other);
    images.resolve(&request, &Nothing).await.expect("resolves");
    assert_eq!(images.slots().len(), 1);
}

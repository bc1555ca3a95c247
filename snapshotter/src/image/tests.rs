//! Tests of images.

use std::time::Duration;

use spandrel_registry::ErrorKind;
use spandrel_soci::index::Version;

use super::testing::{GZIP, Listed, MemoryImage, descriptor};
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
            futures_util::future::join_all(requests.iter().map(|request| images.resolve(request))).await;
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
        images.resolve(&requests[0]).await.expect("resolves");
        assert_eq!(image.asked().len(), wanted + 1);
        tokio::time::advance(MEMORY / 2).await;
        images.resolve(&requests[0]).await.expect("resolves");
        assert_eq!(image.asked().len(), wanted * 2 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_asked_is_asked_again_soon() {
    for kind in ["manifest", "blob", "referrers"] {
        for error in [ErrorKind::Unavailable, ErrorKind::RateLimited, ErrorKind::Unauthorized] {
            let image = image(Version::V1);
            let (images, _) = images(&image, MEMORY);
            image.fail(kind, Some(error));
            let request = image.request(0);
            let failed = images.resolve(&request).await;
            assert!(
                matches!(failed, Err(Unresolved::Failed(Error::Unavailable(_)))),
                "{kind} {error:?}: {failed:?}"
            );
            let asked = image.asked().len();
            // The other layers of the image don't wait for it again.
            assert!(images.resolve(&image.request(1)).await.is_err());
            assert_eq!(image.asked().len(), asked);
            image.fail(kind, None);
            tokio::time::advance(FAILURE_MEMORY).await;
            images.resolve(&request).await.expect("resolves");
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
        let failed = images.resolve(&image.request(position)).await;
        assert!(matches!(failed, Err(Unresolved::Failed(Error::Unavailable(_)))), "{failed:?}");
        // containerd unpacks the layer.
        tokio::time::advance(PULL_MEMORY * 2 / 3).await;
    }
    assert_eq!(start.elapsed(), DEADLINE + PULL_MEMORY * 2);
    assert_eq!(image.asked().len(), 1);
    // The next pull asks again.
    image.hang(false);
    images.resolve(&image.request(0)).await.expect("resolves");
}

#[tokio::test(start_paused = true)]
async fn an_index_or_ztoc_that_is_absent_or_corrupt_means_full_layers() {
    let image = image(Version::V2);
    let (images, metrics) = images(&image, MEMORY);
    let count = |class| metrics.errors.get_or_create(&[("class", class)]).get();
    image.put(&Digest::sha256(b"ztoc of one"), Some(b"something else".to_vec()));
    let found = images.resolve(&image.request(0)).await.expect("resolves");
    assert!(found.layers[0].ztoc.is_none());
    assert_eq!(count("ztoc-invalid"), 1);

    // The image names an index that isn't there: no other one stands in for it.
    let image = self::image(Version::V2);
    let index = image.index().expect("has one");
    for (bytes, class) in [(Some(b"no index".to_vec()), "index-invalid"), (None, "index-absent")] {
        image.put(&index, bytes);
        let (images, metrics) = self::images(&image, MEMORY);
        let found = images.resolve(&image.request(0)).await.expect("resolves");
        assert!(found.layers.iter().all(|layer| layer.ztoc.is_none()));
        assert_eq!(metrics.errors.get_or_create(&[("class", class)]).get(), 1, "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ztoc_is_fetched_once_whatever_it_is_named_for() {
    let layers = (1..6).map(|seed| Listed::new(GZIP, &[seed; 2000], &[seed], Some(b"the same ztoc")));
    let image = MemoryImage::new(layers.collect(), Version::V2);
    let (images, metrics) = images(&image, MEMORY);
    let found = images.resolve(&image.request(0)).await.expect("resolves");
    assert_eq!(found.layers.iter().filter(|layer| layer.ztoc.is_some()).count(), 1);
    assert_eq!(image.asked().len(), 4, "{:?}", image.asked());
    assert_eq!(metrics.errors.get_or_create(&[("class", "ztoc-invalid")]).get(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_image_of_too_many_layers_is_left_to_containerd() {
    let layers = (0..501_u32).map(|seed| Listed::new(GZIP, &seed.to_le_bytes(), &seed.to_le_bytes(), None));
    let image = MemoryImage::new(layers.collect(), Version::V2);
    let (images, _) = images(&image, MEMORY);
    let found = images.resolve(&image.request(0)).await;
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
        let found = images.resolve(&request).await;
        assert!(matches!(found, Err(Unresolved::Ordinary(found)) if found == reason), "{label}: {found:?}");
    }
    let found = images.resolve(&image.request(0)).await.expect("resolves");
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
    images.resolve(&image.request(0)).await.expect("resolves");
    tokio::time::advance(MEMORY * 2).await;
    let mut request = image.request(0);
    let other = "registry.example/other:1".to_owned();
    request.labels.insert("containerd.io/snapshot/cri.image-ref".to_owned(), other);
    images.resolve(&request).await.expect("resolves");
    assert_eq!(images.slots().len(), 1);
}

//! What laziness is about: nothing is fetched before it is read, metadata never leaves the kernel, what is shared is fetched
//! once.

use std::time::{Duration, Instant};

use spandrel_fixtures::image::busybox;

use super::bed::{Bed, NO_BACKGROUND, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// How long a few megabytes may take to come when nobody waits for them, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether they have.
const STEP: Duration = Duration::from_millis(20);

#[tokio::test]
async fn an_indexed_image_starts_without_its_large_layer() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        let mut cri = bed.cri().await;
        let blob = image.layers[1].blob.len() as u64;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        let started = bed.metric("spandrel_fetched_bytes_total").await;
        assert!(
            started < blob / 4 + image.layers[0].blob.len() as u64,
            "{setting:?}: {started} of {blob} bytes"
        );

        // Names, sizes and modes come from the table in the kernel, or from what the kernel keeps of the tree's answers. The
        // programs themselves (busybox) lie in a lazy layer too: the first run has them read.
        let look = "find / -xdev > /dev/null; find / -xdev -exec stat -c %s {} + > /dev/null; find /data -type f | wc -l";
        assert_eq!(cri.output(&container, look).await, "40\n");
        let before = bed.cacheable_requests().await;
        assert_eq!(cri.output(&container, look).await, "40\n");
        let asked = bed.cacheable_requests().await - before;
        assert_eq!(asked, 0, "{setting:?}: requests for names and sizes");

        let sum = cri.output(&container, "sha256sum < /data/20").await;
        assert!(sum.starts_with(&sha256(&content(1, 20, LEN))), "{setting:?}");
        assert!(bed.cacheable_requests().await > before, "the counter counts");
        assert!(bed.metric(r#"spandrel_fills_total{cause="demand"}"#).await > 0);
        let fetched = bed.metric("spandrel_fetched_bytes_total").await - started;
        assert!(
            fetched > 0 && fetched < blob / 2,
            "{setting:?}: {fetched} of {blob} bytes for one file of forty"
        );
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn a_mounted_image_gets_complete_and_needs_its_registry_no_more() {
    for setting in Setting::ALL {
        let Some(mut bed) = Bed::start(setting) else { continue };
        let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
        let reference = bed.push_indexed(&image, "app");
        bed.daemon.stop();
        bed.place.config = bed.place.config.replace(NO_BACKGROUND, "");
        bed.daemon = bed.place.start();
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.expect("pulled");
        let container = cri.start(&reference).await.expect("started");
        let begin = Instant::now();
        loop {
            let layers = bed.layers().await;
            let complete = |layer: &serde_json::Value| layer["spans"] == layer["present_spans"];
            if layers.iter().all(complete) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{setting:?}: {layers:#?}");
            tokio::time::sleep(STEP).await;
        }
        assert!(bed.metric(r#"spandrel_fills_total{cause="background"}"#).await > 0, "{setting:?}");
        bed.registry.stop();
        for file in [0, 17, 39] {
            let sum = cri.output(&container, &format!("sha256sum < /data/{file}")).await;
            assert!(sum.starts_with(&sha256(&content(1, file, LEN))), "{setting:?}: {file}");
        }
        cri.stop(container).await;
    }
}

#[tokio::test]
async fn two_containers_and_two_images_share_what_they_have_in_common() {
    for setting in Setting::ALL {
        let Some(bed) = Bed::start(setting) else { continue };
        let shared = large_layer("data", 1, 10, LEN);
        let Some(first) = busybox([shared.clone()]) else { return };
        let Some(second) = busybox([shared, large_layer("more", 2, 10, LEN)]) else { return };
        let (first, second) = (bed.push_indexed(&first, "first"), bed.push_indexed(&second, "second"));
        let mut cri = bed.cri().await;
        cri.pull(&first).await.expect("pulled");
        let one = cri.start(&first).await.expect("started");
        let two = cri.start(&first).await.expect("started");
        let all = "cat /data/* | sha256sum";
        let sum = cri.output(&one, all).await;
        let fetched = bed.metric("spandrel_fetched_bytes_total").await;
        assert_eq!(cri.output(&two, all).await, sum);
        assert_eq!(bed.metric("spandrel_fetched_bytes_total").await, fetched, "{setting:?}: fetched twice");
        cri.output(&one, "echo mine > /data/0; rm /data/1").await;
        assert_eq!(cri.output(&two, all).await, sum, "a container's changes are its own");

        let layers = bed.layers().await.len();
        cri.pull(&second).await.expect("pulled");
        let three = cri.start(&second).await.expect("started");
        // busybox (pause's layer too) and data before; more is new.
        assert_eq!((layers, bed.layers().await.len()), (2, 3), "{setting:?}");
        assert_eq!(cri.output(&three, all).await, sum);
        for container in [one, two, three] {
            cri.stop(container).await;
        }
    }
}

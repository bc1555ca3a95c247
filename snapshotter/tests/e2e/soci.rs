//! The real SOCI 0.4.1 makes and pushes an index (v1, a referrer); our daemon finds it and reads by it. (That SOCI's
//! snapshotter runs containers by an index of ours is tested with the tool, in `cli/tests/it/interop.rs`.)

use spandrel_fixtures::image::busybox;
use spandrel_fixtures::peers::{Containerd, DockerRegistry, Options, Soci, Version};

use super::bed::{Bed, MIN_LAYER_SIZE, Setting, content, large_layer, sha256};

const LEN: usize = 200_000;

/// Length of SOCI's spans: so short that the image has many.
const SPAN: &str = "262144";

#[tokio::test]
async fn a_pod_is_lazy_by_an_index_that_soci_made() {
    for setting in Setting::ALL {
        let tls = Options { tls: true, ..Options::default() };
        let Some(registry) = DockerRegistry::start(tls) else { return };
        let Some(soci) = Soci::start(registry.ca_pem().expect("it has TLS")) else { return };
        let Some(image) = busybox([large_layer("data", 1, 40, LEN)]) else { return };
        image.push(&registry.client(), "theirs", "1");
        let name = format!("{}/theirs:1", registry.named_host());
        let ztoc = {
            let builder = Containerd::builder(Version::V1_6).soci(&soci).docker_registry(&registry);
            let Some(containerd) = builder.start() else { return };
            let hosts = containerd.hosts_dir();
            let pull = ["image", "pull", "--hosts-dir", hosts.to_str().expect("UTF-8"), &name];
            containerd.ctr(&pull).unwrap_or_else(|error| panic!("{error}"));
            let run = |args: &[&str]| {
                soci.soci(&containerd, args).unwrap_or_else(|error| panic!("{error}\n{}", soci.tail()))
            };
            let min = MIN_LAYER_SIZE.to_string();
            run(&["create", "--span-size", SPAN, "--min-layer-size", &min, &name]);
            run(&["push", &name]);
            let listed = run(&["ztoc", "list"]);
            let line = listed.lines().find(|line| line.contains(&image.layers[1].digest));
            line.and_then(|line| line.split_whitespace().next()).expect("the layer's zTOC").to_owned()
        };

        let Some(bed) = Bed::start_with(setting, registry) else { continue };
        let reference = format!("{}/theirs:1", bed.registry.host());
        let mut cri = bed.cri().await;
        cri.pull(&reference).await.unwrap_or_else(|error| panic!("{error}\n{}", bed.daemon.tail()));
        let layers = bed.layers().await;
        let layer = layers.iter().find(|layer| layer["digest"] == image.layers[1].digest);
        let layer = layer.unwrap_or_else(|| panic!("{setting:?}: not among {layers:?}"));
        assert_eq!(layer["stage"], "indexed", "{setting:?}: {}", bed.daemon.tail());
        assert_eq!(layer["ztoc"], ztoc.as_str(), "{setting:?}");

        let container = cri.start(&reference).await.expect("started");
        let (blob, base) = (image.layers[1].blob.len() as u64, image.layers[0].blob.len() as u64);
        let started = bed.metric("spandrel_fetched_bytes_total").await;
        assert!(started < blob / 4 + 2 * base, "{setting:?}: {started} of {blob} bytes");
        let before = bed.cacheable_requests().await;
        let found = cri.output(&container, "find /data -type f | wc -l").await;
        let asked = bed.cacheable_requests().await - before;
        // The table in the kernel knows them; the tree is asked, but not for each.
        let most = if setting.filesystem == "fuse" { 10 } else { 1 };
        assert_eq!((found.as_str(), asked <= most), ("40\n", true), "{setting:?}: {asked} requests");
        for number in [20, 39] {
            let sum = cri.output(&container, &format!("sha256sum < /data/{number}")).await;
            assert!(sum.starts_with(&sha256(&content(1, number, LEN))), "{setting:?} {number}");
        }
        let fetched = bed.metric("spandrel_fetched_bytes_total").await - started;
        assert!(fetched > 0 && fetched < blob / 2, "{setting:?}: {fetched} of {blob} bytes for two files");
        let all = cri.output(&container, "cat /data/* | wc -c").await;
        assert_eq!(all.trim(), (40 * LEN).to_string(), "{setting:?}");
        cri.stop(container).await;
    }
}

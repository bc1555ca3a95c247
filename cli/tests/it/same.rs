//! The same image and options give the same bytes, wherever, whenever and with however many cores.

use serde_json::Value;
use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::layer::{Layer, TAR_GZIP};

use crate::support::{Tool, golden};

/// Digest of the converted image: whatever changes it changes what every user's images are called.
const PINNED: &str = "sha256:bd76959cbb974cc3e0a6bd9a54b86c5d71de6ac2d03751463322a8fc9852c816";

/// What differs from machine to machine: the time zone (two that need no database, half a day and more from UTC), cores and memory.
const MACHINES: [(&str, &str, &str); 4] = [
    ("UTC", "1", "1GiB"),
    ("EAST-14", "4", "1GiB"),
    ("WEST11:30", "3", "0"),
    ("Asia/Kathmandu", "2", "20MiB"),
];

#[test]
fn time_zone_cores_and_memory_make_no_difference() {
    // Layers whose bytes no compressor of ours makes: times of all kinds, several members, extended attributes.
    let layers = ["t-pax-mtime", "mm-odd", "t-xattr", "t-ustar", "gz-gnu1"];
    // Nobody looks at the digest of what is in them.
    let layers = layers.map(|name| {
        Layer::new(TAR_GZIP, std::fs::read(golden(&format!("{name}/layer.tar.gz"))).unwrap(), &[])
    });
    let image = layers
        .into_iter()
        .fold(ImageBuilder::new().platform("linux", "amd64", ""), ImageBuilder::layer)
        .build();
    let mut first = None;
    for (zone, cores, memory) in MACHINES {
        let mut tool = Tool::new();
        tool.set("TZ", zone);
        image.write_layout(&tool.path("src"), "1");
        let (src, dst) = (tool.path("src").display().to_string(), tool.path("dst.tar").display().to_string());
        let options = ["--platform", "linux/amd64", "--min-layer-size", "0", "--span-size", "65536"];
        let machine = ["--parallel", cores, "--memory", memory, "--max-concurrent-uploads", cores, "--json"];
        let made = tool.good(&[&["convert", "--standalone", &src, &dst][..], &options, &machine].concat());
        let made: Value = serde_json::from_str(&made).unwrap();
        assert_eq!((&made["digest"], zone), (&PINNED.into(), zone));
        let archive = std::fs::read(&dst).unwrap();
        assert!(archive == *first.get_or_insert_with(|| archive.clone()), "{zone} {cores}");
    }
}

//! The real SOCI 0.4.1: it mounts and reads what we made, and we read what it made.

use spandrel_fixtures::image;
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::{Containerd, DockerRegistry, Options, Soci, Version};
use spandrel_fixtures::random::Random;

use crate::support::Tool;

/// A registry, SOCI, and a containerd with it; an image in the registry under two names.
struct World {
    registry: DockerRegistry,
    soci: Soci,
    containerd: Containerd,
    content: Vec<u8>,
    tool: Tool,
    ca: String,
}

fn world() -> Option<World> {
    let registry = DockerRegistry::start(Options { tls: true, ..Options::default() })?;
    let soci = Soci::start(registry.ca_pem()?)?;
    let content = Random::new(41).content(3_000_000, 30);
    let tar = TarBuilder::new()
        .with(Entry::dir("data"))
        .with(Entry::file("data/file", content.as_slice()))
        .with(Entry::symlink("data/link", "file"))
        .finish();
    let image = image::busybox([Layer::gzip(&tar)])?;
    image.push(&registry.client(), "ours", "1");
    image.push(&registry.client(), "theirs", "1");
    let containerd = Containerd::builder(Version::V1_6).soci(&soci).docker_registry(&registry).start()?;
    let tool = Tool::new();
    let ca = tool.path("ca.pem");
    std::fs::write(&ca, registry.ca_pem()?).unwrap();
    let ca = ca.to_str()?.to_owned();
    Some(World { registry, soci, containerd, content, tool, ca })
}

impl World {
    /// The image as our tool names it.
    fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.registry.host())
    }

    /// The image as SOCI and containerd name it.
    fn named(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.registry.named_host())
    }

    fn soci(&self, args: &[&str]) -> String {
        self.soci.soci(&self.containerd, args).unwrap_or_else(|error| panic!("{error}\n{}", self.soci.tail()))
    }
}

#[test]
fn soci_mounts_and_reads_what_we_made() {
    let Some(world) = world() else { return };
    let reference = world.reference("ours");
    let tool = &world.tool;
    tool.good(&["create", &reference, "--min-layer-size", "0", "--push", "--tlscacert", &world.ca]);

    let name = world.named("ours");
    world.soci(&["image", "rpull", &name]);
    assert_eq!(world.soci.mounts().len(), 2, "not mounted lazily:\n{}", world.soci.tail());
    let id = Containerd::unique_id("interop");
    let run = ["run", "--rm", "--snapshotter", "soci", &name, &id, "/bin/sh", "-c", "sha256sum < /data/link"];
    let said = world.containerd.ctr(&run).unwrap_or_else(|error| panic!("{error}\n{}", world.soci.tail()));
    let want = spandrel_fixtures::digest::sha256(&world.content);
    assert_eq!(said.split_whitespace().next(), want.strip_prefix("sha256:"));

    // Its tool says of them what ours says, to the byte.
    world.soci(&["rebuild-db"]);
    let index = tool.good(&["index", "list", "-q"]).trim_end().to_owned();
    let theirs = world.soci(&["index", "info", &index]);
    let kept = tool.store().join("blobs/sha256").join(&index[7..]);
    assert_eq!(theirs.trim_end().as_bytes(), std::fs::read(kept).unwrap());
    let ztocs = tool.good(&["ztoc", "list", "-q"]);
    assert_eq!(ztocs.lines().count(), 2);
    for ztoc in ztocs.lines() {
        assert_eq!(world.soci(&["ztoc", "info", ztoc]), tool.good(&["ztoc", "info", ztoc]));
    }
    assert_eq!(world.soci(&["ztoc", "list"]), tool.good(&["ztoc", "list"]));
}

#[test]
fn soci_mounts_what_was_converted_for_readers_of_both_versions() {
    let Some(world) = world() else { return };
    let (from, to) = (world.reference("ours"), world.reference("both"));
    let args = ["convert", &from, &to, "--min-layer-size", "0", "--both", "--tlscacert", &world.ca];
    world.tool.good(&args);
    // This one knows version 1 alone; the index of version 2 in the image doesn't confuse it.
    let name = world.named("both");
    world.soci(&["image", "rpull", &name]);
    assert_eq!(world.soci.mounts().len(), 2, "not mounted lazily:\n{}", world.soci.tail());
    let id = Containerd::unique_id("both");
    let run = ["run", "--rm", "--snapshotter", "soci", &name, &id, "/bin/sh", "-c", "sha256sum < /data/link"];
    let said = world.containerd.ctr(&run).unwrap_or_else(|error| panic!("{error}\n{}", world.soci.tail()));
    let want = spandrel_fixtures::digest::sha256(&world.content);
    assert_eq!(said.split_whitespace().next(), want.strip_prefix("sha256:"));
}

#[test]
fn we_read_what_soci_made() {
    let Some(world) = world() else { return };
    let name = world.named("theirs");
    let hosts = world.containerd.hosts_dir();
    let pull = ["image", "pull", "--hosts-dir", hosts.to_str().unwrap(), &name];
    world.containerd.ctr(&pull).unwrap_or_else(|error| panic!("{error}"));
    world.soci(&["create", "--min-layer-size", "0", &name]);
    world.soci(&["push", &name]);

    let (reference, ca) = (world.reference("theirs"), world.ca.as_str());
    let listed = world.soci(&["ztoc", "list"]);
    let mut found = 0;
    for ztoc in listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        let remote = ["--ref", &reference, "--tlscacert", ca];
        let info = world.tool.good(&[&["ztoc", "info", ztoc], &remote[..]].concat());
        assert_eq!(info, world.soci(&["ztoc", "info", ztoc]));
        if info.contains("\"data/file\"") {
            let ran = world.tool.run(&[&["ztoc", "get-file", ztoc, "data/link"], &remote[..]].concat());
            assert!(ran.code == Some(0) && ran.out == world.content, "{}", ran.err);
            found += 1;
        }
    }
    assert_eq!(found, 1, "{listed}");
    // We warn of its index before we add ours.
    let args = ["create", &reference, "--min-layer-size", "0", "--push", "--tlscacert", ca];
    let ran = world.tool.run(&args);
    assert!(ran.code == Some(0) && ran.err.contains("[WARN] "), "{}", ran.err);
}

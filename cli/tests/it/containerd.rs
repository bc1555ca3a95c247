//! `convert` into, out of and within the real containerd, of each version.

use serde_json::Value;
use spandrel_fixtures::image::{self, ImageBuilder, Index};
use spandrel_fixtures::peers::{Containerd, DockerRegistry, Version};

use crate::support::{Ran, Tool, large_layer, small_layer};

/// A registry with an image for two platforms, and a containerd that can pull from it.
struct World {
    registry: DockerRegistry,
    containerd: Containerd,
    tool: Tool,
}

impl World {
    fn start(version: Version) -> Option<Self> {
        let registry = DockerRegistry::plain()?;
        let other = ImageBuilder::new().platform("linux", "s390x", "").layer(large_layer(51).0).build();
        let runs = image::busybox([large_layer(52).0, small_layer("small")])?;
        Index::new(vec![other, runs]).push(&registry.client(), "app", "1");
        let containerd = Containerd::builder(version).docker_registry(&registry).start()?;
        Some(Self { registry, containerd, tool: Tool::new() })
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.registry.host())
    }

    fn ctr(&self, args: &[&str]) -> String {
        self.containerd.ctr(args).unwrap_or_else(|error| panic!("{error}\n{}", self.containerd.tail()))
    }

    fn pull(&self, name: &str) {
        let hosts = self.containerd.hosts_dir();
        self.ctr(&["image", "pull", "--hosts-dir", hosts.to_str().unwrap(), name]);
    }

    fn convert(&self, src: &str, dst: &str, more: &[&str]) -> Ran {
        let address = self.containerd.socket();
        let address = ["--address", address.to_str().unwrap(), "--min-layer-size", "100k", "--json"];
        self.tool.run(&[&["convert", src, dst][..], &address, more].concat())
    }

    /// Converts, and it must do; what it printed.
    fn converted(&self, src: &str, dst: &str, more: &[&str]) -> Value {
        let ran = self.convert(src, dst, more);
        assert_eq!(ran.code, Some(0), "{src} {dst}: {}\n{}", ran.err, self.containerd.tail());
        serde_json::from_slice(&ran.out).unwrap()
    }

    /// Has containerd throw away all that nothing holds.
    fn collect_garbage(&self) {
        self.ctr(&["leases", "create", "--id", "none"]);
        self.ctr(&["leases", "delete", "--sync", "none"]);
    }

    /// The digests in the content store.
    fn content(&self) -> Vec<String> {
        let mut digests: Vec<_> = self.ctr(&["content", "ls", "-q"]).lines().map(str::to_owned).collect();
        digests.sort();
        digests
    }

    /// Digests of the image's manifests, SOCI index and zTOCs, and of what they name.
    fn named_by(&self, root: &str) -> Vec<String> {
        let (mut left, mut all) = (vec![root.to_owned()], Vec::new());
        while let Some(digest) = left.pop() {
            let text = self.ctr(&["content", "get", &digest]);
            all.push(digest);
            let manifest: Value = serde_json::from_str(&text).unwrap();
            let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
            for entry in manifest["manifests"].as_array().into_iter().flatten() {
                left.push(digest(entry));
            }
            all.extend(manifest.get("config").map(digest));
            all.extend(manifest["layers"].as_array().into_iter().flatten().map(digest));
        }
        all.sort();
        all.dedup();
        all
    }
}

#[test]
fn containerd_holds_and_runs_what_was_put_there() {
    for version in Version::ALL {
        let Some(world) = World::start(version) else { return };
        let (src, dst) = (world.name("app"), world.name("lazy"));
        let made = world.converted(&src, &format!("containerd:{dst}"), &["--all-platforms"]);
        let elsewhere = world.converted(&src, &world.name("elsewhere"), &["--all-platforms"]);
        assert_eq!(made["digest"], elsewhere["digest"]);
        let root = made["digest"].as_str().unwrap();
        assert!(world.ctr(&["image", "ls", &format!("name=={dst}")]).contains(root));
        // The name alone holds it.
        assert_eq!(world.ctr(&["leases", "ls", "-q"]), "");
        world.collect_garbage();
        assert_eq!(world.content(), world.named_by(root));
        let id = Containerd::unique_id("converted");
        let said = world.ctr(&["run", "--rm", &dst, &id, "/bin/sh", "-c", "cat /small"]);
        assert_eq!(said, "small");

        // Again, and under another name: nothing is added.
        for (src, dst) in [(src.clone(), dst.clone()), (format!("containerd:{dst}"), world.name("third"))] {
            let again = world.converted(&src, &format!("containerd:{dst}"), &["--all-platforms"]);
            assert_eq!(again["digest"], made["digest"]);
        }
        assert_eq!(world.content(), world.named_by(root));
        // In another namespace there is nothing of all this.
        let ran = world.convert(&format!("containerd:{dst}"), &world.name("never"), &["-n", "other"]);
        let want = format!("no image {dst} in containerd's namespace other");
        assert!(ran.code == Some(3) && ran.err.contains(&want), "{}", ran.err);
    }
}

#[test]
fn an_image_that_was_pulled_for_one_platform_is_converted_for_it() {
    for version in Version::ALL {
        let Some(world) = World::start(version) else { return };
        let name = world.name("app");
        world.pull(&name);
        let from = format!("containerd:{name}");
        // The same as out of the registry, where the other platform is.
        let want = world.converted(&name, &world.name("want"), &[])["digest"].clone();
        let folder = format!("oci-dir:{}", world.tool.path("out").display());
        for dst in [format!("containerd:{}", world.name("lazy")), folder] {
            assert_eq!(world.converted(&from, &dst, &[])["digest"], want, "{dst}");
        }
        // A registry wants all that an index lists; it has the other platform here.
        assert_eq!(world.converted(&from, &world.name("app"), &[])["digest"], want);
        let ran = world.convert(&from, &world.name("never"), &["--all-platforms"]);
        assert!(ran.code == Some(3) && ran.err.contains("aren't pulled"), "{}", ran.err);
        // A layer that isn't there, as when a remote snapshotter mounts it.
        world.ctr(&["content", "rm", &large_layer(52).0.digest]);
        let ran = world.convert(&from, &format!("containerd:{}", world.name("never")), &["--force"]);
        assert!(ran.code == Some(3) && ran.err.contains("take the image from its registry"), "{}", ran.err);
        // A failure holds nothing.
        assert_eq!(world.ctr(&["leases", "ls", "-q"]), "");
        assert!(!world.ctr(&["image", "ls", "-q"]).contains("/never:1"));
        let ran = world.convert(&name, &format!("containerd:{}", world.name("never")), &["--both"]);
        assert!(ran.code == Some(2) && ran.err.contains("leave out --both"), "{}", ran.err);
    }
}

#[test]
fn a_containerd_that_isn_t_there_is_named() {
    let tool = Tool::new();
    let socket = tool.path("no.sock").display().to_string();
    let folder = format!("oci-dir:{}", tool.path("src").display());
    ImageBuilder::new().layer(small_layer("small")).build().write_layout(&tool.path("src"), "1");
    for (src, dst) in [("containerd:app", folder.as_str()), (&folder, "containerd:app")] {
        let error = tool.fails(1, &["convert", src, dst, "--address", &socket]);
        assert!(error.contains(&socket) && error.contains("is containerd running"), "{error}");
    }
}

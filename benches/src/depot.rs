//! The registry that images are pulled from, with what each system needs beside them.
//!
//! What it stores is kept between runs in the cache folder, with a note for every image that was prepared, so that
//! pushing and indexing is done once. Its own port is for preparing; measurements go through a shaping proxy
//! ([`crate::network`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use spandrel_fixtures::image::pause;
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::tls::Authority;

use crate::cache;
use crate::layout::Layout;
use crate::results::start::Image;
use crate::system::System;

/// The image of sandboxes, in the repository of this name.
pub const PAUSE: &str = "pause:1";

/// The tag of every other image.
pub const TAG: &str = "1";

/// A registry with images.
#[derive(Debug)]
pub struct Depot {
    registry: DockerRegistry,
    /// Who the proxies' certificates are from.
    pub authority: Authority,
}

/// An image that is ready for a system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    /// Its repository and tag.
    pub name: String,
    /// What it is.
    pub image: Image,
    /// Digests of the blobs that a pull may want: configuration and layers.
    pub blobs: Vec<String>,
}

impl Depot {
    /// Starts the registry.
    ///
    /// # Errors
    /// When this machine lacks what it takes.
    pub fn open() -> Result<Self> {
        let storage = cache::dir().join("registry");
        std::fs::create_dir_all(&storage).with_context(|| format!("can't make {}", storage.display()))?;
        let registry = DockerRegistry::keeping(&storage).context("docker-registry isn't installed")?;
        let image = pause().context("busybox-static isn't installed")?;
        image.push(&registry.client(), "pause", "1");
        Ok(Self { registry, authority: Authority::new() })
    }

    /// Where it listens, without TLS and unshaped.
    pub fn addr(&self) -> SocketAddr {
        self.registry.addr()
    }

    /// The image made ready for a system: pushed to a repository of its own, and whatever the system wants beside it.
    ///
    /// # Errors
    /// When that fails.
    pub fn prepare(&self, layout: &Layout, workload: &str, system: &dyn System) -> Result<Prepared> {
        let repository = format!("{workload}/{}-{}-{}", system.name(), layout.short(), system.key());
        let note = cache::dir().join("prepared").join(format!("{}.json", repository.replace('/', "-")));
        if let Ok(text) = std::fs::read(&note)
            && let Ok(prepared) = serde_json::from_slice(&text)
        {
            return Ok(prepared);
        }
        self.push(layout, &repository)?;
        let name = format!("{repository}:{TAG}");
        let index = system
            .prepare(self, &name)
            .with_context(|| format!("can't prepare {workload} for {}", system.name()))?;
        let image = Image {
            layers: layout.layers,
            compressed: layout.compressed,
            uncompressed: layout.uncompressed,
            index,
        };
        let prepared = Prepared { name, image, blobs: layout.blobs.clone() };
        let write = || {
            std::fs::create_dir_all(note.parent().context("a file in a folder")?)?;
            Ok::<_, anyhow::Error>(std::fs::write(&note, serde_json::to_vec_pretty(&prepared)?)?)
        };
        write().with_context(|| format!("can't write {}", note.display()))?;
        Ok(prepared)
    }

    /// Pushes a layout to this repository.
    ///
    /// # Errors
    /// skopeo's.
    pub fn push(&self, layout: &Layout, repository: &str) -> Result<()> {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.path.display()))
            .arg(format!("docker://{}/{repository}:{TAG}", self.addr()))
            .output()
            .context("can't run skopeo")?;
        if !output.status.success() {
            bail!("skopeo can't push {repository}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Bytes of a manifest and the blobs that it names, by its repository and digest: an index's size.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn size_of(&self, repository: &str, digest: &str) -> Result<u64> {
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
        let reply = self.registry.client().get(&format!("/v2/{repository}/manifests/{digest}"), &accept);
        if reply.status.as_u16() != 200 {
            bail!("{repository}@{digest}: the registry answers {}", reply.status);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&reply.body)?;
        let listed = ["layers", "blobs"].iter().filter_map(|key| manifest[*key].as_array()).flatten();
        let blobs: u64 = listed.filter_map(|blob| blob["size"].as_u64()).sum();
        Ok(reply.body.len() as u64 + blobs)
    }

    /// Indexes that refer to an image, by the fallback tag that a registry without the referrers API has.
    ///
    /// # Errors
    /// When the tag isn't understood.
    pub fn referrers(&self, repository: &str, image: &str) -> Result<Vec<String>> {
        let accept = [("accept", "application/vnd.oci.image.index.v1+json")];
        let tag = image.replace(':', "-");
        let reply = self.registry.client().get(&format!("/v2/{repository}/manifests/{tag}"), &accept);
        if reply.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let index: serde_json::Value = serde_json::from_slice(&reply.body)?;
        let listed = index["manifests"].as_array().into_iter().flatten();
        Ok(listed.filter_map(|entry| entry["digest"].as_str()).map(str::to_owned).collect())
    }

    /// The digest of the manifest that a tag names.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn digest_of(&self, repository: &str, tag: &str) -> Result<String> {
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
        let reply = self.registry.client().get(&format!("/v2/{repository}/manifests/{tag}"), &accept);
        let digest = reply.header("docker-content-digest").to_owned();
        if digest.is_empty() {
            bail!("{repository}:{tag}: the registry answers {}", reply.status);
        }
        Ok(digest)
    }

    /// Files of these blobs on disk, for reading them into the page cache: a real registry isn't on the node's disk.
    pub fn files(&self, blobs: &[String]) -> Vec<PathBuf> {
        blobs.iter().map(|digest| self.registry.blob_file(digest)).filter(|file| file.exists()).collect()
    }

    /// Versions of what it is made of.
    pub fn versions() -> BTreeMap<String, String> {
        let mut command = Command::new("docker-registry");
        let version = crate::results::machine::output(command.arg("--version"));
        BTreeMap::from([("docker-registry".to_owned(), version)])
    }
}

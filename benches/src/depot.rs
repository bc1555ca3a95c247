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
use spandrel_fixtures::client::Reply;
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
        let prepared = Prepared { name, image };
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

    /// Bytes of the one index that refers to the image `name`, manifest and zTOCs; 0 when there is none.
    ///
    /// # Errors
    /// When the image isn't there, or has several.
    pub fn index_size(&self, name: &str) -> Result<u64> {
        let (repository, tag) = name.rsplit_once(':').context("a name with a tag")?;
        let image = self.manifest(repository, tag)?.with_context(|| format!("{name} isn't there"))?;
        let digest = image.header("docker-content-digest");
        // The fallback of a registry that doesn't know referrers.
        let Some(referrers) = self.manifest(repository, &digest.replace(':', "-"))? else { return Ok(0) };
        let referrers: serde_json::Value = serde_json::from_slice(&referrers.body)?;
        let listed: Vec<_> = referrers["manifests"].as_array().into_iter().flatten().collect();
        let index = match listed.as_slice() {
            [] => return Ok(0),
            [index] => index["digest"].as_str().context("a digest")?,
            many => bail!("{name} has {} indexes: which one is used?", many.len()),
        };
        let manifest = self.manifest(repository, index)?.with_context(|| format!("{index} isn't there"))?;
        let parsed: serde_json::Value = serde_json::from_slice(&manifest.body)?;
        let ztocs = parsed["layers"].as_array().into_iter().flatten();
        Ok(manifest.body.len() as u64 + ztocs.filter_map(|ztoc| ztoc["size"].as_u64()).sum::<u64>())
    }

    /// The manifest or image index of this tag or digest; `None` when there is none.
    fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Reply>> {
        let accept = ["manifest", "index"].map(|kind| format!("application/vnd.oci.image.{kind}.v1+json"));
        let target = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.registry.client().get(&target, &[("accept", &accept.join(", "))]);
        match reply.status.as_u16() {
            200 => Ok(Some(reply)),
            404 => Ok(None),
            other => bail!("{repository}:{reference}: the registry answers {other}"),
        }
    }

    /// Files on disk that the registry reads for whatever is asked about this image, for reading them into the page cache: a
    /// real registry isn't on the node's disk. Those are all that its repository has, which is its own.
    pub fn files(&self, prepared: &Prepared) -> Vec<PathBuf> {
        let repository = prepared.name.rsplit_once(':').map_or(prepared.name.as_str(), |(name, _)| name);
        self.registry.repository_files(repository)
    }

    /// The registry's process id.
    pub fn pid(&self) -> Option<u32> {
        self.registry.pid()
    }

    /// Versions of what it is made of.
    pub fn versions() -> BTreeMap<String, String> {
        let mut command = Command::new("docker-registry");
        let version = crate::results::machine::output(command.arg("--version"));
        BTreeMap::from([("docker-registry".to_owned(), version)])
    }
}

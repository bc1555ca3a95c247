//! Very many images in a registry of their own: small, with layers that no two of them share.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use spandrel_fixtures::image::{ImageBuilder, busybox_layer, pause};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::random::Random;
use spandrel_fixtures::tls::Authority;
use tempfile::TempDir;

use crate::depot::PAUSE;
use crate::index::child;
use crate::interrupt;
use crate::network::Network;
use crate::system::program;

/// Layers of an image that no other has. Below them is one of busybox, which all have: images on a node share a base.
pub const OWN_LAYERS: usize = 8;

/// Entries of such a layer, as many as a distribution's base has: what is kept of them in memory would show. All but two are
/// empty files.
const ENTRIES: usize = 5000;

/// Bytes of the one file in such a layer that has some: what is counted is layers, so they are no larger than it takes to be
/// read.
const FILE_LEN: usize = 24 << 10;

/// How much of it compression saves, in percent: about what programs' files allow.
const SAVED_PERCENT: u64 = 30;

/// The repository of all of them; the tag is the image's number.
const REPOSITORY: &str = "scale";

/// A registry with images.
#[derive(Debug)]
pub struct Images {
    registry: DockerRegistry,
    authority: Authority,
    base: Layer,
    /// Indexes that were made, as the tool keeps them.
    store: TempDir,
    pushed: usize,
    indexed: usize,
}

impl Images {
    /// An empty registry.
    ///
    /// # Errors
    /// When this machine lacks what it takes.
    pub fn new() -> Result<Self> {
        let registry = DockerRegistry::plain().context("docker-registry isn't installed")?;
        let pause = pause().context("busybox-static isn't installed")?;
        let (repository, tag) = PAUSE.split_once(':').context("a name with a tag")?;
        pause.push(&registry.client(), repository, tag);
        let base = busybox_layer().context("busybox-static isn't installed")?;
        let store = tempfile::tempdir().context("a temporary folder")?;
        Ok(Self { registry, authority: Authority::new(), base, store, pushed: 0, indexed: 0 })
    }

    /// Repository and tag of an image, counted from 0.
    pub fn name(number: usize) -> String {
        format!("{REPOSITORY}:{number}")
    }

    /// How many distinct layers so many images have.
    pub fn layers(images: usize) -> usize {
        images * OWN_LAYERS + usize::from(images > 0)
    }

    /// The file that a layer of an image has.
    pub fn file(layer: usize) -> String {
        format!("data/{layer}")
    }

    /// Makes and pushes images until there are so many; `false` when interrupted.
    ///
    /// # Errors
    /// None yet.
    pub fn push(&mut self, count: usize) -> Result<bool> {
        let client = self.registry.client();
        while self.pushed < count {
            if interrupt::told() {
                return Ok(false);
            }
            let number = self.pushed;
            let image = ImageBuilder::new().layer(self.base.clone()).environment(&["PATH=/bin"]);
            let image = (0..OWN_LAYERS).fold(image, |image, layer| image.layer(own_layer(number, layer)));
            image.build().push(&client, REPOSITORY, &number.to_string());
            self.pushed += 1;
        }
        Ok(true)
    }

    /// Indexes those that are there, every layer of them; `false` when interrupted.
    ///
    /// # Errors
    /// The tool's.
    pub fn index(&mut self) -> Result<bool> {
        while self.indexed < self.pushed {
            let mut command = Command::new(program("spandrel")?);
            command.args([
                "create",
                "--push",
                "--quiet",
                "--min-layer-size",
                "1",
                "--cache-size",
                "0",
                "--store",
            ]);
            command.arg(self.store.path());
            command.arg(format!("{}/{}", self.registry.addr(), Self::name(self.indexed)));
            let Some(ran) = child::run(&mut command)? else { return Ok(false) };
            if !ran.status.success() {
                bail!("spandrel create: {}", ran.printed.trim());
            }
            self.indexed += 1;
        }
        Ok(true)
    }

    /// The network of this name before this registry.
    ///
    /// # Errors
    /// [`Network::between`]'s.
    pub fn network(&self, name: &str) -> Result<Network> {
        Network::between(name, self.registry.addr(), &self.authority)
    }
}

/// The same bytes every time, and others for every layer.
fn own_layer(image: usize, layer: usize) -> Layer {
    let seed = (image * OWN_LAYERS + layer) as u64;
    let content = Random::new(seed).content(FILE_LEN, SAVED_PERCENT);
    let tar = TarBuilder::new().with(Entry::dir("data")).with(Entry::file(Images::file(layer), content));
    let empty = |entry| Entry::file(format!("data/{image}-{layer}/{entry:04}"), "");
    Layer::gzip(&(2..ENTRIES).fold(tar, |tar, entry| tar.with(empty(entry))).finish())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_layers_are_alike_and_each_is_the_same_again() {
        let digests: BTreeSet<_> = (0..3)
            .flat_map(|image| (0..OWN_LAYERS).map(move |layer| own_layer(image, layer).digest))
            .collect();
        assert_eq!(digests.len() + 1, Images::layers(3));
        assert!(digests.contains(&own_layer(2, 1).digest));
        assert_eq!((Images::layers(0), Images::layers(200)), (0, 1601));
    }
}

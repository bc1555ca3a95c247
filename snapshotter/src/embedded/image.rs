//! What a reference means: one image for this machine, and what the layers are asked for.

use std::collections::HashMap;

use serde::Deserialize;
use spandrel_registry::{Client, Digest, Reference};
use spandrel_soci::image;
use spandrel_soci::platform::Platforms;
use spandrel_soci::source::{ImageSource as _, RegistrySource};

use crate::Error;
use crate::image::chain_ids;
use crate::layer::LayerRequest;

/// An image, as far as it has to be known to mount its layers.
pub(super) struct Image {
    /// Reference and digest, for people.
    pub(super) name: String,
    /// The reference as it was understood.
    pub(super) reference: String,
    /// Digest of the manifest.
    pub(super) manifest: Digest,
    layers: Vec<Digest>,
    chain_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Image {
    /// Asks the registry.
    pub(super) async fn resolve(client: &Client, reference: &Reference) -> Result<Self, Error> {
        let text = reference.to_string();
        let failed = |error: spandrel_soci::Error| Error::Unavailable(format!("image {text}: {error}"));
        let source = RegistrySource::new(client.clone(), reference.repository.clone());
        let part = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        };
        let resolved = image::resolve(&source, part, &Platforms::Default).await.map_err(failed)?;
        let found = resolved
            .images
            .into_iter()
            .next()
            .ok_or_else(|| Error::NotFound(format!("image {text}: there is none for this machine")))?;
        let manifest = found.digest().clone();
        let corrupt = |what: String| Error::Corrupt(format!("image {text} ({manifest}): {what}"));
        // `resolve` has checked how long it claims to be.
        let config =
            source.blob(&found.manifest.config.digest, found.manifest.config.size).await.map_err(failed)?;
        let config: Config = serde_json::from_slice(&config)
            .map_err(|error| corrupt(format!("its configuration can't be read: {error}")))?;
        let layers: Vec<Digest> = found.manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        let diff_ids = config.rootfs.diff_ids;
        if layers.is_empty() || layers.len() != diff_ids.len() {
            return Err(corrupt(format!("it has {} layers and {} diff IDs", layers.len(), diff_ids.len())));
        }
        let name = if reference.digest.is_some() { text.clone() } else { format!("{text} ({manifest})") };
        Ok(Self { name, reference: text, chain_ids: chain_ids(&diff_ids), layers, manifest })
    }

    /// One request for each layer, the bottom one first, as containerd would ask.
    pub(super) fn requests(&self) -> impl Iterator<Item = LayerRequest> + '_ {
        self.layers.iter().enumerate().map(|(number, layer)| LayerRequest {
            namespace: "default".to_owned(),
            chain_id: self.chain_ids[number].clone(),
            parent: number.checked_sub(1).map(|below| self.chain_ids[below].clone()).unwrap_or_default(),
            labels: HashMap::from([
                ("containerd.io/snapshot.ref".to_owned(), self.chain_ids[number].clone()),
                ("containerd.io/snapshot/cri.image-ref".to_owned(), self.reference.clone()),
                ("containerd.io/snapshot/cri.manifest-digest".to_owned(), self.manifest.to_string()),
                ("containerd.io/snapshot/cri.layer-digest".to_owned(), layer.to_string()),
            ]),
        })
    }
}

//! `spandrel pull`: an image into containerd, through its gRPC API, so that a remote snapshotter can take its layers over.
//!
//! It does what containerd's own client does for a kubelet: a lease first, then manifest and configuration into the content
//! store, then one snapshot for each layer, prepared with the labels that name image and layer. What the snapshotter takes
//! over isn't downloaded; what it doesn't is fetched and applied by containerd. Flags and output are `commands::pull`'s;
//! which manifest a reference means is decided before.

mod error;
mod labels;
mod layers;

use std::sync::Arc;

use spandrel_registry::manifest::{Descriptor, Manifest};
use spandrel_registry::{Client, Digest, FetchedManifest, Reference};
use spandrel_soci::containerd::{Containerd, Session, references};

pub use error::PullError;

/// Into which containerd, and how.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Which containerd.
    pub containerd: Containerd,
    /// Name of the snapshotter, as containerd's configuration has it.
    pub snapshotter: String,
    /// The name that containerd knows the image by.
    pub name: String,
}

/// The image to be pulled: what the reference led to.
#[derive(Debug, Clone)]
pub struct ImageToPull {
    /// Where it lies.
    pub reference: Reference,
    /// What the reference names: the manifest itself, or an index that it was chosen from.
    pub root: FetchedManifest,
    /// The manifest's bytes, digest and media type.
    pub manifest: FetchedManifest,
}

/// How a layer was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its snapshot was there.
    Exists,
    /// The snapshotter took it over.
    Remote,
    /// It was downloaded, and containerd unpacked it.
    Unpacked,
}

/// One layer of a pulled image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PulledLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Chain ID of its snapshot.
    pub chain_id: String,
    /// How it was had.
    pub how: How,
}

/// What is told while it is going on.
#[derive(Debug, Clone)]
pub enum PullEvent {
    /// The download of a layer's blob of so many bytes begins.
    Download(Digest, u64),
    /// A layer's snapshot is there.
    Layer(PulledLayer),
    /// So many bytes of a layer's blob have arrived.
    Bytes(Digest, u64),
}

/// A pulled image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Pulled {
    /// Its name in containerd.
    pub name: String,
    /// Digest that the name stands for.
    pub digest: Digest,
    /// Digest of the manifest that was pulled: another one when the name stands for an index.
    pub manifest: Digest,
    /// The snapshotter.
    pub snapshotter: String,
    /// Chain ID of the topmost layer.
    pub chain_id: String,
    /// Its layers, bottom first.
    pub layers: Vec<PulledLayer>,
}

/// Pulls `image`; `tell` hears of each layer.
///
/// # Errors
/// [`PullError`] says what was tried. Nothing is left behind but content and snapshots that containerd collects, or that the
/// next pull uses.
pub async fn pull(
    client: &Client,
    image: &ImageToPull,
    options: &PullOptions,
    tell: Arc<dyn Fn(PullEvent) + Send + Sync>,
) -> Result<Pulled, PullError> {
    let manifest: Manifest = serde_json::from_slice(&image.manifest.bytes)
        .map_err(|error| PullError::Image(format!("manifest {}: {error}", image.manifest.digest)))?;
    let config = client
        .blob(&image.reference.repository, &manifest.config.digest, manifest.config.size)
        .await
        .map_err(PullError::Registry)?;
    let diff_ids = diff_ids(&config, &manifest)?;
    let session = Session::start(&options.containerd).await?;
    let work = async {
        let target = write_metadata(&session, image, &manifest, config.to_vec()).await?;
        let chain = chain_ids(&diff_ids);
        let plan = layers::Plan {
            client,
            image,
            snapshotter: &options.snapshotter,
            manifest: &manifest,
            diff_ids: &diff_ids,
            chain: &chain,
        };
        let layers = layers::unpack(&session, plan, tell).await?;
        let top = chain.last().cloned().unwrap_or_default();
        if !top.is_empty() {
            // The configuration holds the snapshots.
            let held = (labels::snapshot_ref(&options.snapshotter), top.clone());
            session.label(&manifest.config.digest, [held].into()).await?;
        }
        session.name_image(&options.name, &target).await?;
        Ok(Pulled {
            name: options.name.clone(),
            digest: image.root.digest.clone(),
            manifest: image.manifest.digest.clone(),
            snapshotter: options.snapshotter.clone(),
            chain_id: top,
            layers,
        })
    };
    let result = work.await;
    // The image's name holds everything now, or nothing is to be held.
    session.end().await;
    result
}

/// Writes configuration, manifest and, if there is one, index; children first, since labels name them.
async fn write_metadata(
    session: &Session,
    image: &ImageToPull,
    manifest: &Manifest,
    config: Vec<u8>,
) -> Result<Descriptor, PullError> {
    let source = labels::source(&image.reference.repository);
    session.write(&manifest.config.digest, config, [source.clone()].into()).await?;
    let mut refs = references(&image.manifest.bytes);
    refs.extend([source.clone()]);
    session.write(&image.manifest.digest, image.manifest.bytes.to_vec(), refs).await?;
    if image.root.digest != image.manifest.digest {
        let labels = [source, labels::index_ref(&image.root, &image.manifest.digest)?].into();
        session.write(&image.root.digest, image.root.bytes.to_vec(), labels).await?;
    }
    Ok(Descriptor {
        media_type: image.root.media_type.clone(),
        digest: image.root.digest.clone(),
        size: image.root.bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
        data: None,
        platform: None,
        artifact_type: None,
        extra: Default::default(),
    })
}

/// The diff IDs that the configuration claims, one for each layer.
fn diff_ids(config: &[u8], manifest: &Manifest) -> Result<Vec<Digest>, PullError> {
    #[derive(serde::Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(serde::Deserialize)]
    struct RootFs {
        diff_ids: Vec<Digest>,
    }
    let what = || format!("configuration {}", manifest.config.digest);
    let config: Config =
        serde_json::from_slice(config).map_err(|error| PullError::Image(format!("{}: {error}", what())))?;
    let (have, want) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    if have != want {
        return Err(PullError::Image(format!("{} has {have} diff IDs for {want} layers", what())));
    }
    Ok(config.rootfs.diff_ids)
}

/// The chain ID of each layer: the first diff ID, then the digest of the chain ID below, a space and the diff ID.
/// Source: OCI image specification, "Layer ChainID".
fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.to_string(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()).to_string(),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: char) -> Digest {
        format!("sha256:{}", fill.to_string().repeat(64)).parse().expect("a digest")
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        assert!(chain_ids(&[]).is_empty());
        let ids = [digest('a'), digest('b'), digest('c')];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0].to_string());
        // printf 'sha256:aa… sha256:bb…' | sha256sum, and so on.
        let second = Digest::sha256(format!("{} {}", ids[0], ids[1]).as_bytes()).to_string();
        assert_eq!(chain[1], second);
        assert_eq!(chain[2], Digest::sha256(format!("{second} {}", ids[2]).as_bytes()).to_string());
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_refused() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "x", "digest": digest('c'), "size": 2},
            "layers": [{"mediaType": "y", "digest": digest('d'), "size": 3}],
        }))
        .expect("a manifest");
        for (config, want) in [
            (r#"{"rootfs":{"diff_ids":[]}}"#, "0 diff IDs for 1 layers"),
            (r#"{"rootfs":{"diff_ids":["sha256:x"]}}"#, "not a digest"),
            ("{}", "rootfs"),
            ("", "EOF"),
        ] {
            let error = diff_ids(config.as_bytes(), &manifest).expect_err(config).to_string();
            assert!(error.contains(want), "{config}: {error}");
        }
    }
}

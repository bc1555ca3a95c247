//! Labels on snapshots and content: what names image and layer to a remote snapshotter, and what keeps content from
//! being collected. Pure.
//!
//! Names and their meaning: containerd's `pkg/snapshotters` (annotations) and its documentation of garbage collection.

use std::collections::HashMap;

use spandrel_registry::manifest::{Index, Manifest};
use spandrel_registry::{Digest, FetchedManifest, Repository};

use super::{ImageToPull, PullError};

/// containerd refuses a label whose name and value together are longer, in bytes.
const MAX_LABEL_LEN: usize = 4096;

const REF: &str = "containerd.io/snapshot.ref";
const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
const IMAGE_LAYERS: &str = "containerd.io/snapshot/cri.image-layers";

/// Labels that a layer's snapshot is prepared with; those that CRI sets.
pub(super) fn snapshot(
    image: &ImageToPull,
    manifest: &Manifest,
    layer: usize,
    chain_id: &str,
) -> HashMap<String, String> {
    let mut layers = String::new();
    for descriptor in manifest.layers.iter().skip(layer) {
        let digest = descriptor.digest.as_str();
        if IMAGE_LAYERS.len() + layers.len() + 1 + digest.len() > MAX_LABEL_LEN {
            break;
        }
        if !layers.is_empty() {
            layers.push(',');
        }
        layers.push_str(digest);
    }
    let digest = manifest.layers.get(layer).map(|layer| layer.digest.to_string()).unwrap_or_default();
    [
        (REF, chain_id.to_owned()),
        (IMAGE_REF, image.reference.to_string()),
        (MANIFEST_DIGEST, image.manifest.digest.to_string()),
        (LAYER_DIGEST, digest),
        (IMAGE_LAYERS, layers),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Says which repository of which host a blob came from, so that a push may mount it.
pub(super) fn source(repository: &Repository) -> (String, String) {
    (format!("containerd.io/distribution.source.{}", repository.host), repository.name.clone())
}

/// Holds the manifest as long as the index is held: by its place in the index, as containerd does it.
pub(super) fn index_ref(root: &FetchedManifest, manifest: &Digest) -> Result<(String, String), PullError> {
    let index: Index = serde_json::from_slice(&root.bytes)
        .map_err(|error| PullError::Image(format!("index {}: {error}", root.digest)))?;
    let place = index.manifests.iter().position(|descriptor| descriptor.digest == *manifest).unwrap_or(0);
    Ok((format!("containerd.io/gc.ref.content.m.{place}"), manifest.to_string()))
}

/// Holds the snapshots of the image, by the topmost, as long as the configuration is held.
pub(super) fn snapshot_ref(snapshotter: &str) -> String {
    format!("containerd.io/gc.ref.snapshot.{snapshotter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: usize) -> (ImageToPull, Manifest) {
        let digest = |n: usize| format!("sha256:{n:064x}");
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "x", "digest": digest(9999), "size": 2},
            "layers": (0..layers).map(|n| serde_json::json!({"mediaType": "y", "digest": digest(n), "size": 3}))
                .collect::<Vec<_>>(),
        });
        let bytes = serde_json::to_vec(&manifest).expect("json");
        let fetched =
            FetchedManifest { media_type: "m".into(), digest: Digest::sha256(&bytes), bytes: bytes.into() };
        let repository = Repository { host: "127.0.0.1:5000".into(), name: "app".into() };
        let reference = spandrel_registry::Reference { repository, tag: Some("1".into()), digest: None };
        let image = ImageToPull { reference, root: fetched.clone(), manifest: fetched };
        (image, serde_json::from_value(manifest).expect("a manifest"))
    }

    #[test]
    fn a_layer_is_named_with_those_that_follow() {
        let (image, manifest) = image(3);
        let labels = snapshot(&image, &manifest, 1, "sha256:chain");
        assert_eq!(labels[REF], "sha256:chain");
        assert_eq!(labels[IMAGE_REF], "127.0.0.1:5000/app:1");
        assert_eq!(labels[MANIFEST_DIGEST], image.manifest.digest.to_string());
        assert_eq!(labels[LAYER_DIGEST], format!("sha256:{:064x}", 1));
        assert_eq!(labels[IMAGE_LAYERS], format!("sha256:{:064x},sha256:{:064x}", 1, 2));
    }

    #[test]
    fn labels_are_cut_to_what_containerd_takes() {
        let (image, manifest) = image(200);
        let labels = snapshot(&image, &manifest, 0, "sha256:chain");
        for (name, value) in &labels {
            assert!(name.len() + value.len() <= MAX_LABEL_LEN, "{name}");
        }
        assert!(labels[IMAGE_LAYERS].split(',').all(|digest| digest.parse::<Digest>().is_ok()));
        assert_eq!(labels[IMAGE_LAYERS].split(',').count(), 56);
    }
}

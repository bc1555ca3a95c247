//! Tests of images.

use super::*;

/// A layer as decisions see it.
pub(super) fn layer(media_type: &str, size: u64, indexed: bool) -> ImageLayer {
    let digest = Digest::sha256(b"layer");
    let ztoc = indexed.then(|| LayerZtoc {
        descriptor: serde_json::from_value(serde_json::json!({
            "mediaType": "application/octet-stream", "digest": digest, "size": 1
        }))
        .expect("a descriptor"),
        bytes: Mutex::default(),
        unfit: AtomicBool::new(false),
    });
    let diff_id = Digest::sha256(b"tar");
    ImageLayer {
        digest,
        size,
        media_type: media_type.to_owned(),
        chain_id: diff_id.to_string(),
        diff_id,
        ztoc,
    }
}

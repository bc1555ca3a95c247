//! What an index lists of a layer to be fetched before anybody reads it: as soon as the layer is mounted, in the order of the list,
//! behind what readers wait for. A hint only: whatever is wrong with it, the layer is mounted and read as without it.
//!
//! The list comes from the registry beside the pull, and nobody waits for it: the mount comes first, or the list does.

use std::sync::{Arc, Mutex};

use spandrel_registry::Digest;
use spandrel_soci::prefetch::SpanRange;
use tracing::{debug, info, warn};

use super::one::{Layer, lock};
use crate::Error;
use crate::image::{Image, ImageLayer};

/// The list of a layer.
#[derive(Debug, Default)]
pub(super) struct List(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Digest of the list that was asked for last: images that share a layer may have lists of their own.
    asked: Option<Digest>,
    /// Runs of spans, both ends included.
    runs: Vec<SpanRange>,
}

impl Layer {
    /// Fetches the list that `image` has of this layer, which is `layer` there, unless that was done. Nobody waits for it.
    pub(super) fn look_for_list(self: &Arc<Self>, image: &Arc<Image>, layer: &ImageLayer) {
        let Some(descriptor) = layer.prefetch.clone() else { return };
        {
            let mut list = lock(&self.list.0);
            if list.asked.as_ref() == Some(&descriptor.digest) {
                return;
            }
            list.asked = Some(descriptor.digest.clone());
        }
        let (this, image) = (Arc::clone(self), Arc::clone(image));
        self.node.tasks.spawn(async move {
            let fetched = tokio::select! {
                biased;
                () = this.stopped() => return,
                fetched = image.prefetch_list(&descriptor) => fetched,
            };
            match fetched {
                Ok(runs) => {
                    lock(&this.list.0).runs = runs;
                    if !lock(&this.targets).is_empty() {
                        this.prefetch();
                    }
                }
                Err(error) => {
                    warn!(layer = this.key().0, list = %descriptor.digest, %error, "nothing of it is prefetched");
                    this.node.metrics.error("prefetch-list");
                    // What can't be had now may be had by the next image; what is malformed never changes.
                    if !matches!(error, Error::Corrupt(_)) {
                        lock(&this.list.0).asked = None;
                    }
                }
            }
        });
    }

    /// Has what is listed fetched, as far as it is missing; the layer is mounted.
    pub(super) fn prefetch(&self) {
        let runs = lock(&self.list.0).runs.clone();
        let Some(spans) = self.spans().filter(|_| !runs.is_empty()) else { return };
        match spans.prefetch(&runs) {
            Ok(0) => debug!(layer = self.key().0, "all that is listed is there"),
            Ok(count) => info!(layer = self.key().0, count, "spans are prefetched"),
            Err(error) => {
                warn!(layer = self.key().0, %error, "nothing of it is prefetched");
                self.node.metrics.error("prefetch-list");
                lock(&self.list.0).runs.clear();
            }
        }
    }
}

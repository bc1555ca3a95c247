//! Layers that no snapshot refers to any more and that are kept for the next pull, until the disk is to have room. Only their
//! files are there, and nobody has them open; when they are wanted again they are taken up as after a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spandrel_registry::Digest;
use tracing::{debug, info, warn};

use super::super::one::{Layer, holding};
use super::super::record::{Record, Stage};
use super::super::{LayerKey, files};
use super::{Inner, TakenUp, serves};
use crate::Error;
use crate::cache::{Hold, Holding};
use crate::fetch::blocking;
use crate::image::ImageLayer;

/// All of them, as they lie on the disk.
#[derive(Debug, Default)]
pub(super) struct All(Mutex<HashMap<LayerKey, Holding>>);

impl All {
    fn lock(&self) -> MutexGuard<'_, HashMap<LayerKey, Holding>> {
        // No code panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is this one.
    pub(super) fn has(&self, key: &LayerKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Whether there is one of the layer with this digest, by whatever zTOC.
    pub(super) fn has_any(&self, layer: &Digest) -> bool {
        self.lock().keys().any(|key| key.0.starts_with(layer.hex()))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What they take.
    pub(super) fn holdings(&self) -> Vec<(LayerKey, Holding)> {
        self.lock().iter().map(|(key, holding)| (key.clone(), *holding)).collect()
    }

    fn insert(&self, key: LayerKey, holding: Holding) {
        self.lock().insert(key, holding);
    }

    fn take(&self, key: &LayerKey) -> Option<Holding> {
        self.lock().remove(key)
    }
}

impl Inner {
    /// Keeps what lies on the disk as `key`, which nobody has open, if that is a layer that can be taken up again. Waits for
    /// the disk.
    pub(super) fn keep_if_good(&self, key: LayerKey) -> bool {
        let dir = self.dir.join(&key.0);
        let found = Record::load(&dir).and_then(|record| {
            // What was begun would be begun anew, and what isn't to be believed would never be used.
            let good = record.stage != Stage::Filling && record.refuted.is_none();
            good.then(|| holding(&dir, &record, Hold::Unused, None)).transpose()
        });
        match found {
            Ok(Some(holding)) if !self.is_above_mark() => {
                self.kept.insert(key, holding);
                true
            }
            Ok(_) => false,
            Err(error) => {
                debug!(layer = key.0, %error, "can't be kept");
                false
            }
        }
    }

    /// No snapshot refers to `layer` any more, and nobody finds it: it is kept for the next pull if it can be and there is
    /// room, and deleted otherwise. Under the gate of its key.
    ///
    /// # Errors
    /// When its files can't be deleted.
    pub(super) async fn put_away(self: &Arc<Self>, layer: &Arc<Layer>) -> Result<(), Error> {
        let this = Arc::clone(self);
        if blocking(move || Ok(this.is_above_mark())).await? || !layer.retire().await {
            return layer.dispose().await;
        }
        let (this, key) = (Arc::clone(self), layer.key().clone());
        let kept = blocking(move || {
            files::touch(&this.dir.join(&key.0)).ok();
            Ok(this.keep_if_good(key))
        });
        if !kept.await? {
            return layer.dispose().await;
        }
        debug!(layer = layer.key().0, "no snapshot uses it: it is kept for the next pull");
        self.node.fetch.ledger.poke();
        Ok(())
    }

    /// The layer `key`, if it is there or was kept, and serves an image that has it as `layer`. Under the gate of its key.
    ///
    /// # Errors
    /// When what is left of a damaged one can't be deleted.
    pub(super) async fn find_again(
        self: &Arc<Self>,
        key: &LayerKey,
        layer: &ImageLayer,
    ) -> Result<Option<TakenUp>, Error> {
        if let Some(found) = self.find(key) {
            return Ok(Some(super::usable(found, layer)));
        }
        let Some(kept) = self.kept.take(key) else { return Ok(None) };
        let dir = self.dir.join(&key.0);
        let found = blocking({
            let dir = dir.clone();
            move || Record::load(&dir)
        });
        match found.await {
            Ok(record) => {
                if let Err(reason) = serves(&record, layer) {
                    self.kept.insert(key.clone(), kept);
                    return Ok(Some(Err(reason)));
                }
                info!(layer = key.0, bytes = kept.bytes, "it was kept from before");
                Ok(Some(Ok(self.insert(key.clone(), dir, record))))
            }
            Err(error) => {
                warn!(layer = key.0, %error, "a layer that was kept is damaged: it is made anew");
                self.node.metrics.error("layer-damaged");
                blocking(move || files::delete(&dir)).await?;
                Ok(None)
            }
        }
    }

    /// Deletes a layer that was kept, unless somebody is about to take it up again; says how many bytes that gave.
    pub(super) async fn drop_kept(&self, key: &LayerKey) -> u64 {
        let Some(_held) = self.try_gate(key) else { return 0 };
        let Some(kept) = self.kept.take(key) else { return 0 };
        let dir = self.dir.join(&key.0);
        match blocking(move || files::delete(&dir)).await {
            Ok(()) => kept.bytes,
            Err(error) => {
                warn!(layer = key.0, %error, "a layer that nothing uses stays on disk");
                0
            }
        }
    }
}

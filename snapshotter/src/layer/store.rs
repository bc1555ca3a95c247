//! All layers of the node: which there are, and how one that containerd asks for comes to be.
//!
//! What an image's layers are is `image`'s; what happens within one layer is `one`'s. `kept` has those that no snapshot refers
//! to any more, `room` keeps all of them within what they may take on the disk.

mod kept;
mod room;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spandrel_registry::Digest;
use spandrel_soci::source::{ImageSource, RegistrySource as ImageRegistry};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info, warn};

use super::lazy::{self, Unfit};
use super::node::{Node, Place, Sources};
use super::one::Layer;
pub use super::options::{Parts, StoreOptions};
use super::record::{Record, Stage};
use super::{LayerKey, LayerRequest, Layers, Prepared, Ready, Report, Usage, files};
use crate::Error;
use crate::fetch::{BlobSource, RegistrySource, Turns, blocking};
use crate::image::{
    Content, Image, ImageLayer, ImageOptions, ImageSources, Images, KEPT_DIR, Kept, LayerZtoc, MAX_KEPT,
    Plan, Present, Unresolved, decide,
};
use crate::mounter::is_mount_point;

/// Longest that a shutdown waits for downloads and writes to stop: they look for it at every piece.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// The layers below one root.
#[derive(Debug)]
pub struct LayerStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `layers/` below the root.
    dir: PathBuf,
    node: Arc<Node>,
    images: Images,
    layers: Mutex<HashMap<LayerKey, Arc<Layer>>>,
    /// One for each layer that is being made or deleted: that may take a registry's or a disk's time, and none waits for
    /// another layer's.
    gates: Turns,
    kept: kept::All,
    room: room::Room,
}

/// A layer that can be used, or a reason for the metric why containerd is to unpack it.
type TakenUp = Result<Arc<Layer>, &'static str>;

impl LayerStore {
    /// Opens the store. To be called within a tokio runtime, where its work goes on. What is on the disk is left alone
    /// until [`Layers::restore`].
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn open(options: StoreOptions, parts: Parts) -> Result<Arc<Self>, Error> {
        let client = parts.client.clone();
        let sources: Sources = Arc::new(move |repository, digest| -> Arc<dyn BlobSource> {
            Arc::new(RegistrySource::new(client.clone(), repository.clone(), digest.clone()))
        });
        let client = parts.client;
        let images: ImageSources = Box::new(move |repository| -> Arc<dyn ImageSource> {
            Arc::new(ImageRegistry::new(client.clone(), repository.clone()))
        });
        let image_options = ImageOptions {
            v1: options.index_v1,
            v2: options.index_v2,
            min_layer_size: options.min_layer_size,
            deadline: options.resolve_timeout,
            memory: options.image_memory,
        };
        let content = parts.containerd.map(Content::new);
        let kept = Kept::open(&options.root.join(KEPT_DIR), MAX_KEPT)?;
        let images = Images::new(images, content, image_options, Arc::clone(&parts.metrics)).keeping(kept);
        let node = Node::new(options, parts.filesystem, parts.mounter, parts.metrics, sources);
        Self::with(node, images)
    }

    /// As [`LayerStore::open`], with everything that leads out of the process given.
    pub(super) fn with(node: Arc<Node>, images: Images) -> Result<Arc<Self>, Error> {
        let dir = node.options.root.join("layers");
        fs::create_dir_all(&dir).map_err(|e| files::failed("make", &dir, &e))?;
        let inner = Inner {
            dir,
            node,
            images,
            layers: Mutex::default(),
            gates: Turns::new(1),
            kept: kept::All::default(),
            room: room::Room::default(),
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Why a layer isn't to be used, as its record on the disk has it.
    #[cfg(test)]
    pub(super) fn refuted_on_disk(&self, key: &LayerKey) -> Option<String> {
        Record::load(&self.inner.dir.join(&key.0)).expect("a record").refuted
    }

    /// How many files of layers are open.
    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.inner.node.files.count()
    }

    /// Fails what waits for a layer now.
    #[cfg(test)]
    pub(super) fn interrupt(&self, key: &LayerKey) {
        let spans = self.inner.get(key).expect("it is there").spans();
        spans.expect("it is open").interrupt();
    }

    /// Looks once how much room layers take; says how much was given back.
    #[cfg(test)]
    pub(super) async fn look(&self) -> u64 {
        self.inner.look().await
    }

    /// What its layers share.
    #[cfg(test)]
    pub(super) fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Waits until a complete lazy layer was compared with its diff ID, and says whether it is what that says.
    #[cfg(test)]
    pub(super) async fn verified(&self, key: &LayerKey) -> bool {
        let layer = self.inner.get(key).expect("it is there");
        loop {
            let record = layer.record();
            if record.verified || record.refuted.is_some() {
                return record.verified;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Inner {
    fn layers(&self) -> MutexGuard<'_, HashMap<LayerKey, Arc<Layer>>> {
        // No code panics while holding it.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &LayerKey) -> Option<Arc<Layer>> {
        self.layers().get(key).cloned()
    }

    fn get(&self, key: &LayerKey) -> Result<Arc<Layer>, Error> {
        self.find(key).ok_or_else(|| Error::NotFound(format!("layer {}", key.0)))
    }

    async fn gate(&self, key: &LayerKey) -> OwnedSemaphorePermit {
        self.gates.of(&key.0).acquire_owned().await.expect("this semaphore is never closed")
    }

    /// As [`Inner::gate`], unless somebody has it.
    fn try_gate(&self, key: &LayerKey) -> Option<OwnedSemaphorePermit> {
        self.gates.of(&key.0).try_acquire_owned().ok()
    }

    /// Queues for the download of the layer at `position` of `image`, if that will probably be needed.
    fn queue(&self, image: &Image, position: usize) -> Option<Place> {
        let layer = &image.layers[position];
        let eager = decide(layer, self.node.options.min_layer_size) == Plan::Eager;
        let here = || {
            let key = LayerKey(layer.digest.hex().to_owned());
            self.find(&key).is_some() || self.kept.has(&key)
        };
        (eager && !here()).then(|| self.node.queue(&image.repository))
    }

    /// Makes the layer at `position` of `image` one of ours, unless it is. It may still have to be filled, for which it has a
    /// `place` in the queue.
    async fn take_up(
        self: &Arc<Self>,
        image: &Arc<Image>,
        position: usize,
        place: Option<Place>,
    ) -> Result<TakenUp, Error> {
        let layer = &image.layers[position];
        let whole = LayerKey(layer.digest.hex().to_owned());
        // Complete and checked, it serves every image, whatever their indexes say.
        if let Some(found) = self.find(&whole) {
            layer.ztoc.iter().for_each(LayerZtoc::forget_bytes);
            return Ok(usable(found, layer));
        }
        if self.kept.has(&whole) {
            let _held = self.gate(&whole).await;
            if let Some(taken) = self.find_again(&whole, layer).await? {
                return Ok(taken);
            }
        }
        if decide(layer, self.node.options.min_layer_size) == Plan::Lazy {
            match self.take_up_lazy(image, layer).await? {
                Ok(taken) => {
                    taken.iter().for_each(|taken| taken.look_for_list(image, layer));
                    return Ok(taken);
                }
                Err(unfit) => {
                    warn!(
                        layer = %layer.digest,
                        repository = %image.repository,
                        reason = unfit.reason,
                        error = unfit.what,
                        "its zTOC can't be used: the layer is filled in full"
                    );
                    self.node.metrics.error(unfit.reason);
                }
            }
        }
        if let Plan::Ordinary(reason) = decide(layer, self.node.options.min_layer_size) {
            return Ok(Err(reason));
        }
        self.take_up_eager(image, layer, whole, place).await
    }

    /// A layer with a zTOC. [`Unfit`] when that can't be used.
    async fn take_up_lazy(
        self: &Arc<Self>,
        image: &Image,
        layer: &ImageLayer,
    ) -> Result<Result<TakenUp, Unfit>, Error> {
        let Some(ztoc) = &layer.ztoc else {
            return Ok(Err(Unfit { reason: "ztoc-absent", what: "there is none".to_owned() }));
        };
        let digest = &ztoc.descriptor.digest;
        let key = lazy_key(&layer.digest, digest);
        let _held = self.gate(&key).await;
        if let Some(taken) = self.find_again(&key, layer).await? {
            ztoc.forget_bytes();
            return Ok(Ok(taken));
        }
        let bytes = image.ztoc_bytes(ztoc).await?;
        let mut record = record(image, layer);
        record.ztoc = Some(digest.clone());
        let dir = self.dir.join(&key.0);
        // Its table is about as long.
        let need = 2 * bytes.len() as u64;
        let make = || async {
            let (dir, bytes, mut record) = (dir.clone(), bytes.clone(), record.clone());
            let _turn = self.node.building(bytes.len() as u64).await;
            blocking(move || {
                empty(&dir)?;
                let made = lazy::create(&dir, &bytes, &mut record);
                if !matches!(made, Ok(Ok(()))) {
                    files::delete(&dir).ok();
                }
                Ok(made?.map(|()| (dir, record)))
            })
            .await
        };
        match self.with_room(need, make).await? {
            Ok((dir, record)) => Ok(Ok(Ok(self.insert(key, dir, record)))),
            Err(unfit) => {
                ztoc.reject();
                Ok(Err(unfit))
            }
        }
    }

    async fn take_up_eager(
        self: &Arc<Self>,
        image: &Image,
        layer: &ImageLayer,
        key: LayerKey,
        place: Option<Place>,
    ) -> Result<TakenUp, Error> {
        let _held = self.gate(&key).await;
        if let Some(taken) = self.find_again(&key, layer).await? {
            return Ok(taken);
        }
        let (dir, record) = (self.dir.join(&key.0), record(image, layer));
        let make = || {
            let (dir, record) = (dir.clone(), record.clone());
            blocking(move || {
                empty(&dir)?;
                record.save(&dir)
            })
        };
        self.with_room(0, make).await?;
        let layer = self.insert(key, dir, record);
        layer.begin(place);
        Ok(Ok(layer))
    }

    fn insert(&self, key: LayerKey, dir: PathBuf, record: Record) -> Arc<Layer> {
        let layer = Layer::new(key.clone(), dir, record, Arc::clone(&self.node));
        self.layers().insert(key, Arc::clone(&layer));
        layer
    }

    /// Takes up the layers above `position` too: containerd asks for them next, one after the other, and they shall not be
    /// downloaded so, but begun in this order: the lower ones are the longer ones, and are waited for first. Those that it never asks for go again.
    fn take_up_ahead(self: &Arc<Self>, image: &Arc<Image>, position: usize) {
        for next in position + 1..image.layers.len() {
            let (this, image, place) = (Arc::clone(self), Arc::clone(image), self.queue(image, next));
            self.node.tasks.spawn(async move {
                match this.take_up(&image, next, place).await {
                    Ok(Ok(layer)) => this.remove_unclaimed_later(&layer),
                    Ok(Err(_)) => {}
                    // Its own Prepare says so.
                    Err(error) => debug!(layer = %image.layers[next].digest, %error, "not taken up ahead"),
                }
            });
        }
    }

    fn remove_unclaimed_later(self: &Arc<Self>, layer: &Arc<Layer>) {
        if layer.is_claimed() || !layer.watch_once() {
            return;
        }
        let (this, layer) = (Arc::clone(self), Arc::clone(layer));
        // Not tracked: nobody waits for it at shutdown.
        tokio::spawn(async move {
            tokio::select! {
                () = layer.stopped() => return,
                () = tokio::time::sleep(this.node.options.unclaimed_patience) => {}
            }
            let key = layer.key().clone();
            let _held = this.gate(&key).await;
            if layer.is_claimed() || !this.take_out(&layer) {
                return;
            }
            info!(layer = key.0, "containerd never asked for a layer that was begun ahead");
            if let Err(error) = this.put_away(&layer).await {
                warn!(layer = key.0, %error, "it stays on disk until the next start");
            }
        });
    }

    /// Takes `layer` out of the map, if it is (still) in it.
    fn take_out(&self, layer: &Arc<Layer>) -> bool {
        let mut layers = self.layers();
        let same = layers.get(layer.key()).is_some_and(|found| Arc::ptr_eq(found, layer));
        if same {
            layers.remove(layer.key());
        }
        same
    }

    /// `layer` has damaged files: it is as good as gone, and so it goes.
    async fn give_up(&self, layer: &Arc<Layer>, error: &Error) -> Error {
        let key = layer.key();
        warn!(layer = key.0, %error, "a layer's files are damaged: it is made anew");
        self.node.metrics.error("layer-damaged");
        let _held = self.gate(key).await;
        if self.take_out(layer)
            && let Err(error) = layer.dispose().await
        {
            warn!(layer = key.0, %error, "it stays on disk until the next start");
        }
        Error::NotFound(format!("layer {} (its files are damaged: {error})", key.0))
    }

    fn take_inventory(&self, wanted: &[LayerKey]) -> Result<(), Error> {
        let in_use: HashSet<&str> = wanted.iter().map(|key| key.0.as_str()).collect();
        let mut unused = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| files::failed("read", &self.dir, &e))? {
            let entry = entry.map_err(|e| files::failed("read", &self.dir, &e))?;
            match entry.file_name().into_string() {
                Ok(name) if in_use.contains(name.as_str()) => {}
                name => unused.push((name.ok().map(LayerKey), entry.path())),
            }
        }
        for (key, path) in unused {
            if let Some(key) = key
                && self.keep_if_good(key)
            {
                continue;
            }
            debug!(path = %path.display(), "no snapshot uses this, and it is no layer that is worth keeping");
            if let Err(error) = files::delete(&path) {
                warn!(%error, "a layer that nothing uses stays on disk");
            }
        }
        for key in wanted {
            let dir = self.dir.join(&key.0);
            match Record::load(&dir) {
                Ok(record) => {
                    let layer = self.insert(key.clone(), dir, record);
                    layer.claim();
                    layer.mark_mounted();
                }
                // It is asked for anew when it is needed; the network may not be there now.
                Err(error) => warn!(layer = key.0, %error, "a layer's state is gone"),
            }
        }
        Ok(())
    }
}

/// Key of a lazy layer.
fn lazy_key(layer: &Digest, ztoc: &Digest) -> LayerKey {
    LayerKey(format!("{}.{}", layer.hex(), ztoc.hex()))
}

impl Present for Inner {
    fn has_any(&self, layer: &Digest) -> bool {
        self.layers().keys().any(|key| key.0.starts_with(layer.hex())) || self.kept.has_any(layer)
    }

    fn has(&self, layer: &Digest, ztoc: &Digest) -> bool {
        let keys = [LayerKey(layer.hex().to_owned()), lazy_key(layer, ztoc)];
        keys.iter().any(|key| self.find(key).is_some() || self.kept.has(key))
    }
}

/// Whether a layer that is there serves an image that has it as `layer`.
fn usable(found: Arc<Layer>, layer: &ImageLayer) -> TakenUp {
    serves(&found.record(), layer).map(|()| found)
}

/// Whether a layer with this record does.
fn serves(record: &Record, layer: &ImageLayer) -> Result<(), &'static str> {
    if record.refuted.is_some() {
        return Err("refuted");
    }
    // One of the two images lies; containerd finds out which.
    if record.diff_id != layer.diff_id { Err("diff-id") } else { Ok(()) }
}

fn record(image: &Image, layer: &ImageLayer) -> Record {
    Record::new(&image.repository, &layer.digest, layer.size, &layer.media_type, &layer.diff_id)
}

/// Makes `dir`, with nothing in it.
fn empty(dir: &Path) -> Result<(), Error> {
    files::delete(dir)?;
    fs::create_dir(dir).map_err(|e| files::failed("make", dir, &e))?;
    files::sync_parent(dir).map_err(|e| files::failed("make", dir, &e))
}

#[async_trait]
impl Layers for LayerStore {
    async fn prepare(&self, request: &LayerRequest) -> Result<Prepared, Error> {
        let image = match self.inner.images.resolve(request, &*self.inner).await {
            Ok(image) => image,
            Err(Unresolved::Ordinary(reason)) => return Ok(Prepared::Ordinary(reason)),
            Err(Unresolved::Failed(_, error)) => return Err(error),
        };
        let position = match image.position(request) {
            Ok(position) => position,
            Err(reason) => return Ok(Prepared::Ordinary(reason)),
        };
        let place = self.inner.queue(&image, position);
        self.inner.take_up_ahead(&image, position);
        match self.inner.take_up(&image, position, place).await? {
            Ok(layer) => {
                layer.claim();
                Ok(Prepared::Remote(layer.key().clone()))
            }
            Err(reason) => Ok(Prepared::Ordinary(reason)),
        }
    }

    async fn ready(&self, key: &LayerKey) -> Result<Ready, Error> {
        let layer = self.inner.get(key)?;
        layer.claim();
        match layer.ready().await {
            Err(error @ (Error::Corrupt(_) | Error::NotFound(_)))
                if layer.record().stage != Stage::Filling =>
            {
                Err(self.inner.give_up(&layer, &error).await)
            }
            other => other,
        }
    }

    async fn check(&self, key: &LayerKey) -> Result<(), Error> {
        self.inner.find(key).map_or(Ok(()), |layer| layer.check())
    }

    fn depends_on_lowers(&self, key: &LayerKey) -> Result<bool, Error> {
        Ok(self.inner.get(key)?.record().implied)
    }

    async fn write_table(&self, key: &LayerKey, lowers: &[PathBuf], table: &Path) -> Result<(), Error> {
        let layer = self.inner.get(key)?;
        match self.inner.with_room(0, || layer.write_table(lowers, table)).await {
            Err(error @ Error::Corrupt(_)) if layer.check().is_ok() => {
                Err(self.inner.give_up(&layer, &error).await)
            }
            other => other,
        }
    }

    async fn mount(&self, key: &LayerKey, table: Option<&Path>, target: &Path) -> Result<(), Error> {
        let layer = self.inner.get(key)?;
        layer.claim();
        match layer.mount(table, target).await {
            Err(error @ (Error::Corrupt(_) | Error::NotFound(_))) if layer.check().is_ok() => {
                Err(self.inner.give_up(&layer, &error).await)
            }
            other => other,
        }
    }

    async fn unmount(&self, key: &LayerKey, target: &Path) -> Result<(), Error> {
        match self.inner.find(key) {
            Some(layer) => layer.unmount(target).await,
            // Left by a former daemon.
            None if is_mount_point(target) => self.inner.node.mounter.unmount(target).await,
            None => Ok(()),
        }
    }

    async fn usage(&self, key: &LayerKey) -> Result<Usage, Error> {
        self.inner.get(key)?.usage().await
    }

    async fn remove(&self, key: &LayerKey) -> Result<(), Error> {
        let _held = self.inner.gate(key).await;
        let layer = self.inner.layers().remove(key);
        match layer {
            Some(layer) => self.inner.put_away(&layer).await,
            None if self.inner.kept.has(key) => Ok(()),
            None => {
                let dir = self.inner.dir.join(&key.0);
                blocking(move || files::delete(&dir)).await
            }
        }
    }

    async fn restore(&self, wanted: &[LayerKey]) -> Result<(), Error> {
        let (inner, wanted) = (Arc::clone(&self.inner), wanted.to_vec());
        blocking(move || inner.take_inventory(&wanted)).await?;
        self.inner.keep_room();
        Ok(())
    }

    async fn make_room(&self) -> bool {
        self.inner.node.fetch.ledger.make_room(0).await
    }

    async fn report(&self) -> Vec<Report> {
        let layers: Vec<Arc<Layer>> = self.inner.layers().values().cloned().collect();
        let mut reports: Vec<Report> = layers.iter().map(|layer| layer.report()).collect();
        reports.sort_by(|one, other| one.layer.cmp(&other.layer));
        reports
    }

    async fn shutdown(&self) {
        self.inner.room.stop();
        // Said here, not when that task has noticed: who asks for room now would wait for nobody.
        self.inner.node.fetch.ledger.attend(false);
        let layers: Vec<Arc<Layer>> = self.inner.layers().values().cloned().collect();
        for layer in layers {
            layer.stop();
        }
        let stopped = async {
            self.inner.node.tasks.wait().await;
            self.inner.node.fetch.tasks.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN_WAIT, stopped).await.is_err() {
            warn!("some downloads don't stop: what they have written is looked at again after the start");
        }
    }
}

//! Remote snapshots: offered by containerd at Prepare, pending until their layer is ready, mounted when something stands on
//! them, forgotten when they are removed.
//!
//! No lock and no transaction is held while a layer is waited for.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::record::{Record, Remote};
use super::store::{Ancestor, New};
use super::{Snapshots, blocking, to_the_end};
use crate::Error;
use crate::layer::{LayerKey, LayerRequest, Prepared};
use crate::service::Kind;
use crate::service::status::class;

/// Set by containerd's unpacker: the chain ID that the snapshot is to have.
const LABEL_REF: &str = "containerd.io/snapshot.ref";

/// Set by whoever pulls for a remote snapshotter; without them nobody can say which layer of which image is meant.
const IMAGE_LABELS: [&str; 3] = [
    "containerd.io/snapshot/cri.image-ref",
    "containerd.io/snapshot/cri.manifest-digest",
    "containerd.io/snapshot/cri.layer-digest",
];

/// Marks a remote snapshot, as other remote snapshotters do.
const LABEL_REMOTE: &str = "containerd.io/snapshot/remote";

/// Marks a layer that an index was found for, as soci-snapshotter does.
const LABEL_INDEXED: &str = "containerd.io/snapshot/remote/has.soci.index.digest";

/// Layers that one call mounts at a time: mounting costs a millisecond in the kernel, and the helper process takes turns.
const MOUNTS_AT_ONCE: usize = 16;

/// How many locks [`Gates`] spreads layers over.
const GATES: usize = 64;

/// Locks by layer: giving a layer up and taking it up again exclude each other.
#[derive(Debug)]
pub struct Gates([Arc<Mutex<()>>; GATES]);

impl Default for Gates {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl Gates {
    async fn enter(&self, layer: &LayerKey) -> OwnedMutexGuard<()> {
        let index = crc32fast::hash(layer.0.as_bytes()) as usize % GATES;
        Arc::clone(&self.0[index]).lock_owned().await
    }
}

/// The namespace in a key as containerd writes it (`<namespace>/<number>/<name>`).
fn namespace(key: &str) -> &str {
    let mut parts = key.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(number), Some(_))
            if !namespace.is_empty() && number.parse::<u64>().is_ok() =>
        {
            namespace
        }
        _ => "default",
    }
}

impl Snapshots {
    /// Prepare with a target: takes the layer over if it can, and says under which name; `None` where containerd is to
    /// unpack it.
    pub(super) async fn prepare_remote(
        self: &Arc<Self>,
        key: &str,
        parent: &str,
        labels: &HashMap<String, String>,
    ) -> Result<Option<String>, Error> {
        let Some(target) = labels.get(LABEL_REF).filter(|target| !target.is_empty()) else {
            return Ok(None);
        };
        if IMAGE_LABELS.iter().any(|label| labels.get(*label).is_none_or(String::is_empty)) {
            return Ok(self.fall_back(key, target, "no-image-labels", None));
        }
        let name = match self.target_name(target, parent).await? {
            Target::Exists(name) => return Ok(Some(name)),
            Target::Free(name) => name,
        };
        let request = LayerRequest {
            namespace: namespace(key).to_owned(),
            chain_id: target.clone(),
            labels: labels.clone(),
            parent: parent.to_owned(),
        };
        // A layer that was prepared and has no record would never be removed: one isn't without the other.
        let this = Arc::clone(self);
        let taken = to_the_end({
            let name = name.clone();
            async move {
                let prepared = this.layers.prepare(&request).await?;
                let mut recorded = Ok(());
                if let Prepared::Remote(layer) = &prepared {
                    recorded = this.record(name, &request, layer).await;
                    if recorded.is_err() {
                        this.give_up_later(layer.clone());
                    }
                }
                Ok((prepared, recorded))
            }
        });
        let layer = match taken.await {
            Ok((Prepared::Remote(layer), recorded)) => {
                recorded?;
                layer
            }
            Ok((Prepared::Ordinary(reason), _)) => return Ok(self.fall_back(key, target, reason, None)),
            // containerd would run into these just the same, and later.
            Err(error @ (Error::NoSpace(_) | Error::FailedPrecondition(_) | Error::InvalidArgument(_))) => {
                return Err(error);
            }
            // Our way to the registry isn't containerd's, which may have other mirrors and credentials.
            Err(error) => return Ok(self.fall_back(key, target, class(&error), Some(&error))),
        };
        tracing::info!(
            key,
            name,
            layer = layer.0,
            "remote-snapshot-prepared" = "true",
            "the layer needn't be pulled"
        );
        Ok(Some(name))
    }

    fn fall_back(
        &self,
        key: &str,
        target: &str,
        reason: &'static str,
        error: Option<&Error>,
    ) -> Option<String> {
        self.metrics.fallback(reason);
        match error {
            None => tracing::info!(
                key,
                target,
                reason,
                "local-snapshot-prepared" = "true",
                "containerd unpacks it"
            ),
            Some(error) => tracing::warn!(
                key,
                target,
                reason,
                %error,
                "local-snapshot-prepared" = "true",
                "containerd unpacks it"
            ),
        }
        None
    }

    /// The name that the snapshot of `target` on `parent` has or gets. It is the target itself, for all namespaces: containerd
    /// finds it by label and parent. Where that name is taken by a snapshot on another parent (one namespace unpacked the
    /// lower layers, another has them remote), the parent is part of the name.
    async fn target_name(self: &Arc<Self>, target: &str, parent: &str) -> Result<Target, Error> {
        let this = Arc::clone(self);
        let (target, parent) = (target.to_owned(), parent.to_owned());
        blocking(move || {
            this.store.below(&parent)?; // before anything is asked of the network
            let other = format!("{target} on {parent}");
            for name in [&target, &other] {
                match this.store.get(name) {
                    Ok(found)
                        if found.kind == Kind::Committed
                            && found.parent == parent
                            && found.labels.get(LABEL_REF) == Some(&target) =>
                    {
                        return Ok(Target::Exists(name.clone()));
                    }
                    Ok(_) => {}
                    Err(Error::NotFound(_)) => return Ok(Target::Free(name.clone())),
                    Err(error) => return Err(error),
                }
            }
            Err(Error::AlreadyExists(format!("{other}, as something else")))
        })
        .await
    }

    /// Records the snapshot as committed and pending.
    ///
    /// # Errors
    /// When there is no such snapshot then: the layer is the caller's to give up.
    async fn record(
        self: &Arc<Self>,
        name: String,
        request: &LayerRequest,
        layer: &LayerKey,
    ) -> Result<(), Error> {
        let mut labels = request.labels.clone();
        labels.insert(LABEL_REMOTE.to_owned(), "remote snapshot".to_owned());
        if layer.0.contains('.') {
            labels.insert(LABEL_INDEXED.to_owned(), "true".to_owned());
        }
        let remote = Remote {
            layer: layer.clone(),
            pending: true,
            namespace: request.namespace.clone(),
            chain_id: request.chain_id.clone(),
        };
        let new = New {
            key: name.clone(),
            parent: request.parent.clone(),
            kind: Kind::Committed,
            labels,
            remote: Some(remote),
        };
        let gate = self.gates.enter(layer).await;
        let this = Arc::clone(self);
        let created = blocking(move || {
            let _gate = gate;
            let draft = this.dirs.draft(false)?;
            this.store.create(new, |number, _| this.dirs.place(&draft, number, None))
        })
        .await;
        let Err(error) = created else { return Ok(()) };
        if !matches!(error, Error::AlreadyExists(_)) {
            return Err(error);
        }
        // Another namespace was quicker. The same snapshot, if it stands on the same parent; perhaps of another layer, by
        // another index: then ours isn't needed.
        let this = Arc::clone(self);
        let found = blocking(move || this.store.get(&name)).await?;
        match &found.remote {
            Some(remote)
                if found.parent == request.parent
                    && found.labels.get(LABEL_REF) == request.labels.get(LABEL_REF) =>
            {
                if remote.layer != *layer {
                    self.give_up_later(layer.clone());
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Waits until the layer of the remote snapshot `key` is ready and mounted, and records that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the cause; the snapshot stays pending, and the next call tries again.
    pub(super) async fn settle(self: &Arc<Self>, key: &str, record: &Record) -> Result<(), Error> {
        let Some(remote) = &record.remote else { return Ok(()) };
        let unavailable = |error: Error| {
            let text = format!(
                "snapshot {key}: its layer {} isn't there: {error}; pull the image again to try again",
                remote.layer.0
            );
            if matches!(error, Error::NoSpace(_)) { Error::NoSpace(text) } else { Error::Unavailable(text) }
        };
        let (layer, unrecorded) = self.make_ready(record, remote).await.map_err(unavailable)?;
        self.adapt(record, &layer).await.map_err(unavailable)?;
        self.lowers.ensure(record.number, &layer).await.map_err(unavailable)?;
        self.evict_later();
        let this = Arc::clone(self);
        let (name, number) = (key.to_owned(), record.number);
        blocking(move || {
            let _unrecorded = unrecorded;
            match this.store.settle(&name, number, &layer) {
                Ok(None) => {}
                Ok(Some(former)) => this.give_up_later(former),
                Err(error) => {
                    // Removed while it was waited for: what was mounted meanwhile has to go again.
                    if matches!(error, Error::NotFound(_)) {
                        this.forget_later(number, layer, true);
                    }
                    return Err(error);
                }
            }
            Ok(())
        })
        .await
    }

    /// Sees to it that the snapshot of `record` has a table of its own where `layer` has directories that no entry describes:
    /// they are to be as they are below, as containerd unpacks them.
    ///
    /// Boxed, since the snapshots below may have to be settled first.
    fn adapt<'a>(
        self: &'a Arc<Self>,
        record: &'a Record,
        layer: &'a LayerKey,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if record.parent.is_empty()
                || !self.layers.depends_on_lowers(layer)?
                || self.dirs.table(record.number, layer).is_file()
            {
                return Ok(());
            }
            let (this, parent) = (Arc::clone(self), record.parent.clone());
            let below = blocking(move || this.store.below(&parent)).await?;
            let _pins = self.lowers.pin(&below);
            self.ensure_mounted(&below).await?;
            self.lowers.write_table(record.number, layer, &below).await
        })
    }

    /// Waits for the layer; asks for it anew where the layers know nothing of it (their state was removed).
    async fn make_ready(
        self: &Arc<Self>,
        record: &Record,
        remote: &Remote,
    ) -> Result<(LayerKey, Option<Unrecorded>), Error> {
        match self.layers.ready(&remote.layer).await {
            Ok(_) => return Ok((remote.layer.clone(), None)),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        tracing::warn!(layer = remote.layer.0, "its state is gone: asking for it again");
        let request = LayerRequest {
            namespace: remote.namespace.clone(),
            chain_id: remote.chain_id.clone(),
            labels: record.labels.clone().into_iter().collect(),
            parent: record.parent.clone(),
        };
        let this = Arc::clone(self);
        let (layer, unrecorded) = to_the_end(async move {
            match this.layers.prepare(&request).await? {
                Prepared::Ordinary(reason) => Err(Error::Unavailable(format!(
                    "it can't be had as a remote snapshot any more ({reason})"
                ))),
                Prepared::Remote(layer) => Ok((layer.clone(), Unrecorded { snapshots: this, layer })),
            }
        })
        .await?;
        self.layers.ready(&layer).await?;
        Ok((layer, Some(unrecorded)))
    }

    /// Mounts every remote one of `chain`, all at once.
    pub(super) async fn ensure_mounted(self: &Arc<Self>, chain: &[Ancestor]) -> Result<(), Error> {
        let remote: Vec<(Ancestor, Remote)> =
            chain.iter().filter_map(|lower| Some((lower.clone(), lower.remote.clone()?))).collect();
        if remote.is_empty() {
            return Ok(());
        }
        stream::iter(remote)
            .map(|(lower, remote)| async move {
                if !remote.pending {
                    match self.lowers.ensure(lower.number, &remote.layer).await {
                        Err(Error::NotFound(_)) => {} // asked for anew below
                        result => return result,
                    }
                }
                let this = Arc::clone(self);
                let name = lower.key.clone();
                let record = blocking(move || this.store.get(&name)).await?;
                let wait = tokio::time::timeout(self.pending_wait, self.settle(&lower.key, &record));
                wait.await.unwrap_or_else(|_| {
                    Err(Error::Unavailable(format!(
                        "snapshot {}: its layer {} is still being filled",
                        lower.key, remote.layer.0
                    )))
                })
            })
            .buffer_unordered(MOUNTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.evict_later();
        Ok(())
    }

    /// Unmounts unused layers beyond the limit, after the answer.
    pub(super) fn evict_later(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.background.spawn(async move { this.lowers.evict().await });
    }

    /// The remote snapshot `number` is gone: unmounts and deletes its directory, and gives its layer up if nothing uses it.
    pub(super) fn forget_later(self: &Arc<Self>, number: u64, layer: LayerKey, unused: bool) {
        let this = Arc::clone(self);
        self.background.spawn(async move {
            if let Err(error) = this.lowers.release(number, &layer).await {
                tracing::warn!(number, layer = layer.0, %error, "it stays mounted until the next start");
            } else {
                let dirs = Arc::clone(&this.dirs);
                let _ = tokio::task::spawn_blocking(move || dirs.empty_trash()).await;
            }
            if unused {
                this.give_up(&layer).await;
            }
        });
    }

    fn give_up_later(self: &Arc<Self>, layer: LayerKey) {
        let this = Arc::clone(self);
        self.background.spawn(async move { this.give_up(&layer).await });
    }

    /// Removes `layer`, unless a snapshot uses it again.
    async fn give_up(self: &Arc<Self>, layer: &LayerKey) {
        let _gate = self.gates.enter(layer).await;
        let used = blocking({
            let (this, layer) = (Arc::clone(self), layer.clone());
            move || this.store.uses(&layer)
        });
        let result = match used.await {
            Ok(true) => return,
            Ok(false) => self.layers.remove(layer).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(layer = layer.0, %error, "it stays on disk until the next start");
        }
    }
}

/// A layer that was asked for and isn't recorded yet: it is given up in the end, unless a snapshot uses it by then.
struct Unrecorded {
    snapshots: Arc<Snapshots>,
    layer: LayerKey,
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        self.snapshots.give_up_later(self.layer.clone());
    }
}

enum Target {
    Exists(String),
    Free(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_containerd_puts_before_a_key() {
        for (key, want) in [
            ("k8s.io/12/extract-1-abc sha256:aa", "k8s.io"),
            ("default/3/a/b/c", "default"),
            ("moby/x/y", "default"),
            ("/tmp/12/y", "default"),
            ("plain", "default"),
            ("", "default"),
        ] {
            assert_eq!(namespace(key), want, "{key}");
        }
    }
}

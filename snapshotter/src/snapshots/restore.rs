//! Start-up: what a former daemon left is taken up again. No network is needed, and no single layer can stop it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::store::Ancestor;
use super::{Snapshots, blocking, to_the_end};
use crate::Error;
use crate::layer::LayerKey;
use crate::service::Kind;

/// Longest that start-up waits for mounts; those left are made when they are asked for.
const MOUNT_WAIT: Duration = Duration::from_secs(20);

/// Longest that one unmount is waited for. Nothing is read any more behind what a former daemon mounted: longer than a busy
/// machine needs, and one that hangs goes on by itself.
const UNMOUNT_WAIT: Duration = Duration::from_secs(10);

/// Unmounts at a time.
const UNMOUNTS_AT_ONCE: usize = 16;

/// Where below the root layers are mounted; in the last two what was renamed with its directory.
const FOLDERS: [&str; 3] = ["snapshots", "trash", "tmp"];

impl Snapshots {
    /// Sweeps up what belongs to no snapshot, tells the layers which of them are in use, replaces mounts that a dead daemon
    /// left, and mounts what active and view snapshots stand on.
    ///
    /// # Errors
    /// When the records can't be read, or the layers can't be restored at all.
    pub async fn restore(self: &Arc<Self>) -> Result<(), Error> {
        let (layers, remote, chains) = {
            let this = Arc::clone(self);
            blocking(move || this.inventory()).await?
        };
        tracing::info!(layers = layers.len(), snapshots = remote.len(), users = chains.len(), "restoring");
        self.layers.restore(&layers).await?;
        self.unmount_left_over(&remote).await;
        let this = Arc::clone(self);
        blocking(move || this.sweep()).await?;
        let mut seen = HashSet::new();
        let mut lowers = Vec::new();
        for chain in chains {
            self.lowers.pin(&chain).keep();
            // One that is still pending would need the network.
            lowers.extend(chain.into_iter().filter(|lower| {
                lower.remote.as_ref().is_some_and(|remote| !remote.pending) && seen.insert(lower.number)
            }));
        }
        let mount_all = futures_util::future::join_all(lowers.iter().map(|lower| self.mount_again(lower)));
        if tokio::time::timeout(MOUNT_WAIT, mount_all).await.is_err() {
            tracing::warn!("not every layer could be mounted in time: the rest is mounted when it is needed");
        }
        Ok(())
    }

    /// Unmounts every layer that is mounted, used or not, for when nothing will serve them any more.
    pub async fn unmount_all(&self) {
        match self.inventory() {
            Ok((_, remote, _)) => self.unmount_left_over(&remote).await,
            Err(error) => tracing::warn!(%error, "mounts stay"),
        }
    }

    async fn mount_again(self: &Arc<Self>, lower: &Ancestor) {
        let Some(remote) = &lower.remote else { return };
        if let Err(error) = self.lowers.ensure(lower.number, &remote.layer).await {
            tracing::warn!(snapshot = lower.key, layer = remote.layer.0, %error, "can't be mounted for now");
        }
    }

    /// Layers in use, layer by number of remote snapshots, and what active and view snapshots stand on.
    #[expect(clippy::type_complexity, reason = "three parts of one answer, taken apart at once")]
    fn inventory(&self) -> Result<(Vec<LayerKey>, HashMap<u64, LayerKey>, Vec<Vec<Ancestor>>), Error> {
        let mut remote = HashMap::new();
        let mut users = Vec::new();
        self.store.each(|key, record| {
            if record.kind != Kind::Committed {
                users.push(key.to_owned());
            }
            if let Some(found) = record.remote {
                remote.insert(record.number, found.layer);
            }
        })?;
        let mut chains = Vec::new();
        for key in users {
            match self.store.chain(&key) {
                Ok(chain) => chains.push(chain.ancestors),
                Err(error) => tracing::warn!(snapshot = key, %error, "is left alone"),
            }
        }
        Ok((self.store.layers()?, remote, chains))
    }

    /// Takes away mounts that a former daemon made: the device behind them died with it, so that no file in them can be
    /// read. Containers that run on them have copies of these mounts and aren't changed by this.
    async fn unmount_left_over(&self, remote: &HashMap<u64, LayerKey>) {
        let prefix = self.dirs.snapshots().to_path_buf();
        let Some(root) = prefix.parent() else { return };
        // Below one of these: a disk of its own may be mounted on the folder itself.
        let ours = |target: &PathBuf| {
            FOLDERS.iter().any(|folder| {
                target.strip_prefix(root.join(folder)).is_ok_and(|rest| !rest.as_os_str().is_empty())
            })
        };
        let targets: BTreeSet<PathBuf> = mount_points().into_iter().filter(ours).collect();
        stream::iter(targets)
            .for_each_concurrent(UNMOUNTS_AT_ONCE, |target| {
                let number = target
                    .strip_prefix(&prefix)
                    .ok()
                    .and_then(|rest| rest.iter().next()?.to_str()?.parse::<u64>().ok());
                let layer = number.and_then(|number| remote.get(&number)).cloned();
                // A directory without a snapshot has no layer any more; the mount has to go all the same.
                let layer = layer.unwrap_or_else(|| LayerKey(String::new()));
                let layers = Arc::clone(&self.layers);
                async move {
                    let path = target.clone();
                    let unmounted = to_the_end(async move { layers.unmount(&layer, &path).await });
                    match tokio::time::timeout(UNMOUNT_WAIT, unmounted).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(target = %target.display(), %error, "a mount of a former daemon stays");
                        }
                        Err(_) => {
                            tracing::warn!(target = %target.display(), "a mount of a former daemon isn't gone yet");
                        }
                    }
                }
            })
            .await;
    }
}

/// Where something is mounted, the newest mount first.
fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Field 5 is the mount point. Our own paths need none of the escapes: roots that do are refused.
    let mut points: Vec<PathBuf> =
        table.lines().filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect();
    points.reverse();
    points
}

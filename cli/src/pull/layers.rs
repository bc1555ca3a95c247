//! One snapshot for each layer, bottom first: taken over by the snapshotter, or downloaded and applied by containerd.

use std::sync::Arc;

use spandrel_proto::containerd::services::diff::v1::ApplyRequest;
use spandrel_proto::containerd::services::diff::v1::diff_client::DiffClient;
use spandrel_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use spandrel_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use spandrel_proto::containerd::types;
use spandrel_registry::manifest::{Descriptor, Manifest};
use spandrel_registry::{Client, Digest};
use spandrel_soci::containerd::Session;
use spandrel_soci::source::BlobStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::{How, ImageToPull, PullError, PullEvent, PulledLayer, labels};

/// Layers that are downloaded at a time, as containerd does by default.
const DOWNLOADS: usize = 3;

/// How often a snapshot is asked for that is said to exist and isn't found: it may be removed in between. containerd's own
/// number.
const TRIES: usize = 3;

type Tell = Arc<dyn Fn(PullEvent) + Send + Sync>;

/// What is to be unpacked.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub client: &'a Client,
    pub image: &'a ImageToPull,
    pub snapshotter: &'a str,
    pub manifest: &'a Manifest,
    pub diff_ids: &'a [Digest],
    pub chain: &'a [String],
}

/// What Prepare led to.
enum Prepared {
    /// The snapshot is there.
    Done,
    /// containerd has to unpack the layer: the key of the active snapshot and its mounts.
    Mounts(String, Vec<types::Mount>),
}

/// Makes all snapshots.
pub(super) async fn unpack(
    session: &Session,
    plan: Plan<'_>,
    tell: Tell,
) -> Result<Vec<PulledLayer>, PullError> {
    let mut downloads: Vec<Option<Download>> = Vec::new();
    let mut done = Vec::new();
    for (number, layer) in plan.manifest.layers.iter().enumerate() {
        let chain_id = plan.chain[number].clone(); // as many as layers: compared before
        let how = if exists(session, plan, &chain_id).await? {
            How::Exists
        } else {
            match prepare(session, plan, number).await? {
                Prepared::Done => How::Remote,
                Prepared::Mounts(key, mounts) => {
                    if downloads.is_empty() {
                        // As containerd does: once one has to be unpacked, the rest is fetched at once.
                        downloads = start_downloads(session, plan, number, &tell);
                    }
                    let download = downloads.get_mut(number).and_then(Option::take);
                    let result = apply(session, plan, number, download, &key, mounts).await;
                    if let Err(error) = result {
                        remove(session, plan, &key).await;
                        return Err(error);
                    }
                    How::Unpacked
                }
            }
        };
        let pulled = PulledLayer { digest: layer.digest.clone(), size: layer.size, chain_id, how };
        tell(PullEvent::Layer(pulled.clone()));
        done.push(pulled);
    }
    Ok(done)
}

async fn exists(session: &Session, plan: Plan<'_>, chain_id: &str) -> Result<bool, PullError> {
    let request = StatSnapshotRequest { snapshotter: plan.snapshotter.to_owned(), key: chain_id.to_owned() };
    match SnapshotsClient::new(session.calls()).stat(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(PullError::call(format!("look for snapshot {chain_id}"), &status)),
    }
}

async fn prepare(session: &Session, plan: Plan<'_>, number: usize) -> Result<Prepared, PullError> {
    let chain_id = &plan.chain[number];
    let parent = number.checked_sub(1).map(|below| plan.chain[below].clone()).unwrap_or_default();
    let mut last = Status::not_found("no try was made");
    for attempt in 0..TRIES {
        // The form is containerd's: clean-up tools know it. The lease's name is used by nobody else.
        let key = format!("extract-{}-{attempt} {chain_id}", session.lease());
        let request = PrepareSnapshotRequest {
            snapshotter: plan.snapshotter.to_owned(),
            key: key.clone(),
            parent: parent.clone(),
            labels: labels::snapshot(plan.image, plan.manifest, number, chain_id),
        };
        match SnapshotsClient::new(session.calls()).prepare(request).await {
            Ok(answer) => return Ok(Prepared::Mounts(key, answer.into_inner().mounts)),
            Err(status) if status.code() == Code::AlreadyExists => {
                if exists(session, plan, chain_id).await? {
                    return Ok(Prepared::Done);
                }
                last = status;
            }
            Err(status) => {
                let what = format!("prepare layer {}", plan.manifest.layers[number].digest);
                return Err(PullError::call(what, &status));
            }
        }
    }
    Err(PullError::call(format!("prepare layer {}", plan.manifest.layers[number].digest), &last))
}

/// A download in progress; stops when dropped.
struct Download(JoinHandle<Result<(), PullError>>);

impl Drop for Download {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts to download the layers from `first` on; the result has a place for each layer of the image.
fn start_downloads(session: &Session, plan: Plan<'_>, first: usize, tell: &Tell) -> Vec<Option<Download>> {
    let slots = Arc::new(Semaphore::new(DOWNLOADS));
    let start = |(number, layer): (usize, &Descriptor)| {
        (number >= first).then(|| {
            let (slots, tell, layer) = (Arc::clone(&slots), Arc::clone(tell), layer.clone());
            let session = session.clone();
            let (client, repository) = (plan.client.clone(), plan.image.reference.repository.clone());
            Download(tokio::spawn(async move {
                // Never closed.
                let _slot = slots.acquire().await;
                let from = [labels::source(&repository)].into();
                let arrived = |bytes| tell(PullEvent::Bytes(layer.digest.clone(), bytes));
                let body = || async {
                    tell(PullEvent::Download(layer.digest.clone(), layer.size));
                    let body = client.blob_range(&repository, &layer.digest, 0..layer.size).await?;
                    Ok(Box::new(body) as Box<dyn BlobStream>)
                };
                session.write_blob(&layer.digest, layer.size, body, from, arrived).await?;
                Ok(())
            }))
        })
    };
    plan.manifest.layers.iter().enumerate().map(start).collect()
}

/// Waits for the blob, applies it to `mounts` and commits the snapshot.
async fn apply(
    session: &Session,
    plan: Plan<'_>,
    number: usize,
    download: Option<Download>,
    key: &str,
    mounts: Vec<types::Mount>,
) -> Result<(), PullError> {
    let layer = &plan.manifest.layers[number];
    if let Some(mut download) = download {
        (&mut download.0)
            .await
            .unwrap_or_else(|error| Err(PullError::Image(format!("layer {}: {error}", layer.digest))))?;
    }
    let request = ApplyRequest {
        diff: Some(types::Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.to_string(),
            size: i64::try_from(layer.size).unwrap_or(i64::MAX),
            annotations: Default::default(),
        }),
        mounts,
        ..ApplyRequest::default()
    };
    let applied = DiffClient::new(session.calls())
        .apply(request)
        .await
        .map_err(|status| PullError::call(format!("unpack layer {}", layer.digest), &status))?;
    let found = applied.into_inner().applied.map(|applied| applied.digest).unwrap_or_default();
    let want = plan.diff_ids[number].as_str();
    if found != want {
        return Err(PullError::Image(format!(
            "layer {} unpacks to {found}, but the image's configuration says {want}",
            layer.digest
        )));
    }
    let request = CommitSnapshotRequest {
        snapshotter: plan.snapshotter.to_owned(),
        name: plan.chain[number].clone(),
        key: key.to_owned(),
        ..CommitSnapshotRequest::default()
    };
    match SnapshotsClient::new(session.calls()).commit(request).await {
        Ok(_) => Ok(()),
        // Another pull was quicker.
        Err(status) if status.code() == Code::AlreadyExists => {
            remove(session, plan, key).await;
            Ok(())
        }
        Err(status) => Err(PullError::call(format!("commit layer {}", layer.digest), &status)),
    }
}

/// Removes an active snapshot that isn't needed. The lease holds it no longer than a day if that fails.
async fn remove(session: &Session, plan: Plan<'_>, key: &str) {
    let request = RemoveSnapshotRequest { snapshotter: plan.snapshotter.to_owned(), key: key.to_owned() };
    if let Err(status) = SnapshotsClient::new(session.calls()).remove(request).await {
        tracing::warn!(
            key,
            error = status.message(),
            "an unfinished snapshot stays until containerd collects it"
        );
    }
}

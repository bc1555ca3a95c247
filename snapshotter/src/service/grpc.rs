//! gRPC on top of a [`Snapshotter`]: messages in and out, one log line and one count per call. No decision is taken
//! here.

use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use spandrel_proto::containerd::services::snapshots::v1 as api;
use spandrel_proto::containerd::types;
use tonic::{Code, Request, Response, Status};

use super::status::{class, code, code_name};
use super::{Info, Kind, Mount, Snapshotter};
use crate::Error;
use crate::metrics::Metrics;

/// Snapshots in one message of `List`: what containerd's own service sends.
const INFOS_PER_MESSAGE: usize = 100;

/// Largest message either way, in bytes: containerd's own limit.
pub const MAX_MESSAGE_SIZE: usize = 16 << 20;

/// The snapshots service.
pub struct Service<S> {
    snapshotter: Arc<S>,
    metrics: Arc<Metrics>,
}

impl<S> std::fmt::Debug for Service<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl<S: Snapshotter> Service<S> {
    /// Serves `snapshotter`, counting calls in `metrics`.
    pub fn new(snapshotter: Arc<S>, metrics: Arc<Metrics>) -> Self {
        Self { snapshotter, metrics }
    }

    /// The service as a tonic router takes it.
    pub fn into_server(self) -> api::snapshots_server::SnapshotsServer<Self> {
        api::snapshots_server::SnapshotsServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Runs one call: logs and counts how it ended.
    async fn call<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        let mut call = Call { metrics: &self.metrics, operation, key, start: Instant::now(), ended: false };
        let result = work.await;
        call.ended = true;
        let took = call.start.elapsed();
        let answer = result.as_ref().map_or_else(code, |_| Code::Ok);
        self.metrics.operation(operation, code_name(answer), took);
        let millis = took.as_secs_f64() * 1e3;
        match &result {
            Ok(_) => tracing::debug!(operation, key, millis, "done"),
            // What containerd asks to find out: not worth a warning.
            Err(error @ (Error::NotFound(_) | Error::AlreadyExists(_))) => {
                tracing::debug!(operation, key, millis, %error, "answered");
            }
            Err(error) => {
                self.metrics.error(class(error));
                tracing::warn!(operation, key, millis, %error, "failed");
            }
        }
        result.map_err(Status::from)
    }
}

/// A call under way: counted as cancelled when it goes before it ended.
struct Call<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    key: &'a str,
    start: Instant,
    ended: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let took = self.start.elapsed();
            self.metrics.operation(self.operation, code_name(Code::Cancelled), took);
            tracing::info!(
                operation = self.operation,
                key = self.key,
                millis = took.as_secs_f64() * 1e3,
                "cancelled by the caller"
            );
        }
    }
}

#[tonic::async_trait]
impl<S: Snapshotter> api::snapshots_server::Snapshots for Service<S> {
    type ListStream = BoxStream<'static, Result<api::ListSnapshotsResponse, Status>>;

    async fn prepare(
        &self,
        request: Request<api::PrepareSnapshotRequest>,
    ) -> Result<Response<api::PrepareSnapshotResponse>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let work = self.snapshotter.prepare(request.key, request.parent, request.labels);
        let mounts = self.call("Prepare", &key, work).await?;
        Ok(Response::new(api::PrepareSnapshotResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn view(
        &self,
        request: Request<api::ViewSnapshotRequest>,
    ) -> Result<Response<api::ViewSnapshotResponse>, Status> {
        let request = request.into_inner();
        let key = request.key.clone();
        let work = self.snapshotter.view(request.key, request.parent, request.labels);
        let mounts = self.call("View", &key, work).await?;
        Ok(Response::new(api::ViewSnapshotResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn mounts(
        &self,
        request: Request<api::MountsRequest>,
    ) -> Result<Response<api::MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = self.call("Mounts", &key, self.snapshotter.mounts(key.clone())).await?;
        Ok(Response::new(api::MountsResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        if !request.parent.is_empty() {
            // Only asked of snapshotters that advertise it, which ours doesn't.
            return Err(Status::unimplemented("a snapshot can't get another parent when it is committed"));
        }
        let key = request.key.clone();
        let work = self.snapshotter.commit(request.name, request.key, request.labels);
        Ok(Response::new(self.call("Commit", &key, work).await?))
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        Ok(Response::new(self.call("Remove", &key, self.snapshotter.remove(key.clone())).await?))
    }

    async fn stat(
        &self,
        request: Request<api::StatSnapshotRequest>,
    ) -> Result<Response<api::StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        let found = self.call("Stat", &key, self.snapshotter.stat(key.clone())).await?;
        Ok(Response::new(api::StatSnapshotResponse { info: Some(info(found)) }))
    }

    async fn update(
        &self,
        request: Request<api::UpdateSnapshotRequest>,
    ) -> Result<Response<api::UpdateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let Some(wanted) = request.info else {
            return Err(Status::invalid_argument("Update: the field info is missing"));
        };
        let key = wanted.name.clone();
        let paths = request.update_mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty());
        // Kind, parent and times can't be changed: what the request says of them isn't looked at.
        let wanted = Info {
            kind: Kind::Committed,
            name: wanted.name,
            parent: wanted.parent,
            labels: wanted.labels,
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
        };
        let updated = self.call("Update", &key, self.snapshotter.update(wanted, paths)).await?;
        Ok(Response::new(api::UpdateSnapshotResponse { info: Some(info(updated)) }))
    }

    async fn list(
        &self,
        request: Request<api::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let infos = self.call("List", "", self.snapshotter.list(filters)).await?;
        let messages = infos.chunks(INFOS_PER_MESSAGE).map(|chunk| {
            let info = chunk.into_iter().map(|found| found.map(info)).collect::<Result<_, Error>>()?;
            Ok(api::ListSnapshotsResponse { info })
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn usage(
        &self,
        request: Request<api::UsageRequest>,
    ) -> Result<Response<api::UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.call("Usage", &key, self.snapshotter.usage(key.clone())).await?;
        // No disk holds 2^63 bytes.
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(Response::new(api::UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) }))
    }

    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(self.call("Cleanup", "", self.snapshotter.clear()).await?))
    }
}

fn mount(mount: Mount) -> types::Mount {
    types::Mount {
        r#type: mount.kind.to_owned(),
        source: mount.source,
        target: String::new(),
        options: mount.options,
    }
}

fn info(info: Info) -> api::Info {
    let kind = match info.kind {
        Kind::View => api::Kind::View,
        Kind::Active => api::Kind::Active,
        Kind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: info.name,
        parent: info.parent,
        kind: kind.into(),
        created_at: Some(info.created.into()),
        updated_at: Some(info.updated.into()),
        labels: info.labels,
    }
}

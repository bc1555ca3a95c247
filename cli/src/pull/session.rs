//! A pull's connection to containerd: its namespace and lease go with every call. The lease holds what was written until
//! the image's name does; it has a time limit, so that a killed pull leaves nothing for ever.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spandrel_proto::containerd::services::content::v1::content_client::ContentClient;
use spandrel_proto::containerd::services::content::v1::{Info, UpdateRequest};
use spandrel_proto::containerd::services::images::v1 as images;
use spandrel_proto::containerd::services::images::v1::images_client::ImagesClient;
use spandrel_proto::containerd::services::leases::v1 as leases;
use spandrel_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use spandrel_proto::containerd::types;
use spandrel_registry::Digest;
use spandrel_registry::manifest::Descriptor;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{PullError, PullOptions, labels};

/// How long a lease lasts that nobody ended: longer than any pull, as containerd's own client has it.
const LEASE_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The channel with the session's headers on every call.
pub(super) type Calls = InterceptedService<Channel, Headers>;

/// Adds namespace and lease.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// A pull in progress.
#[derive(Debug)]
pub(super) struct Session {
    /// What was asked for.
    pub options: PullOptions,
    /// The connection.
    pub calls: Calls,
    /// Its name: unique among all pulls.
    pub lease: String,
}

impl Session {
    /// Connects and takes a lease.
    pub async fn start(options: &PullOptions) -> Result<Self, PullError> {
        let channel =
            spandrel_proto::connect(&options.address).await.map_err(|error| PullError::connect(&error))?;
        let header = |what: &str, value: &str| {
            MetadataValue::try_from(value)
                .map_err(|_| PullError::Image(format!("{what} {value:?} can't be sent to containerd")))
        };
        let mut headers = Headers { namespace: header("namespace", &options.namespace)?, lease: None };
        let lease = new_lease_id();
        let expires = rfc3339(SystemTime::now() + LEASE_TIME);
        let request = leases::CreateRequest {
            id: lease.clone(),
            labels: [("containerd.io/gc.expire".to_owned(), expires)].into(),
        };
        LeasesClient::with_interceptor(channel.clone(), headers.clone())
            .create(request)
            .await
            .map_err(|status| PullError::call("create a lease", &status))?;
        headers.lease = Some(header("lease", &lease)?);
        let calls = InterceptedService::new(channel, headers);
        Ok(Self { options: options.clone(), calls, lease })
    }

    /// The same session for a task of its own; ending it is the first one's to do.
    pub fn share(&self) -> Self {
        Self { options: self.options.clone(), calls: self.calls.clone(), lease: self.lease.clone() }
    }

    /// Gives the lease back. It has a time limit: that this fails is no reason to fail the pull.
    pub async fn end(self) {
        let request = leases::DeleteRequest { id: self.lease, sync: false };
        if let Err(status) = LeasesClient::new(self.calls).delete(request).await {
            tracing::warn!(error = status.message(), "a lease of containerd stays for a day");
        }
    }

    /// Holds the snapshots up to `chain_id` by the configuration.
    pub async fn label_config(&self, config: &Digest, chain_id: &str) -> Result<(), PullError> {
        let name = labels::snapshot_ref(&self.options.snapshotter);
        self.label(config, [(name, chain_id.to_owned())].into()).await
    }

    /// Adds labels to content that is there.
    pub async fn label(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<(), PullError> {
        let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_string(), labels, ..Info::default() }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        ContentClient::new(self.calls.clone())
            .update(request)
            .await
            .map(drop)
            .map_err(|status| PullError::call(format!("label content {digest}"), &status))
    }

    /// Gives the image its name, or the name another target.
    pub async fn name_image(&self, target: &Descriptor) -> Result<(), PullError> {
        let name = self.options.name.clone();
        let size = i64::try_from(target.size).unwrap_or(i64::MAX); // no manifest has 2^63 bytes
        let image = images::Image {
            name: name.clone(),
            target: Some(types::Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.to_string(),
                size,
                annotations: HashMap::new(),
            }),
            ..images::Image::default()
        };
        let mut client = ImagesClient::new(self.calls.clone());
        let create = images::CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        match client.create(create).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(PullError::call(format!("name the image {name}"), &status)),
        }
        let update_mask = Some(prost_types::FieldMask { paths: vec!["target".to_owned()] });
        let update = images::UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
        client
            .update(update)
            .await
            .map(drop)
            .map_err(|status| PullError::call(format!("name the image {name}"), &status))
    }
}

/// A name that no other pull on this machine has: time and process.
fn new_lease_id() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("spandrel-pull-{}-{nanos}", std::process::id())
}

/// A time as containerd's labels have it: RFC 3339 in UTC, whole seconds.
fn rfc3339(time: SystemTime) -> String {
    let stamp = prost_types::Timestamp::from(time);
    prost_types::Timestamp { nanos: 0, ..stamp }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_containerd_reads_them() {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1_600_000_000_900)), "2020-09-13T12:26:40Z");
    }
}

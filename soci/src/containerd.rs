//! A connection to containerd: its namespace and lease go with every call. The lease holds what was written until an image's
//! name does; it has a time limit, so that a killed tool leaves nothing for ever.
//!
//! What is done with it is `source`'s and `target`'s, and the pull's of the tool; blobs in and out are `content`'s.

mod content;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
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

use crate::Error;
use crate::index::descriptor;

/// How long a lease lasts that nobody ended: longer than any pull or conversion, as containerd's own client has it.
const LEASE_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Which containerd is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its socket.
    pub address: PathBuf,
    /// The namespace in it: `default` for `ctr`, `k8s.io` for a kubelet.
    pub namespace: String,
}

impl Containerd {
    /// The one at this socket, and that namespace of it.
    pub fn new(address: impl AsRef<Path>, namespace: impl Into<String>) -> Self {
        Self { address: address.as_ref().to_owned(), namespace: namespace.into() }
    }
}

/// The channel with the session's headers on every call.
pub type Calls = InterceptedService<Channel, Headers>;

/// Adds namespace and lease.
#[derive(Debug, Clone)]
pub struct Headers {
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

/// A connection. Clones are the same one, with the same lease.
#[derive(Debug, Clone)]
pub struct Session {
    calls: Calls,
    /// Its lease's name: unique on this machine. Empty where it only reads.
    lease: String,
}

impl Session {
    /// Connects, to read only.
    ///
    /// # Errors
    /// When there is nobody at the socket, or the namespace can't be sent.
    pub async fn reading(containerd: &Containerd) -> Result<Self, Error> {
        let channel = spandrel_proto::connect(&containerd.address)
            .await
            .map_err(|error| Error::NoContainerd(error.to_string()))?;
        let headers = Headers { namespace: header("namespace", &containerd.namespace)?, lease: None };
        Ok(Self { calls: InterceptedService::new(channel, headers), lease: String::new() })
    }

    /// Connects and takes a lease.
    ///
    /// # Errors
    /// As [`Session::reading`], and when containerd refuses.
    pub async fn start(containerd: &Containerd) -> Result<Self, Error> {
        let channel = spandrel_proto::connect(&containerd.address)
            .await
            .map_err(|error| Error::NoContainerd(error.to_string()))?;
        let mut headers = Headers { namespace: header("namespace", &containerd.namespace)?, lease: None };
        let lease = new_lease_id();
        let expires = rfc3339(SystemTime::now() + LEASE_TIME);
        let request = leases::CreateRequest {
            id: lease.clone(),
            labels: [("containerd.io/gc.expire".to_owned(), expires)].into(),
        };
        LeasesClient::with_interceptor(channel.clone(), headers.clone())
            .create(request)
            .await
            .map_err(|status| failed("create a lease", &status))?;
        headers.lease = Some(header("lease", &lease)?);
        Ok(Self { calls: InterceptedService::new(channel, headers), lease })
    }

    /// The connection for further services.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Its lease's name.
    pub fn lease(&self) -> &str {
        &self.lease
    }

    /// Gives the lease back. It has a time limit: that this fails is no reason for anything else to fail.
    pub async fn end(&self) {
        if self.lease.is_empty() {
            return;
        }
        let request = leases::DeleteRequest { id: self.lease.clone(), sync: false };
        if let Err(status) = LeasesClient::new(self.calls()).delete(request).await {
            tracing::warn!(error = status.message(), "a lease of containerd stays for a day");
        }
    }

    /// Adds labels to content that is there.
    ///
    /// # Errors
    /// When it isn't there, or containerd refuses.
    pub async fn label(&self, digest: &Digest, labels: HashMap<String, String>) -> Result<(), Error> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_string(), labels, ..Info::default() }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        ContentClient::new(self.calls())
            .update(request)
            .await
            .map(drop)
            .map_err(|status| failed(format!("label content {digest}"), &status))
    }

    /// What an image's name stands for; `None` when there is no such image.
    ///
    /// # Errors
    /// When containerd refuses, or says what makes no sense.
    pub async fn image(&self, name: &str) -> Result<Option<Descriptor>, Error> {
        let what = || format!("look for the image {name}");
        let request = images::GetImageRequest { name: name.to_owned() };
        let answer = match ImagesClient::new(self.calls()).get(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(what(), &status)),
        };
        let target = answer.image.and_then(|image| image.target).unwrap_or_default();
        let digest = target.digest.parse();
        let digest =
            digest.map_err(|_| failed(what(), &Status::data_loss(format!("digest {:?}", target.digest))))?;
        Ok(Some(descriptor(&target.media_type, digest, u64::try_from(target.size).unwrap_or(0))))
    }

    /// Gives an image its name, or the name another image.
    ///
    /// # Errors
    /// When containerd refuses.
    pub async fn name_image(&self, name: &str, target: &Descriptor) -> Result<(), Error> {
        let size = i64::try_from(target.size).unwrap_or(i64::MAX); // no manifest has 2^63 bytes
        let image = images::Image {
            name: name.to_owned(),
            target: Some(types::Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.to_string(),
                size,
                annotations: HashMap::new(),
            }),
            ..images::Image::default()
        };
        let mut client = ImagesClient::new(self.calls());
        let create = images::CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        match client.create(create).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(failed(format!("name the image {name}"), &status)),
        }
        let update_mask = Some(prost_types::FieldMask { paths: vec!["target".to_owned()] });
        let update = images::UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
        client
            .update(update)
            .await
            .map(drop)
            .map_err(|status| failed(format!("name the image {name}"), &status))
    }
}

/// containerd answered `status` when asked for `what`.
pub fn failed(what: impl Into<String>, status: &Status) -> Error {
    let hint = match status.code() {
        Code::Unimplemented | Code::InvalidArgument if status.message().contains("snapshotter") => {
            "; name the snapshotter in containerd's configuration as a proxy plugin (docs/containerd.md)"
        }
        Code::Unavailable if status.message().contains("connect") => "; is the snapshotter's daemon running?",
        Code::PermissionDenied => "; containerd's socket wants root",
        _ => "",
    };
    // The code in words.
    let code = status.code().description().trim_end_matches('.').to_lowercase();
    Error::Containerd { what: what.into(), message: format!("{} ({code})", status.message()), hint }
}

/// Labels that hold what a manifest or an index names as long as it is held itself; none for what is neither. What is named and
/// isn't there does no harm. Source: containerd's documentation of garbage collection.
pub fn references(manifest: &[u8]) -> HashMap<String, String> {
    #[derive(Deserialize)]
    struct Named {
        config: Option<Child>,
        #[serde(default)]
        layers: Vec<Child>,
        #[serde(default)]
        manifests: Vec<Child>,
    }
    #[derive(Deserialize)]
    struct Child {
        digest: Digest,
    }
    let Ok(named) = serde_json::from_slice::<Named>(manifest) else { return HashMap::new() };
    let listed = |kind: &'static str, children: Vec<Child>| {
        let numbered = children.into_iter().enumerate();
        numbered.map(move |(number, child)| (format!("{kind}.{number}"), child.digest))
    };
    let config = named.config.into_iter().map(|child| ("config".to_owned(), child.digest));
    let all = config.chain(listed("l", named.layers)).chain(listed("m", named.manifests));
    all.map(|(name, digest)| (format!("containerd.io/gc.ref.content.{name}"), digest.to_string())).collect()
}

fn header(what: &str, value: &str) -> Result<MetadataValue<Ascii>, Error> {
    MetadataValue::try_from(value).map_err(|_| Error::Containerd {
        what: format!("use the {what} {value:?}"),
        message: "it can't be sent".to_owned(),
        hint: "",
    })
}

/// A name that no other run on this machine has: time and process.
fn new_lease_id() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("spandrel-{}-{nanos}", std::process::id())
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

    #[test]
    fn what_is_named_is_held() {
        let digest = |fill: &str| format!("sha256:{}", fill.repeat(64));
        let child = |fill: &str| serde_json::json!({ "digest": digest(fill) });
        let image = serde_json::json!({ "config": child("a"), "layers": [child("b"), child("c")] });
        let index = serde_json::json!({ "manifests": [child("d")] });
        let held = |json: &serde_json::Value| {
            let mut held: Vec<_> = references(json.to_string().as_bytes()).into_iter().collect();
            held.sort();
            held
        };
        let label = |name: &str, fill: &str| (format!("containerd.io/gc.ref.content.{name}"), digest(fill));
        assert_eq!(held(&image), [label("config", "a"), label("l.0", "b"), label("l.1", "c")]);
        assert_eq!(held(&index), [label("m.0", "d")]);
        assert!(references(b"no JSON").is_empty());
    }
}

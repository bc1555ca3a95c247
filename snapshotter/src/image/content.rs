//! Reads small blobs from containerd's content store: it has fetched manifest and configuration before it asks us for the
//! first layer.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use spandrel_proto::containerd::services::content::v1::ReadContentRequest;
use spandrel_proto::containerd::services::content::v1::content_client::ContentClient;
use spandrel_registry::Digest;
use tonic::Request;
use tonic::transport::Channel;

use crate::layer::Hasher;

/// How long containerd may take: it reads a local file. It waits for our answer meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Header that names containerd's namespace.
const NAMESPACE: &str = "containerd-namespace";

/// containerd's content store.
#[derive(Debug)]
pub(crate) struct Content {
    socket: PathBuf,
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl Content {
    /// That of the containerd that listens on `socket`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, channel: tokio::sync::Mutex::default() }
    }

    /// The blob `digest`, of at most `limit` bytes, checked; or why it can't be had here.
    pub(crate) async fn read(&self, namespace: &str, digest: &Digest, limit: u64) -> Result<Bytes, String> {
        let read = self.read_unchecked(namespace, digest, limit);
        let bytes = tokio::time::timeout(PATIENCE, read)
            .await
            .map_err(|_| format!("containerd at {} doesn't answer", self.socket.display()))??;
        let mut hasher = Hasher::like(digest);
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != digest.as_str() {
            return Err(format!("containerd's content {digest} has the digest {found}"));
        }
        Ok(bytes.into())
    }

    async fn read_unchecked(&self, namespace: &str, digest: &Digest, limit: u64) -> Result<Vec<u8>, String> {
        let mut request = Request::new(ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 });
        let namespace = namespace.parse().map_err(|_| format!("namespace {namespace:?} can't be sent"))?;
        request.metadata_mut().insert(NAMESPACE, namespace);
        let failed = |status: tonic::Status| format!("containerd's content {digest}: {}", status.message());
        let mut answer =
            ContentClient::new(self.channel().await?).read(request).await.map_err(failed)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = answer.message().await.map_err(failed)? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > limit {
                return Err(format!("containerd's content {digest} has over {limit} bytes"));
            }
        }
        Ok(bytes)
    }

    /// One connection for all; it reconnects by itself when containerd was restarted.
    async fn channel(&self) -> Result<Channel, String> {
        let mut channel = self.channel.lock().await;
        match &*channel {
            Some(channel) => Ok(channel.clone()),
            None => {
                let new = spandrel_proto::connect(&self.socket).await.map_err(|e| e.to_string())?;
                Ok(channel.insert(new).clone())
            }
        }
    }
}

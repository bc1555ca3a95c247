//! An image in containerd as a target: content under a lease, each manifest with labels that hold what it names, and the name last.

use async_trait::async_trait;
use spandrel_registry::{Digest, FetchedManifest};

use super::{Content, ImageTarget, Put, descriptor_of};
use crate::Error;
use crate::containerd::{Containerd, Session, references};

/// An image's name in containerd.
#[derive(Debug, Clone)]
pub struct ContainerdTarget {
    session: Session,
    name: String,
}

impl ContainerdTarget {
    /// The image that will have this name, which is as `ctr` would have it: with its host.
    ///
    /// # Errors
    /// When containerd can't be reached, or gives no lease.
    pub async fn new(containerd: &Containerd, name: &str) -> Result<Self, Error> {
        Ok(Self { session: Session::start(containerd).await?, name: name.to_owned() })
    }
}

fn put(written: bool) -> Put {
    if written { Put::Sent } else { Put::Exists }
}

#[async_trait]
impl ImageTarget for ContainerdTarget {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn takes_referrers(&self) -> bool {
        false
    }

    async fn put_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Put, Error> {
        // It compares digests itself.
        let none = Default::default();
        self.session.write_blob(digest, size, || content.open(), none, |_| {}).await.map(put)
    }

    async fn put_manifest(&self, manifest: &FetchedManifest) -> Result<Put, Error> {
        let bytes = manifest.bytes.to_vec();
        self.session.write(&manifest.digest, bytes, references(&manifest.bytes)).await.map(put)
    }

    async fn put_referrer(&self, _: &FetchedManifest) -> Result<(), Error> {
        Err(Error::NoReferrers(self.name()))
    }

    async fn finish(&self, root: &FetchedManifest) -> Result<(), Error> {
        self.put_manifest(root).await?;
        self.session.name_image(&self.name, &descriptor_of(root)).await?;
        // The name holds everything now.
        self.session.end().await;
        Ok(())
    }

    async fn give_up(&self) {
        self.session.end().await;
    }
}

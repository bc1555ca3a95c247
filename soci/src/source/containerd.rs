//! An image in containerd's content store as a source. What it lacks is often missing on purpose: platforms that weren't pulled, layers
//! that a remote snapshotter took over, or that were thrown away once they were unpacked.

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use spandrel_registry::manifest::Descriptor;
use spandrel_registry::{Digest, FetchedManifest};

use super::{BlobSource, BlobStream, ImageSource};
use crate::Error;
use crate::containerd::{Containerd, Session};
use crate::index::{Version, limit};
use crate::limits::MAX_MANIFEST_LEN;

/// An image in containerd, by its name there.
#[derive(Debug, Clone)]
pub struct ContainerdSource {
    session: Session,
    name: String,
    root: Descriptor,
}

impl ContainerdSource {
    /// The image `name`, as `ctr image list` shows it.
    ///
    /// # Errors
    /// When there is no such image, or containerd can't be asked.
    pub async fn open(containerd: &Containerd, name: &str) -> Result<Self, Error> {
        let session = Session::reading(containerd).await?;
        let Some(root) = session.image(name).await? else {
            return Err(Error::NotThere(format!(
                "no image {name} in containerd's namespace {} (--namespace); names are as `ctr image list` shows them",
                containerd.namespace
            )));
        };
        Ok(Self { session, name: name.to_owned(), root })
    }

    /// What the name stands for.
    pub fn root(&self) -> &Digest {
        &self.root.digest
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::NotThere(format!(
            "{}: containerd's content store has no {digest}; layers that a remote snapshotter mounts, and those of other platforms, \
             aren't pulled: take the image from its registry",
            self.name
        ))
    }

    /// All of a small thing of at most `most` bytes, checked.
    async fn whole(&self, digest: &Digest, most: u64) -> Result<Bytes, Error> {
        let len = self.session.content_len(digest).await?.ok_or_else(|| self.missing(digest))?;
        limit(&format!("length of {digest} in containerd"), len, most)?;
        let (mut stream, mut bytes) = (self.session.read(digest, 0..len).await?, BytesMut::new());
        while let Some(piece) = stream.chunk().await? {
            bytes.extend_from_slice(&piece);
        }
        if !digest.matches(&bytes) {
            let got = Digest::sha256(&bytes);
            let what = format!(
                "{digest} was changed in containerd's content store: its bytes have the digest {got}"
            );
            return Err(Error::Image { image: self.name.clone(), what });
        }
        Ok(bytes.freeze())
    }
}

#[async_trait]
impl BlobSource for ContainerdSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        // Asked first for the sake of what is said when it isn't there.
        let len = self.session.content_len(digest).await?.ok_or_else(|| self.missing(digest))?;
        if range.end > len {
            let what =
                format!("{digest} has {len} bytes in containerd, where its manifest says {}", range.end);
            return Err(Error::Image { image: self.name.clone(), what });
        }
        self.session.read(digest, range).await
    }
}

#[async_trait]
impl ImageSource for ContainerdSource {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        let digest: Digest = part.parse().map_err(|_| {
            Error::NotThere(format!(
                "{}: {part} is no digest, and an image in containerd has no tags",
                self.name
            ))
        })?;
        let bytes = self.whole(&digest, MAX_MANIFEST_LEN).await?;
        let named = digest == self.root.digest;
        let media_type = if named { self.root.media_type.clone() } else { String::new() };
        Ok(FetchedManifest { media_type, digest, bytes })
    }

    async fn referrers(&self, _: &Digest, _: Version) -> Result<Vec<Digest>, Error> {
        // containerd knows what a manifest names, and not who names it.
        Ok(Vec::new())
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.session.content_len(digest).await?.is_some())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        self.whole(digest, size).await
    }
}

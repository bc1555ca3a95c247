//! A source of images in memory, for this crate's tests: it has what it was given, counts what it was asked for, and
//! breaks where it was told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use spandrel_registry::{Digest, ErrorKind, FetchedManifest};

use crate::Error;
use crate::index::Version;
use crate::source::{BlobSource, BlobStream, ImageSource};

#[derive(Debug, Default)]
pub(crate) struct MemorySource {
    /// By tag or digest: media type and bytes.
    pub(crate) manifests: BTreeMap<String, (String, Bytes)>,
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    pub(crate) referrers: Vec<Digest>,
    /// What every request fails with, when set.
    pub(crate) fails: Option<ErrorKind>,
    /// Blobs whose stream breaks off before its end.
    pub(crate) breaks: Vec<Digest>,
    /// What was asked for, in order.
    pub(crate) asked: Mutex<Vec<String>>,
}

/// An OCI image of four layers, one of them plain tar, as a single manifest.
pub(crate) const SINGLE: &str = "057467a76bdd062e4389501aa6debfe53530ccbd7f65fe7c544a757411a3f64d";
/// Its index of version 1, for spans of 64 KiB and layers of any size.
pub(crate) const SINGLE_V1: &str = "5131209310716b22c78f7ba4d0839817f24c354bc83982226cb03a130ba993b6";
/// An OCI index of two images (amd64, arm64/v8) and their attestations.
pub(crate) const MULTI: &str = "c01945f2aa28ad10203eeb9216599f5fe96f170a43102f9d0dc26f4bed68d35c";
/// Its images, and their indexes of version 1.
pub(crate) const MULTI_IMAGES: [(&str, &str); 2] = [
    (
        "baeb8c30b50c2c33b1d1522c187434b385f9a11f412469c7ec1c38c0f336c858",
        "ec130b569c0d9e7f3b3cb66975941acfda916c6ed5bd1e6495556f94084f247a",
    ),
    (
        "249f25a22e44645f2f79a8e017bc1f6751b2aa052df5a765c27ad3703ead8a39",
        "8d7c25a529328a12d72aba243f435491a8a9acb564e6c113a4e279061e63cfd3",
    ),
];
/// A docker manifest list of two images.
pub(crate) const DOCKER_LIST: &str = "c45b87e510f0901c95b079d7d6c2c38b1e19311ec8c80ebeb5e21bf4fcb21c1b";
/// An image with a zstd layer, and its index (of version 2).
pub(crate) const WITH_ZSTD: (&str, &str) = (
    "426344d6c85b7815a79926c77ef4b86070add14e02ca89edda0d128a71357b75",
    "25da66ebfd4f1847f52f48f131e20f0b1d1b5b18c422b0ea9c44dc2a44a1dbc8",
);
/// An image that has a layer twice, and its index (of version 2).
pub(crate) const WITH_TWIN: (&str, &str) = (
    "2d2ea450df51d947043d1f34f3821341321e6f812f7e17b60c22c14cc91c154a",
    "fb17956e2e9db1b138a2cceff4ac45bf1c2881f0190a40b5ad259b47da3414e2",
);

pub(crate) fn golden(folder: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(folder);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter(|path| path.file_name().is_some_and(|name| name != "README.md"));
    named
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect()
}

/// An index of SOCI's tools by its hexadecimal digest.
pub(crate) fn golden_index(hex: &str) -> Vec<u8> {
    golden("index").into_iter().find(|(name, _)| name == hex).unwrap().1
}

/// Digest with these hexadecimal digits.
pub(crate) fn sha256(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().unwrap()
}

impl MemorySource {
    /// All golden images.
    pub(crate) fn golden() -> Self {
        let mut source = Self::default();
        for (name, bytes) in golden("blobs") {
            assert_eq!(Digest::sha256(&bytes).hex(), name);
            if bytes.starts_with(b"{\"schemaVersion\"") {
                source.add_manifest("application/octet-stream", bytes);
            } else {
                source.add_blob(bytes);
            }
        }
        source
    }

    /// Adds a manifest; it can be had by its digest.
    pub(crate) fn add_manifest(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.manifests.insert(digest.to_string(), (media_type.to_owned(), bytes));
        digest
    }

    pub(crate) fn add_blob(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn ask(&self, what: String) -> Result<(), Error> {
        self.asked.lock().unwrap().push(what.clone());
        self.fails.map_or(Ok(()), |kind| Err(failure(kind, what)))
    }
}

pub(crate) fn failure(kind: ErrorKind, what: String) -> Error {
    spandrel_registry::Error { kind, what, message: "told to fail".to_owned() }.into()
}

#[async_trait]
impl BlobSource for MemorySource {
    fn name(&self) -> String {
        "memory.example/app".to_owned()
    }

    async fn blob_range(&self, digest: &Digest, range: Range<u64>) -> Result<Box<dyn BlobStream>, Error> {
        self.ask(format!("blob {digest} {range:?}"))?;
        let blob = self.blobs.get(digest).ok_or_else(|| failure(ErrorKind::NotFound, digest.to_string()))?;
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        if end > blob.len() {
            return Err(failure(ErrorKind::Corrupt, format!("{range:?} of {} bytes", blob.len())));
        }
        Ok(Box::new(Pieces { rest: blob.slice(start..end), breaks: self.breaks.contains(digest) }))
    }
}

#[async_trait]
impl ImageSource for MemorySource {
    async fn manifest(&self, part: &str) -> Result<FetchedManifest, Error> {
        self.ask(format!("manifest {part}"))?;
        let (media_type, bytes) =
            self.manifests.get(part).cloned().ok_or_else(|| failure(ErrorKind::NotFound, part.to_owned()))?;
        Ok(FetchedManifest { media_type, digest: Digest::sha256(&bytes), bytes })
    }

    async fn referrers(&self, subject: &Digest, version: Version) -> Result<Vec<Digest>, Error> {
        self.ask(format!("referrers {} {subject}", version.name()))?;
        Ok(self.referrers.clone())
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<Bytes, Error> {
        self.ask(format!("blob {digest} {size}"))?;
        self.blobs.get(digest).cloned().ok_or_else(|| failure(ErrorKind::NotFound, digest.to_string()))
    }
}

/// A blob in pieces of an odd length.
struct Pieces {
    rest: Bytes,
    breaks: bool,
}

#[async_trait]
impl BlobStream for Pieces {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.breaks && self.rest.len() < 5000 {
            return Err(failure(ErrorKind::Unavailable, "blob".to_owned()));
        }
        let len = self.rest.len().min(4999);
        Ok(Some(self.rest.split_to(len)))
    }
}

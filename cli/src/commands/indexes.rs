//! The indexes of an image in its registry, of both versions, and what is wrong with those that can't be used: for `inspect`
//! and `diff`, which look at both where a snapshotter takes the first.

use bytes::Bytes;
use spandrel_registry::ErrorKind;
use spandrel_registry::manifest::Descriptor;
use spandrel_soci::find::{FindOptions, Found, find_in, ztoc_bytes};
use spandrel_soci::image::Image;
use spandrel_soci::index::Version;
use spandrel_soci::source::ImageSource;

use crate::error::Error;

/// What was found of one version.
#[derive(Debug)]
pub(super) enum OfVersion {
    /// The image has none.
    None,
    /// One is named that can't be used, and why.
    Broken(String),
    /// It has one.
    Found {
        /// It.
        found: Box<Found>,
        /// Its length in bytes.
        size: u64,
    },
}

/// The index of `version` that a snapshotter would take.
///
/// # Errors
/// When the registry doesn't say whether there is one.
pub(super) async fn of_version(
    source: &dyn ImageSource,
    image: &Image,
    version: Version,
) -> Result<OfVersion, Error> {
    let options = FindOptions { label: None, v1: version == Version::V1, v2: version == Version::V2 };
    match find_in(source, image.digest(), &image.fetched.bytes, &options).await {
        Ok(None) => Ok(OfVersion::None),
        Ok(Some(found)) => {
            let size = source.manifest(found.digest.as_str()).await?.bytes.len() as u64;
            Ok(OfVersion::Found { found: Box::new(found), size })
        }
        Err(error) => Ok(OfVersion::Broken(unusable(error)?)),
    }
}

/// A zTOC, or what is wrong with it.
///
/// # Errors
/// When the registry doesn't say whether it is there.
pub(super) async fn ztoc(
    source: &dyn ImageSource,
    ztoc: &Descriptor,
) -> Result<Result<Bytes, String>, Error> {
    match ztoc_bytes(source, ztoc).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) => Ok(Err(unusable(error)?)),
    }
}

/// What an error says of the thing that was asked for.
///
/// # Errors
/// The error itself, when it says only that the registry couldn't be asked.
fn unusable(error: spandrel_soci::Error) -> Result<String, Error> {
    match &error {
        spandrel_soci::Error::Registry(of_registry) => match of_registry.kind {
            ErrorKind::NotFound | ErrorKind::Corrupt => Ok(error.to_string()),
            _ => Err(error.into()),
        },
        spandrel_soci::Error::Invalid(_)
        | spandrel_soci::Error::Limit { .. }
        | spandrel_soci::Error::Image { .. } => Ok(error.to_string()),
        _ => Err(error.into()),
    }
}

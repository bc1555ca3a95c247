//! Pushes an index: zTOCs first, the manifest last, so that a reader never finds an index whose zTOCs aren't there.

use std::num::NonZeroUsize;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use spandrel_registry::{Client, Digest, Repository, media_type};

use crate::Error;
use crate::build::BuiltIndex;
use crate::index::CONFIG;

/// Uploads at once where nothing else is asked for: 3, as soci has it.
pub const DEFAULT_PARALLEL: NonZeroUsize = NonZeroUsize::new(3).expect("not 0");

/// Pushes `built` into `repository`: its zTOCs, `parallel` at once, the empty configuration, then the manifest by its
/// digest. `pushed` hears of each blob that is there, with its length in bytes.
///
/// What is there already isn't sent again. Retries are the client's.
///
/// # Errors
/// When the image that the index is of isn't in the repository, or the registry refuses an upload.
pub async fn push(
    client: &Client,
    repository: &Repository,
    built: &BuiltIndex,
    parallel: NonZeroUsize,
    pushed: &(dyn Fn(&Digest, u64) + Sync),
) -> Result<(), Error> {
    if let Some(subject) = &built.index.subject
        && client.manifest_head(repository, subject.digest.as_str()).await?.is_none()
    {
        return Err(Error::Image {
            image: format!("{repository}@{}", subject.digest),
            what: "the index is of this image, which isn't in the repository; push the image first, \
                   or make the index anew if the tag was moved"
                .to_owned(),
        });
    }
    let config = (Digest::sha256(CONFIG), Bytes::from_static(CONFIG));
    let blobs: Vec<_> = built
        .ztocs
        .iter()
        .map(|(digest, bytes)| (digest.clone(), bytes.clone()))
        .chain([config])
        .map(|(digest, bytes)| async move {
            let len = bytes.len() as u64;
            client.push_blob(repository, &digest, bytes, None).await?;
            pushed(&digest, len);
            Ok::<_, Error>(())
        })
        .collect();
    futures_util::stream::iter(blobs).buffer_unordered(parallel.get()).try_collect::<()>().await?;
    client
        .push_manifest(repository, built.digest.as_str(), media_type::OCI_MANIFEST, built.bytes.clone())
        .await?;
    Ok(())
}

//! Finds the zTOC that somebody named: by digest in the store or in a registry, or in a file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use spandrel_registry::{Digest, Reference};
use spandrel_soci::find::{FindOptions, find_in, ztoc_bytes};
use spandrel_soci::image::resolve;
use spandrel_soci::source::ImageSource;
use spandrel_soci::store::Store;
use spandrel_ztoc::limits::MAX_ZTOC_LEN;

use crate::args::{PlatformArgs, RegistryArgs, parse_reference};
use crate::commands::blocking;
use crate::error::Error;
use crate::registry;

/// Where an image lies whose zTOC or layer is meant.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Remote {
    /// The image, where the store doesn't know it
    #[arg(long = "ref", value_name = "IMAGE", value_parser = parse_reference)]
    pub(super) image: Option<Reference>,
    #[command(flatten)]
    pub(super) platforms: PlatformArgs,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}

/// A zTOC and what is known of it.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) bytes: Bytes,
    /// The layer it is of, when an index says so.
    pub(super) layer: Option<Digest>,
    /// An image with that layer, when the store or the user named one.
    pub(super) image: Option<Reference>,
}

/// Finds `name`.
pub(super) async fn locate(name: &str, store: &Store, remote: &Remote) -> Result<Located, Error> {
    let Ok(digest) = name.parse::<Digest>() else { return in_file(name, remote).await };
    if let Some(located) = in_store(digest.clone(), store, remote).await? {
        return Ok(located);
    }
    match &remote.image {
        Some(image) => in_registry(&digest, image, remote).await,
        None => Err(Error::NotFound(format!(
            "couldn't retrieve artifact for {digest}, not found in {}; where it is in a registry, say of which \
             image with --ref",
            store.dir().display()
        ))),
    }
}

async fn in_store(digest: Digest, store: &Store, remote: &Remote) -> Result<Option<Located>, Error> {
    let (store, image) = (store.clone(), remote.image.clone());
    blocking(move || {
        let found = store.ztocs()?.into_iter().find(|ztoc| ztoc.entry.ztoc.digest == digest);
        let Some(found) = found else {
            if store.list()?.iter().any(|record| record.digest == digest) {
                return Err(Error::NotFound(
                    "the provided digest belongs to a SOCI index. Use `spandrel index info` to get the detailed \
                     information about it"
                        .to_owned(),
                ));
            }
            return Ok(None);
        };
        let known = found.images.iter().find_map(|image| image.parse().ok());
        Ok(Some(Located {
            bytes: store.ztoc(&digest)?,
            layer: Some(found.entry.layer),
            image: image.or(known),
        }))
    })
    .await
}

async fn in_registry(digest: &Digest, image: &Reference, remote: &Remote) -> Result<Located, Error> {
    let source = registry::source(&remote.registry, image)?;
    let resolved = resolve(&source, image.manifest_part(), &remote.platforms.platforms()).await?;
    for found in &resolved.images {
        let options = FindOptions::default();
        let index = find_in(&source, found.digest(), &found.fetched.bytes, &options).await?;
        let entry =
            index.and_then(|index| index.index.layers.into_iter().find(|entry| entry.ztoc.digest == *digest));
        if let Some(entry) = entry {
            return Ok(Located {
                bytes: ztoc_bytes(&source, &entry.ztoc).await?,
                layer: Some(entry.layer),
                image: Some(image.clone()),
            });
        }
    }
    Err(Error::NotFound(format!("no index of {image} lists the zTOC {digest}")))
}

async fn in_file(name: &str, remote: &Remote) -> Result<Located, Error> {
    let path = Path::new(name).to_owned();
    if !path.exists() {
        return Err(Error::Usage(format!(
            "invalid checksum digest format: {name:?}, and there is no file of that name"
        )));
    }
    let image = remote.image.clone();
    blocking(move || {
        let mut bytes = Vec::new();
        let file = File::open(&path);
        let read = file.and_then(|file| file.take(MAX_ZTOC_LEN + 1).read_to_end(&mut bytes));
        read.map_err(|source| Error::File { what: "reading", path, source })?;
        Ok(Located { bytes: bytes.into(), layer: None, image })
    })
    .await
}

/// The layer that a zTOC is of, by its length, where nothing says which it is.
pub(super) async fn layer_by_size(
    source: &dyn ImageSource,
    image: &Reference,
    remote: &Remote,
    size: u64,
) -> Result<Digest, Error> {
    let resolved = resolve(source, image.manifest_part(), &remote.platforms.platforms()).await?;
    let layers = resolved.images.iter().flat_map(|image| &image.manifest.layers);
    let mut fitting: Vec<&Digest> =
        layers.filter(|layer| layer.size == size).map(|layer| &layer.digest).collect();
    fitting.sort();
    fitting.dedup();
    match fitting[..] {
        [layer] => Ok(layer.clone()),
        [] => Err(Error::NotFound(format!(
            "{image} has no layer of {size} bytes, which is what the zTOC is of; name the layer with --layer"
        ))),
        _ => Err(Error::Usage(format!(
            "{image} has several layers of {size} bytes; say with --layer which one the zTOC is of"
        ))),
    }
}

//! The edits that make an image name its own index (version 2): of image manifests, of attestations that point to them, and of
//! the image index over all. Bytes to bytes, without I/O; where they come from and go to is `convert`'s.
//!
//! Only what must change is changed ([`crate::json`]). Of manifests in Go's form the result is what `soci convert` makes, but for
//! what that loses: unknown members, and annotations of descriptors (docs/soci.md).

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use spandrel_registry::manifest::{Annotations, Descriptor, Platform};
use spandrel_registry::{Digest, media_type};

use crate::Error;
use crate::index::{INDEX_V2, annotation};
use crate::json::{Members, Place};

/// Members of manifests in the image specification's order, which is where a member goes that isn't there yet.
const MANIFEST_ORDER: [&str; 8] =
    ["schemaVersion", "mediaType", "artifactType", "config", "manifests", "layers", "subject", "annotations"];

/// Members of descriptors in that order.
const DESCRIPTOR_ORDER: [&str; 8] =
    ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];

/// Annotations of buildkit's attestations in an image index.
mod attestation {
    /// Digest of the image manifest that it is about.
    pub(super) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
}

/// A manifest under its new digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// Its media type: OCI's, also where docker's was.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Rewritten {
    fn new(media_type: &str, members: &Members) -> Self {
        let bytes = members.to_vec();
        Self { media_type: media_type.to_owned(), digest: Digest::sha256(&bytes), bytes }
    }
}

/// A SOCI index that the image index is to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SociEntry {
    /// The image manifest that it is of, as it was.
    pub old_image: Digest,
    /// The image manifest that names it.
    pub new_image: Digest,
    /// The SOCI index.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The image's platform: written where the image's own entry has none.
    pub platform: Platform,
}

/// The manifest of an image that names `soci`, the digest of its index.
///
/// Docker's media types of manifest and configuration become OCI's, which have annotations; layers keep theirs.
///
/// # Errors
/// When it is no image manifest.
pub fn image(name: &str, manifest: &[u8], soci: &Digest) -> Result<Rewritten, Error> {
    let bad = |error| unreadable(name, &error);
    let mut members = Members::parse(manifest).map_err(bad)?;
    let mut config: Members = members.read("config").map_err(bad)?.unwrap_or_default();
    if config.read::<String>("mediaType").map_err(bad)?.as_deref() == Some(media_type::DOCKER_CONFIG) {
        config.set("mediaType", &media_type::OCI_CONFIG, Place::Order(&DESCRIPTOR_ORDER));
        members.set("config", &config, Place::Order(&MANIFEST_ORDER));
    }
    let mut annotations: Members = members.read("annotations").map_err(bad)?.unwrap_or_default();
    annotations.set(annotation::INDEX_DIGEST, &soci.as_str(), Place::Sorted);
    members.set("mediaType", &media_type::OCI_MANIFEST, Place::Order(&MANIFEST_ORDER));
    members.set("annotations", &annotations, Place::Order(&MANIFEST_ORDER));
    Ok(Rewritten::new(media_type::OCI_MANIFEST, &members))
}

/// A manifest whose subject was rewritten, pointing to the new one; `None` when its subject is none of `rewritten`.
///
/// # Errors
/// When it is no manifest.
pub fn subject(
    name: &str,
    media_type: &str,
    manifest: &[u8],
    rewritten: &BTreeMap<Digest, Rewritten>,
) -> Result<Option<Rewritten>, Error> {
    let bad = |error| unreadable(name, &error);
    let mut members = Members::parse(manifest).map_err(bad)?;
    let Some(mut subject) = members.read::<Members>("subject").map_err(bad)? else { return Ok(None) };
    let old: Option<Digest> = subject.read("digest").map_err(bad)?;
    let Some(new) = old.and_then(|old| rewritten.get(&old)) else { return Ok(None) };
    point(&mut subject, new);
    members.set("subject", &subject, Place::Order(&MANIFEST_ORDER));
    Ok(Some(Rewritten::new(media_type, &members)))
}

/// The image index over rewritten manifests: each entry of one points to the new one, attestations of one say so, and `soci`
/// are listed behind all others, or where an index of the same image was.
///
/// # Errors
/// When it is no image index.
pub fn index(
    name: &str,
    index: &[u8],
    rewritten: &BTreeMap<Digest, Rewritten>,
    soci: &[SociEntry],
) -> Result<Rewritten, Error> {
    let bad = |error| unreadable(name, &error);
    let mut members = Members::parse(index).map_err(bad)?;
    let mut entries: Vec<Members> = members.read("manifests").map_err(bad)?.unwrap_or_default();
    // Where a SOCI index of each of `soci` is already.
    let mut known: Vec<Option<usize>> = vec![None; soci.len()];
    let mut platforms: BTreeMap<Digest, Box<RawValue>> = BTreeMap::new();
    for (at, entry) in entries.iter_mut().enumerate() {
        let descriptor: Descriptor = serde_json::from_slice(&entry.to_vec()).map_err(bad)?;
        if descriptor.artifact_type.as_deref() == Some(INDEX_V2) {
            let mine = |new: &SociEntry| is_of(&descriptor, new);
            if let Some(which) = soci.iter().position(mine)
                && known[which].is_none()
            {
                known[which] = Some(at);
            }
            continue;
        }
        if let Some(platform) = entry.get("platform") {
            platforms.entry(descriptor.digest.clone()).or_insert_with(|| platform.to_owned());
        }
        relink(entry, rewritten).map_err(bad)?;
        if let Some(new) = rewritten.get(&descriptor.digest) {
            point(entry, new);
            if soci.iter().any(|soci| soci.old_image == descriptor.digest) {
                annotate(entry, new).map_err(bad)?;
            }
        }
    }
    for (new, at) in soci.iter().zip(known) {
        let entry = soci_entry(new, platforms.get(&new.old_image).map(|platform| &**platform));
        match at {
            Some(at) => entries[at] = entry,
            None => entries.push(entry),
        }
    }
    members.set("mediaType", &media_type::OCI_INDEX, Place::Order(&MANIFEST_ORDER));
    members.set("manifests", &entries, Place::Order(&MANIFEST_ORDER));
    Ok(Rewritten::new(media_type::OCI_INDEX, &members))
}

/// An image index for what was a single image.
///
/// # Errors
/// When the image is no image manifest.
pub fn index_of_one(name: &str, image: &Rewritten, soci: &SociEntry) -> Result<Rewritten, Error> {
    let mut entry = Members::default();
    point(&mut entry, image);
    annotate(&mut entry, image).map_err(|error| unreadable(name, &error))?;
    entry.set("platform", &soci.platform, Place::Order(&DESCRIPTOR_ORDER));
    let mut members = Members::default();
    members.set("schemaVersion", &2, Place::Order(&MANIFEST_ORDER));
    members.set("mediaType", &media_type::OCI_INDEX, Place::Order(&MANIFEST_ORDER));
    members.set("manifests", &[entry, soci_entry(soci, None)], Place::Order(&MANIFEST_ORDER));
    Ok(Rewritten::new(media_type::OCI_INDEX, &members))
}

/// Whether this entry of an image index, which is a SOCI index, is replaced by `new`: by what it says of its image, else (soci
/// always says it) by its platform.
pub(super) fn is_of(entry: &Descriptor, new: &SociEntry) -> bool {
    match entry.annotations.get(annotation::IMAGE_MANIFEST_DIGEST) {
        Some(image) => image == new.old_image.as_str() || image == new.new_image.as_str(),
        None => entry.platform.as_ref() == Some(&new.platform),
    }
}

/// Lets a descriptor point to another manifest.
fn point(descriptor: &mut Members, to: &Rewritten) {
    let place = Place::Order(&DESCRIPTOR_ORDER);
    descriptor.set("mediaType", &to.media_type, place);
    descriptor.set("digest", &to.digest, place);
    descriptor.set("size", &to.bytes.len(), place);
}

/// Adds a manifest's annotations to its descriptor's, as soci has it (who doesn't keep the descriptor's own).
fn annotate(descriptor: &mut Members, manifest: &Rewritten) -> Result<(), serde_json::Error> {
    let of_manifest: Option<Annotations> = Members::parse(&manifest.bytes)?.read("annotations")?;
    let mut annotations: Members = descriptor.read("annotations")?.unwrap_or_default();
    for (name, value) in of_manifest.unwrap_or_default() {
        annotations.set(&name, &value, Place::Sorted);
    }
    descriptor.set("annotations", &annotations, Place::Order(&DESCRIPTOR_ORDER));
    Ok(())
}

/// Lets an attestation's descriptor name the new manifest.
fn relink(
    descriptor: &mut Members,
    rewritten: &BTreeMap<Digest, Rewritten>,
) -> Result<(), serde_json::Error> {
    let Some(mut annotations) = descriptor.read::<Members>("annotations")? else { return Ok(()) };
    let Some(old) = annotations.read::<String>(attestation::REFERENCE_DIGEST)? else { return Ok(()) };
    if let Some(new) = old.parse().ok().and_then(|old: Digest| rewritten.get(&old)) {
        annotations.set(attestation::REFERENCE_DIGEST, &new.digest, Place::Sorted);
        descriptor.set("annotations", &annotations, Place::Order(&DESCRIPTOR_ORDER));
    }
    Ok(())
}

fn soci_entry(soci: &SociEntry, platform: Option<&RawValue>) -> Members {
    let place = Place::Order(&DESCRIPTOR_ORDER);
    let mut entry = Members::default();
    entry.set("mediaType", &media_type::OCI_MANIFEST, place);
    entry.set("digest", &soci.digest, place);
    entry.set("size", &soci.size, place);
    let image = BTreeMap::from([(annotation::IMAGE_MANIFEST_DIGEST, soci.new_image.as_str())]);
    entry.set("annotations", &image, place);
    match platform {
        Some(platform) => entry.set("platform", &platform, place),
        None => entry.set("platform", &soci.platform, place),
    }
    entry.set("artifactType", &INDEX_V2, place);
    entry
}

fn unreadable(name: &str, error: &serde_json::Error) -> Error {
    Error::Image { image: name.to_owned(), what: format!("its manifest can't be read: {error}") }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;

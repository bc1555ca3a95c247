//! An image as the scripts leave it: an OCI image layout.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The image in an OCI image layout with one manifest.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The folder.
    pub path: PathBuf,
    /// The manifest's digest.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of all layers, compressed.
    pub compressed: u64,
    /// Bytes of all layers' tar streams.
    pub uncompressed: u64,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

impl Layout {
    /// Reads the layout in `path`.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let index: Index = json(&path.join("index.json"))?;
        let digest = &index.manifests.first().context("the layout has no manifest")?.digest;
        let manifest: Manifest = json(&blob(path, digest))?;
        let mut uncompressed = 0;
        for layer in &manifest.layers {
            uncompressed += gzip_size(&blob(path, &layer.digest))?;
        }
        Ok(Self {
            path: path.to_owned(),
            digest: digest.clone(),
            layers: manifest.layers.len(),
            compressed: manifest.layers.iter().map(|layer| layer.size).sum(),
            uncompressed,
        })
    }

    /// The first 12 digits of the manifest's digest.
    pub fn short(&self) -> &str {
        let hex = self.digest.trim_start_matches("sha256:");
        hex.get(..12).unwrap_or(hex)
    }
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replacen(':', "/", 1))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} can't be understood", path.display()))
}

/// Bytes of what a gzip file of one member under 4 GiB holds: its last four bytes (RFC 1952, ISIZE).
fn gzip_size(path: &Path) -> Result<u64> {
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-4))?;
        let mut size = [0; 4];
        file.read_exact(&mut size)?;
        Ok::<_, std::io::Error>(u64::from(u32::from_le_bytes(size)))
    };
    read().with_context(|| format!("can't read {}", path.display()))
}

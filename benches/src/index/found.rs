//! The index that a tool left in its store: blobs by digest below `blobs/sha256`, as both tools have them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// No manifest is longer; zTOCs, which lie beside it, needn't be read.
const LONGEST_MANIFEST: u64 = 1 << 20;

/// What the type of a manifest says when it is an index's: `application/vnd.amazon.soci.index.v1+json`.
const INDEX: &str = "soci.index.v1";

/// An index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes of its manifest and its zTOCs.
    pub bytes: u64,
    /// Layers that have a zTOC.
    pub layers: usize,
}

impl Found {
    /// The one index in a store.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn read(store: &Path) -> Result<Self> {
        let dir = store.join("blobs/sha256");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))? {
            let entry = entry?;
            if entry.metadata()?.len() <= LONGEST_MANIFEST {
                found.extend(Self::of(&std::fs::read(entry.path())?));
            }
        }
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => bail!("{} has no index", store.display()),
            (Some(_), more) => bail!("{} has {} indexes", store.display(), more + 1),
        }
    }

    fn of(manifest: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(manifest).ok()?;
        let types = [&value["artifactType"], &value["config"]["mediaType"]];
        if !types.iter().any(|kind| kind.as_str().is_some_and(|kind| kind.contains(INDEX))) {
            return None;
        }
        // Version 1 of OCI's manifest for artifacts called them blobs.
        let listed: Vec<_> =
            ["layers", "blobs"].iter().filter_map(|key| value[*key].as_array()).flatten().collect();
        let sizes: u64 = listed.iter().filter_map(|blob| blob["size"].as_u64()).sum();
        Some(Self { bytes: manifest.len() as u64 + sizes, layers: listed.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_found_among_other_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("a"), b"\x01\x02 a zTOC").unwrap();
        std::fs::write(blobs.join("b"), "{}").unwrap();
        assert!(Found::read(dir.path()).unwrap_err().to_string().contains("no index"));
        let manifest = r#"{"config":{"mediaType":"application/vnd.amazon.soci.index.v1+json","size":2},
                           "layers":[{"size":1000},{"size":500}]}"#;
        std::fs::write(blobs.join("c"), manifest).unwrap();
        let found = Found::read(dir.path()).unwrap();
        assert_eq!(found, Found { bytes: manifest.len() as u64 + 1500, layers: 2 });
        std::fs::write(blobs.join("d"), manifest).unwrap();
        assert!(Found::read(dir.path()).unwrap_err().to_string().contains("2 indexes"));
    }
}

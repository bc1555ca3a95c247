//! `layer.json`: what is known of a layer besides its bytes; enough to go on after a restart without asking anybody.

use std::path::Path;

use serde::{Deserialize, Serialize};
use spandrel_registry::{Digest, Repository};

use super::files;
use crate::Error;

/// Version of the file; a file of a later version is refused, and its layer is as good as gone.
const VERSION: u32 = 1;

/// Longest file that is read, in bytes: a record has under 1,000.
const MAX_LEN: u64 = 64 << 10;

/// Name of the file in a layer's directory.
const NAME: &str = "layer.json";

/// How far a layer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It has a table; its spans are filled when they are read.
    Indexed,
    /// It is to be filled in full before it can be used.
    Filling,
    /// Its stream is complete, checked against blob digest and diff ID, and has a table.
    Complete,
    /// It can't be in a table and was unpacked into a directory.
    Unpacked,
}

impl Stage {
    /// The word for it, in the file and for operators.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Indexed => "indexed",
            Self::Filling => "filling",
            Self::Complete => "complete",
            Self::Unpacked => "unpacked",
        }
    }
}

/// What lasts of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this file.
    pub version: u32,
    /// How far it has come.
    pub stage: Stage,
    /// Host of the registry.
    pub host: String,
    /// Repository on it.
    pub repository: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the stream: what the image claims, and the truth once the layer is complete.
    pub diff_id: Digest,
    /// Digest of the zTOC, while the layer is lazy.
    pub ztoc: Option<Digest>,
    /// Length of the stream in bytes; 0 while it isn't known.
    pub stream_len: u64,
    /// Whether it has directories that no entry describes, so that its table depends on the layers below.
    #[serde(default)]
    pub implied: bool,
    /// Whether the whole stream has been compared with `diff_id`.
    pub verified: bool,
    /// Why the layer isn't to be used: it has turned out not to be what its image says.
    pub refuted: Option<String>,
}

impl Record {
    /// A record of a layer that nothing is there of yet.
    pub(crate) fn new(
        repository: &Repository,
        digest: &Digest,
        size: u64,
        media_type: &str,
        diff_id: &Digest,
    ) -> Self {
        Self {
            version: VERSION,
            stage: Stage::Filling,
            host: repository.host.clone(),
            repository: repository.name.clone(),
            digest: digest.clone(),
            size,
            media_type: media_type.to_owned(),
            diff_id: diff_id.clone(),
            ztoc: None,
            stream_len: 0,
            implied: false,
            verified: false,
            refuted: None,
        }
    }

    /// Where the blob lies.
    pub(crate) fn repository(&self) -> Repository {
        Repository { host: self.host.clone(), name: self.repository.clone() }
    }

    /// Reads the record in the layer directory `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let bytes = files::read(&path, MAX_LEN)?;
        let bad = |what: String| Error::Internal(format!("{}: {what}", path.display()));
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if record.version != VERSION {
            return Err(bad(format!("version {}, this program knows {VERSION}", record.version)));
        }
        Ok(record)
    }

    /// Writes the record into `dir`, durably: after a power cut there is the old one or this one.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("{}: {e}", dir.join(NAME).display())))?;
        files::replace(&dir.join(NAME), &bytes)
    }
}

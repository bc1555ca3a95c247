//! Prefetch artifacts: which spans of a layer a reader should have soon, by their numbers. Bytes to model and back, and the ranges
//! that files' bytes are in; which files of an image are meant is `find`'s.

mod find;

use serde::{Deserialize, Serialize};
use spandrel_ztoc::SpanTable;

pub use find::{Layer, Prefetched, Wanted, WantedError, prefetch};

use crate::index::limit;
use crate::limits::MAX_PREFETCH_LEN;
use crate::{Error, gojson};

/// What the member `version` says.
const VERSION: &str = "1.0";

/// A run of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpanRange {
    /// Number of the first one.
    #[serde(rename = "start_span")]
    pub start: u32,
    /// Number of the last one, which belongs to it.
    #[serde(rename = "end_span")]
    pub end: u32,
    /// soci has a place for it, and never sets it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(priority: &i64) -> bool {
    *priority == 0
}

/// A prefetch artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    version: String,
    /// The spans; at least one.
    #[serde(rename = "prefetch_spans")]
    pub spans: Vec<SpanRange>,
}

impl Artifact {
    /// The artifact that lists these spans; `None` when there are none. Runs that overlap or follow on one another become one,
    /// as soci has it.
    pub fn of(spans: impl IntoIterator<Item = (u32, u32)>) -> Option<Self> {
        let mut ranges: Vec<(u32, u32)> = spans.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<SpanRange> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.end.saturating_add(1) => last.end = last.end.max(end),
                _ => merged.push(SpanRange { start, end, priority: 0 }),
            }
        }
        (!merged.is_empty()).then(|| Self { version: VERSION.to_owned(), spans: merged })
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is none, of another version, or lists nothing or a run that ends before it begins.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        limit("length of the prefetch artifact", bytes.len() as u64, MAX_PREFETCH_LEN)?;
        let bad = |what: String| Error::Prefetch(what);
        let artifact: Self =
            serde_json::from_slice(bytes).map_err(|error| bad(format!("it can't be read: {error}")))?;
        if artifact.version != VERSION {
            return Err(bad(format!("its version is {:?}, not {VERSION:?}", artifact.version)));
        }
        if artifact.spans.is_empty() {
            return Err(bad("it lists no spans".to_owned()));
        }
        if let Some(range) = artifact.spans.iter().find(|range| range.end < range.start) {
            return Err(bad(format!("it lists spans {} to {}", range.start, range.end)));
        }
        Ok(artifact)
    }

    /// Writes it, byte for byte as the Go tool does.
    pub fn to_bytes(&self) -> Vec<u8> {
        gojson::to_vec(self)
    }

    /// What `version` says.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How many spans it lists; one that is in two runs counts twice.
    pub fn total(&self) -> u64 {
        self.spans.iter().map(|range| u64::from(range.end - range.start) + 1).sum()
    }
}

/// First and last span of a file's bytes; `None` for a file without any.
fn spans_of(spans: &SpanTable, range: std::ops::Range<u64>) -> Option<(u32, u32)> {
    let ids = spans.covering(range);
    ids.end.checked_sub(1).filter(|last| ids.start <= *last).map(|last| (ids.start, last))
}

#[cfg(test)]
#[path = "prefetch/tests.rs"]
mod tests;

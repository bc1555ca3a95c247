//! `spandrel prefetch`: the prefetch artifacts in the store, as soci shows them.

use std::time::SystemTime;

use clap::Subcommand;
use serde::Serialize;
use spandrel_registry::Digest;
use spandrel_soci::prefetch::SpanRange;
use spandrel_soci::store::{PrefetchRecord, Store};
use spandrel_soci::time::to_rfc3339;

use super::blocking;
use crate::args::Global;
use crate::error::Error;
use crate::{output, table, units};

/// What to do with prefetch artifacts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the prefetch artifacts in the store
    #[command(visible_alias = "ls")]
    List,
    /// Print what a prefetch artifact says
    Info {
        /// Digest of the artifact
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
}

/// An artifact, as soci's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    digest: Digest,
    layer_digest: String,
    total_spans: u64,
    created_at: String,
}

/// One artifact in full.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    digest: Digest,
    version: String,
    layer_digest: String,
    size: u64,
    created_at: String,
    prefetch_spans: Vec<SpanRange>,
    total_spans: u64,
}

/// Does it.
///
/// # Errors
/// When the store can't be read, or hasn't got what was asked for.
pub async fn run(command: Command, global: &Global) -> Result<(), Error> {
    let (store, json) = (global.store(), global.json);
    blocking(move || match command {
        Command::List => list(&store, json),
        Command::Info { digest } => info(&store, &digest, json),
    })
    .await
}

fn list(store: &Store, json: bool) -> Result<(), Error> {
    let (mut listed, mut rows) = (Vec::new(), Vec::new());
    let now = SystemTime::now();
    for record in store.prefetches()? {
        let total_spans = store.prefetch(&record.digest)?.total();
        let age = now.duration_since(record.created).unwrap_or_default();
        rows.push([
            record.digest.to_string(),
            record.layer.clone(),
            total_spans.to_string(),
            format!("{} ago", units::go_duration(age)),
        ]);
        listed.push(Listed {
            digest: record.digest,
            layer_digest: record.layer,
            total_spans,
            created_at: to_rfc3339(record.created),
        });
    }
    if json {
        output::print_json(&listed)
    } else {
        output::print(&table::render(["DIGEST", "LAYER DIGEST", "SPANS", "CREATED"], &rows))
    }
}

fn info(store: &Store, digest: &str, json: bool) -> Result<(), Error> {
    let digest: Digest = digest.parse().map_err(|_| {
        Error::Usage(format!(
            "invalid checksum digest format: {digest:?}; `spandrel prefetch list` shows digests"
        ))
    })?;
    let record = store.prefetches()?.into_iter().find(|record| record.digest == digest).ok_or_else(|| {
        let dir = store.dir().display();
        Error::NotFound(format!("couldn't retrieve artifact for {digest}, not found in {dir}"))
    })?;
    let artifact = store.prefetch(&digest)?;
    if json {
        return output::print_json(&Info {
            digest: record.digest,
            version: artifact.version().to_owned(),
            layer_digest: record.layer,
            size: record.size,
            created_at: to_rfc3339(record.created),
            total_spans: artifact.total(),
            prefetch_spans: artifact.spans,
        });
    }
    output::print(&text(&record, artifact.version(), &artifact.spans, artifact.total()))
}

/// As soci prints it.
fn text(record: &PrefetchRecord, version: &str, spans: &[SpanRange], total: u64) -> String {
    // `2026-11-23T00:19:26.5Z`, to the second and with a space.
    let created: String = to_rfc3339(record.created).replace('T', " ").chars().take(19).collect();
    let mut text = format!(
        "Digest:        {}\nVersion:       {version}\nSpan Ranges:   {}\nLayer Digest:  {}\nSize:          {} bytes\n\
         Created:       {created}\n\nPrefetch Spans:\n",
        record.digest,
        spans.len(),
        record.layer,
        record.size,
    );
    for (nth, range) in spans.iter().enumerate() {
        let (start, end) = (range.start, range.end);
        let count = u64::from(end.saturating_sub(start)) + 1;
        text.push_str(&format!("  [{nth}] StartSpan: {start}, EndSpan: {end} (covers {count} spans)\n"));
    }
    text.push_str(&format!("\nTotal spans to prefetch: {total}\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_artifact_is_shown_as_soci_shows_it() {
        let digest = "sha256:520900f4a24d9f67823edbe61838eec1b7bd8c64667f0a577a264715d4e9a37b";
        let layer = "sha256:6361277cdb4a51d212262d2c7e12dfaa5d23ede306b340ff3669585e1de76fbc";
        let record = PrefetchRecord {
            digest: digest.parse().unwrap(),
            size: 66,
            layer: layer.to_owned(),
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_393_166_123),
        };
        let range = SpanRange { start: 0, end: 0, priority: 0 };
        let want = format!(
            "Digest:        {digest}\nVersion:       1.0\nSpan Ranges:   1\nLayer Digest:  {layer}\n\
             Size:          66 bytes\nCreated:       2026-11-23 00:19:26\n\nPrefetch Spans:\n\
             \u{20} [0] StartSpan: 0, EndSpan: 0 (covers 1 spans)\n\nTotal spans to prefetch: 1\n"
        );
        assert_eq!(text(&record, "1.0", &[range], 1), want);
    }
}

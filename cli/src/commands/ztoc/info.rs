//! `spandrel ztoc info`: soci's JSON, to the byte.

use std::fmt::Write as _;

use spandrel_soci::gojson::quote;
use spandrel_ztoc::{SpanId, SpanTable, Ztoc};

use super::locate::{Remote, locate};
use crate::args::Global;
use crate::error::Error;
use crate::output;

/// Print what a zTOC says: spans and files. (Always JSON, as soci prints it.)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Digest of the zTOC, or a file
    #[arg(value_name = "ZTOC")]
    ztoc: String,
    #[command(flatten)]
    remote: Remote,
}

/// Does it.
pub(super) async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let located = locate(&args.ztoc, &global.store(), &args.remote).await?;
    let bad = |source| Error::Ztoc { path: args.ztoc.clone().into(), source };
    let (ztoc, _) = Ztoc::decode_without_windows(&located.bytes).map_err(bad)?;
    let spans = SpanTable::new(&ztoc).map_err(bad)?;
    output::print(&render(&ztoc, &spans, located.bytes.len()))
}

/// The JSON. Names aren't always text, which no serializer has a type for: so it is put together here.
fn render(ztoc: &Ztoc, spans: &SpanTable, len: usize) -> String {
    let mut files = String::new();
    let mut multi_span = 0u64;
    for entry in &ztoc.entries {
        // A layer of 0 bytes has no spans, and no files.
        let (start, end) = spans.soci_file_spans(entry).unwrap_or((SpanId(0), SpanId(0)));
        multi_span += u64::from(start != end);
        let comma = if files.is_empty() { "" } else { "," };
        // Writing to a string doesn't fail.
        let _ = write!(
            files,
            "{comma}\n    {{\n      \"filename\": {},\n      \"offset\": {},\n      \"size\": {},\n      \
             \"type\": {},\n      \"start_span\": {},\n      \"end_span\": {}\n    }}",
            quote(&entry.name),
            entry.offset,
            entry.size,
            quote(entry.kind.name().as_bytes()),
            start.0,
            end.0
        );
    }
    // Go prints a list that nothing was put into as null.
    let files = if files.is_empty() { "null".to_owned() } else { format!("[{files}\n  ]") };
    format!(
        "{{\n  \"version\": {},\n  \"build_tool\": {},\n  \"size\": {len},\n  \"span_size\": {},\n  \
         \"num_spans\": {},\n  \"num_files\": {},\n  \"num_multi_span_files\": {multi_span},\n  \
         \"files\": {files}\n}}\n",
        quote(&ztoc.version),
        quote(&ztoc.build_tool),
        ztoc.span_size,
        spans.len(),
        ztoc.entries.len(),
    )
}

//! `spandrel ztoc build`: a zTOC from a layer in a file.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use spandrel_registry::Digest;
use spandrel_ztoc::Compression;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::unpack::LayerFormat;

use crate::args::Global;
use crate::commands::blocking;
use crate::error::Error;
use crate::output::{self, Sink};
use crate::progress::Progress;
use crate::units;

/// How many bytes tell the format.
const MAGIC_LEN: u64 = 4;

/// Build a zTOC from a layer in a file: gzip or plain tar, which its first bytes tell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The layer, as it is in the registry
    #[arg(value_name = "LAYER_FILE")]
    layer: PathBuf,
    /// Where to write the zTOC
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Bytes of the layer between two points where reading can begin
    #[arg(long, value_name = "SIZE", default_value = "4194304", value_parser = units::parse_span_size)]
    span_size: u64,
    /// The build tool identifier that is written into the zTOC
    #[arg(long, value_name = "NAME", default_value = spandrel_ztoc::BUILD_TOOL)]
    build_tool: String,
}

/// What was built, as JSON.
#[derive(Debug, Serialize)]
struct Built {
    layer: String,
    layer_size: u64,
    ztoc: Digest,
    ztoc_size: usize,
    num_spans: usize,
    num_files: usize,
}

/// Does it.
pub(super) async fn run(args: Args, global: &Global) -> Result<(), Error> {
    let json = global.json;
    blocking(move || {
        let built = build_file(&args)?;
        if json {
            output::print_json(&built)
        } else {
            output::print(&format!("layer {} -> ztoc {}\n", built.layer, built.ztoc))
        }
    })
    .await
}

fn build_file(args: &Args) -> Result<Built, Error> {
    let failed = |source| Error::File { what: "reading", path: args.layer.clone(), source };
    let mut file = File::open(&args.layer).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(MAGIC_LEN).read_to_end(&mut magic).map_err(failed)?;
    let compression = match LayerFormat::of_first_bytes(&magic) {
        LayerFormat::Tar => Compression::Uncompressed,
        LayerFormat::Gzip => Compression::Gzip,
        LayerFormat::Zstd => {
            let layer = args.layer.display();
            return Err(Error::Failed(format!(
                "{layer}: a zTOC is of a gzip layer or a plain tar, and this is zstd"
            )));
        }
    };
    let progress = Arc::new(Progress::new(false));
    let bar = Digest::sha256(args.layer.as_os_str().as_encoded_bytes());
    progress.start_named(&bar, len, format!("index {}", args.layer.display()));
    let layer = Counted { inner: file, advance: |len| progress.advance(&bar, len) };
    let options = BuildOptions { span_size: args.span_size, build_tool: args.build_tool.clone() };
    let built = build(magic.chain(layer), compression, &options)
        .map_err(|source| Error::Ztoc { path: args.layer.clone(), source })?;
    progress.finish(&bar);
    let bytes = built.ztoc.encode();
    write(&args.output, &bytes)?;
    Ok(Built {
        layer: built.blob_digest.to_string(),
        layer_size: built.ztoc.compressed_size,
        ztoc: Digest::sha256(&bytes),
        ztoc_size: bytes.len(),
        num_spans: built.ztoc.checkpoints.len(),
        num_files: built.ztoc.entries.len(),
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut sink = Sink::new(Some(path))?;
    sink.write_all(bytes).map_err(|error| sink.failed(error))?;
    sink.finish()
}

/// A reader that tells how much was read.
struct Counted<R, F> {
    inner: R,
    advance: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buf)?;
        (self.advance)(len as u64);
        Ok(len)
    }
}

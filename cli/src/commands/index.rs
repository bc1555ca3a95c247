//! `spandrel index`: the indexes in the store.

use std::collections::BTreeSet;
use std::time::SystemTime;

use clap::Subcommand;
use serde::Serialize;
use spandrel_registry::Digest;
use spandrel_registry::manifest::Platform;
use spandrel_soci::gojson;
use spandrel_soci::platform;
use spandrel_soci::store::{Record, Store};
use spandrel_soci::time::to_rfc3339;

use super::{blocking, canonical};
use crate::args::{Global, parse_platform};
use crate::error::Error;
use crate::{output, table, units};

/// What to do with indexes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the indexes in the store, the newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print an index: its manifest
    Info {
        /// Digest of the index
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
    /// Remove indexes from the store, and the zTOCs that no other index needs
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

/// Flags of `index list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those of this image
    #[arg(long = "ref", value_name = "IMAGE")]
    image: Option<String>,
    /// Only those of this platform; may be given several times
    #[arg(long, short, value_name = "PLATFORM", value_parser = parse_platform)]
    platform: Vec<Platform>,
    /// Print digests only
    #[arg(long, short)]
    quiet: bool,
}

/// Flags of `index remove`.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Digests of indexes
    #[arg(value_name = "DIGEST")]
    digests: Vec<String>,
    /// All indexes of this image
    #[arg(long = "ref", value_name = "IMAGE", conflicts_with = "digests")]
    image: Option<String>,
}

/// An index, as JSON.
#[derive(Debug, Serialize)]
struct Listed {
    digest: Digest,
    size: u64,
    image_ref: String,
    image_digest: Option<Digest>,
    platform: String,
    media_type: String,
    manifest_version: &'static str,
    created: String,
}

/// Does it.
///
/// # Errors
/// When the store can't be read, or hasn't got what was asked for.
pub async fn run(command: Command, global: &Global) -> Result<(), Error> {
    let (store, json) = (global.store(), global.json);
    blocking(move || match command {
        Command::List(args) => list(&store, &args, json),
        Command::Info { digest } => info(&store, &digest),
        Command::Remove(args) => remove(&store, &args),
    })
    .await
}

fn list(store: &Store, args: &ListArgs, json: bool) -> Result<(), Error> {
    let mut records = store.list()?;
    if let Some(image) = &args.image {
        let image = canonical(image);
        records.retain(|record| record.image == image);
    }
    if !args.platform.is_empty() {
        let fits = |record: &Record| {
            args.platform.iter().any(|wanted| platform::distance(wanted, &record.platform) == Some(0))
        };
        records.retain(fits);
    }
    if json {
        output::print_json(&records.into_iter().map(listed).collect::<Vec<_>>())
    } else if args.quiet {
        output::print(&records.iter().map(|record| format!("{}\n", record.digest)).collect::<String>())
    } else {
        let now = SystemTime::now();
        let rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
        let header = ["DIGEST", "SIZE", "IMAGE REF", "PLATFORM", "MEDIA TYPE", "MANIFEST VERSION", "CREATED"];
        output::print(&table::render(header, &rows))
    }
}

fn row(record: &Record, now: SystemTime) -> [String; 7] {
    let age = now.duration_since(record.created).unwrap_or_default();
    [
        record.digest.to_string(),
        record.size.to_string(),
        record.image.clone(),
        platform::name(&record.platform),
        record.media_type.clone(),
        record.version.name().to_owned(),
        format!("{} ago", units::go_duration(age)),
    ]
}

fn listed(record: Record) -> Listed {
    Listed {
        digest: record.digest,
        size: record.size,
        image_ref: record.image,
        image_digest: record.image_digest,
        platform: platform::name(&record.platform),
        media_type: record.media_type,
        manifest_version: record.version.name(),
        created: to_rfc3339(record.created),
    }
}

fn info(store: &Store, digest: &str) -> Result<(), Error> {
    let digest = parse(digest)?;
    if !store.list()?.iter().any(|record| record.digest == digest) {
        let is_ztoc = store.ztocs()?.iter().any(|ztoc| ztoc.entry.ztoc.digest == digest);
        return Err(Error::NotFound(if is_ztoc {
            "the provided digest is of ztoc not SOCI index. Use \"spandrel ztoc info\" command to get detailed \
             info of ztoc"
                .to_owned()
        } else {
            format!("couldn't retrieve artifact for {digest}, not found in {}", store.dir().display())
        }));
    }
    let (bytes, _) = store.index(&digest)?;
    let mut json = gojson::indent(&bytes, "  ");
    json.push(b'\n');
    output::print_bytes(&json)
}

fn remove(store: &Store, args: &RemoveArgs) -> Result<(), Error> {
    let digests = match &args.image {
        Some(image) => {
            let image_name = canonical(image);
            let records = store.list()?.into_iter().filter(|record| record.image == image_name);
            let digests: BTreeSet<Digest> = records.map(|record| record.digest).collect();
            if digests.is_empty() {
                let dir = store.dir().display();
                return Err(Error::NotFound(format!("image {image:?}: not found: {dir} has no index of it")));
            }
            digests
        }
        // None at all is fine, as with soci: `spandrel index rm $(spandrel index ls -q)`.
        None => args.digests.iter().map(|digest| parse(digest)).collect::<Result<_, _>>()?,
    };
    match store.remove(&digests)?.first() {
        Some(unknown) => Err(Error::NotFound(format!(
            "the index of the digest {unknown} doesn't exist in {}",
            store.dir().display()
        ))),
        None => Ok(()),
    }
}

/// The digest that was meant.
fn parse(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|_| {
        Error::Usage(format!("invalid checksum digest format: {text:?}; `spandrel index list` shows digests"))
    })
}

//! zTOC bytes as the model: everything is checked here, once, so that what comes out can be trusted to be consistent
//! (not to be true: that the layer is what the zTOC says shows when its spans are filled).

use super::{ALGORITHM_GZIP, ALGORITHM_UNCOMPRESSED, Table, ids, time};
use crate::digest::Sha256Digest;
use crate::limits::{
    MAX_ENTRIES, MAX_SPANS, MAX_STREAM_LEN, MAX_STRING_SHARING, MAX_ZTOC_LEN, MIN_ENTRY_LEN,
};
use crate::model::{Compression, Entry, EntryKind, Ztoc};
use crate::span::{self, WindowMap};
use crate::{Error, zinfo};

impl Ztoc {
    /// Reads a zTOC, checking everything `docs/formats.md` says.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, or [`Error::Limit`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(decode(bytes, true)?.0)
    }

    /// Reads a zTOC as [`Ztoc::decode`] does, but leaves the windows where they are: [`Ztoc::windows`] stays empty,
    /// and the map says which bytes of the zTOC are the window of a span.
    ///
    /// A window is 32 KiB, and needed only when its span is filled: a node that keeps the zTOC on disk needn't hold them.
    ///
    /// # Errors
    /// As [`Ztoc::decode`].
    pub fn decode_without_windows(bytes: &[u8]) -> Result<(Self, WindowMap), Error> {
        decode(bytes, false)
    }
}

fn decode(bytes: &[u8], keep_windows: bool) -> Result<(Ztoc, WindowMap), Error> {
    limit("length of the zTOC", bytes.len() as u64, MAX_ZTOC_LEN)?;
    let root = Table::root(bytes, "ztoc")?;
    let mut strings = Strings { left: bytes.len().saturating_mul(MAX_STRING_SHARING) };
    let compressed_size = root.size(ids::ztoc::COMPRESSED_SIZE, "compressed_archive_size")?;
    let uncompressed_size = root.size(ids::ztoc::UNCOMPRESSED_SIZE, "uncompressed_archive_size")?;
    limit("compressed_archive_size", compressed_size, MAX_STREAM_LEN)?;
    limit("uncompressed_archive_size", uncompressed_size, MAX_STREAM_LEN)?;

    let info = root.table(ids::ztoc::COMPRESSION_INFO, "compression_info")?;
    let compression = match info.u8(ids::info::ALGORITHM, ALGORITHM_GZIP, "compression_algorithm")? {
        ALGORITHM_GZIP => Compression::Gzip,
        ALGORITHM_UNCOMPRESSED => Compression::Uncompressed,
        other => {
            return Err(Error::Invalid {
                field: "compression_algorithm",
                what: format!("is {other}, neither gzip (1) nor uncompressed (2)"),
            });
        }
    };
    let (at, blob) = info.located_bytes(ids::info::CHECKPOINTS, "checkpoints")?;
    let zinfo = zinfo::decode(compression, blob, compressed_size)?;
    let max_span_id = info.i32(ids::info::MAX_SPAN_ID, "max_span_id")?;
    if i64::from(max_span_id) + 1 != i64::try_from(zinfo.checkpoints.len()).unwrap_or(i64::MAX) {
        return Err(Error::Invalid {
            field: "max_span_id",
            what: format!("is {max_span_id}, and there are {} checkpoints", zinfo.checkpoints.len()),
        });
    }
    let span_digests = digests(&info, zinfo.checkpoints.len())?;
    let windows = WindowMap::new(at, &zinfo);

    let ztoc = Ztoc {
        version: strings.take(root.bytes(ids::ztoc::VERSION, "version")?, "version")?,
        build_tool: strings
            .take(root.bytes(ids::ztoc::BUILD_TOOL, "build_tool_identifier")?, "build_tool_identifier")?,
        compressed_size,
        uncompressed_size,
        entries: entries(&root.table(ids::ztoc::TOC, "toc")?, bytes.len(), &mut strings)?,
        compression,
        span_size: zinfo.span_size,
        windows: if keep_windows { zinfo.windows(blob) } else { Vec::new() },
        checkpoints: zinfo.checkpoints,
        span_digests,
        first_checkpoint_implied: zinfo.first_implied,
    };
    span::check(&ztoc)?;
    check_places(&ztoc)?;
    Ok((ztoc, windows))
}

fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), Error> {
    if value > limit { Err(Error::Limit { what, value, limit }) } else { Ok(()) }
}

/// How many more bytes of strings may be copied.
struct Strings {
    left: usize,
}

impl Strings {
    fn take(&mut self, bytes: &[u8], field: &'static str) -> Result<Vec<u8>, Error> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| Error::Invalid {
            field,
            what: "the strings are longer, taken together, than any zTOC of this length needs".to_owned(),
        })?;
        Ok(bytes.to_vec())
    }
}

fn digests(info: &Table<'_>, spans: usize) -> Result<Vec<Sha256Digest>, Error> {
    const FIELD: &str = "span_digests";
    let digests = info.offsets(ids::info::SPAN_DIGESTS, FIELD)?;
    if digests.len() != spans {
        let what = format!("there are {}, and {spans} checkpoints", digests.len());
        return Err(Error::Invalid { field: FIELD, what });
    }
    limit(FIELD, digests.len() as u64, MAX_SPANS)?;
    digests
        .strings(FIELD)
        .enumerate()
        .map(|(span, text)| {
            std::str::from_utf8(text?)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Error::Invalid { field: FIELD, what: format!("that of span {span} is none") })
        })
        .collect()
}

fn entries(toc: &Table<'_>, ztoc_len: usize, strings: &mut Strings) -> Result<Vec<Entry>, Error> {
    let tables = toc.offsets(ids::toc::METADATA, "metadata")?;
    if tables.len() > ztoc_len / MIN_ENTRY_LEN {
        let what = format!("claims {} entries, more than {ztoc_len} bytes can hold", tables.len());
        return Err(Error::Invalid { field: "metadata", what });
    }
    limit("number of entries", tables.len() as u64, MAX_ENTRIES)?;
    tables.tables("metadata").map(|table| entry(&table?, ztoc_len, strings)).collect()
}

fn entry(table: &Table<'_>, ztoc_len: usize, strings: &mut Strings) -> Result<Entry, Error> {
    use ids::file as id;
    let kind = table.bytes(id::TYPE, "type")?;
    let kind = EntryKind::from_name(kind).ok_or_else(|| Error::Invalid {
        field: "type",
        what: format!(
            "is {:?}, which no entry can have",
            String::from_utf8_lossy(&kind[..kind.len().min(32)])
        ),
    })?;
    let size = table.size(id::SIZE, "uncompressed_size")?;
    let mut take = |id, field| strings.take(table.bytes(id, field)?, field);
    Ok(Entry {
        name: take(id::NAME, "name")?,
        kind,
        offset: table.size(id::OFFSET, "uncompressed_offset")?,
        // Builders store the header's size whatever the type; only regular files have data.
        size: if kind == EntryKind::Regular { size } else { 0 },
        linkname: take(id::LINKNAME, "linkname")?,
        mode: table.i64(id::MODE, "mode")?,
        uid: table.u32(id::UID, "uid")?,
        gid: table.u32(id::GID, "gid")?,
        uname: take(id::UNAME, "uname")?,
        gname: take(id::GNAME, "gname")?,
        mtime: time::parse(table.bytes(id::MOD_TIME, "mod_time")?),
        devmajor: table.i64(id::DEVMAJOR, "devmajor")?,
        devminor: table.i64(id::DEVMINOR, "devminor")?,
        pax: pax(table, ztoc_len, strings)?,
    })
}

/// PAX records, key and value.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn pax(file: &Table<'_>, ztoc_len: usize, strings: &mut Strings) -> Result<Records, Error> {
    let tables = file.offsets(ids::file::XATTRS, "xattrs")?;
    // One vector may be named by many entries: each of its records counts as bytes, too.
    let taken = tables.len().saturating_mul(MIN_ENTRY_LEN / 2).min(ztoc_len.saturating_add(1));
    strings.left = strings.left.checked_sub(taken).ok_or_else(|| Error::Invalid {
        field: "xattrs",
        what: format!("claims {} records, more than {ztoc_len} bytes can hold", tables.len()),
    })?;
    tables
        .tables("xattrs")
        .map(|table| {
            let table = table?;
            Ok((
                strings.take(table.bytes(ids::xattr::KEY, "key")?, "key")?,
                strings.take(table.bytes(ids::xattr::VALUE, "value")?, "value")?,
            ))
        })
        .collect()
}

/// The entries lie in the stream one after the other, as a tar has them: each has its header and its data for itself.
fn check_places(ztoc: &Ztoc) -> Result<(), Error> {
    let mut order: Vec<usize> = (0..ztoc.entries.len()).collect();
    order.sort_by_key(|&index| ztoc.entries[index].offset);
    let mut free = 0_u64; // where the next header can begin
    for index in order {
        let Entry { offset, size, .. } = ztoc.entries[index];
        let refuse = |field, what| Err(Error::Invalid { field, what });
        if offset % 512 != 0 || offset < free + 512 {
            let what = format!(
                "entry {index} has its data at byte {offset}: no header fits between byte {free} and that"
            );
            return refuse("uncompressed_offset", what);
        }
        let Some(end) = offset.checked_add(size).filter(|&end| end <= ztoc.uncompressed_size) else {
            let what = format!(
                "entry {index} has {size} bytes at {offset}, past the stream's {} bytes",
                ztoc.uncompressed_size
            );
            return refuse("uncompressed_size", what);
        };
        if let Some(key) = sparse_key(&ztoc.entries[index]) {
            return refuse(
                "xattrs",
                format!("entry {index} is a sparse file ({key}): its data aren't its content"),
            );
        }
        // `end` is at most MAX_STREAM_LEN.
        free = end.next_multiple_of(512);
    }
    Ok(())
}

fn sparse_key(entry: &Entry) -> Option<&'static str> {
    crate::model::sparse_key(|key| {
        let record = entry.pax.iter().find(|(name, _)| name == key.as_bytes());
        record.map(|(_, value)| value.as_slice())
    })
}

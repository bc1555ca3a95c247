//! Compares what an index says of files with what the layer itself says: the tar headers in a span's bytes.
//!
//! An index of version 1 may be anybody's, and one zTOC may be named by indexes of both versions: so headers are compared
//! whatever the index. Of each entry only a hash is kept (16
//! bytes of SHA-256), of name, type, size, mode, owner, link target, device numbers and extended attributes; on the disk, in a
//! file that is `regions`'.
//!
//! A header that lies in two spans is put together from both, whichever comes first.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::{Entry, Ztoc};

use super::limits::{MAX_CROSSING_LEN, MAX_HEADER_LEN};
use super::regions::{self, Hash, Region, Regions};
use crate::open_files::LazyFile;

const BLOCK: u64 = 512;

/// Key of an extended attribute among an entry's PAX records.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Pieces of one header, each with its offset in the stream.
type Pieces = Vec<(u64, Vec<u8>)>;

/// Why a span's headers aren't accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unaccepted {
    /// The layer has something else than the index says, and what.
    Differs(String),
    /// What the index says can't be read from the disk.
    Unread(String),
}

/// The headers of a layer's entries, as its index says they are.
#[derive(Debug)]
pub(crate) struct Headers {
    regions: Regions,
    /// What lies behind the last entry's data: the blocks of zeros that end an archive, if anything.
    tail: Range<u64>,
    /// Of headers that lie in several spans: what has come of them.
    pieces: Mutex<HashMap<u64, Pieces>>,
}

impl Headers {
    /// The file that has the headers of the entries of `ztoc`, which has been checked.
    ///
    /// # Errors
    /// When a header is longer than is compared.
    pub(crate) fn encode(ztoc: &Ztoc) -> Result<Vec<u8>, String> {
        let mut order: Vec<&Entry> = ztoc.entries.iter().collect();
        order.sort_by_key(|entry| entry.offset);
        let mut regions = Vec::with_capacity(order.len());
        let mut start = 0;
        for entry in order {
            if start > entry.offset || entry.offset - start > MAX_HEADER_LEN {
                let name = String::from_utf8_lossy(&entry.name);
                return Err(format!(
                    "the header of {name:?} can't lie between bytes {start} and {}",
                    entry.offset
                ));
            }
            let region = Region { start, end: entry.offset, size: entry.size, hash: hash(entry) };
            start = region.next();
            regions.push(region);
        }
        let crossing = regions.iter().filter(|region| {
            let after = ztoc.checkpoints.partition_point(|at| at.uncompressed_offset <= region.start);
            ztoc.checkpoints.get(after).is_some_and(|at| at.uncompressed_offset < region.end)
        });
        let crossing: u64 = crossing.map(|region| region.end - region.start).sum();
        if crossing > MAX_CROSSING_LEN {
            return Err(format!("{crossing} bytes of headers lie across the borders of spans"));
        }
        Ok(regions::encode(&regions))
    }

    /// Those in `file`, of a stream of `stream_len` bytes; `None` when it isn't what [`Headers::encode`] made.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn open(file: LazyFile, stream_len: u64) -> io::Result<Option<Self>> {
        let Some(regions) = Regions::open(file)? else { return Ok(None) };
        let start = regions.last()?.map_or(0, |last| last.next());
        Ok(Some(Self { regions, tail: start..stream_len.max(start), pieces: Mutex::default() }))
    }

    /// Compares with the entries of the whole layer: also those that the index doesn't have, wherever they lie.
    ///
    /// # Errors
    /// Says what the layer has and the index doesn't, or the other way round.
    pub(crate) fn compare_all(&self, entries: &[Entry]) -> Result<(), Unaccepted> {
        let mut left = entries.iter();
        let compared = self.regions.each_from(0, |_, region| {
            let Some(entry) = left.next() else {
                return Some(format!(
                    "the index has {} entries, the layer {}",
                    self.regions.len(),
                    entries.len()
                ));
            };
            let same = (entry.offset, entry.size) == (region.end, region.size) && hash(entry) == region.hash;
            let name = String::from_utf8_lossy(&entry.name);
            (!same).then(|| format!("its entry {name:?} is described differently by the index"))
        });
        match (compared, left.next()) {
            (Err(error), _) => Err(unread(&error)),
            (Ok(Some(what)), _) => Err(self.differs(what)),
            (Ok(None), Some(entry)) => Err(self.differs(format!(
                "the index leaves out {:?} and what follows it",
                String::from_utf8_lossy(&entry.name)
            ))),
            (Ok(None), None) => Ok(()),
        }
    }

    /// Compares the headers in `bytes`, which lie at `offset` of the stream and have come (or were found) just now.
    ///
    /// # Errors
    /// Says what the layer has and the index doesn't.
    pub(crate) fn accept(&self, offset: u64, bytes: &[u8]) -> Result<(), Unaccepted> {
        let span = offset..offset + bytes.len() as u64;
        let compared = self.regions.each_in(&span, |number, region| {
            let within = region.start.max(span.start)..region.end.min(span.end);
            let piece = slice(bytes, span.start, &within);
            if within == (region.start..region.end) {
                return compare(region, piece);
            }
            self.put_together(number, region, within.start, piece)
                .map_or(Ok(()), |whole| compare(region, &whole))
        });
        compared.map_err(|error| unread(&error))?.map_err(|what| self.differs(what))?;
        let within = self.tail.start.max(span.start)..self.tail.end.min(span.end);
        if within.start < within.end && slice(bytes, span.start, &within).iter().any(|byte| *byte != 0) {
            let at = self.tail.start;
            let what = format!("the layer has more than the index says, from byte {at} of the stream on");
            return Err(self.differs(what));
        }
        Ok(())
    }

    /// That the layer differs is never forgotten again: so it isn't said because of a damaged file.
    fn differs(&self, what: String) -> Unaccepted {
        match self.regions.are_intact() {
            Ok(true) => Unaccepted::Differs(what),
            Ok(false) => Unaccepted::Unread("the file of its tar headers is damaged".to_owned()),
            Err(error) => unread(&error),
        }
    }

    /// Keeps a piece of a header; the whole when this was the last one missing.
    fn put_together(&self, number: u64, region: &Region, at: u64, piece: &[u8]) -> Option<Vec<u8>> {
        let mut all = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = all.entry(number).or_default();
        // The same again, after a write that failed.
        if !pieces.iter().any(|(have, _)| *have == at) {
            pieces.push((at, piece.to_vec()));
        }
        let have: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        if have as u64 != region.end - region.start {
            return None;
        }
        let mut pieces = all.remove(&number)?;
        pieces.sort_unstable_by_key(|(at, _)| *at);
        Some(pieces.into_iter().flat_map(|(_, bytes)| bytes).collect())
    }

    /// The file is deleted, or another takes its place.
    pub(crate) fn hold(&self) {
        self.regions.hold();
    }

    /// The headers of the entries of `ztoc`, in a file of their own.
    #[cfg(test)]
    pub(super) fn new(ztoc: &Ztoc) -> Result<Self, String> {
        use std::os::unix::fs::FileExt as _;
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&Self::encode(ztoc)?, 0).expect("written");
        Ok(Self::open(file.into(), ztoc.uncompressed_size).expect("reads").expect("intact"))
    }
}

fn unread(error: &io::Error) -> Unaccepted {
    Unaccepted::Unread(format!("the file of its tar headers can't be read: {error}"))
}

/// The part `within` of `bytes`, which lie at `start`; it lies in them.
fn slice<'a>(bytes: &'a [u8], start: u64, within: &Range<u64>) -> &'a [u8] {
    let index = |at: u64| usize::try_from(at - start).expect("an index into a slice");
    &bytes[index(within.start)..index(within.end)]
}

fn compare(region: &Region, header: &[u8]) -> Result<(), String> {
    let at = region.start;
    match parse(header, region.size) {
        Ok(entry) if hash(&entry) == region.hash => Ok(()),
        Ok(entry) => Err(format!(
            "the tar header at byte {at} of the stream describes {:?} differently from the index",
            String::from_utf8_lossy(&entry.name)
        )),
        Err(what) => {
            Err(format!("the index has a file where the layer has none, at byte {at} of the stream: {what}"))
        }
    }
}

/// The one entry whose header, with everything that belongs to it, is `header`. It is followed by `size` bytes of data if
/// the index is right; the walk skips them without looking.
fn parse(header: &[u8], size: u64) -> Result<Entry, String> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let text = |error: spandrel_ztoc::tar::TarError| error.to_string();
    let mut walk = TarWalk::new(TarRules::Fill);
    walk.push(header).map_err(text)?;
    // The data, padded, and the two blocks that end an archive.
    let mut left = size.next_multiple_of(BLOCK) + 2 * BLOCK;
    while left > 0 {
        let len = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        walk.push(&ZEROS[..len]).map_err(text)?;
        left -= len as u64;
    }
    let mut entries = walk.finish().map_err(text)?.entries;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) if entry.offset == header.len() as u64 => Ok(entry),
        _ => Err("the header ends elsewhere".to_owned()),
    }
}

/// A hash of all that is compared.
fn hash(entry: &Entry) -> Hash {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&entry.name);
    field(entry.kind.name().as_bytes());
    field(&entry.size.to_le_bytes());
    field(&(entry.mode & 0o7777).to_le_bytes());
    field(&entry.uid.to_le_bytes());
    field(&entry.gid.to_le_bytes());
    field(&entry.linkname);
    field(&entry.devmajor.to_le_bytes());
    field(&entry.devminor.to_le_bytes());
    for (key, value) in entry.pax.iter().filter(|(key, _)| key.starts_with(XATTR)) {
        field(key);
        field(value);
    }
    let whole = hasher.finalize();
    std::array::from_fn(|index| whole[index])
}

//! Walks a tar stream and yields its entries: a push parser, fed as the bytes pass, with no I/O of its own.
//!
//! The rules are those of Go's `archive/tar`, since both SOCI's builder and containerd read layers with it: what it takes
//! for the end, a name or a number is what an image means. A header block is `header`'s to read, PAX records are `pax`'s.

mod header;
mod pax;

use crate::limits::{MAX_ENTRIES, MAX_EXTENSION_LEN, MAX_STREAM_LEN, MAX_TOC_LEN, RECORD_COST};
use crate::model::{Entry, EntryKind};

use header::{BLOCK_LEN, Header};
use pax::Records;

/// Which tars are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarRules {
    /// What goes into a zTOC: everything the Go builder refuses is refused (global headers, sparse files, odd types).
    Index,
    /// What containerd can unpack: global headers are passed over. Sparse files aren't accepted here either, since no
    /// table can hold them: [`TarError::is_sparse`].
    Fill,
}

/// Why a tar can't be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// A header is malformed.
    #[error("invalid tar header at byte {offset} of the stream: {what}")]
    Header {
        /// Offset of the header block in the stream.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The entry's type can't be in a table of contents (or not in this mode): `S`, `7`, ...
    #[error("unsupported tar entry type {kind:?} at byte {offset} of the stream")]
    Unsupported {
        /// Offset of the header block in the stream.
        offset: u64,
        /// The type byte, or the word `sparse`.
        kind: String,
    },
    /// The stream ends within an entry.
    #[error("the tar ends early, at byte {offset} of the stream")]
    Truncated {
        /// Length of what there is.
        offset: u64,
    },
    /// A size or count is above its named limit.
    #[error("tar: {what} is {value}, above the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
}

impl TarError {
    /// Whether the tar has a sparse file, old GNU's (type `S`) or by PAX records. The tar is good, but its bytes aren't the
    /// file's, so no table can point at them: such a layer is unpacked into a directory.
    pub fn is_sparse(&self) -> bool {
        matches!(self, Self::Unsupported { kind, .. } if kind == SPARSE || kind == "S")
    }
}

/// What [`TarError::Unsupported`] calls a file that is sparse by its PAX records.
const SPARSE: &str = "sparse";

/// The entries of a whole tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The entries in their order.
    pub entries: Vec<Entry>,
    /// Where the archive ends in the stream, in bytes (see `uncompressed_archive_size` in docs/formats.md).
    pub archive_end: u64,
}

/// A walk in progress.
#[derive(Debug)]
pub struct TarWalk {
    rules: TarRules,
    /// How much of the stream was taken, in bytes; stands still behind the archive's end.
    position: u64,
    state: State,
    /// Where the last whole header block begins in the stream: what an error names.
    header_offset: u64,
    /// The header block that is coming in.
    block: Box<[u8; BLOCK_LEN]>,
    /// How much of `block` is there.
    filled: usize,
    /// The body of the extension header that is coming in.
    extension: Vec<u8>,
    pending: Pending,
    entries: Vec<Entry>,
    /// What the entries' strings take, in bytes, with [`RECORD_COST`] for each PAX record.
    held: u64,
}

/// What extension headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Pending {
    records: Records,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
}

/// What the next byte of the stream belongs to.
#[derive(Debug, Clone)]
enum State {
    /// A header block.
    Header,
    /// The block behind a block of zeros.
    SecondZeros,
    /// The body of an extension header of this type, of which so many bytes are left.
    Extension(Extension, u64),
    /// The data of an entry, of which so many bytes are left.
    Data(u64),
    /// What fills an entry's last block, so many bytes of it.
    Padding(u64),
    /// Nothing: the archive has ended.
    End,
    /// Nothing: this was found wrong.
    Failed(TarError),
}

/// A header that says more of the entry that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Pax,
    GlobalPax,
    LongName,
    LongLink,
}

impl TarWalk {
    /// A walk from the start of a stream.
    pub fn new(rules: TarRules) -> Self {
        Self::starting_at(rules, 0)
    }

    /// A walk that begins at a header at `offset` of the stream, a multiple of 512: the entries it finds say where they lie in
    /// the whole stream. At another offset, or behind the longest stream there can be, it fails at the first push.
    pub fn starting_at(rules: TarRules, offset: u64) -> Self {
        let state = match limit("offset of a header", offset, MAX_STREAM_LEN) {
            Err(error) => State::Failed(error),
            Ok(()) if !offset.is_multiple_of(BLOCK_LEN as u64) => {
                State::Failed(TarError::Header { offset, what: "no multiple of 512".to_owned() })
            }
            Ok(()) => State::Header,
        };
        Self {
            rules,
            position: offset,
            state,
            header_offset: offset,
            block: Box::new([0; BLOCK_LEN]),
            filled: 0,
            extension: Vec::new(),
            pending: Pending::default(),
            entries: Vec::new(),
            held: 0,
        }
    }

    /// The entries whose headers have passed.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the archive's end has passed; what is pushed after it isn't looked at.
    pub fn at_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Takes the next bytes of the stream, of any length.
    ///
    /// # Errors
    /// When what was seen so far is no tar, or not one that the rules accept; from then on always.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        while !bytes.is_empty() {
            match self.step(bytes) {
                Ok(0) => return Ok(()), // behind the end
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes the data of the entry whose header has just passed as if they had been pushed, and says how many bytes that is:
    /// for a reader that can leave them out. 0 where headers come next.
    pub fn skip_data(&mut self) -> u64 {
        let State::Data(left) = self.state else { return 0 };
        // No stream is longer than MAX_STREAM_LEN: `entry` has looked.
        self.position += left;
        self.state = padding(self.position);
        left
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// When it ended within an entry.
    pub fn finish(self) -> Result<Toc, TarError> {
        let whole = match self.state {
            State::Failed(error) => return Err(error),
            State::Header | State::SecondZeros => self.filled == 0,
            State::Padding(_) | State::End => true,
            State::Extension(..) | State::Data(_) => false,
        };
        if !whole {
            return Err(TarError::Truncated { offset: self.position });
        }
        Ok(Toc { entries: self.entries, archive_end: self.position })
    }

    /// Takes some of `bytes`, which aren't empty, and says how many: 0 behind the archive's end.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, TarError> {
        match &mut self.state {
            State::Header | State::SecondZeros => {
                let taken = bytes.len().min(BLOCK_LEN - self.filled);
                self.block[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                self.position += taken as u64;
                if self.filled == BLOCK_LEN {
                    self.filled = 0;
                    self.state = self.header()?;
                }
                Ok(taken)
            }
            State::Extension(kind, left) => {
                let (kind, taken) = (*kind, part(bytes, *left));
                *left -= taken as u64;
                let done = *left == 0;
                self.extension.extend_from_slice(&bytes[..taken]);
                self.position += taken as u64;
                if done {
                    self.state = self.extension(kind)?;
                }
                Ok(taken)
            }
            State::Data(left) => {
                let taken = part(bytes, *left);
                *left -= taken as u64;
                self.position += taken as u64;
                if *left == 0 {
                    self.state = padding(self.position);
                }
                Ok(taken)
            }
            State::Padding(left) => {
                let taken = part(bytes, *left);
                *left -= taken as u64;
                self.position += taken as u64;
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(taken)
            }
            State::End => Ok(0),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// A header block is complete: what comes after it.
    fn header(&mut self) -> Result<State, TarError> {
        self.header_offset = self.position - BLOCK_LEN as u64; // those of the block
        let zeros = *self.block == [0; BLOCK_LEN];
        match (&self.state, zeros) {
            (State::SecondZeros, true) => return Ok(State::End),
            (State::SecondZeros, false) => {
                return Err(self.invalid("one block of zeros, and then something else".to_owned()));
            }
            (_, true) => return Ok(State::SecondZeros),
            (_, false) => {}
        }
        let mut header = Header::parse(&self.block).map_err(|what| self.invalid(what))?;
        let extension = match header.kind {
            b'x' => Extension::Pax,
            b'g' if self.rules == TarRules::Fill => Extension::GlobalPax,
            b'L' => Extension::LongName,
            b'K' => Extension::LongLink,
            _ => {
                let pending = std::mem::take(&mut self.pending);
                let entry = self.entry(&mut header, pending)?;
                let size = entry.size;
                self.entries.push(entry);
                return Ok(if size == 0 { State::Header } else { State::Data(size) });
            }
        };
        let len = u64::try_from(header.size)
            .map_err(|_| self.invalid(format!("an extension of {} bytes", header.size)))?;
        limit("length of an extension header", len, MAX_EXTENSION_LEN)?;
        self.extension.clear();
        if len == 0 { self.extension(extension) } else { Ok(State::Extension(extension, len)) }
    }

    /// The body of an extension header is complete: what comes after it.
    fn extension(&mut self, kind: Extension) -> Result<State, TarError> {
        let body = std::mem::take(&mut self.extension);
        match kind {
            Extension::Pax => {
                self.pending.records = pax::parse(&body).map_err(|what| self.invalid(what))?;
            }
            Extension::GlobalPax => {
                pax::parse(&body).map_err(|what| self.invalid(what))?;
                // It is an entry of its own to Go: what was said of the next one is said of this.
                self.pending = Pending::default();
            }
            Extension::LongName => self.pending.long_name = header::text(&body).to_vec(),
            Extension::LongLink => self.pending.long_link = header::text(&body).to_vec(),
        }
        Ok(padding(self.position))
    }

    /// The entry that a header and the extensions before it make.
    fn entry(&mut self, header: &mut Header, pending: Pending) -> Result<Entry, TarError> {
        let Pending { records, long_name, long_link } = pending;
        pax::merge(header, &records).map_err(|what| self.invalid(what))?;
        if !long_name.is_empty() {
            header.name = long_name;
        }
        if !long_link.is_empty() {
            header.linkname = long_link;
        }
        let kind = match header.kind {
            b'0' => EntryKind::Regular,
            0 if header.name.ends_with(b"/") => EntryKind::Directory, // as before there was a type for them
            0 => EntryKind::Regular,
            b'1' => EntryKind::Hardlink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(self.unsupported(char::from(other).to_string())),
        };
        if pax::sparse_key(&records).is_some() {
            return Err(self.unsupported(SPARSE.to_owned()));
        }
        let size = match kind {
            EntryKind::Regular => u64::try_from(header.size)
                .map_err(|_| self.invalid(format!("the size is {}", header.size)))?,
            _ => 0, // these have no data, whatever their header says
        };
        limit("length of the stream", self.position.saturating_add(size), MAX_STREAM_LEN)?;
        let entry = Entry {
            name: std::mem::take(&mut header.name),
            kind,
            offset: self.position,
            size,
            linkname: std::mem::take(&mut header.linkname),
            mode: header.mode,
            uid: low_half(header.uid),
            gid: low_half(header.gid),
            uname: std::mem::take(&mut header.uname),
            gname: std::mem::take(&mut header.gname),
            mtime: header.mtime,
            devmajor: header.devmajor,
            devminor: header.devminor,
            pax: records.into_iter().collect(),
        };
        limit("number of entries", self.entries.len() as u64 + 1, MAX_ENTRIES)?;
        self.held += cost(&entry);
        limit("length of the table of contents", self.held, MAX_TOC_LEN)?;
        Ok(entry)
    }

    /// The header block that has just passed, or the one before the body that has, is malformed.
    fn invalid(&self, what: String) -> TarError {
        TarError::Header { offset: self.header_offset, what }
    }

    fn unsupported(&self, kind: String) -> TarError {
        TarError::Unsupported { offset: self.header_offset, kind }
    }
}

fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), TarError> {
    if value > limit { Err(TarError::Limit { what, value, limit }) } else { Ok(()) }
}

/// How many of `bytes` belong to what has `left` bytes left.
fn part(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}

/// What follows data that end at `position`. Headers begin at multiples of a block's length: `position` is from one.
fn padding(position: u64) -> State {
    match position.next_multiple_of(BLOCK_LEN as u64) - position {
        0 => State::Header,
        left => State::Padding(left),
    }
}

/// A number's low 32 bits, which is what a zTOC holds of an owner.
fn low_half(value: i64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("has 32 bits")
}

/// What an entry's strings take, in bytes.
fn cost(entry: &Entry) -> u64 {
    let strings = [&entry.name, &entry.linkname, &entry.uname, &entry.gname];
    let records = entry.pax.iter().map(|(key, value)| (key.len() + value.len()) as u64 + RECORD_COST);
    strings.iter().map(|string| string.len() as u64).sum::<u64>() + records.sum::<u64>()
}

#[cfg(test)]
#[path = "tar/tests.rs"]
mod tests;

//! Which spans of a stream are present, with a checksum of each, on disk and in memory.
//!
//! Nothing is flushed when a span is filled: after a power cut an entry may be on the disk whose bytes aren't. So each
//! entry holds the CRC-32 of the span's uncompressed bytes, and what was present before a restart counts as *unverified*
//! until `fetch` has read it once and compared. A torn entry fails a check of its own and counts as missing.
//!
//! A span may also go again, when the disk is to have room: its bytes become a hole, which reads as zeros. So who reads a
//! span looks twice: [`Bitmap::seen`] before it looks whether the span is present, [`Bitmap::unchanged`] after its bytes
//! were read and before they are used. Spans are withdrawn *before* the hole is made, first their states, then the number
//! that `seen` gives. A reader that has met the hole therefore finds the number changed; one that took the number after
//! the change finds the states changed, until the span is there anew, which is after the hole. That costs a read two loads
//! of a number that hardly ever changes, and no lock. (Between the number's change and the hole, and between the bytes
//! and the second look, are system calls on one file: the kernel's own locks order them.)
//!
//! The file: 16 bytes of header (magic, number of spans, its CRC), then 8 bytes for each span: the checksum, and a mark
//! that is made of span number and checksum. All numbers are little endian; zeros mean that the span is missing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering, fence};

use crate::open_files::LazyFile;

const MAGIC: [u8; 8] = *b"SPNDBM01";
const HEADER_LEN: u64 = 16;
const ENTRY_LEN: u64 = 8;

/// What is known of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its bytes aren't in the stream.
    Missing,
    /// They were before a restart; to be compared with this checksum before the first use.
    Unverified(u32),
    /// They are.
    Present,
}

const MISSING: u8 = 0;
const UNVERIFIED: u8 = 1;
const PRESENT: u8 = 2;

#[derive(Debug)]
struct Entry {
    state: AtomicU8,
    /// Whether its bytes were written so lately that they are in the page cache.
    fresh: AtomicBool,
    /// When the span was used last, as the caller counts time; in bytes that would be padding otherwise.
    used: AtomicU16,
    crc: AtomicU32,
}

impl Entry {
    fn new(state: u8, crc: u32) -> Self {
        Self {
            state: AtomicU8::new(state),
            fresh: AtomicBool::new(false),
            used: AtomicU16::new(0),
            crc: AtomicU32::new(crc),
        }
    }
}

/// How often spans had been withdrawn when somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen(u32);

/// What is on the disk of a span that isn't missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The span.
    pub id: u32,
    /// When it was used last, as callers of [`Bitmap::touch`] count time; 0 when it wasn't since the bitmap was opened.
    pub used: u16,
}

/// The bitmap of one stream.
#[derive(Debug)]
pub(crate) struct Bitmap {
    file: LazyFile,
    entries: Vec<Entry>,
    present: AtomicU32,
    /// Grows whenever spans were withdrawn.
    withdrawals: AtomicU32,
}

/// The mark beside the checksum `crc` of span `id`: never 0, and the same for no other span by accident.
fn mark(id: u32, crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&MAGIC);
    hasher.update(&id.to_le_bytes());
    hasher.update(&crc.to_le_bytes());
    hasher.finalize() | 1
}

fn header(spans: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&spans.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

impl Bitmap {
    /// Makes the file anew: `spans` spans, none present.
    pub(crate) fn create(path: &Path, spans: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(HEADER_LEN + u64::from(spans) * ENTRY_LEN)?;
        file.write_all_at(&header(spans), 0)?;
        Ok(Self::of(file.into(), (0..spans).map(|_| Entry::new(MISSING, 0)).collect()))
    }

    fn of(file: LazyFile, entries: Vec<Entry>) -> Self {
        Self { file, entries, present: AtomicU32::new(0), withdrawals: AtomicU32::new(0) }
    }

    /// Opens the file of a stream of `spans` spans. What makes no sense in it counts as missing; a file that isn't this
    /// stream's bitmap at all is made anew.
    pub(crate) fn open(path: &Path, spans: u32) -> io::Result<Self> {
        let len = HEADER_LEN + u64::from(spans) * ENTRY_LEN;
        let bytes = match std::fs::read(path) {
            Ok(bytes) if bytes.len() as u64 == len && bytes.starts_with(&header(spans)) => bytes,
            Ok(_) => return Self::create(path, spans),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::create(path, spans),
            Err(e) => return Err(e),
        };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let entries = (0u32..).zip(bytes[header(spans).len()..].chunks_exact(8)).map(|(id, entry)| {
            let crc = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let found = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let state = if found == mark(id, crc) { UNVERIFIED } else { MISSING };
            Entry::new(state, crc)
        });
        Ok(Self::of(file.into(), entries.collect()))
    }

    /// Keeps `file`, which is the same file, open only while it is used.
    pub(crate) fn opened_when_used(self, file: LazyFile) -> Self {
        Self { file, ..self }
    }

    /// The file is deleted, or another takes its place: what is written goes to the old one.
    pub(crate) fn hold(&self) {
        self.file.hold();
    }

    /// What is known of span `id`; a span that the stream doesn't have is missing.
    pub(crate) fn get(&self, id: u32) -> Presence {
        let Some(entry) = self.entries.get(id as usize) else { return Presence::Missing };
        match entry.state.load(Ordering::Acquire) {
            PRESENT => Presence::Present,
            UNVERIFIED => Presence::Unverified(entry.crc.load(Ordering::Relaxed)),
            _ => Presence::Missing,
        }
    }

    /// Whether something of span `id` is in the stream, checked or not.
    pub(crate) fn holds(&self, id: u32) -> bool {
        self.get(id) != Presence::Missing
    }

    /// Span `id` is in the stream with bytes of checksum `crc`; to be called after they were written.
    pub(crate) fn set(&self, id: u32, crc: u32) -> io::Result<()> {
        let Some(entry) = self.entries.get(id as usize) else { return Ok(()) };
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes[4..].copy_from_slice(&mark(id, crc).to_le_bytes());
        self.file.get()?.write_all_at(&bytes, HEADER_LEN + u64::from(id) * ENTRY_LEN)?;
        entry.crc.store(crc, Ordering::Relaxed);
        self.mark_present(entry);
        Ok(())
    }

    /// An unverified span has proved to be what its checksum says.
    pub(crate) fn verified(&self, id: u32) {
        if let Some(entry) = self.entries.get(id as usize) {
            self.mark_present(entry);
        }
    }

    /// A span that isn't missing can't be relied on.
    pub(crate) fn clear(&self, id: u32) -> io::Result<()> {
        let Some(entry) = self.entries.get(id as usize) else { return Ok(()) };
        if entry.state.swap(MISSING, Ordering::AcqRel) == PRESENT {
            self.present.fetch_sub(1, Ordering::Relaxed);
        }
        // Whoever is reading it looks again: what comes in its place may fail, and leaves a hole then.
        self.withdrawals.fetch_add(1, Ordering::AcqRel);
        self.file.get()?.write_all_at(&[0; 8], HEADER_LEN + u64::from(id) * ENTRY_LEN)
    }

    /// To be called before looking whether spans are present whose bytes are then read from the stream.
    pub(crate) fn seen(&self) -> Seen {
        Seen(self.withdrawals.load(Ordering::Acquire))
    }

    /// Whether what was read of spans that were present since `seen` is theirs. If not, some span was withdrawn
    /// meanwhile, and zeros may have been read.
    pub(crate) fn unchanged(&self, seen: Seen) -> bool {
        fence(Ordering::Acquire);
        self.withdrawals.load(Ordering::Relaxed) == seen.0
    }

    /// Span `id` is used at `now`, in the caller's own units.
    pub(crate) fn touch(&self, id: u32, now: u16) {
        // Nearly always it is so already: a load leaves the line shared among cores.
        if let Some(entry) = self.entries.get(id as usize)
            && entry.used.load(Ordering::Relaxed) != now
        {
            entry.used.store(now, Ordering::Relaxed);
        }
    }

    /// Whether the bytes of span `id` are in the page cache, as far as is known; only how they are best read hangs on it.
    pub(crate) fn is_fresh(&self, id: u32) -> bool {
        self.entries.get(id as usize).is_some_and(|entry| entry.fresh.load(Ordering::Relaxed))
    }

    /// See [`Bitmap::is_fresh`].
    pub(crate) fn set_fresh(&self, id: u32, fresh: bool) {
        if let Some(entry) = self.entries.get(id as usize) {
            entry.fresh.store(fresh, Ordering::Relaxed);
        }
    }

    /// The spans that aren't missing, in order.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> + '_ {
        (0u32..).zip(&self.entries).filter_map(|(id, entry)| {
            let held = entry.state.load(Ordering::Acquire) != MISSING;
            held.then(|| Held { id, used: entry.used.load(Ordering::Relaxed) })
        })
    }

    /// These spans are missing from now on, in memory: what comes after [`Bitmap::forget`] may be a hole. The caller sees
    /// to it that nobody fills them meanwhile.
    pub(crate) fn withdraw(&self, ids: &[u32]) {
        for entry in ids.iter().filter_map(|id| self.entries.get(*id as usize)) {
            if entry.state.swap(MISSING, Ordering::AcqRel) == PRESENT {
                self.present.fetch_sub(1, Ordering::Relaxed);
            }
        }
        // After the states: who sees the new number sees them.
        self.withdrawals.fetch_add(1, Ordering::AcqRel);
    }

    /// These spans, which were withdrawn, are missing on the disk too, for good when this returns.
    ///
    /// # Errors
    /// What the disk says. Entries may still say that their spans are present: their bytes must stay.
    pub(crate) fn forget(&self, ids: &[u32]) -> io::Result<()> {
        for id in ids {
            self.file.get()?.write_all_at(&[0; 8], HEADER_LEN + u64::from(*id) * ENTRY_LEN)?;
        }
        self.file.get()?.sync_data()
    }

    /// How many spans are present and verified.
    pub(crate) fn present(&self) -> u32 {
        self.present.load(Ordering::Relaxed)
    }

    fn mark_present(&self, entry: &Entry) {
        if entry.state.swap(PRESENT, Ordering::AcqRel) != PRESENT {
            self.present.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_unverified_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bitmap");
        let bitmap = Bitmap::create(&path, 3).expect("a file");
        bitmap.set(1, 0xabcd).expect("written");
        bitmap.set(2, 0).expect("written");
        bitmap.clear(2).expect("written");
        assert_eq!(bitmap.get(1), Presence::Present);
        assert_eq!(bitmap.present(), 1);
        let bitmap = Bitmap::open(&path, 3).expect("opens");
        assert_eq!(bitmap.get(0), Presence::Missing);
        assert_eq!(bitmap.get(1), Presence::Unverified(0xabcd));
        assert_eq!(bitmap.get(2), Presence::Missing);
        assert_eq!(bitmap.get(3), Presence::Missing, "there is no such span");
        bitmap.verified(1);
        assert_eq!(bitmap.get(1), Presence::Present);
    }

    #[test]
    fn what_is_withdrawn_is_missing_and_noticed_by_who_is_reading() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bitmap");
        let bitmap = Bitmap::create(&path, 4).expect("a file");
        for id in 0..3 {
            bitmap.set(id, id).expect("written");
        }
        bitmap.touch(1, 7);
        let held = |bitmap: &Bitmap| bitmap.held().map(|held| (held.id, held.used)).collect::<Vec<_>>();
        assert_eq!(held(&bitmap), [(0, 0), (1, 7), (2, 0)]);
        let seen = bitmap.seen();
        assert!(bitmap.unchanged(seen));
        bitmap.withdraw(&[0, 2, 3]);
        assert!(!bitmap.unchanged(seen));
        assert!(bitmap.unchanged(bitmap.seen()));
        assert_eq!((held(&bitmap), bitmap.present()), (vec![(1, 7)], 1));
        // On the disk they are there until that is written: a crash in between finds their bytes, too.
        assert_eq!(held(&Bitmap::open(&path, 4).expect("opens")), [(0, 0), (1, 0), (2, 0)]);
        bitmap.forget(&[0, 2, 3]).expect("written");
        assert_eq!(held(&Bitmap::open(&path, 4).expect("opens")), [(1, 0)]);
        // One that was filled meanwhile is there again, and who read before isn't told that all is as it was.
        bitmap.set(0, 5).expect("written");
        assert_eq!(bitmap.get(0), Presence::Present);
        assert!(!bitmap.unchanged(seen));
        // What turned out to be wrong may become a hole, too.
        let seen = bitmap.seen();
        bitmap.clear(1).expect("written");
        assert!(!bitmap.unchanged(seen));
    }

    #[test]
    fn damage_counts_as_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bitmap");
        let whole = {
            let bitmap = Bitmap::create(&path, 2).expect("a file");
            bitmap.set(0, 7).expect("written");
            bitmap.set(1, 8).expect("written");
            std::fs::read(&path).expect("reads")
        };
        // Every byte of the file, wrong: at most the other span is still believed, and with its own checksum.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).expect("written");
            let bitmap = Bitmap::open(&path, 2).expect("opens");
            for (id, crc) in [(0, 7), (1, 8)] {
                let hit = at < 16 || (16 + id as usize * 8..24 + id as usize * 8).contains(&at);
                let want = if hit { Presence::Missing } else { Presence::Unverified(crc) };
                assert_eq!(bitmap.get(id), want, "byte {at}, span {id}");
            }
        }
        // Entries that were swapped, or belong to a bitmap of another length.
        let mut swapped = whole.clone();
        swapped[16..].rotate_left(8);
        std::fs::write(&path, &swapped).expect("written");
        assert_eq!(Bitmap::open(&path, 2).expect("opens").get(0), Presence::Missing);
        std::fs::write(&path, &whole).expect("written");
        assert_eq!(Bitmap::open(&path, 1).expect("opens").get(0), Presence::Missing);
    }
}

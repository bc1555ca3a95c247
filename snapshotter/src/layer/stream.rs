//! A layer's stream on disk: one sparse file with the uncompressed tar. Which parts of it hold bytes that can be trusted
//! is `bitmap`'s to say.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags};

use crate::open_files::LazyFile;

/// The file is padded to whole pages: EROFS reads its device by pages.
pub(crate) const PAGE: u64 = 4096;

/// Disks read whole sectors past the page cache, of so many bytes as a rule.
const SECTOR: usize = 512;

thread_local! {
    /// What a thread reads into past the page cache where the reader's own place doesn't suit: made once.
    static ASIDE: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
}

/// Memory that begins with a page, as reads past the page cache want it.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// `len` bytes of it, with any content.
    pub(crate) fn of(&mut self, len: usize) -> &mut [u8] {
        /// A page.
        const ALIGNED: usize = 4096;
        if self.0.len() < len + ALIGNED {
            self.0.resize(len + ALIGNED, 0);
        }
        let start = self.0.as_ptr().align_offset(ALIGNED);
        &mut self.0[start..start + len]
    }
}

/// Length of the file for a stream of `len` bytes.
pub(crate) fn padded(len: u64) -> u64 {
    len.next_multiple_of(PAGE)
}

/// A stream file.
#[derive(Debug)]
pub(crate) struct Stream {
    file: LazyFile,
    /// Length of the file: what lies before its end must be there, whatever happened to the file.
    len: u64,
}

impl Stream {
    /// Makes the file anew, with a hole of `len` bytes (to be padded) and nothing in it.
    pub(crate) fn create(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(padded(len))?;
        Ok(Self { file: file.into(), len: padded(len) })
    }

    /// Opens a file that is there, of a stream of `len` bytes. It stays open.
    pub(crate) fn open(path: &Path, len: u64) -> io::Result<Self> {
        Self::open_when_used(OpenOptions::new().read(true).write(true).open(path)?.into(), len)
    }

    /// As [`Stream::open`], but the file is open only while it is used.
    pub(crate) fn open_when_used(file: LazyFile, len: u64) -> io::Result<Self> {
        let have = file.get()?.metadata()?.len();
        if have != padded(len) {
            let what = format!("{} has {have} bytes, not {}", file.path().display(), padded(len));
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self { file, len: have })
    }

    /// A stream in any file.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self { file: file.into(), len: u64::MAX }
    }

    /// Reads the bytes at `offset`; what lies behind the file's end is zero.
    ///
    /// # Errors
    /// What the disk says; also when the file has become shorter than it was: zeros in place of its bytes would be taken for
    /// them.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.get()?.read_exact_at(self.there(offset, buf), offset)
    }

    /// As [`Stream::read`], past the page cache: for somebody who keeps what he has read in a cache of his own (the kernel, of a
    /// mount). What was written and isn't on the disk yet is waited for. The fastest way into `buf` is from a sector on, into a
    /// [`Buffer`].
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub(crate) fn read_past_cache(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let file = self.file.get()?;
        match file.direct() {
            Some(direct) => self.read_direct(direct, offset, self.there(offset, buf)),
            None => self.read(offset, buf),
        }
    }

    /// The part of `buf` for which the file has bytes from `offset` on; the rest is zeroed.
    fn there<'b>(&self, offset: u64, buf: &'b mut [u8]) -> &'b mut [u8] {
        let there = self.len.saturating_sub(offset);
        let there = usize::try_from(there).map_or(buf.len(), |there| there.min(buf.len()));
        let (there, behind) = buf.split_at_mut(there);
        behind.fill(0);
        there
    }

    fn read_direct(&self, direct: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let suits = offset.is_multiple_of(SECTOR as u64)
            && buf.len().is_multiple_of(SECTOR)
            && buf.as_ptr().addr().is_multiple_of(SECTOR);
        if suits {
            match direct.read_exact_at(buf, offset) {
                // Sectors are longer here.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                result => return result,
            }
        }
        let start = offset - offset % PAGE;
        let end = (offset + buf.len() as u64).next_multiple_of(PAGE).min(self.len);
        ASIDE.with_borrow_mut(|aside| {
            let bytes = aside.of(usize::try_from(end - start).map_err(io::Error::other)?);
            direct.read_exact_at(bytes, start)?;
            let from = usize::try_from(offset - start).map_err(io::Error::other)?;
            buf.copy_from_slice(&bytes[from..from + buf.len()]);
            Ok(())
        })
    }

    /// Writes bytes at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.get()?.write_all_at(bytes, offset)
    }

    /// Says that nobody needs `range` in the page cache: what is on the disk is dropped from it, and the disk begins with the rest
    /// without being waited for, so that little is left for [`Stream::sync`]. That it can't be said costs time and memory, and
    /// nothing else.
    pub(crate) fn not_needed(&self, range: Range<u64>) {
        let len = NonZeroU64::new(range.end.saturating_sub(range.start));
        if len.is_some()
            && let Ok(file) = self.file.get()
        {
            rustix::fs::fadvise(&**file, range.start, len, Advice::DontNeed).ok();
        }
    }

    /// Makes the file `len` bytes long, padded.
    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.get()?.set_len(padded(len))?;
        self.len = padded(len);
        Ok(())
    }

    /// Gives the blocks back that lie within `range` as a whole: a hole, which reads as zeros. Returns how long it is, in
    /// bytes. Blocks at its ends that others share stay as they are. Not while anybody relies on these bytes: `bitmap`
    /// says how that is known.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn punch(&self, range: Range<u64>) -> io::Result<u64> {
        let block = self.file.get()?.metadata()?.blksize().max(512);
        let start = range.start.next_multiple_of(block);
        let end = if range.end >= self.len { self.len } else { range.end - range.end % block };
        let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { return Ok(0) };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&**self.file.get()?, flags, start, len)?;
        Ok(len)
    }

    /// Bytes that the file takes on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.get()?.metadata()?.blocks() * 512)
    }

    /// Waits until all of it is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.get()?.sync_all()
    }

    /// The file is deleted, or another takes its place: whoever reads or writes this one means the old one.
    pub(crate) fn hold(&self) {
        self.file.hold();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_from_the_file_is_no_zeros() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("stream");
        let stream = Stream::create(&path, 10_000).expect("made");
        stream.write(0, &[7; 10_000]).expect("written");
        let mut bytes = [1; 8192];
        stream.read(8192, &mut bytes).expect("reads");
        assert_eq!(bytes[..1808], [7; 1808]);
        assert!(bytes[1808..].iter().all(|byte| *byte == 0), "padding, and what lies behind the file");
        File::options().write(true).open(&path).expect("opens").set_len(5000).expect("cut");
        let error = stream.read(4096, &mut bytes).expect_err("it was cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(Stream::open(&path, 10_000).is_err());
    }

    #[test]
    fn what_is_read_past_the_cache_is_what_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("stream");
        let bytes: Vec<u8> = (0..3_000_000).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let len = bytes.len() as u64;
        let stream = Stream::create(&path, len).expect("made");
        stream.write(0, &bytes).expect("written");
        let mut buffer = Buffer::new();
        // Before it is on the disk; while it is there and in the cache; and when it has left that.
        for step in 0..3 {
            for (offset, len) in [(0, 1 << 20), (512, 4096), (513, 70_000), (999_999, 1), (2_990_592, 8192)] {
                let at = usize::try_from(offset).expect("small");
                let read = buffer.of(len);
                stream.read_past_cache(offset, read).expect("reads");
                assert!(*read == bytes[at..at + len], "{step}: {offset} {len}");
                let mut anywhere = vec![1; len + 1];
                stream.read_past_cache(offset, &mut anywhere[1..]).expect("reads");
                assert!(anywhere[1..] == bytes[at..at + len], "{step}: {offset} {len}");
            }
            let mut end = [1; 20_000];
            stream.read_past_cache(len - 5, &mut end).expect("reads");
            assert_eq!(
                (&end[..5], end[5..].iter().all(|byte| *byte == 0)),
                (&bytes[bytes.len() - 5..], true)
            );
            stream.sync().expect("synced");
            if step == 1 {
                stream.not_needed(0..len);
            }
        }
        File::options().write(true).open(&path).expect("opens").set_len(5000).expect("cut");
        stream.read_past_cache(4096, buffer.of(8192)).expect_err("it was cut");
    }

    #[test]
    fn a_hole_takes_whole_blocks_and_no_neighbours() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("stream");
        let len = 1_000_000;
        let stream = Stream::create(&path, len).expect("made");
        let block = std::fs::metadata(&path).expect("there").blksize();
        let bytes = vec![7; usize::try_from(len).expect("small")];
        for (range, hole) in [
            (block + 1..3 * block + 5, 2 * block..3 * block),
            (block..3 * block, block..3 * block),
            (5..block, 5..5),
            (block - 1..block + 1, 0..0),
            // To its very end, padding included.
            (100 * block + 9..padded(len), 101 * block..len),
            (0..padded(len), 0..len),
        ] {
            stream.write(0, &bytes).expect("written");
            stream.sync().expect("synced");
            let before = stream.allocated().expect("known");
            stream.punch(range.clone()).expect("punched");
            let mut read = vec![1; bytes.len()];
            stream.read(0, &mut read).expect("reads");
            let hole_bytes: Vec<u64> =
                (0u64..).zip(&read).filter(|(_, byte)| **byte == 0).map(|(at, _)| at).collect();
            assert_eq!(hole_bytes, hole.clone().collect::<Vec<_>>(), "{range:?}");
            let freed = before - stream.allocated().expect("known");
            assert_eq!(
                freed,
                hole.end.next_multiple_of(block) - hole.start.next_multiple_of(block),
                "{range:?}"
            );
            assert_eq!(std::fs::metadata(&path).expect("there").len(), padded(len), "{range:?}");
        }
    }
}

//! A layer's stream on disk: one sparse file with the uncompressed tar. Which parts of it hold bytes that can be trusted
//! is `bitmap`'s to say.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The file is padded to whole pages: EROFS reads its device by pages.
pub(crate) const PAGE: u64 = 4096;

/// Length of the file for a stream of `len` bytes.
pub(crate) fn padded(len: u64) -> u64 {
    len.next_multiple_of(PAGE)
}

/// A stream file.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
}

impl Stream {
    /// Makes the file anew, with a hole of `len` bytes (to be padded) and nothing in it.
    pub(crate) fn create(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(padded(len))?;
        Ok(Self { file })
    }

    /// Opens a file that is there, of a stream of `len` bytes.
    pub(crate) fn open(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let have = file.metadata()?.len();
        if have != padded(len) {
            let what = format!("{} has {have} bytes, not {}", path.display(), padded(len));
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self { file })
    }

    /// A stream in any file.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self { file }
    }

    /// Reads the bytes at `offset`; what lies behind the end of the file is zero.
    pub(crate) fn read(&self, offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        let mut offset = offset;
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => {
                    buf.fill(0);
                    break;
                }
                Ok(len) => {
                    offset += len as u64;
                    buf = &mut buf[len..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes bytes at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Makes the file `len` bytes long, padded.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(padded(len))
    }

    /// Waits until all of it is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

//! Reads tables: what the kernel would say of one that this crate wrote, for those who can't have the kernel mount it.
//!
//! Nothing is kept of a table but where its root is: each question is answered by reading the few bytes that the answer is
//! made of. Tables lie on a disk, so what is read is checked before it is used; forms of the format that [`write`](crate::write)
//! doesn't write count as damage.

use std::io;
use std::ops::ControlFlow;

use crate::format::{
    BLOCK_BITS, BLOCK_LEN, CHUNK_INDEX_LEN, DIRENT_LEN, INODE_LEN, INODES_AT, Layout, SLOT_LEN,
    SUPERBLOCK_AT, Superblock, XATTR_HEADER_LEN, file_mode,
};
use crate::limits::{MAX_DEVICE_LEN, MAX_TARGET_LEN};
use crate::{Error, xattr};

/// How much of an inode is read at a time, in bytes: with it come the attributes and chunk of nearly all.
const INODE_READ_LEN: usize = 128;

/// Entries of one block at most; what numbers the entries of a directory counts so many for each block.
const ENTRIES_PER_BLOCK: u64 = 64;
const _: () = assert!(((BLOCK_LEN / (DIRENT_LEN + 1)) as u64) < ENTRIES_PER_BLOCK);

/// Where a table's bytes come from.
pub trait ReadAt {
    /// Fills `buf` with the bytes from `offset` on; all of them lie within the length that [`Table::open`] was told.
    ///
    /// # Errors
    /// When they can't be had, or there are fewer.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(offset).ok().and_then(|at| self.get(at..at.checked_add(buf.len())?));
        buf.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buf)
    }
}

/// An inode's number in its table, as `stat` shows it when the kernel mounts the table.
pub type Nid = u64;

/// An inode as a table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub nid: Nid,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits, setuid, setgid, sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Modification time, nanoseconds after `mtime`: below 1,000,000,000.
    pub mtime_nsec: u32,
    /// Number of names.
    pub nlink: u32,
    /// Length in bytes, also of a directory's content and a link's target.
    pub size: u64,
    layout: Layout,
    /// Where in the table its data in whole blocks begin, in blocks.
    block: u32,
    /// Length of its extended attributes in bytes.
    xattrs_len: usize,
}

/// What an inode of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file, whose bytes begin in the device here; 0 for an empty one.
    File {
        /// Offset in the device, in bytes.
        offset: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device (or a whiteout: number 0), with its number in Linux' 32-bit form.
    Char(u32),
    /// A block device.
    Block(u32),
    /// A named pipe.
    Fifo,
}

/// A directory's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name; `.` and `..` are among them.
    pub name: &'a [u8],
    /// The inode that it names.
    pub nid: Nid,
    /// Number to go on behind this entry with.
    pub next: u64,
}

/// A table that can be asked.
#[derive(Debug)]
pub struct Table<B> {
    bytes: B,
    len: u64,
    root: Nid,
}

fn damaged(what: impl Into<String>) -> Error {
    Error::Damaged(what.into())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl<B: ReadAt> Table<B> {
    /// Opens the table in `bytes`, `len` of them.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it isn't one that this crate wrote, [`Error::Read`] when it can't be read.
    pub fn open(bytes: B, len: u64) -> Result<Self, Error> {
        let mut table = Self { bytes, len, root: 0 };
        let mut block = [0; BLOCK_LEN];
        table.read(SUPERBLOCK_AT as u64, &mut block)?;
        let superblock = Superblock::get(&mut block).map_err(damaged)?;
        if u64::from(superblock.blocks) << BLOCK_BITS != len {
            return Err(damaged(format!("it has {len} bytes, not {} blocks", superblock.blocks)));
        }
        table.root = superblock.root_nid.into();
        match table.root()?.kind {
            NodeKind::Directory => Ok(table),
            kind => Err(damaged(format!("its root is a {kind:?}"))),
        }
    }

    /// Its root directory.
    ///
    /// # Errors
    /// As for [`node`](Self::node).
    pub fn root(&self) -> Result<Node, Error> {
        self.node(self.root)
    }

    /// How many numbers of inodes there may be: all are below.
    pub fn nid_end(&self) -> Nid {
        self.len / SLOT_LEN as u64
    }

    /// The inode of that number.
    ///
    /// # Errors
    /// When there is none, or the table can't be read.
    pub fn node(&self, nid: Nid) -> Result<Node, Error> {
        let at = nid.saturating_mul(SLOT_LEN as u64);
        if at < INODES_AT as u64 || at.saturating_add(INODE_LEN as u64) > self.len {
            return Err(damaged(format!("inode {nid} lies outside of it")));
        }
        let mut buf = [0; INODE_READ_LEN];
        let len = usize::try_from(self.len - at).map_or(buf.len(), |left| left.min(buf.len()));
        self.read(at, &mut buf[..len])?;
        let wrong = |what: &str| damaged(format!("inode {nid}: {what}"));
        let format = u16_at(&buf, 0);
        let layout = match format >> 1 {
            0 => Layout::Plain,
            2 => Layout::Inline,
            4 => Layout::Chunked,
            _ => return Err(wrong("its layout")),
        };
        let xattrs_len = match u16_at(&buf, 2) {
            0 => 0,
            count => XATTR_HEADER_LEN + (usize::from(count) - 1) * 4,
        };
        let (mode, size, place) = (u16_at(&buf, 4), u64_at(&buf, 8), u32_at(&buf, 16));
        let (mtime, mtime_nsec) = (u64_at(&buf, 32).cast_signed(), u32_at(&buf, 40));
        if format & 1 == 0 || mtime_nsec > 999_999_999 {
            return Err(wrong("its form"));
        }
        let kind = match (mode & !0o7777, layout) {
            (file_mode::DIRECTORY, Layout::Plain | Layout::Inline) => NodeKind::Directory,
            (file_mode::SYMLINK, Layout::Plain | Layout::Inline) => NodeKind::Symlink,
            (file_mode::CHAR, Layout::Plain) => NodeKind::Char(place),
            (file_mode::BLOCK, Layout::Plain) => NodeKind::Block(place),
            (file_mode::FIFO, Layout::Plain) => NodeKind::Fifo,
            (file_mode::REGULAR, Layout::Plain) if size == 0 => NodeKind::File { offset: 0 },
            (file_mode::REGULAR, Layout::Chunked) => {
                // A file lies in one piece: where the first chunk begins says it all.
                let chunk_at = (INODE_LEN + xattrs_len).next_multiple_of(CHUNK_INDEX_LEN);
                let mut chunk = [0; CHUNK_INDEX_LEN];
                match buf[..len].get(chunk_at..chunk_at + CHUNK_INDEX_LEN) {
                    Some(there) => chunk.copy_from_slice(there),
                    None => self.read(at + chunk_at as u64, &mut chunk)?,
                }
                NodeKind::File { offset: u64::from(u32_at(&chunk, 4)) << BLOCK_BITS }
            }
            _ => return Err(wrong("what it is")),
        };
        if let NodeKind::File { offset } = kind
            && offset.checked_add(size).is_none_or(|end| end > MAX_DEVICE_LEN)
        {
            return Err(wrong("where its data lie"));
        }
        Ok(Node {
            nid,
            kind,
            mode: mode & 0o7777,
            uid: u32_at(&buf, 24),
            gid: u32_at(&buf, 28),
            mtime,
            mtime_nsec,
            nlink: u32_at(&buf, 44),
            size,
            layout,
            block: place,
            xattrs_len,
        })
    }

    /// What `name` is in the directory; `None` when it isn't there.
    ///
    /// # Errors
    /// When the table is damaged or can't be read.
    pub fn find(&self, directory: &Node, name: &[u8]) -> Result<Option<Nid>, Error> {
        // Sorted within and across blocks: the last block that doesn't begin behind the name has it, if any.
        let (mut low, mut high) = (0, directory.size.div_ceil(BLOCK_LEN as u64));
        let mut block = DirBlock::default();
        while low < high {
            let middle = low + (high - low) / 2;
            self.read_dir_block(directory, middle, &mut block)?;
            let (mut at, mut end) = (0, block.count);
            if end == 0 || name < block.entry(0)?.0 {
                high = middle;
                continue;
            }
            while end - at > 1 {
                let half = at + (end - at) / 2;
                if name < block.entry(half)?.0 { end = half } else { at = half }
            }
            let (found, nid) = block.entry(at)?;
            if found == name {
                return Ok(Some(nid));
            }
            if at + 1 < block.count {
                return Ok(None); // it would be in this block
            }
            low = middle + 1;
        }
        Ok(None)
    }

    /// Calls `each` with the directory's entries, sorted by name, from the one with that number on (0 for the first, or
    /// [`Entry::next`]), until it breaks.
    ///
    /// # Errors
    /// When the table is damaged or can't be read.
    pub fn entries(
        &self,
        directory: &Node,
        from: u64,
        mut each: impl FnMut(Entry<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut skip = usize::try_from(from % ENTRIES_PER_BLOCK).expect("is small");
        let mut block = DirBlock::default();
        for number in from / ENTRIES_PER_BLOCK..directory.size.div_ceil(BLOCK_LEN as u64) {
            self.read_dir_block(directory, number, &mut block)?;
            for at in skip..block.count {
                let (name, nid) = block.entry(at)?;
                let next = number * ENTRIES_PER_BLOCK + at as u64 + 1;
                if each(Entry { name, nid, next })?.is_break() {
                    return Ok(());
                }
            }
            skip = 0;
        }
        Ok(())
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// When it is none, or the table can't be read.
    pub fn target(&self, link: &Node) -> Result<Vec<u8>, Error> {
        if link.kind != NodeKind::Symlink || link.size > MAX_TARGET_LEN {
            return Err(damaged(format!("inode {} has no target", link.nid)));
        }
        let mut target = vec![0; usize::try_from(link.size).expect("was checked")];
        let mut at = 0;
        while at < target.len() {
            let end = (at + BLOCK_LEN).min(target.len());
            self.read_block(link, (at / BLOCK_LEN) as u64, &mut target[at..end])?;
            at = end;
        }
        Ok(target)
    }

    /// Calls `each` with every extended attribute of the inode: name with prefix, value.
    ///
    /// # Errors
    /// When the table is damaged or can't be read.
    pub fn xattrs(&self, node: &Node, each: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        if node.xattrs_len == 0 {
            return Ok(());
        }
        // A quarter of a MiB at most: its length is a field of 16 bits.
        let mut bytes = vec![0; node.xattrs_len];
        self.read(node.at() + INODE_LEN as u64, &mut bytes)?;
        xattr::read(&bytes, each)
            .ok_or_else(|| damaged(format!("inode {}: its extended attributes", node.nid)))
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(damaged(format!("something at {offset} lies outside of it")));
        }
        self.bytes.read_at(offset, buf).map_err(|error| Error::Read(error.to_string()))
    }

    /// Reads block `number` of an inode's data in the table, or so much of it as there is: that is `buf`'s length.
    fn read_block(&self, node: &Node, number: u64, buf: &mut [u8]) -> Result<(), Error> {
        let whole = node.size / BLOCK_LEN as u64;
        let at = if node.layout == Layout::Inline && number >= whole {
            node.at() + (INODE_LEN + node.xattrs_len) as u64
        } else {
            u64::from(node.block).saturating_add(number).saturating_mul(BLOCK_LEN as u64)
        };
        self.read(at, buf)
    }

    fn read_dir_block(&self, directory: &Node, number: u64, block: &mut DirBlock) -> Result<(), Error> {
        if directory.kind != NodeKind::Directory {
            return Err(damaged(format!("inode {} is no directory", directory.nid)));
        }
        let left = directory.size - number * BLOCK_LEN as u64;
        block.len = usize::try_from(left).map_or(BLOCK_LEN, |left| left.min(BLOCK_LEN));
        self.read_block(directory, number, &mut block.bytes[..block.len])?;
        block.nid = directory.nid;
        block.look()
    }
}

impl Node {
    /// Where it lies in the table.
    fn at(&self) -> u64 {
        self.nid * SLOT_LEN as u64
    }
}

/// One block of a directory.
struct DirBlock {
    bytes: [u8; BLOCK_LEN],
    /// How much of it is the directory's.
    len: usize,
    /// How many entries it has.
    count: usize,
    /// The directory.
    nid: Nid,
}

impl Default for DirBlock {
    fn default() -> Self {
        Self { bytes: [0; BLOCK_LEN], len: 0, count: 0, nid: 0 }
    }
}

impl DirBlock {
    fn damaged(&self) -> Error {
        damaged(format!("inode {}: its entries", self.nid))
    }

    /// Counts the entries: where the first name begins they end.
    fn look(&mut self) -> Result<(), Error> {
        if self.len < DIRENT_LEN {
            return Err(self.damaged());
        }
        let end = usize::from(u16_at(&self.bytes, 8));
        if end == 0 || !end.is_multiple_of(DIRENT_LEN) || end > self.len {
            return Err(self.damaged());
        }
        self.count = end / DIRENT_LEN;
        Ok(())
    }

    /// Name and inode of the entry `index`, which is there.
    fn entry(&self, index: usize) -> Result<(&[u8], Nid), Error> {
        let at = index * DIRENT_LEN;
        let begin = usize::from(u16_at(&self.bytes, at + 8));
        let last = index + 1 == self.count;
        let end = if last { self.len } else { usize::from(u16_at(&self.bytes, at + DIRENT_LEN + 8)) };
        let name = self.bytes[..self.len].get(begin..end).ok_or_else(|| self.damaged())?;
        // Behind the last name a block that isn't the last one is zero.
        let name = if last { name.split(|&byte| byte == 0).next().unwrap_or_default() } else { name };
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(self.damaged());
        }
        Ok((name, u64_at(&self.bytes, at)))
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

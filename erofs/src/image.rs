//! The image in the making: where things lie in it. Inodes come one after the other from behind the superblock, each with its
//! attributes, the end of its data or its chunks' places; behind them all the whole blocks of long directories and link targets.

use std::ops::Range;

use crate::dirs;
use crate::format::{
    BLOCK_LEN, CHUNK_INDEX_LEN, IMAGE_ALIGN, INODE_LEN, INODE_PLACE_AT, INODES_AT, Layout, MAX_CHUNK_BITS,
    RawInode, SLOT_LEN, Superblock, chunk_format, put, put_chunk,
};
use crate::limits::MAX_IMAGE_LEN;
use crate::{Error, Options};

/// Data of an inode.
pub(crate) enum Data<'a> {
    /// None, or a device number.
    None,
    /// In the device.
    Chunks(Chunks),
    /// The target of a symbolic link.
    Target(&'a [u8]),
    /// Names: the contents from this offset to their end.
    Directory(usize),
}

/// Where in the device a file lies: in one piece, in as few chunks as the format allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    block: u32,
    /// The base-2 logarithm of a chunk's length in blocks.
    bits: u8,
    /// 1, or 2 for files of more than 1 TiB.
    count: u32,
}

impl Chunks {
    /// A file of `size` bytes, more than 0, from `block` on. It lies in the device.
    pub(crate) fn new(block: u32, size: u64) -> Self {
        let blocks = size.div_ceil(BLOCK_LEN as u64);
        let bits = (0..MAX_CHUNK_BITS).find(|&bits| blocks <= 1 << bits);
        let bits = bits.unwrap_or(MAX_CHUNK_BITS);
        let count = u32::try_from(blocks.div_ceil(1 << bits)).expect("a device has less than 2^32 blocks");
        Self { block, bits, count }
    }

    fn put(self, mut out: &mut [u8]) {
        for number in 0..self.count {
            put_chunk(out, self.block + (number << self.bits));
            out = &mut out[CHUNK_INDEX_LEN..];
        }
    }
}

/// An inode with data in the image that can't be written before all inodes have their places.
struct Pending {
    inode_at: usize,
    content: Range<usize>,
    /// Where the content's end belongs, behind the inode; or all is in blocks.
    tail: Option<Range<usize>>,
    directory: bool,
}

/// The image in the making.
pub(crate) struct Image {
    bytes: Vec<u8>,
    /// Offset of each inode by its id; 0 before it has one.
    offsets: Vec<usize>,
    /// Room before the last inode that had to begin with a block. It lies within one block.
    gap: Range<usize>,
    /// Content of directories, and targets that don't fit behind their inode.
    contents: Vec<u8>,
    pending: Vec<Pending>,
    inodes: u64,
}

impl Image {
    /// For inodes with ids below `count`.
    pub(crate) fn new(count: u32) -> Self {
        Self {
            bytes: vec![0; INODES_AT],
            offsets: vec![0; count as usize],
            gap: 0..0,
            contents: Vec::new(),
            pending: Vec::new(),
            inodes: 0,
        }
    }

    /// Where a directory's content is written to before the directory is added.
    pub(crate) fn contents(&mut self) -> &mut Vec<u8> {
        &mut self.contents
    }

    /// Adds inode `id`, whose `layout`, and for all but devices `place`, are still to be found. The first is the root.
    pub(crate) fn add(&mut self, id: u32, mut raw: RawInode, xattrs: &[u8], data: Data<'_>) {
        let head_len = INODE_LEN + xattrs.len();
        let at = match data {
            Data::None => self.place(head_len, false),
            Data::Chunks(chunks) => {
                let chunks_at = head_len.next_multiple_of(CHUNK_INDEX_LEN);
                let at = self.place(chunks_at + chunks.count as usize * CHUNK_INDEX_LEN, false);
                raw.layout = Layout::Chunked;
                raw.place = chunk_format(chunks.bits);
                chunks.put(&mut self.bytes[at + chunks_at..]);
                at
            }
            Data::Target(target) => {
                let begin = self.contents.len();
                self.contents.extend_from_slice(target);
                self.place_content(&mut raw, head_len, begin, false)
            }
            Data::Directory(begin) => self.place_content(&mut raw, head_len, begin, true),
        };
        raw.put(&mut self.bytes[at..]);
        put(&mut self.bytes, at + INODE_LEN, xattrs);
        self.offsets[id as usize] = at;
        self.inodes += 1;
    }

    /// Finds the place of an inode with what is behind `begin` in the contents.
    fn place_content(&mut self, raw: &mut RawInode, head_len: usize, begin: usize, directory: bool) -> usize {
        let content = begin..self.contents.len();
        let tail_len = content.len() % BLOCK_LEN;
        // The kernel takes a tail only from the block in which it begins, and a short link's target only from the one
        // in which its inode ends.
        let inline = tail_len > 0 && head_len + tail_len <= BLOCK_LEN;
        let (at, tail) = if inline {
            raw.layout = Layout::Inline;
            let at = self.place(head_len + tail_len, true);
            (at, Some(at + head_len..at + head_len + tail_len))
        } else {
            (self.place(head_len, false), None)
        };
        self.pending.push(Pending { inode_at: at, content, tail, directory });
        at
    }

    /// Finds a place for `len` bytes, if asked for within one block.
    fn place(&mut self, len: usize, in_block: bool) -> usize {
        if len <= self.gap.len() {
            let at = self.gap.start;
            self.gap.start = (at + len).next_multiple_of(SLOT_LEN);
            return at;
        }
        let mut at = self.bytes.len().next_multiple_of(SLOT_LEN);
        if in_block && at % BLOCK_LEN + len > BLOCK_LEN {
            let block = at.next_multiple_of(BLOCK_LEN);
            if block - at > self.gap.len() {
                self.gap = at..block;
            }
            at = block;
        }
        self.bytes.resize(at + len, 0);
        at
    }

    /// Writes what could not be written before, and the superblock.
    pub(crate) fn finish(mut self, options: &Options) -> Result<Vec<u8>, Error> {
        let mut contents = std::mem::take(&mut self.contents);
        for Pending { inode_at, content, tail, directory } in std::mem::take(&mut self.pending) {
            let content = &mut contents[content];
            if directory {
                dirs::number(content, |id| (self.offsets[id as usize] / SLOT_LEN) as u64);
            }
            let tail = tail.unwrap_or(0..0);
            let (blocks, end) = content.split_at(content.len() - tail.len());
            self.bytes[tail].copy_from_slice(end);
            if !blocks.is_empty() {
                let at = self.bytes.len().next_multiple_of(BLOCK_LEN);
                self.bytes.resize(at, 0);
                self.bytes.extend_from_slice(blocks);
                let block = u32::try_from(at / BLOCK_LEN).map_err(|_| too_large(at))?;
                put(&mut self.bytes, inode_at + INODE_PLACE_AT, &block.to_le_bytes());
            }
        }
        let len = self.bytes.len().next_multiple_of(IMAGE_ALIGN);
        self.bytes.resize(len, 0);
        let blocks = |len: u64| u32::try_from(len.div_ceil(BLOCK_LEN as u64));
        Superblock {
            root_nid: u16::try_from(self.offsets[0] / SLOT_LEN).expect("the root comes first"),
            inodes: self.inodes,
            blocks: blocks(len as u64).map_err(|_| too_large(len))?,
            device_blocks: blocks(options.device_len).expect("checked against MAX_DEVICE_LEN"),
        }
        .put(&mut self.bytes);
        Ok(self.bytes)
    }
}

fn too_large(len: usize) -> Error {
    Error::TooLarge { what: "length of the table", value: len as u64, limit: MAX_IMAGE_LEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_smallest_chunk_that_holds_it() {
        for (size, bits, count) in [
            (1, 0, 1),
            (512, 0, 1),
            (513, 1, 1),
            (1024, 1, 1),
            (1025, 2, 1),
            (1 << 40, 31, 1),
            ((1 << 40) + 1, 31, 2),
            (0xffff_ffff * 512, 31, 2),
        ] {
            assert_eq!(Chunks::new(7, size), Chunks { block: 7, bits, count }, "{size}");
        }
    }
}

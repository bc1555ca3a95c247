//! The structures of EROFS as they lie on disk (little endian), and their numbers.
//!
//! The source is Linux 6.12, `fs/erofs/erofs_fs.h`; `docs/tables.md` says how we use it.

use sha2::{Digest as _, Sha256};

/// The base-2 logarithm of [`BLOCK_LEN`].
pub(crate) const BLOCK_BITS: u8 = 9;

/// Length of a block, in bytes: a tar's, so that a file's data in a tar begins with a block.
pub(crate) const BLOCK_LEN: usize = 1 << BLOCK_BITS;

/// Inodes begin at multiples of this; their number is their offset in these units.
pub(crate) const SLOT_LEN: usize = 32;

/// Length of an inode in its long form, which alone has a time of its own.
pub(crate) const INODE_LEN: usize = 64;

/// Length of a directory entry, without its name.
pub(crate) const DIRENT_LEN: usize = 12;

/// Length of what is before an inode's extended attributes.
pub(crate) const XATTR_HEADER_LEN: usize = 12;

/// Length of one chunk's place, and what it is aligned to.
pub(crate) const CHUNK_INDEX_LEN: usize = 8;

/// Largest chunk, as the base-2 logarithm of its blocks: a field of five bits.
pub(crate) const MAX_CHUNK_BITS: u8 = 31;

/// Where the superblock lies.
pub(crate) const SUPERBLOCK_AT: usize = 1024;

/// Where the device's slot lies: right behind the superblock.
const DEVICE_SLOT_AT: usize = SUPERBLOCK_AT + 128;

/// Where inodes begin: behind the device's slot.
pub(crate) const INODES_AT: usize = DEVICE_SLOT_AT + 128;

/// Images are padded to this: a page, since the kernel reads them by pages.
pub(crate) const IMAGE_ALIGN: usize = 4096;

/// Where an inode has its block address.
pub(crate) const INODE_PLACE_AT: usize = 16;

const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock's checksum is valid.
const COMPAT_CHECKSUM: u32 = 0x1;
/// Times are those of modification.
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
/// Where the table of devices lies, in units of its slots.
const DEVICE_SLOT_OFFSET: u16 = 9;
const _: () = assert!(DEVICE_SLOT_OFFSET as usize * 128 == DEVICE_SLOT_AT);
/// The device's tag: must not be empty, says nothing.
const DEVICE_TAG: &[u8] = b"stream";
/// The device's number in chunk indexes; 0 is the image itself.
const DEVICE: u16 = 1;
/// A chunk's place has 8 bytes.
const CHUNK_INDEXES: u16 = 0x20;

/// Types of a file, in the mode.
pub(crate) mod file_mode {
    pub(crate) const FIFO: u16 = 0o010_000;
    pub(crate) const CHAR: u16 = 0o020_000;
    pub(crate) const DIRECTORY: u16 = 0o040_000;
    pub(crate) const BLOCK: u16 = 0o060_000;
    pub(crate) const REGULAR: u16 = 0o100_000;
    pub(crate) const SYMLINK: u16 = 0o120_000;
}

/// Types of a file, in a directory entry.
pub(crate) mod file_type {
    pub(crate) const REGULAR: u8 = 1;
    pub(crate) const DIRECTORY: u8 = 2;
    pub(crate) const CHAR: u8 = 3;
    pub(crate) const BLOCK: u8 = 4;
    pub(crate) const FIFO: u8 = 5;
    pub(crate) const SYMLINK: u8 = 7;
}

/// Name indexes of extended attributes: the prefix they stand for is left out.
pub(crate) mod xattr_index {
    pub(crate) const USER: u8 = 1;
    pub(crate) const POSIX_ACL_ACCESS: u8 = 2;
    pub(crate) const POSIX_ACL_DEFAULT: u8 = 3;
    pub(crate) const TRUSTED: u8 = 4;
    pub(crate) const SECURITY: u8 = 6;
}

/// How an inode's data lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks of the image, or there are none.
    Plain = 0,
    /// The last block behind the inode, those before it in blocks of the image.
    Inline = 2,
    /// By chunks, here of the device.
    Chunked = 4,
}

/// An inode in its long form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawInode {
    pub(crate) layout: Layout,
    /// Length of the extended attributes in words of 4 bytes, less two; 0 when there are none.
    pub(crate) xattr_count: u16,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    /// Block address, device number or chunk format.
    pub(crate) place: u32,
    /// Inode number for 32-bit `stat`.
    pub(crate) ino: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) nlink: u32,
}

impl RawInode {
    /// Writes it to the first 64 of `out`.
    pub(crate) fn put(&self, out: &mut [u8]) {
        // Bit 0: the long form.
        let format = 1 | (self.layout as u16) << 1;
        put(out, 0, &format.to_le_bytes());
        put(out, 2, &self.xattr_count.to_le_bytes());
        put(out, 4, &self.mode.to_le_bytes());
        put(out, 8, &self.size.to_le_bytes());
        put(out, INODE_PLACE_AT, &self.place.to_le_bytes());
        put(out, 20, &self.ino.to_le_bytes());
        put(out, 24, &self.uid.to_le_bytes());
        put(out, 28, &self.gid.to_le_bytes());
        put(out, 32, &self.mtime.to_le_bytes());
        put(out, 40, &self.mtime_nsec.to_le_bytes());
        put(out, 44, &self.nlink.to_le_bytes());
    }
}

/// What the superblock says of this image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superblock {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    /// Length of the image in blocks.
    pub(crate) blocks: u32,
    /// Length of the device in blocks.
    pub(crate) device_blocks: u32,
}

impl Superblock {
    /// Writes the superblock and the device's slot into `image`, where all else is written.
    pub(crate) fn put(&self, image: &mut [u8]) {
        let out = &mut image[SUPERBLOCK_AT..];
        put(out, 0, &MAGIC.to_le_bytes());
        put(out, 8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(out, 12, &[BLOCK_BITS]);
        put(out, 14, &self.root_nid.to_le_bytes());
        put(out, 16, &self.inodes.to_le_bytes());
        put(out, 36, &self.blocks.to_le_bytes());
        put(out, 80, &(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
        put(out, 86, &1u16.to_le_bytes());
        put(out, 88, &DEVICE_SLOT_OFFSET.to_le_bytes());

        let slot = &mut image[DEVICE_SLOT_AT..];
        put(slot, 0, DEVICE_TAG);
        put(slot, 64, &self.device_blocks.to_le_bytes());

        let uuid = uuid(image);
        put(&mut image[SUPERBLOCK_AT..], 48, &uuid);
        // The kernel's is over the block from the superblock on.
        let end = SUPERBLOCK_AT + BLOCK_LEN;
        let checksum = crate::crc32c::crc32c(&image[SUPERBLOCK_AT..end]);
        put(&mut image[SUPERBLOCK_AT..], 4, &checksum.to_le_bytes());
    }
}

impl Superblock {
    /// What the superblock in `block`, the one that begins with it, says; or what is wrong with it. Its checksum is taken out
    /// of the block.
    pub(crate) fn get(block: &mut [u8; BLOCK_LEN]) -> Result<Self, &'static str> {
        let number = |block: &[u8; BLOCK_LEN], at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let checksum = number(block, 4);
        put(block, 4, &[0; 4]);
        if number(block, 0) != MAGIC {
            return Err("it isn't one");
        }
        if crate::crc32c::crc32c(block) != checksum {
            return Err("the checksum of its head is wrong");
        }
        let as_written = block[12] == BLOCK_BITS
            && number(block, 80) == INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE
            && number(block, 40) == 0;
        if !as_written {
            return Err("it is of a kind that isn't written here");
        }
        Ok(Self {
            root_nid: u16::from_le_bytes([block[14], block[15]]),
            inodes: u64::from(number(block, 16)) | u64::from(number(block, 20)) << 32,
            blocks: number(block, 36),
            device_blocks: number(block, DEVICE_SLOT_AT - SUPERBLOCK_AT + 64),
        })
    }
}

/// The UUID of an image that has none yet: from its digest, so that no two tables have the same, as overlayfs wants it.
///
/// It finds the origin of a file that was copied up by its file system's UUID, and does without, the file's inode number
/// changing, when two layers have the same.
fn uuid(image: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(image);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    // RFC 9562: version 8, made as one likes.
    uuid[6] = 0x80 | (uuid[6] & 0x0f);
    uuid[8] = 0x80 | (uuid[8] & 0x3f);
    uuid
}

/// The format of a file's chunks, of `1 << bits` blocks each.
pub(crate) fn chunk_format(bits: u8) -> u32 {
    u32::from(CHUNK_INDEXES | u16::from(bits))
}

/// Writes one chunk's place in the device, a number of a block, to the first 8 of `out`.
pub(crate) fn put_chunk(out: &mut [u8], block: u32) {
    put(out, 2, &DEVICE.to_le_bytes());
    put(out, 4, &block.to_le_bytes());
}

/// Linux' 32-bit form of a device number.
pub(crate) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Copies `bytes` to `out` at `at`.
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

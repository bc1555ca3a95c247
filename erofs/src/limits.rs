//! What an EROFS image and the kernel can hold, each with its reason.

/// Longest name of a file, in bytes: the kernel's own limit.
pub const MAX_NAME_LEN: u64 = 255;

/// Longest target of a symbolic link, in bytes: the kernel reads it into one page and puts a NUL behind it.
pub const MAX_TARGET_LEN: u64 = 4095;

/// Longest name of an extended attribute, in bytes, with its prefix: the kernel's own limit.
pub const MAX_XATTR_NAME_LEN: u64 = 255;

/// Longest value of an extended attribute, in bytes: a field of 16 bits.
pub const MAX_XATTR_VALUE_LEN: u64 = 65_535;

/// Most bytes of extended attributes of one inode: their length is counted in words of 4 bytes in a field of 16 bits, where
/// 1 means the header of 12 bytes.
pub const MAX_XATTRS_LEN: u64 = 12 + 65_534 * 4;

/// Permission bits.
pub const MAX_MODE: u64 = 0o7777;

/// Largest number of nanoseconds of a time.
pub const MAX_NSEC: u64 = 999_999_999;

/// Largest major device number: 12 bits, as Linux has it.
pub const MAX_MAJOR: u64 = 0xfff;

/// Largest minor device number: 20 bits, as Linux has it.
pub const MAX_MINOR: u64 = 0xf_ffff;

/// Longest device in bytes, and with it the longest file: blocks of 512 bytes are counted in 32 bits, and the last number
/// means a hole.
pub const MAX_DEVICE_LEN: u64 = 0xffff_ffff * 512;

/// Longest image in bytes, for the same reason. (Before this, memory is at an end.)
pub const MAX_IMAGE_LEN: u64 = MAX_DEVICE_LEN;

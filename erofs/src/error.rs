//! The one error of this crate.

/// Why no table can be written, or one can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of EROFS can't hold the value.
    #[error("{what} is {value}, EROFS holds {limit} at most")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// How large it can be.
        limit: u64,
    },
    /// A name that no file system has: empty, `.`, `..`, or with `/` or NUL in it.
    #[error("{0:?} can't be a file's name")]
    Name(String),
    /// A directory's names aren't sorted, or one is there twice.
    #[error("the name {0:?} isn't behind the one before it")]
    Unsorted(String),
    /// The target of a symbolic link is empty or has NUL in it.
    #[error("{0:?} can't be the target of a symbolic link")]
    Target(String),
    /// A file's data doesn't begin at a multiple of 512, or ends behind the device.
    #[error("data at {offset}, {size} bytes, doesn't lie in a device of {device_len} bytes by blocks of 512")]
    Misplaced {
        /// Offset of the data in the device, in bytes.
        offset: u64,
        /// Length of the data in bytes.
        size: u64,
        /// Length of the device in bytes.
        device_len: u64,
    },
    /// The inodes are no tree; the text says what is wrong with which.
    #[error("no tree: {0}")]
    NotATree(String),
    /// A table isn't what this crate writes; the text says what is wrong with it.
    #[error("the table is damaged: {0}")]
    Damaged(String),
    /// The bytes of a table can't be had.
    #[error("the table can't be read: {0}")]
    Read(String),
}

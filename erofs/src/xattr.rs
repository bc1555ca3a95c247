//! Extended attributes, as they lie behind their inode: a header, then for each attribute its lengths, a number for its prefix,
//! the rest of its name, its value, padded to 4 bytes.
//!
//! None are shared between inodes: layers have few, and hardly two alike.

use crate::format::{XATTR_HEADER_LEN, xattr_index};
use crate::limits::{MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN, MAX_XATTRS_LEN};
use crate::{Error, OpaqueXattr};

/// What overlayfs wants to find as value.
const OPAQUE: &[u8] = b"y";

impl OpaqueXattr {
    /// The attribute's name.
    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.opaque",
            Self::User => b"user.overlay.opaque",
        }
    }
}

/// Writes one inode's attributes behind what is in `out`; nothing when it has none.
pub(crate) struct XattrWriter<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
    opaque: Option<OpaqueXattr>,
}

impl<'a> XattrWriter<'a> {
    /// `opaque` is how the inode is marked as opaque, if it is.
    pub(crate) fn new(out: &'a mut Vec<u8>, opaque: Option<OpaqueXattr>) -> Self {
        Self { begin: out.len(), out, opaque }
    }

    /// Adds an attribute, if its namespace is one that Linux keeps.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        // Ours is the one that counts, and a name must not be there twice.
        if self.opaque.is_some_and(|opaque| opaque.name() == name) {
            return Ok(());
        }
        self.put(name, value)
    }

    /// Writes what is left, and says what the inode has as their count.
    pub(crate) fn finish(mut self) -> Result<u16, Error> {
        if let Some(opaque) = self.opaque {
            self.put(opaque.name(), OPAQUE)?;
        }
        let len = self.out.len() - self.begin;
        // The header counts as one word.
        let words = len.checked_sub(XATTR_HEADER_LEN).map_or(0, |len| len / 4 + 1);
        u16::try_from(words).map_err(|_| Error::TooLarge {
            what: "length of an inode's extended attributes",
            value: len as u64,
            limit: MAX_XATTRS_LEN,
        })
    }

    fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let Some((index, rest)) = split(name) else { return Ok(()) };
        let too_large = |what, value, limit| Error::TooLarge { what, value, limit };
        if name.len() as u64 > MAX_XATTR_NAME_LEN {
            let what = "length of an extended attribute's name";
            return Err(too_large(what, name.len() as u64, MAX_XATTR_NAME_LEN));
        }
        let rest_len = u8::try_from(rest.len()).expect("shorter than MAX_XATTR_NAME_LEN");
        let value_len = u16::try_from(value.len()).map_err(|_| {
            let what = "length of an extended attribute's value";
            too_large(what, value.len() as u64, MAX_XATTR_VALUE_LEN)
        })?;
        if self.out.len() == self.begin {
            // No filter, nothing shared.
            self.out.extend_from_slice(&[0; XATTR_HEADER_LEN]);
        }
        self.out.extend_from_slice(&[rest_len, index]);
        self.out.extend_from_slice(&value_len.to_le_bytes());
        self.out.extend_from_slice(rest);
        self.out.extend_from_slice(value);
        let len = self.out.len() - self.begin;
        self.out.resize(self.begin + len.next_multiple_of(4), 0);
        Ok(())
    }
}

/// Calls `each` with the name and value of every attribute in `bytes`, those behind an inode; `None` when they are damaged.
pub(crate) fn read(bytes: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Option<()> {
    let mut at = XATTR_HEADER_LEN;
    while at < bytes.len() {
        let head = bytes.get(at..at + 4)?;
        let name_end = at + 4 + usize::from(head[0]);
        let value_end = name_end + usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (rest, value) = (bytes.get(at + 4..name_end)?, bytes.get(name_end..value_end)?);
        each(&[prefix(head[1])?, rest].concat(), value);
        at = value_end.next_multiple_of(4);
    }
    Some(())
}

/// What a number for a prefix stands for.
fn prefix(index: u8) -> Option<&'static [u8]> {
    Some(match index {
        xattr_index::USER => b"user.",
        xattr_index::POSIX_ACL_ACCESS => b"system.posix_acl_access",
        xattr_index::POSIX_ACL_DEFAULT => b"system.posix_acl_default",
        xattr_index::TRUSTED => b"trusted.",
        xattr_index::SECURITY => b"security.",
        _ => return None,
    })
}

/// The number of a name's prefix, and what is behind it; `None` for names that Linux' file systems don't keep.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    let prefixes = [
        (b"user.".as_slice(), xattr_index::USER),
        (b"trusted.", xattr_index::TRUSTED),
        (b"security.", xattr_index::SECURITY),
    ];
    match name {
        b"system.posix_acl_access" => Some((xattr_index::POSIX_ACL_ACCESS, b"")),
        b"system.posix_acl_default" => Some((xattr_index::POSIX_ACL_DEFAULT, b"")),
        // A name that is nothing but its prefix can't be set, and NUL would end it for the kernel.
        _ => prefixes
            .iter()
            .find_map(|&(prefix, index)| Some((index, name.strip_prefix(prefix)?)))
            .filter(|(_, rest)| !rest.is_empty() && !rest.contains(&0)),
    }
}

//! The trial layer: two files, one of which can be read, and the bytes that are in it.

use spandrel_erofs::{Inode, Kind, OpaqueXattr, Options, Source};

/// The file that can be read.
pub(super) const WHOLE: &str = "whole";
/// The file that can't.
pub(super) const BROKEN: &str = "broken";

/// Where a plain device ends within the broken file, in bytes: not at a page's end.
pub(super) const CUT: u64 = 512;

/// What is where in the device.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan;

impl Plan {
    /// Length of the file that can be read, in bytes: four of the largest requests.
    pub(super) fn whole_len(self) -> u64 {
        4 << 20
    }

    /// Where in the device the broken file begins.
    pub(super) fn broken_start(self) -> u64 {
        self.whole_len()
    }

    /// Length of the device.
    pub(super) fn device_len(self) -> u64 {
        self.broken_start() + (64 << 10)
    }

    /// The bytes of the device from `offset`: no two blocks are the same, and none is zero.
    pub(super) fn bytes(self, offset: u64, len: usize) -> Vec<u8> {
        (offset..).take(len).map(byte).collect()
    }

    /// Whether `bytes` are those from `offset`.
    pub(super) fn is_right(self, offset: u64, bytes: &[u8]) -> bool {
        (offset..).zip(bytes).all(|(at, have)| byte(at) == *have)
    }

    /// The layer's table.
    pub(super) fn table(self) -> Result<Vec<u8>, spandrel_erofs::Error> {
        let options = Options { device_len: self.device_len(), opaque: OpaqueXattr::Trusted };
        spandrel_erofs::write(&self, &options)
    }
}

fn byte(at: u64) -> u8 {
    let block = (at / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // One of 255 values.
    block.to_le_bytes()[7].wrapping_add(at.to_le_bytes()[0]) | 1
}

impl Source for Plan {
    fn len(&self) -> u32 {
        3
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let (kind, mode, nlink) = match id {
            0 => (Kind::Directory { opaque: false }, 0o700, 2),
            1 => (
                Kind::File { offset: self.broken_start(), size: self.device_len() - self.broken_start() },
                0o600,
                1,
            ),
            _ => (Kind::File { offset: 0, size: self.whole_len() }, 0o600, 1),
        };
        Inode { kind, mode, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, nlink }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        if id == 0 {
            each(BROKEN.as_bytes(), 1);
            each(WHOLE.as_bytes(), 2);
        }
    }

    fn xattrs(&self, _: u32, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_told_from_zeros_and_from_one_another() {
        let plan = Plan;
        let bytes = plan.bytes(1000, 5000);
        assert!(plan.is_right(1000, &bytes));
        assert!(!plan.is_right(1512, &bytes));
        assert!(bytes.iter().all(|&byte| byte != 0));
        assert!(!plan.is_right(0, &[0]));
    }
}

//! The content of directories: entries in blocks of 512 bytes, each with its entries first and their names behind them, sorted
//! bytewise within and across blocks (the kernel searches both by halves).

use crate::Error;
use crate::format::{BLOCK_LEN, DIRENT_LEN, file_type};
use crate::limits::MAX_NAME_LEN;

/// Writes one directory's content behind what is in `out`; where an inode's number belongs stands its id.
pub(crate) struct DirWriter<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
    /// The directory's own id and its parent's, until they are written as `.` and `..`.
    dots: [Option<u32>; 2],
    last: Vec<u8>,
    block: Block,
}

/// The block that is being filled.
#[derive(Default)]
struct Block {
    /// Id, type and length of name of each entry.
    entries: Vec<(u32, u8, usize)>,
    names: Vec<u8>,
}

impl<'a> DirWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, id: u32, parent: u32) -> Self {
        let dots = [Some(id), Some(parent)];
        Self { begin: out.len(), out, dots, last: Vec::new(), block: Block::default() }
    }

    /// Adds a name. They come sorted.
    pub(crate) fn add(&mut self, name: &[u8], id: u32, kind: u8) -> Result<(), Error> {
        check(name)?;
        if self.last.as_slice() >= name {
            return Err(Error::Unsorted(String::from_utf8_lossy(name).into_owned()));
        }
        self.last.clear();
        self.last.extend_from_slice(name);
        self.dots_before(Some(name));
        self.entry(name, id, kind);
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) {
        self.dots_before(None);
        self.flush();
    }

    /// `.` and `..`, if this is their place in the order: some names sort before them.
    fn dots_before(&mut self, name: Option<&[u8]>) {
        for (at, dots) in [b".".as_slice(), b".."].into_iter().enumerate() {
            if name.is_none_or(|name| dots < name)
                && let Some(id) = self.dots[at].take()
            {
                self.entry(dots, id, file_type::DIRECTORY);
            }
        }
    }

    fn entry(&mut self, name: &[u8], id: u32, kind: u8) {
        if self.block.len() + DIRENT_LEN + name.len() > BLOCK_LEN {
            self.flush();
            // Only the last block may be short.
            let len = self.out.len() - self.begin;
            self.out.resize(self.begin + len.next_multiple_of(BLOCK_LEN), 0);
        }
        self.block.entries.push((id, kind, name.len()));
        self.block.names.extend_from_slice(name);
    }

    fn flush(&mut self) {
        let mut name_at = self.block.entries.len() * DIRENT_LEN;
        for &(id, kind, name_len) in &self.block.entries {
            self.out.extend_from_slice(&u64::from(id).to_le_bytes());
            let offset = u16::try_from(name_at).expect("a block has 512 bytes");
            self.out.extend_from_slice(&offset.to_le_bytes());
            self.out.extend_from_slice(&[kind, 0]);
            name_at += name_len;
        }
        self.out.extend_from_slice(&self.block.names);
        self.block.entries.clear();
        self.block.names.clear();
    }
}

impl Block {
    fn len(&self) -> usize {
        self.entries.len() * DIRENT_LEN + self.names.len()
    }
}

/// Puts inode numbers where [`DirWriter`] left ids: `content` is a whole directory's.
pub(crate) fn number(content: &mut [u8], nid_of: impl Fn(u32) -> u64) {
    for block in content.chunks_mut(BLOCK_LEN) {
        // Where the first name begins is where the entries end.
        let entries_len = usize::from(u16::from_le_bytes([block[8], block[9]]));
        for entry in block[..entries_len].chunks_exact_mut(DIRENT_LEN) {
            let id = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            entry[..8].copy_from_slice(&nid_of(id).to_le_bytes());
        }
    }
}

fn check(name: &[u8]) -> Result<(), Error> {
    let len = name.len() as u64;
    if len > MAX_NAME_LEN {
        return Err(Error::TooLarge { what: "length of a name", value: len, limit: MAX_NAME_LEN });
    }
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Error::Name(String::from_utf8_lossy(name).into_owned()));
    }
    Ok(())
}

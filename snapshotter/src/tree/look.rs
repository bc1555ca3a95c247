//! What a mounted layer has at a path, asked of its table: the daemon never asks its own mounts.

use std::fmt;
use std::sync::Arc;

use spandrel_erofs::read::{Node, NodeKind};
use spandrel_erofs::{Error, limits::MAX_NAME_LEN};

use super::folders::Folder;

/// Most symbolic links on one path, as Linux has it.
const MAX_LINKS: usize = 40;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// A directory.
    Directory {
        /// Permission bits, setuid, setgid, sticky.
        mode: u16,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Time of modification: seconds since 1970, nanoseconds.
        mtime: (i64, u32),
        /// Extended attributes, name with prefix and value.
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Nothing.
    Nothing,
    /// Something else, or something on the way is no directory.
    Other,
}

/// A layer in the tree that can be looked into.
pub struct Layer(pub(super) Arc<Folder>);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layer").field(&self.0.own()).finish()
    }
}

impl Layer {
    /// What is at `path`, from the layer's root. Symbolic links are followed within the layer, the last one too.
    ///
    /// # Errors
    /// When the table is damaged or can't be read.
    pub fn look_up(&self, path: &[u8]) -> Result<LookUp, Error> {
        let table = &self.0.table;
        // Directories from the root to where we are.
        let mut way: Vec<Node> = vec![table.root()?];
        let mut left: Vec<Vec<u8>> = Vec::new();
        push(&mut left, path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            if name.len() as u64 > MAX_NAME_LEN {
                return Ok(LookUp::Other);
            }
            let at = way.last().expect("the root stays");
            let Some(nid) = table.find(at, &name)? else { return Ok(LookUp::Nothing) };
            let node = table.node(nid)?;
            match node.kind {
                NodeKind::Directory => way.push(node),
                NodeKind::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(LookUp::Other);
                    }
                    let target = table.target(&node)?;
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    push(&mut left, &target);
                }
                _ => return Ok(LookUp::Other),
            }
        }
        let found = way.last().expect("the root stays");
        let mut xattrs = Vec::new();
        table.xattrs(found, |name, value| xattrs.push((name.to_vec(), value.to_vec())))?;
        let Node { mode, uid, gid, mtime, mtime_nsec, .. } = *found;
        Ok(LookUp::Directory { mode, uid, gid, mtime: (mtime, mtime_nsec), xattrs })
    }
}

/// Puts the names of `path` before those that are `left`, of which the last comes next.
fn push(left: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    left.extend(names.rev().map(<[u8]>::to_vec));
}

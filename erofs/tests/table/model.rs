//! A tree of inodes in memory, from which tests make both a table and a tar.

use std::collections::BTreeMap;

use spandrel_erofs::{Inode, Kind, Source};

/// Name and value of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone)]
pub enum What {
    File(Vec<u8>),
    /// A file whose place in the device is given: it isn't in the tar.
    Placed {
        offset: u64,
        size: u64,
    },
    Directory {
        names: BTreeMap<Vec<u8>, u32>,
        opaque: bool,
    },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Whiteout,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub what: What,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: Xattrs,
    pub nlink: u32,
    /// Where a file's content begins in the device; set by the tar's writer.
    pub offset: u64,
}

#[derive(Debug, Clone)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

impl Node {
    pub fn new(what: What) -> Self {
        let mode = match what {
            What::Directory { .. } => 0o755,
            What::Symlink(_) => 0o777,
            What::Whiteout => 0,
            _ => 0o644,
        };
        let mtime = (1_600_000_000, 123_456_789);
        Self { what, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), nlink: 1, offset: 0 }
    }

    pub fn file(content: impl Into<Vec<u8>>) -> Self {
        Self::new(What::File(content.into()))
    }

    pub fn directory() -> Self {
        Self::new(What::Directory { names: BTreeMap::new(), opaque: false })
    }

    pub fn opaque() -> Self {
        Self::new(What::Directory { names: BTreeMap::new(), opaque: true })
    }

    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        Self::new(What::Symlink(target.into()))
    }

    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.xattrs.push((name.into(), value.into()));
        self
    }

    pub fn mode(mut self, mode: u16) -> Self {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn mtime(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory { .. })
    }
}

impl Tree {
    /// Nothing but a root.
    pub fn new() -> Self {
        let mut root = Node::directory();
        root.nlink = 2;
        Self { nodes: vec![root] }
    }

    /// Adds `node` as `name` to directory `parent`, and says its id.
    pub fn add(&mut self, parent: u32, name: impl AsRef<[u8]>, node: Node) -> u32 {
        let id = u32::try_from(self.nodes.len()).expect("few");
        let directory = node.is_directory();
        self.nodes.push(node);
        if directory {
            self.nodes[id as usize].nlink = 2;
            self.nodes[parent as usize].nlink += 1;
        }
        self.name(parent, name.as_ref(), id);
        id
    }

    /// Gives `id` another name.
    pub fn link(&mut self, parent: u32, name: impl AsRef<[u8]>, id: u32) {
        self.name(parent, name.as_ref(), id);
        self.nodes[id as usize].nlink += 1;
    }

    fn name(&mut self, parent: u32, name: &[u8], id: u32) {
        let What::Directory { names, .. } = &mut self.nodes[parent as usize].what else {
            panic!("no directory")
        };
        assert!(names.insert(name.to_vec(), id).is_none(), "{name:?} is there twice");
    }
}

impl Source for Tree {
    fn len(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("few")
    }

    fn inode(&self, id: u32) -> Inode<'_> {
        let node = &self.nodes[id as usize];
        let kind = match &node.what {
            What::File(content) => Kind::File { offset: node.offset, size: content.len() as u64 },
            What::Placed { offset, size } => Kind::File { offset: *offset, size: *size },
            What::Directory { opaque, .. } => Kind::Directory { opaque: *opaque },
            What::Symlink(target) => Kind::Symlink(target),
            What::Char(major, minor) => Kind::Char(*major, *minor),
            What::Block(major, minor) => Kind::Block(*major, *minor),
            What::Fifo => Kind::Fifo,
            What::Whiteout => Kind::Whiteout,
        };
        Inode {
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime.0,
            mtime_nsec: node.mtime.1,
            nlink: node.nlink,
        }
    }

    fn children(&self, id: u32, each: &mut dyn FnMut(&[u8], u32)) {
        if let What::Directory { names, .. } = &self.nodes[id as usize].what {
            names.iter().for_each(|(name, &id)| each(name, id));
        }
    }

    fn xattrs(&self, id: u32, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.nodes[id as usize].xattrs.iter().for_each(|(name, value)| each(name, value));
    }
}

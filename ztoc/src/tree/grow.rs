//! A tree while its entries come in, one after the other, as containerd would put them into a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::{Inode, InodeId, InodeKind, Tree, TreeError};
use crate::limits::{MAX_INODES, MAX_LINK_LEN, MAX_LINK_STEPS, MAX_LINKS, MAX_NAME_LEN, MAX_PATH_LEN};
use crate::model::{Entry, EntryKind, Timestamp};

const ROOT: InodeId = 0;
/// What names begin with that say what is hidden.
const WHITEOUT: &[u8] = b".wh.";
/// What [`WHITEOUT`] is followed by where a directory hides all that is in it below.
const OPAQUE: &[u8] = b".wh..opq";
/// What the keys of those PAX records begin with that are extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// The extended attribute that the kernel takes from a file whose owner is set.
const CAPABILITY_XATTR: &[u8] = b"security.capability";
/// 0001-01-01T00:00:00Z, the zero of Go's times: what SOCI gives directories that no entry names.
const YEAR_ONE: i64 = -62_135_596_800;
/// How much of a device's numbers the kernel holds: 12 and 20 bits. The rest is cut, as mknod cuts it.
const MAJOR: i64 = 0xfff;
/// As [`MAJOR`].
const MINOR: i64 = 0xf_ffff;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The tree so far.
pub(super) struct Growth {
    /// Those without a name any more, too; [`Growth::finish`] leaves them out, and counts names then.
    inodes: Vec<Inode>,
    /// Directories without an entry so far; some may have lost their name.
    implied: BTreeSet<InodeId>,
    stream_len: u64,
    /// How many of [`MAX_LINK_STEPS`] were taken.
    link_steps: u64,
}

impl Growth {
    /// A root with nothing in it.
    pub(super) fn new(stream_len: u64) -> Self {
        Self { inodes: vec![unnamed_directory()], implied: BTreeSet::new(), stream_len, link_steps: 0 }
    }

    /// Puts the next entry in its place.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let mut path = clean(&entry.name)?;
        self.check(entry)?;
        let Some(name) = path.pop() else {
            if entry.kind == EntryKind::Directory {
                self.describe(ROOT, entry)?;
            }
            return Ok(()); // anything else can't be the root
        };
        let Some(parent) = self.make_directory(&path)? else { return Ok(()) };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.hide(parent, hidden, entry);
        }
        let name = check_name(name)?;
        let there = self.child(parent, name);
        let inode = match entry.kind {
            EntryKind::Hardlink => return self.link(parent, name, entry),
            EntryKind::Directory => match there {
                Some(there) if self.is_directory(there) => return self.describe(there, entry),
                _ => {
                    let id = self.insert(parent, name, unnamed_directory())?;
                    return self.describe(id, entry);
                }
            },
            EntryKind::Regular => InodeKind::File { offset: entry.offset, size: entry.size },
            EntryKind::Symlink => InodeKind::Symlink(entry.linkname.clone()),
            EntryKind::Char => InodeKind::Char(number(entry.devmajor, MAJOR), number(entry.devminor, MINOR)),
            EntryKind::Block => {
                InodeKind::Block(number(entry.devmajor, MAJOR), number(entry.devminor, MINOR))
            }
            EntryKind::Fifo => InodeKind::Fifo,
        };
        let mode = if entry.kind == EntryKind::Symlink { 0o777 } else { mode(entry) }; // Linux has no other
        let xattrs = xattrs(entry)?.into_iter().collect();
        self.insert(parent, name, Inode { kind: inode, mode, xattrs, ..of_entry(entry) })?;
        Ok(())
    }

    /// All entries are in: the tree, without what has lost its name.
    pub(super) fn finish(mut self) -> Tree {
        let mut ids: Vec<Option<InodeId>> = vec![None; self.inodes.len()];
        let mut order = vec![ROOT];
        ids[0] = Some(ROOT);
        let mut at = 0;
        while let Some(&old) = order.get(at) {
            at += 1;
            let InodeKind::Directory { children, .. } = &mut self.inodes[old as usize].kind else { continue };
            let mut children = mem::take(children);
            children.retain(|name, _| !name.starts_with(WHITEOUT));
            let mut nlink = 2;
            for child in children.values_mut() {
                let inode = &mut self.inodes[*child as usize];
                let id = *ids[*child as usize].get_or_insert_with(|| {
                    inode.nlink = 0;
                    order.push(*child);
                    id(order.len() - 1)
                });
                match inode.kind {
                    InodeKind::Directory { .. } => nlink += 1,
                    _ => inode.nlink += 1,
                }
                *child = id;
            }
            let directory = &mut self.inodes[old as usize];
            directory.nlink = nlink;
            if let InodeKind::Directory { children: place, .. } = &mut directory.kind {
                *place = children;
            }
        }
        let mut implied: Vec<InodeId> = self.implied.iter().filter_map(|&old| ids[old as usize]).collect();
        implied.sort_unstable();
        let mut inodes: Vec<Option<Inode>> = self.inodes.into_iter().map(Some).collect();
        Tree { inodes: order.into_iter().filter_map(|old| inodes[old as usize].take()).collect(), implied }
    }

    /// Whether what an entry says of itself can be held.
    fn check(&self, entry: &Entry) -> Result<(), TreeError> {
        check_nul("link target", &entry.linkname)?;
        if entry.kind == EntryKind::Symlink {
            check_len("link target", &entry.linkname, MAX_LINK_LEN)?;
        }
        let Entry { offset, size, .. } = *entry;
        let within = offset.checked_add(size).is_some_and(|end| end <= self.stream_len);
        if entry.kind == EntryKind::Regular && !(within && offset.is_multiple_of(512)) {
            let name = lossy(&entry.name);
            return Err(TreeError::Misplaced { name, offset, size, stream_len: self.stream_len });
        }
        Ok(())
    }

    /// Gives a directory the attributes of its entry. Extended attributes of an earlier entry stay: nothing removes them.
    fn describe(&mut self, id: InodeId, entry: &Entry) -> Result<(), TreeError> {
        let inode = &mut self.inodes[id as usize];
        let mut all: Xattrs = mem::take(&mut inode.xattrs).into_iter().collect();
        all.extend(xattrs(entry)?);
        self.implied.remove(&id);
        *inode = Inode {
            kind: mem::replace(&mut inode.kind, InodeKind::Fifo),
            mode: mode(entry),
            xattrs: all.into_iter().collect(),
            ..of_entry(entry)
        };
        Ok(())
    }

    /// An entry `.wh.HIDDEN`: it hides a name of the layers below, not one of this layer, whichever comes first.
    fn hide(&mut self, parent: InodeId, hidden: &[u8], entry: &Entry) -> Result<(), TreeError> {
        if hidden == OPAQUE {
            if let InodeKind::Directory { opaque, .. } = &mut self.inodes[parent as usize].kind {
                *opaque = true;
            }
            return Ok(());
        }
        // No name, or none that may be: AUFS keeps its own things in `.wh..wh.*`.
        if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        let hidden = check_name(hidden)?;
        match self.child(parent, hidden) {
            Some(there) if !matches!(self.inodes[there as usize].kind, InodeKind::Whiteout) => Ok(()),
            _ => {
                let whiteout =
                    Inode { kind: InodeKind::Whiteout, mode: 0, xattrs: Vec::new(), ..of_entry(entry) };
                self.insert(parent, hidden, whiteout).map(drop)
            }
        }
    }

    /// A hard link: another name of what its target names now, which gets the attributes of the link's entry, as containerd
    /// sets them again. Where the link is the target's own name, containerd removes that, and fails; here nothing changes.
    fn link(&mut self, parent: InodeId, name: &[u8], entry: &Entry) -> Result<(), TreeError> {
        let missing =
            || TreeError::HardlinkTarget { name: lossy(&entry.name), target: lossy(&entry.linkname) };
        let target = clean(&entry.linkname)?;
        let there = self.child(parent, name);
        if there.is_some() && there == self.find(&target)? {
            return Ok(()); // it is that name already
        }
        // What is there goes first: a directory with the target in it takes the target along.
        self.children(parent).remove(name);
        let target = self.find(&target)?.ok_or_else(missing)?;
        if matches!(self.inodes[target as usize].kind, InodeKind::Directory { .. } | InodeKind::Whiteout) {
            return Err(missing());
        }
        self.children(parent).insert(name.to_vec(), target);
        let inode = &mut self.inodes[target as usize];
        let mut all: Xattrs = mem::take(&mut inode.xattrs).into_iter().collect();
        all.remove(CAPABILITY_XATTR); // setting the owner takes it away
        all.extend(xattrs(entry)?);
        let symlink = matches!(inode.kind, InodeKind::Symlink(_));
        *inode = Inode {
            kind: mem::replace(&mut inode.kind, InodeKind::Fifo),
            mode: if symlink { inode.mode } else { mode(entry) },
            xattrs: all.into_iter().collect(),
            ..of_entry(entry)
        };
        Ok(())
    }

    /// The directory at `path`, made with its parents where there is none. `None` where something else is in the way.
    fn make_directory(&mut self, path: &[&[u8]]) -> Result<Option<InodeId>, TreeError> {
        let mut at = ROOT;
        for name in path {
            let name = check_name(name)?;
            at = match self.child(at, name) {
                Some(there) => match self.inodes[there as usize].kind {
                    InodeKind::Directory { .. } => there,
                    InodeKind::Whiteout => self.imply(at, name)?,
                    InodeKind::Symlink(_) => {
                        let Some(path) = self.resolve(path)? else { return Ok(None) };
                        // There is no link in this one.
                        return self.make_directory(&path.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    }
                    _ => return Ok(None),
                },
                None => self.imply(at, name)?,
            };
        }
        Ok(Some(at))
    }

    /// What is at `path` now. Symbolic links are followed, but for the last name.
    fn find(&mut self, path: &[&[u8]]) -> Result<Option<InodeId>, TreeError> {
        let Some((name, parents)) = path.split_last() else { return Ok(Some(ROOT)) };
        let mut at = ROOT;
        for parent in parents {
            at = match self.child(at, parent) {
                None => return Ok(None),
                Some(there) if matches!(self.inodes[there as usize].kind, InodeKind::Symlink(_)) => {
                    let Some(mut path) = self.resolve(parents)? else { return Ok(None) };
                    path.push(name.to_vec());
                    return self.find(&path.iter().map(Vec::as_slice).collect::<Vec<_>>());
                }
                Some(there) => there,
            };
        }
        Ok(self.child(at, name))
    }

    /// `path` without symbolic links: they are followed from the layer's root, `..` taken literally, as containerd does it. `None`
    /// where there are too many. What isn't there yet is no link.
    fn resolve(&mut self, path: &[&[u8]]) -> Result<Option<Vec<Vec<u8>>>, TreeError> {
        let mut left: Vec<Vec<u8>> = path.iter().rev().map(|name| name.to_vec()).collect();
        let mut done: Vec<(Vec<u8>, Option<InodeId>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            self.link_steps += 1;
            let at = done.last().map_or(Some(ROOT), |(_, id)| *id);
            let there = at.and_then(|at| self.child(at, &name));
            let target = there.and_then(|there| match &self.inodes[there as usize].kind {
                InodeKind::Symlink(target) => Some(target),
                _ => None,
            });
            let Some(target) = target else {
                done.push((name, there));
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Ok(None);
            }
            if target.starts_with(b"/") {
                done.clear();
            }
            let mut names: Vec<Vec<u8>> = Vec::new();
            for name in target.split(|&byte| byte == b'/') {
                self.link_steps += 1;
                match name {
                    b"" | b"." => {}
                    b".." => {
                        if names.pop().is_none() {
                            done.pop();
                        }
                    }
                    name => names.push(name.to_vec()),
                }
            }
            left.extend(names.into_iter().rev());
            if self.link_steps > MAX_LINK_STEPS {
                let what = "steps through symbolic links";
                return Err(TreeError::TooMany { what, limit: MAX_LINK_STEPS });
            }
        }
        let done: Vec<Vec<u8>> = done.into_iter().map(|(name, _)| name).collect();
        check_path(done.iter().map(Vec::len))?;
        Ok(Some(done))
    }

    fn is_directory(&self, id: InodeId) -> bool {
        matches!(self.inodes[id as usize].kind, InodeKind::Directory { .. })
    }

    /// What `name` is in `parent`; nothing where that is no directory.
    fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inodes[parent as usize].kind {
            InodeKind::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn children(&mut self, directory: InodeId) -> &mut BTreeMap<Vec<u8>, InodeId> {
        match &mut self.inodes[directory as usize].kind {
            InodeKind::Directory { children, .. } => children,
            other => unreachable!("a parent is a directory, not {other:?}"),
        }
    }

    /// A directory that is only known by what is in it.
    fn imply(&mut self, parent: InodeId, name: &[u8]) -> Result<InodeId, TreeError> {
        let id = self.insert(parent, name, unnamed_directory())?;
        self.implied.insert(id);
        Ok(id)
    }

    /// Gives `parent` a new inode, in place of what had the name before, with all that is in it.
    fn insert(&mut self, parent: InodeId, name: &[u8], inode: Inode) -> Result<InodeId, TreeError> {
        if self.inodes.len() as u64 >= MAX_INODES {
            return Err(TreeError::TooMany { what: "inodes", limit: MAX_INODES });
        }
        let id = id(self.inodes.len());
        self.inodes.push(inode);
        self.children(parent).insert(name.to_vec(), id);
        Ok(id)
    }
}

/// Number of the inode at `index`.
fn id(index: usize) -> InodeId {
    InodeId::try_from(index).expect("MAX_INODES fits 32 bits")
}

/// A directory that no entry names (or none yet).
fn unnamed_directory() -> Inode {
    Inode {
        kind: InodeKind::Directory { children: BTreeMap::new(), opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: YEAR_ONE, nanoseconds: 0 },
        nlink: 2,
        xattrs: Vec::new(),
    }
}

/// Owner and time of an entry; the rest is for the caller to say.
fn of_entry(entry: &Entry) -> Inode {
    Inode {
        kind: InodeKind::Fifo,
        mode: 0,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.unwrap_or_default(),
        nlink: 1,
        xattrs: Vec::new(),
    }
}

fn mode(entry: &Entry) -> u16 {
    u16::try_from(entry.mode & 0o7777).expect("has twelve bits")
}

/// The part of a device's number that `mask` leaves of it.
fn number(value: i64, mask: i64) -> u32 {
    u32::try_from(value & mask).expect("a mask has at most 20 bits")
}

/// The extended attributes of an entry.
fn xattrs(entry: &Entry) -> Result<Xattrs, TreeError> {
    let mut xattrs = Xattrs::new();
    for (key, value) in &entry.pax {
        // One without a name can't be set.
        if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty()) {
            check_nul("name of an extended attribute", name)?;
            xattrs.insert(name.to_vec(), value.clone());
        }
    }
    Ok(xattrs)
}

/// The names in a path from the layer's root, without those that lead nowhere: `..` goes back by one name, at the root it stays.
fn clean(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    check_nul("name", path)?;
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    check_path(names.iter().map(|name| name.len()))?;
    Ok(names)
}

fn check_nul(what: &'static str, text: &[u8]) -> Result<(), TreeError> {
    if text.contains(&0) { Err(TreeError::Nul { what, text: lossy(text) }) } else { Ok(()) }
}

fn check_len(what: &'static str, text: &[u8], limit: usize) -> Result<(), TreeError> {
    let len = text.len();
    if len > limit { Err(TreeError::TooLong { what, len, limit }) } else { Ok(()) }
}

fn check_name(name: &[u8]) -> Result<&[u8], TreeError> {
    check_len("name", name, MAX_NAME_LEN)?;
    Ok(name)
}

/// Whether names of these lengths make a path that can be.
fn check_path(names: impl Iterator<Item = usize>) -> Result<(), TreeError> {
    let len = names.map(|len| len + 1).sum::<usize>().saturating_sub(1);
    if len > MAX_PATH_LEN {
        return Err(TreeError::TooLong { what: "path", len, limit: MAX_PATH_LEN });
    }
    Ok(())
}

/// Text for a message, with an end to it.
fn lossy(text: &[u8]) -> String {
    /// As long as a name can be.
    const MOST: usize = 255;
    String::from_utf8_lossy(&text[..text.len().min(MOST)]).into_owned()
}

//! Goes through the source from its root, checks what it says, and hands each inode to `image`. Where it lies there and how
//! is `image`'s to say.

use crate::dirs::DirWriter;
use crate::format::{BLOCK_LEN, Layout, RawInode, device_number, file_mode, file_type};
use crate::image::{Chunks, Data, Image};
use crate::limits::{MAX_DEVICE_LEN, MAX_MAJOR, MAX_MINOR, MAX_MODE, MAX_NSEC, MAX_TARGET_LEN};
use crate::xattr::XattrWriter;
use crate::{Error, Inode, Kind, Options, Source};

/// What `parents` has of an inode that no name has led to.
const UNSEEN: u32 = u32::MAX;

/// Writes the table: inodes in the order of their distance from the root, so that those of one directory lie together.
pub(crate) fn walk(source: &impl Source, options: &Options) -> Result<Vec<u8>, Error> {
    at_most("length of the device", options.device_len, MAX_DEVICE_LEN)?;
    let count = source.len();
    if count == 0 || !matches!(source.inode(0).kind, Kind::Directory { .. }) {
        return Err(Error::NotATree("inode 0, the root, must be a directory".to_owned()));
    }
    // Of directories, the parent; of others, the directory that named them first.
    let mut parents = vec![UNSEEN; count as usize];
    parents[0] = 0;
    let mut queue = vec![0];
    let mut next = 0;
    let mut image = Image::new(count);
    let mut xattrs = Vec::new();
    while let Some(&id) = queue.get(next) {
        next += 1;
        let inode = source.inode(id);
        xattrs.clear();
        let xattr_count = write_xattrs(source, id, &inode, options, &mut xattrs)?;
        let mut raw = raw(id, &inode, xattr_count)?;
        match inode.kind {
            Kind::Directory { .. } => {
                let begin = image.contents().len();
                write_names(source, id, &mut parents, &mut queue, image.contents())?;
                raw.size = (image.contents().len() - begin) as u64;
                image.add(id, raw, &xattrs, Data::Directory(begin));
            }
            Kind::Symlink(target) => {
                check_target(target)?;
                raw.size = target.len() as u64;
                image.add(id, raw, &xattrs, Data::Target(target));
            }
            Kind::File { offset, size: 1.. } => {
                let chunks = place(offset, raw.size, options.device_len)?;
                image.add(id, raw, &xattrs, Data::Chunks(chunks));
            }
            _ => image.add(id, raw, &xattrs, Data::None),
        }
    }
    image.finish(options)
}

/// All of an inode but its data, checked.
fn raw(id: u32, inode: &Inode<'_>, xattr_count: u16) -> Result<RawInode, Error> {
    at_most("mode", u64::from(inode.mode), MAX_MODE)?;
    at_most("nanoseconds of a time", u64::from(inode.mtime_nsec), MAX_NSEC)?;
    if inode.nlink == 0 {
        return Err(Error::NotATree(format!("inode {id} counts no names")));
    }
    let (file_mode, size, device) = match inode.kind {
        Kind::File { size, .. } => (file_mode::REGULAR, size, None),
        Kind::Directory { .. } => (file_mode::DIRECTORY, 0, None),
        Kind::Symlink(_) => (file_mode::SYMLINK, 0, None),
        Kind::Char(major, minor) => (file_mode::CHAR, 0, Some((major, minor))),
        Kind::Block(major, minor) => (file_mode::BLOCK, 0, Some((major, minor))),
        Kind::Fifo => (file_mode::FIFO, 0, None),
        Kind::Whiteout => (file_mode::CHAR, 0, Some((0, 0))),
    };
    let (major, minor) = device.unwrap_or_default();
    at_most("major device number", u64::from(major), MAX_MAJOR)?;
    at_most("minor device number", u64::from(minor), MAX_MINOR)?;
    Ok(RawInode {
        layout: Layout::Plain,
        xattr_count,
        mode: file_mode | inode.mode,
        size,
        place: device_number(major, minor),
        ino: id,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        mtime_nsec: inode.mtime_nsec,
        nlink: inode.nlink,
    })
}

fn write_xattrs(
    source: &impl Source,
    id: u32,
    inode: &Inode<'_>,
    options: &Options,
    out: &mut Vec<u8>,
) -> Result<u16, Error> {
    let opaque = matches!(inode.kind, Kind::Directory { opaque: true }).then_some(options.opaque);
    let mut writer = XattrWriter::new(out, opaque);
    let mut result = Ok(());
    source.xattrs(id, &mut |name, value| {
        if result.is_ok() {
            result = writer.add(name, value);
        }
    });
    result?;
    writer.finish()
}

/// Writes the names of directory `id`, and puts the inodes that weren't seen before behind the others in the queue.
fn write_names(
    source: &impl Source,
    id: u32,
    parents: &mut [u32],
    queue: &mut Vec<u32>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut writer = DirWriter::new(out, id, parents[id as usize]);
    let mut add = |name: &[u8], child: u32| {
        let Some(parent) = parents.get_mut(child as usize) else {
            return Err(Error::NotATree(format!("directory {id} names inode {child}, which there isn't")));
        };
        let kind = entry_type(&source.inode(child).kind);
        if *parent == UNSEEN {
            *parent = id;
            queue.push(child);
        } else if kind == file_type::DIRECTORY {
            return Err(Error::NotATree(format!("directory {child} has more than one name")));
        }
        writer.add(name, child, kind)
    };
    let mut result = Ok(());
    source.children(id, &mut |name, child| {
        if result.is_ok() {
            result = add(name, child);
        }
    });
    result?;
    writer.finish();
    Ok(())
}

fn entry_type(kind: &Kind<'_>) -> u8 {
    match kind {
        Kind::File { .. } => file_type::REGULAR,
        Kind::Directory { .. } => file_type::DIRECTORY,
        Kind::Symlink(_) => file_type::SYMLINK,
        Kind::Char(..) | Kind::Whiteout => file_type::CHAR,
        Kind::Block(..) => file_type::BLOCK,
        Kind::Fifo => file_type::FIFO,
    }
}

fn check_target(target: &[u8]) -> Result<(), Error> {
    at_most("length of a symbolic link's target", target.len() as u64, MAX_TARGET_LEN)?;
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Target(String::from_utf8_lossy(target).into_owned()));
    }
    Ok(())
}

/// Where a file of `size` bytes, more than 0, lies.
fn place(offset: u64, size: u64, device_len: u64) -> Result<Chunks, Error> {
    let block_len = BLOCK_LEN as u64;
    let fits = offset.checked_add(size).is_some_and(|end| end <= device_len);
    match u32::try_from(offset / block_len) {
        Ok(block) if fits && offset.is_multiple_of(block_len) => Ok(Chunks::new(block, size)),
        _ => Err(Error::Misplaced { offset, size, device_len }),
    }
}

fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), Error> {
    if value > limit { Err(Error::TooLarge { what, value, limit }) } else { Ok(()) }
}

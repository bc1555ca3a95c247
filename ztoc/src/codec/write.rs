//! The model as zTOC bytes: Go's order of objects, so that equal indexes have equal digests whoever made them.

use super::flat_write::{Builder, Position};
use super::{ALGORITHM_GZIP, ALGORITHM_UNCOMPRESSED, ids, time};
use crate::model::{Compression, Entry, Ztoc};
use crate::zinfo;

impl Ztoc {
    /// Writes the zTOC, byte for byte as the Go tool lays it out.
    ///
    /// # Panics
    /// When a gzip zTOC has lost its windows (see [`Ztoc::decode_without_windows`]): what was written would decode to
    /// wrong bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Builder::new();
        let version = out.string(&self.version);
        let build_tool = out.string(&self.build_tool);
        let mut entries: Vec<Position> =
            self.entries.iter().rev().map(|entry| file(&mut out, entry)).collect();
        entries.reverse();
        let metadata = out.offsets(&entries);
        let toc = out.table(ids::toc::COUNT).offset(ids::toc::METADATA, metadata).end();
        let checkpoints = out.bytes(&zinfo::encode(self));
        let digests: Vec<Position> =
            self.span_digests.iter().map(|digest| out.string(digest.to_string().as_bytes())).collect();
        let digests = out.offsets(&digests);
        let algorithm = match self.compression {
            Compression::Gzip => ALGORITHM_GZIP,
            Compression::Uncompressed => ALGORITHM_UNCOMPRESSED,
        };
        // A layer of 0 bytes has no span: -1.
        let spans = i32::try_from(self.checkpoints.len()).unwrap_or(i32::MAX);
        let info = out
            .table(ids::info::COUNT)
            .i32(ids::info::MAX_SPAN_ID, spans - 1)
            .offset(ids::info::SPAN_DIGESTS, digests)
            .offset(ids::info::CHECKPOINTS, checkpoints)
            .u8(ids::info::ALGORITHM, algorithm, ALGORITHM_GZIP)
            .end();
        let root = out
            .table(ids::ztoc::COUNT)
            .offset(ids::ztoc::VERSION, version)
            .offset(ids::ztoc::BUILD_TOOL, build_tool)
            .offset(ids::ztoc::TOC, toc)
            .size(ids::ztoc::COMPRESSED_SIZE, self.compressed_size)
            .size(ids::ztoc::UNCOMPRESSED_SIZE, self.uncompressed_size)
            .offset(ids::ztoc::COMPRESSION_INFO, info)
            .end();
        out.finish(root)
    }
}

fn file(out: &mut Builder, entry: &Entry) -> Position {
    let name = out.string(&entry.name);
    let kind = out.string(entry.kind.name().as_bytes());
    let linkname = out.string(&entry.linkname);
    let uname = out.string(&entry.uname);
    let gname = out.string(&entry.gname);
    let mod_time = out.string(time::format(entry.mtime).as_bytes());
    let mut xattrs = Vec::with_capacity(entry.pax.len());
    for (key, value) in &entry.pax {
        let key = out.string(key);
        let value = out.string(value);
        let table =
            out.table(ids::xattr::COUNT).offset(ids::xattr::KEY, key).offset(ids::xattr::VALUE, value);
        xattrs.push(table.end());
    }
    let xattrs = out.offsets(&xattrs);
    out.table(ids::file::COUNT)
        .offset(ids::file::NAME, name)
        .offset(ids::file::TYPE, kind)
        .size(ids::file::OFFSET, entry.offset)
        .size(ids::file::SIZE, entry.size)
        .offset(ids::file::LINKNAME, linkname)
        .i64(ids::file::MODE, entry.mode)
        .u32(ids::file::UID, entry.uid)
        .u32(ids::file::GID, entry.gid)
        .offset(ids::file::UNAME, uname)
        .offset(ids::file::GNAME, gname)
        .offset(ids::file::MOD_TIME, mod_time)
        .i64(ids::file::DEVMAJOR, entry.devmajor)
        .i64(ids::file::DEVMINOR, entry.devminor)
        .offset(ids::file::XATTRS, xattrs)
        .end()
}

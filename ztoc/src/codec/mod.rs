//! zTOC bytes (a flatbuffer) to and from the model.
//!
//! `read` checks and takes apart, `write` lays out as the Go tool does, over the few things of flatbuffers that are
//! needed (`flat_read`, `flat_write`); times as text are `time`'s, the checkpoints' blob is [`crate::zinfo`]'s.

mod flat_read;
mod flat_write;
mod read;
mod time;
mod write;

pub(crate) use flat_read::Table;
pub(crate) use flat_write::Builder;

/// Field numbers: the order of declaration in the schema.
mod ids {
    pub(super) mod ztoc {
        pub(in crate::codec) const VERSION: usize = 0;
        pub(in crate::codec) const BUILD_TOOL: usize = 1;
        pub(in crate::codec) const COMPRESSED_SIZE: usize = 2;
        pub(in crate::codec) const UNCOMPRESSED_SIZE: usize = 3;
        pub(in crate::codec) const TOC: usize = 4;
        pub(in crate::codec) const COMPRESSION_INFO: usize = 5;
        pub(in crate::codec) const COUNT: usize = 6;
    }
    pub(super) mod toc {
        pub(in crate::codec) const METADATA: usize = 0;
        pub(in crate::codec) const COUNT: usize = 1;
    }
    pub(super) mod file {
        pub(in crate::codec) const NAME: usize = 0;
        pub(in crate::codec) const TYPE: usize = 1;
        pub(in crate::codec) const OFFSET: usize = 2;
        pub(in crate::codec) const SIZE: usize = 3;
        pub(in crate::codec) const LINKNAME: usize = 4;
        pub(in crate::codec) const MODE: usize = 5;
        pub(in crate::codec) const UID: usize = 6;
        pub(in crate::codec) const GID: usize = 7;
        pub(in crate::codec) const UNAME: usize = 8;
        pub(in crate::codec) const GNAME: usize = 9;
        pub(in crate::codec) const MOD_TIME: usize = 10;
        pub(in crate::codec) const DEVMAJOR: usize = 11;
        pub(in crate::codec) const DEVMINOR: usize = 12;
        pub(in crate::codec) const XATTRS: usize = 13;
        pub(in crate::codec) const COUNT: usize = 14;
    }
    pub(super) mod xattr {
        pub(in crate::codec) const KEY: usize = 0;
        pub(in crate::codec) const VALUE: usize = 1;
        pub(in crate::codec) const COUNT: usize = 2;
    }
    pub(super) mod info {
        pub(in crate::codec) const ALGORITHM: usize = 0;
        pub(in crate::codec) const MAX_SPAN_ID: usize = 1;
        pub(in crate::codec) const SPAN_DIGESTS: usize = 2;
        pub(in crate::codec) const CHECKPOINTS: usize = 3;
        pub(in crate::codec) const COUNT: usize = 4;
    }
}

/// Value of the algorithm field for gzip, which is its default and so never stored by the Go tool.
const ALGORITHM_GZIP: u8 = 1;
/// Value of the algorithm field for plain tar.
const ALGORITHM_UNCOMPRESSED: u8 = 2;

#[cfg(test)]
mod tests;

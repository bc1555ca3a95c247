//! The one error of this crate.

/// Why a zTOC, a layer or a span can't be read or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The zTOC is malformed; `field` says where.
    #[error("invalid zTOC: {field}: {what}")]
    Invalid {
        /// Name of the field, as `docs/formats.md` calls it.
        field: &'static str,
        /// What is wrong with it, with the value.
        what: String,
    },
    /// A size or count is above its named limit.
    #[error("{what} is {value}, above the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much there may be (see `limits`).
        limit: u64,
    },
    /// The compressed stream is broken.
    #[error("corrupt {format} stream at byte {offset}: {what}")]
    Corrupt {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Offset in the compressed input, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The tar is malformed, or has something a table of contents can't say.
    #[error(transparent)]
    Tar(#[from] crate::tar::TarError),
    /// The entries make no file system.
    #[error(transparent)]
    Tree(#[from] crate::tree::TreeError),
    /// Reading the layer failed.
    #[error("reading the layer: {0}")]
    Io(#[from] std::io::Error),
}

//! Makes spans present: what is missing is asked for in as few range requests as possible, checked, decoded, handed to
//! those who wait, and written to the stream.
//!
//! `plan` and `split` decide and do no I/O, `source` is the edge to the registry (and to the tests' doubles), `flight`
//! keeps two from fetching one span, `headers` compares what an index says with what the layer says, `spans` ties them
//! together for one layer. Which bytes a read means, and the files they go to, are `layer`'s.

mod flight;
mod headers;
mod limits;
pub mod plan;
mod shared;
mod source;
mod spans;
pub mod split;
#[cfg(test)]
pub(crate) mod testing;
mod turns;

pub(crate) use headers::Headers;
pub(crate) use limits::MAX_DECODED_LEN;
pub(crate) use shared::{Settings, Shared, blocking};
#[cfg(test)]
pub(crate) use source::Cause;
pub(crate) use source::{BlobSource, RegistrySource, SourceError};
pub(crate) use spans::{Files, Spans};
pub(crate) use turns::Turns;

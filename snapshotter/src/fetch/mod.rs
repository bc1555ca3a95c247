//! Makes spans present: what is missing is asked for in as few range requests as possible, checked, decoded, handed to
//! those who wait, and written to the stream.
//!
//! `planner` decides what is fetched when, for the whole node, and `split` what an answer consists of; both do no I/O.
//! `engine` asks the planner and starts what it says, `worker` carries one request out. `pieces` brings whole blobs. `source` is the edge to the registry
//! (and to the tests' doubles), `flight` keeps two from fetching one span, `headers` compares what an index says with what
//! the layer says (`regions` has that on the disk), `spans` ties them together for one layer. Which bytes a read means, and the files they go to, are
//! `layer`'s.

mod engine;
mod flight;
mod headers;
mod limits;
mod pieces;
pub mod planner;
mod regions;
mod source;
mod spans;
pub mod split;
#[cfg(test)]
pub(crate) mod testing;
mod turns;
mod worker;

pub(crate) use engine::{Engine, Settings, blocking};
pub(crate) use headers::{Headers, Unaccepted};
pub(crate) use limits::MAX_DECODED_LEN;
pub(crate) use pieces::{Piece, download};
pub use planner::Background;
#[cfg(test)]
pub(crate) use source::Cause;
pub(crate) use source::{BlobSource, RegistrySource};
pub(crate) use spans::{Files, Spans};
pub(crate) use turns::Turns;

//! Unpacks a layer into an ordinary directory.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::Error;

/// Name of the directory that a layer was unpacked into.
pub(super) const DIR: &str = "fs";

pub(super) fn unpack(_stream: &Path, _len: u64, _dir: &Path, _stop: &CancellationToken) -> Result<(), Error> {
    Err(Error::Internal("unpacking isn't there yet".to_owned()))
}

/// `error` with what it is about.
pub(super) fn named(error: Error, name: &str) -> Error {
    let text = |what: String| format!("{name}: {what}");
    match error {
        Error::NoSpace(what) => Error::NoSpace(text(what)),
        Error::Corrupt(what) => Error::Corrupt(text(what)),
        Error::Unavailable(what) => Error::Unavailable(text(what)),
        other => Error::Internal(text(other.to_string())),
    }
}

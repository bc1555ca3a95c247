//! The daemon's errors as errno: what a read through the device fails with.

use fuser::Errno;

use crate::Error;

/// The errno for `error`. A reader can do nothing with the difference between an unreachable registry and corrupt bytes,
/// and programs know EIO; so nearly everything is EIO, and the cause is in the log and the metrics.
pub(crate) fn errno(error: &Error) -> Errno {
    match error {
        // Makes the kernel look the name up once more, which it has cached for ever.
        Error::NotFound(_) => Errno::ESTALE,
        _ => Errno::EIO,
    }
}

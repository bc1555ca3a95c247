//! The bytes of a response as they arrive.

use bytes::Bytes;

use crate::Error;

/// A body in progress. A range's body yields exactly the bytes of the range, or an error.
pub struct Body {}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// The next piece, or `None` when all bytes that were asked for have come.
    ///
    /// # Errors
    /// When the connection breaks, the body ends early or runs over, and no retry helped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Everything, up to `limit` bytes.
    ///
    /// # Errors
    /// As [`Body::chunk`]; [`crate::ErrorKind::Corrupt`] when there is more.
    pub async fn collect(self, _limit: u64) -> Result<Bytes, Error> {
        todo!()
    }
}

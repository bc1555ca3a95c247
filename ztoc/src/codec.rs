//! zTOC bytes (flatbuffer) to and from the model.

use crate::Error;
use crate::model::Ztoc;

impl Ztoc {
    /// Reads a zTOC, checking everything `docs/formats.md` says.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, or [`Error::Limit`].
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        todo!()
    }

    /// Writes the zTOC, byte for byte as the Go tool lays it out.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
}

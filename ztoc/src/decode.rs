//! Decoding one span from its checkpoint.

use crate::Error;
use crate::model::Compression;

/// Decodes one span: `compressed` are all its bytes in the blob, `bits` and `window` come from its checkpoint, and
/// exactly `uncompressed_len` bytes come out. Plain tar is copied.
///
/// # Errors
/// When the bytes are no deflate stream, end early, or give fewer bytes than `uncompressed_len`.
pub fn decode_span(
    _compression: Compression,
    _bits: u8,
    _window: &[u8],
    _compressed: &[u8],
    _uncompressed_len: usize,
) -> Result<Vec<u8>, Error> {
    todo!()
}

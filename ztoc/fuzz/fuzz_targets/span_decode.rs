//! Any bytes as a span that begins at any bit: an error, or exactly as many bytes as were asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::{Compression, decode_span};

fuzz_target!(|data: &[u8]| {
    let Some((&[bits, len_low, len_high, window], compressed)) = data.split_first_chunk::<4>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([len_low, len_high]));
    let window = vec![window; usize::from(window) << 7];
    if let Ok(bytes) = decode_span(Compression::Gzip, bits, &window, compressed, len) {
        assert_eq!(bytes.len(), len);
    }
});

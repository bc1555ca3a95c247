//! Any bytes as a span that begins at any bit: an error, or exactly as many bytes as were asked for,
//! at once or in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::{Compression, SpanDecoder, decode_span};

fuzz_target!(|data: &[u8]| {
    let Some((&[bits, len_low, len_high, window], compressed)) = data.split_first_chunk::<4>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([len_low, len_high]));
    let window = vec![window; usize::from(window) << 7];
    let whole = decode_span(Compression::Gzip, bits, &window, compressed, len).ok();
    assert!(whole.as_ref().is_none_or(|bytes| bytes.len() == len));
    let pieces = || {
        let mut decoder = SpanDecoder::new(Compression::Gzip, bits, &window, len)?;
        compressed.chunks(7).try_for_each(|piece| decoder.push(piece))?;
        decoder.finish()
    };
    assert_eq!(pieces().ok(), whole, "in pieces");
    if let Ok(mut decoder) = SpanDecoder::to_end(Compression::Gzip, bits, &window, 1 << 20) {
        let _ = decoder.push(compressed);
        assert!(decoder.decoded().len() <= (1 << 20) + 1);
    }
});

//! Any bytes as a layer: an error, or a zTOC whose spans can all be decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::{Compression, SpanTable, WINDOW_LEN, Ztoc, decode_span};

fuzz_target!(|data: &[u8]| {
    let Some((span_size, blob)) = data.split_first_chunk::<2>() else { return };
    let span_size = u64::from(u16::from_le_bytes(*span_size));
    for compression in [Compression::Gzip, Compression::Uncompressed] {
        let Ok(built) = build(blob, compression, &BuildOptions { span_size, ..BuildOptions::default() })
        else {
            continue;
        };
        let ztoc = built.ztoc;
        assert_eq!(Ztoc::decode(&ztoc.encode()).expect("what was built can be read"), ztoc);
        let spans = SpanTable::new(&ztoc).expect("what was built has spans");
        for (span, index) in spans.iter().zip(0..) {
            let at = |offset: u64| usize::try_from(offset).expect("in memory");
            let bytes = &blob[at(span.compressed.start)..at(span.compressed.end)];
            let window = ztoc.windows.chunks_exact(WINDOW_LEN).nth(index).unwrap_or_default();
            let len = at(span.uncompressed.end - span.uncompressed.start);
            decode_span(compression, span.bits, window, bytes, len).expect("a built span");
        }
    }
});

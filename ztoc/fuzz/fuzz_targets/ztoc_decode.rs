//! Any bytes as a zTOC: an error, or a zTOC that is written and read again as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::{SpanTable, Ztoc};

fuzz_target!(|data: &[u8]| {
    let Ok(ztoc) = Ztoc::decode(data) else { return };
    let spans = SpanTable::new(&ztoc).expect("what was decoded has spans");
    for span in spans.iter() {
        assert!(
            span.compressed.end <= ztoc.compressed_size && span.uncompressed.end <= ztoc.uncompressed_size
        );
    }
    for entry in &ztoc.entries {
        let _ = spans.covering(entry.offset..entry.offset + entry.size);
    }
    assert_eq!(Ztoc::decode(&ztoc.encode()).expect("what was read can be written"), ztoc);
    let (lean, windows) = Ztoc::decode_without_windows(data).expect("as with windows");
    assert_eq!(lean.checkpoints, ztoc.checkpoints);
    for span in spans.iter() {
        assert!(windows.get(span.id).is_none_or(|range| range.end <= data.len() as u64));
    }
});

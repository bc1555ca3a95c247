//! Any bytes as a zInfo blob, of either kind; the first eight are the length of the layer's blob.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::{Compression, zinfo};

fuzz_target!(|data: &[u8]| {
    let Some((size, blob)) = data.split_first_chunk() else { return };
    for compression in [Compression::Gzip, Compression::Uncompressed] {
        let _ = zinfo::decode(compression, blob, u64::from_le_bytes(*size));
    }
});

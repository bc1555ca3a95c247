//! Tests of the scan: where checkpoints lie, and gzip streams that are broken.

use std::path::Path;

use super::*;
use crate::model::Ztoc;

fn golden(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/vectors/layers").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Stream, checkpoints and windows.
type Scanned = (Vec<u8>, Vec<Checkpoint>, Vec<u8>);

/// What is found in a blob that comes in pieces of `piece` bytes.
fn scan(blob: &[u8], piece: usize, span_size: u64) -> Result<Scanned, Error> {
    let mut scan = Scan::new(span_size);
    let (mut stream, mut checkpoints, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    for mut input in blob.chunks(piece) {
        let mut more = true;
        while more || !input.is_empty() {
            let step = scan.step(input)?;
            input = &input[step.taken..];
            more = step.more;
            stream.extend_from_slice(step.output);
            if let Some(checkpoint) = step.checkpoint {
                checkpoints.push(checkpoint);
                windows.extend_from_slice(scan.window());
            }
        }
    }
    scan.finish()?;
    Ok((stream, checkpoints, windows))
}

#[test]
fn checkpoints_do_not_depend_on_how_the_blob_comes_in() {
    for name in ["gz-gnu1", "mm-odd", "gz-fextra-max", "end-data", "gz-zeros"] {
        let blob = golden(&format!("{name}/layer.tar.gz"));
        let ztoc = Ztoc::decode(&golden(&format!("{name}/new-65536.ztoc"))).expect("a golden zTOC");
        let (stream, ..) = scan(&blob, blob.len(), 65536).expect("a golden layer");
        for piece in [1, 2, 7, 4096, 65536, blob.len()] {
            let (again, checkpoints, windows) = scan(&blob, piece, 65536).expect("a golden layer");
            assert!(again == stream, "{name} in pieces of {piece}");
            assert_eq!(checkpoints, ztoc.checkpoints, "{name} in pieces of {piece}");
            assert!(windows == ztoc.windows, "{name} in pieces of {piece}: windows");
        }
    }
}

#[test]
fn a_checkpoint_after_every_block_decodes_to_its_part() {
    let blob = golden("mm-odd/layer.tar.gz");
    let (stream, checkpoints, windows) = scan(&blob, 4096, 1).expect("a golden layer");
    let mut phases = [false; 8];
    for (index, at) in checkpoints.iter().enumerate() {
        phases[usize::from(at.bits)] = true;
        let next = checkpoints.get(index + 1);
        let place = |offset: u64| usize::try_from(offset).expect("in memory");
        let start = place(at.compressed_offset - u64::from(at.bits != 0));
        let end = next.map_or(blob.len(), |next| place(next.compressed_offset));
        let from = place(at.uncompressed_offset);
        let to = next.map_or(stream.len(), |next| place(next.uncompressed_offset));
        let window = &windows[index * WINDOW_LEN..][..WINDOW_LEN];
        let bytes = &blob[start..end];
        let got = crate::decode_span(crate::Compression::Gzip, at.bits, window, bytes, to - from);
        assert!(got.expect("a span") == stream[from..to], "span {index}");
    }
    assert!(checkpoints.len() > 8 && phases.iter().filter(|&&seen| seen).count() > 3, "{phases:?}");
}

#[test]
fn broken_blobs_are_refused() {
    let blob = golden("gz-gnu1/layer.tar.gz");
    for cut in [0, 5, 10, 11, blob.len() / 2, blob.len() - 8, blob.len() - 1] {
        assert!(scan(&blob[..cut], 4096, 65536).is_err(), "cut at {cut}");
    }
    for (byte, what) in [(blob.len() - 1, "length"), (blob.len() - 8, "CRC"), (0, "not a gzip member")] {
        let mut broken = blob.clone();
        broken[byte] ^= 1;
        let error = scan(&broken, 4096, 65536).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    for tail in [&b"\0"[..], &[0; 512], b"garbage", &[0x1f], &[0x1f, 0x8b, 8]] {
        let error = scan(&[&blob, tail].concat(), 4096, 65536);
        assert!(error.is_err(), "{tail:?} after the last member");
    }
}

#[test]
fn a_member_refers_to_nothing_before_it() {
    // A member of "ab", then one that is a match of 258 bytes, one byte back (as built by hand in `decode`'s tests).
    let mut blob =
        vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x02, 0, 0x6d, 0x48, 0x83, 0x9e, 2, 0, 0, 0];
    let (stream, ..) = scan(&blob, 64, 1 << 20).expect("one member");
    assert_eq!(stream, b"ab");
    blob.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x1b, 0x05, 0, 0]);
    let error = scan(&blob, 64, 1 << 20).expect_err("too far back").to_string();
    assert!(error.contains("not a deflate stream"), "{error}");
}

//! Tests of decoding single spans: every bit offset, members that end within, and bytes that are cut or wrong.

use super::*;
use crate::prefix::Bits;

/// Stored blocks, fixed ones and their bits: built by hand, so that each begins at any bit of a byte.
fn stream(phase: u8, text: &[u8]) -> Bits {
    let mut bits = Bits::default();
    bits.push(0b1010_1010, phase);
    bits.push(0b011, 3); // the last block, fixed codes
    for &byte in text {
        let code = u16::from(byte) + 0x30; // eight bits, highest first, for bytes below 144
        bits.push(code.reverse_bits() >> 8, 8);
    }
    bits.push(0, 7);
    bits
}

#[test]
fn a_span_begins_at_any_bit() {
    for phase in 0..8 {
        let text = b"spans begin anywhere in a byte";
        let bytes = stream(phase, text).bytes;
        let bits = (8 - phase) % 8;
        for window in [&b""[..], &[b'x'; WINDOW_LEN][..]] {
            let got = decode_span(Compression::Gzip, bits, window, &bytes, text.len()).expect("decodes");
            assert_eq!(got, text, "phase {phase}");
        }
    }
}

#[test]
fn the_prefix_ends_at_the_wanted_bit() {
    for bits in 1..8_u8 {
        let prefix = prefix(bits, 0xff);
        let last = *prefix.last().expect("has at least the bits themselves");
        assert_eq!(last >> (8 - bits), 0xff >> (8 - bits), "{bits}");
        let mut inflater = Inflate::new(false, WINDOW_BITS);
        let blocks = &mut &prefix[..prefix.len() - 1];
        feed(&mut inflater, blocks, &mut [0; 8]).expect("empty blocks");
        assert!(blocks.is_empty());
    }
}

#[test]
fn a_window_is_what_the_span_refers_to() {
    // One match of 258 bytes, 1 byte back: length code 285 (8 bits: 11000101), distance code 0 (5 bits).
    let mut bits = Bits::default();
    bits.push(0b011, 3);
    bits.push(0b1010_0011, 8);
    bits.push(0, 5);
    bits.push(0, 7);
    let got = decode_span(Compression::Gzip, 0, b"abc", &bits.bytes, 258).expect("decodes");
    assert_eq!(got, [b'c'; 258]);
    let error = decode_span(Compression::Gzip, 0, b"", &bits.bytes, 258).expect_err("refers to nothing");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn members_may_end_and_begin_within_a_span() {
    let mut bytes = stream(0, b"first").bytes;
    bytes.extend([0; TRAILER_LEN]);
    for text in [&b""[..], b"second"] {
        bytes.extend([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'n', 0]); // with a name
        bytes.extend(stream(0, text).bytes);
        bytes.extend([0; TRAILER_LEN]);
    }
    for len in 0..=11 {
        let got = decode_span(Compression::Gzip, 0, b"", &bytes, len).expect("decodes");
        assert_eq!(got, b"firstsecond"[..len]);
    }
    let error = decode_span(Compression::Gzip, 0, b"", &bytes, 12).expect_err("one byte too many");
    assert!(error.to_string().contains("ends after 11 bytes of the span's 12 bytes"), "{error}");
}

#[test]
fn every_cut_of_a_span_is_an_error() {
    let mut bytes = stream(0, b"first").bytes;
    bytes.extend([0; TRAILER_LEN]);
    bytes.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    bytes.extend(stream(0, b"second").bytes);
    let needed = bytes.len() - 1; // the last byte holds only the end of the block
    for len in 0..needed - 1 {
        let error = decode_span(Compression::Gzip, 0, b"", &bytes[..len], 11).expect_err("cut");
        assert!(matches!(error, Error::Corrupt { .. }), "{len}: {error}");
    }
}

#[test]
fn hostile_spans_are_refused() {
    for (bits, compressed, len) in [
        (8, &b"\0"[..], 1),
        (255, b"\0", 1),
        (3, b"", 1),
        (0, b"\x07", 1),               // a block of the reserved type
        (0, b"\x03\0", 1 << 40),       // more than deflate can make of two bytes
        (0, b"\x00\0\0\xff\xff", 1),   // an empty block, and then nothing
        (0, b"\x01\x05\0\xfa\xfe", 1), // a length and its complement that don't fit
    ] {
        let got = decode_span(Compression::Gzip, bits, &[0; WINDOW_LEN], compressed, len);
        assert!(got.is_err(), "{bits} {compressed:?}");
    }
}

#[test]
fn plain_tar_is_copied() {
    assert_eq!(decode_span(Compression::Uncompressed, 0, b"", b"abcd", 3).expect("is there"), b"abc");
    assert!(decode_span(Compression::Uncompressed, 0, b"", b"abcd", 5).is_err());
}

#[test]
fn it_does_not_matter_in_which_pieces_a_span_arrives() {
    let mut bytes = stream(3, b"first").bytes;
    bytes.extend([0; TRAILER_LEN]);
    bytes.extend([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'n', 0]);
    bytes.extend(stream(0, b"second").bytes);
    bytes.extend([0; TRAILER_LEN]);
    for piece in 1..=bytes.len() {
        let mut exact = SpanDecoder::new(Compression::Gzip, 5, b"", 11).expect("5 bits");
        let mut all = SpanDecoder::to_end(Compression::Gzip, 5, b"", 11).expect("5 bits");
        for part in bytes.chunks(piece) {
            exact.push(part).expect("a span");
            all.push(part).expect("a span");
            assert!(b"firstsecond".starts_with(exact.decoded()));
        }
        assert_eq!(exact.finish().expect("a span"), b"firstsecond", "pieces of {piece}");
        assert_eq!(all.finish().expect("a span"), b"firstsecond", "pieces of {piece}");
    }
}

#[test]
fn the_last_span_goes_on_to_the_end_of_the_blob_and_no_further_than_allowed() {
    let bytes = [&stream(0, &[b'p'; 100_000]).bytes[..], &[0; TRAILER_LEN]].concat();
    let decode = |bytes: &[u8], max_len| {
        let mut decoder = SpanDecoder::to_end(Compression::Gzip, 0, b"", max_len)?;
        decoder.push(bytes)?;
        decoder.finish()
    };
    assert_eq!(decode(&bytes, 100_000).expect("all of it"), [b'p'; 100_000]);
    assert!(matches!(decode(&bytes, 99_999), Err(Error::Limit { limit: 99_999, .. })));
    for cut in 1..=TRAILER_LEN + 1 {
        let error = decode(&bytes[..bytes.len() - cut], usize::MAX).expect_err("cut");
        assert!(error.to_string().contains("within a member"), "{error}");
    }
    let mut plain = SpanDecoder::to_end(Compression::Uncompressed, 0, b"", 4).expect("no bits");
    plain.push(b"tail").expect("at the limit");
    assert_eq!(plain.finish().expect("plain"), b"tail");
}

#[test]
fn a_decoder_that_found_an_error_stays_broken() {
    let mut decoder = SpanDecoder::new(Compression::Gzip, 0, b"", 1).expect("no bits");
    decoder.push(b"\x07").expect_err("a block of the reserved type");
    decoder.push(b"\x03").expect_err("still");
}

#[test]
fn decoders_may_move_between_threads() {
    fn check<T: Send>() {}
    check::<SpanDecoder>();
    check::<crate::unpack::StreamReader<std::fs::File>>();
}

#[test]
fn what_follows_the_last_wanted_byte_does_not_matter() {
    // Found by fuzzing: an invalid code after the 32nd byte, which the decoder sees while it writes that byte.
    let bytes = [0x00, 0xe1, 0x0f, 0x0d, 0x81, 0x0f, 0x00, 0xa4, 0x39, 0xe2, 0x94, 0xc0];
    let window = [0xed; WINDOW_LEN];
    let whole = decode_span(Compression::Gzip, 1, &window, &bytes, 32).expect("32 bytes are there");
    let mut decoder = SpanDecoder::new(Compression::Gzip, 1, &window, 32).expect("1 bit");
    bytes.chunks(7).for_each(|piece| decoder.push(piece).expect("32 bytes are there"));
    assert_eq!(decoder.finish().expect("32 bytes are there"), whole);
    decode_span(Compression::Gzip, 1, &window, &bytes, 33).expect_err("an invalid code");
}

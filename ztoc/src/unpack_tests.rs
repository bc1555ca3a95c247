//! Tests of the stream reader: members, frames, padding, and blobs that are cut or wrong.

use std::path::Path;

use super::*;

fn golden(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/vectors/layers").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Gives one byte a call.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(1);
        self.0.read(&mut buf[..len])
    }
}

fn unpack(blob: impl Read, format: LayerFormat) -> io::Result<Vec<u8>> {
    let mut stream = Vec::new();
    StreamReader::new(blob, format)?.read_to_end(&mut stream)?;
    Ok(stream)
}

#[test]
fn media_types_name_their_format() {
    for (media_type, format) in [
        ("application/vnd.oci.image.layer.v1.tar", Some(LayerFormat::Tar)),
        ("application/vnd.docker.image.rootfs.diff.tar", Some(LayerFormat::Tar)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Some(LayerFormat::Zstd)),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(LayerFormat::Zstd)),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
        ("application/vnd.in-toto+json", None),
        ("", None),
    ] {
        assert_eq!(LayerFormat::of_media_type(media_type), format, "{media_type}");
    }
}

#[test]
fn first_bytes_show_the_format() {
    for (bytes, format) in [
        (&[0x1f, 0x8b, 8, 0][..], LayerFormat::Gzip),
        (&[0x28, 0xb5, 0x2f, 0xfd], LayerFormat::Zstd),
        (&[0x5a, 0x2a, 0x4d, 0x18], LayerFormat::Zstd),
        (b"usr/", LayerFormat::Tar),
        (b"", LayerFormat::Tar),
        (&[0x50], LayerFormat::Tar),
    ] {
        assert_eq!(LayerFormat::of_first_bytes(bytes), format, "{bytes:?}");
    }
}

#[test]
fn a_stream_is_the_same_however_it_is_packed_and_comes_in() {
    let stream = unpack(&*golden("gz-gnu1/layer.tar.gz"), LayerFormat::Gzip).expect("gzip");
    assert_eq!(&stream[257..262], b"ustar");
    let frames: Vec<u8> =
        stream.chunks(50_000).flat_map(|part| zstd::encode_all(part, 3).expect("compresses")).collect();
    for (blob, format) in [
        (stream.clone(), LayerFormat::Tar),
        (golden("gz-gnu1/layer.tar.gz"), LayerFormat::Gzip),
        (frames, LayerFormat::Zstd),
    ] {
        assert!(unpack(&*blob, format).expect("whole") == stream, "{format:?}");
        assert!(unpack(Trickle(&blob), format).expect("byte by byte") == stream, "{format:?}");
    }
}

#[test]
fn members_of_any_number_and_size_are_one_stream() {
    let blob = golden("gz-gnu1/layer.tar.gz");
    let empty = golden("empty-0-gz/layer.tar.gz");
    let one = unpack(&*blob, LayerFormat::Gzip).expect("one member");
    let members = [&empty[..], &blob, &empty, &empty, &blob, &empty].concat();
    assert!(unpack(&*members, LayerFormat::Gzip).expect("six members") == [&one[..], &one].concat());
    assert_eq!(unpack(&*empty, LayerFormat::Gzip).expect("an empty member"), b"");
}

#[test]
fn broken_blobs_are_errors_and_never_a_shorter_stream() {
    let gzip = golden("gz-gnu1/layer.tar.gz");
    let zstd = zstd::encode_all(&*unpack(&*gzip, LayerFormat::Gzip).expect("gzip"), 3).expect("compresses");
    for (blob, format) in [(&gzip, LayerFormat::Gzip), (&zstd, LayerFormat::Zstd)] {
        for cut in [1, 5, 12, blob.len() / 2, blob.len() - 9, blob.len() - 1] {
            let error = unpack(&blob[..cut], format).expect_err("cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{format:?} cut at {cut}: {error}");
        }
        let error = unpack(&*[blob, &b"garbage"[..]].concat(), format).expect_err("garbage at the end");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{format:?}: {error}");
        let mut flipped = blob.clone();
        flipped[0] ^= 1;
        let error = unpack(&*flipped, format).expect_err("no magic");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{format:?}: {error}");
    }
    for at in [gzip.len() - 1, gzip.len() - 8] {
        let mut flipped = gzip.clone();
        flipped[at] ^= 1;
        unpack(&*flipped, LayerFormat::Gzip).expect_err("wrong CRC or length");
    }
    unpack(&b""[..], LayerFormat::Gzip).expect_err("a gzip blob has a member at least");
}

#[test]
fn a_zstd_window_above_the_limit_is_refused() {
    // A frame header alone: magic, no flags, a window of 2^28 bytes; then an empty last block.
    let blob = [0x28, 0xb5, 0x2f, 0xfd, 0, (28 - 10) << 3, 1, 0, 0];
    let error = unpack(&blob[..], LayerFormat::Zstd).expect_err("too large a window");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let blob = [0x28, 0xb5, 0x2f, 0xfd, 0, (27 - 10) << 3, 1, 0, 0];
    assert_eq!(unpack(&blob[..], LayerFormat::Zstd).expect("at the limit"), b"");
}

#[test]
fn an_error_of_the_reader_comes_as_it_is() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other side is gone"))
        }
    }
    for format in [LayerFormat::Tar, LayerFormat::Gzip, LayerFormat::Zstd] {
        let error = unpack(Broken, format).expect_err("no blob");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{format:?}");
    }
}

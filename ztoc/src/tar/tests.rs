//! Tests of the tar walk: every kind of entry, every way to cut the stream, and what is refused by which rules.

use super::*;
use crate::model::Timestamp;

/// A ustar header with fields put over it, and the checksum of the whole.
fn header(kind: u8, name: &[u8], size: u64, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000001\0");
    put(116, b"0000002\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000010\0");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    for (at, bytes) in fields {
        put(*at, bytes);
    }
    seal(block)
}

/// The block with its checksum.
fn seal(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Bytes and what fills their last block.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_LEN), 0);
    bytes
}

/// A header with a body, as extensions and files have it.
fn with_body(kind: u8, name: &[u8], body: &[u8]) -> Vec<u8> {
    [header(kind, name, body.len() as u64, &[]), padded(body)].concat()
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (rest..).find(|len| len - len.to_string().len() == rest).expect("some length is the right one");
    [len.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records: Vec<_> = records.iter().map(|(key, value)| record(key, value)).collect();
    with_body(b'x', b"PaxHeaders/x", &records.concat())
}

const END: [u8; 2 * BLOCK_LEN] = [0; 2 * BLOCK_LEN];

/// Walks `parts` in one piece and in small ones, which makes no difference.
fn walk(rules: TarRules, parts: &[&[u8]]) -> Result<Toc, TarError> {
    let bytes = parts.concat();
    let in_pieces = |piece: usize| {
        let mut walk = TarWalk::new(rules);
        bytes.chunks(piece).try_for_each(|bytes| walk.push(bytes))?;
        walk.finish()
    };
    let whole = in_pieces(usize::MAX);
    for piece in [1, 7, 511, 512, 1000] {
        assert_eq!(in_pieces(piece), whole, "in pieces of {piece}");
    }
    whole
}

fn index(parts: &[&[u8]]) -> Result<Toc, TarError> {
    walk(TarRules::Index, parts)
}

/// The one entry of a tar that has one.
fn one(parts: &[&[u8]]) -> Entry {
    let toc = index(parts).expect("a good tar");
    assert_eq!(walk(TarRules::Fill, parts).as_ref(), Ok(&toc), "nothing that only one of the rules takes");
    let [entry] = <[Entry; 1]>::try_from(toc.entries).expect("one entry");
    entry
}

/// What is wrong with a tar by both rules.
fn invalid(parts: &[&[u8]]) -> String {
    let error = index(parts).expect_err("a bad tar");
    assert_eq!(walk(TarRules::Fill, parts), Err(error.clone()));
    assert!(matches!(error, TarError::Header { .. }), "{error}");
    error.to_string()
}

#[test]
fn entries_have_their_place_in_the_stream() {
    let toc = index(&[
        &with_body(b'0', b"a", b"content"),
        &header(b'5', b"d/", 0, &[]),
        &pax(&[("path", b"long")]),
        &with_body(b'0', b"short", &[7; 512]),
        &header(b'0', b"empty", 0, &[]),
        &END,
        b"what follows isn't looked at",
    ])
    .expect("a good tar");
    let places: Vec<_> =
        toc.entries.iter().map(|entry| (entry.name.as_slice(), entry.offset, entry.size)).collect();
    assert_eq!(
        places,
        [
            (&b"a"[..], 512, 7),
            (b"d/", 1536, 0),
            (b"long", 3072, 512), // behind all three of its header blocks
            (b"empty", 4096, 0),
        ]
    );
    assert_eq!(toc.archive_end, 4096 + 1024);
}

#[test]
fn data_may_be_left_out() {
    let tar = [
        header(b'0', b"a", 1000, &[]),
        padded(&[1; 1000]),
        header(b'5', b"d/", 0, &[]),
        header(b'0', b"b", 512, &[]),
        vec![2; 512],
        vec![0; 1024],
    ]
    .concat();
    let mut walking = TarWalk::new(TarRules::Fill);
    let (mut at, mut skipped) = (0, Vec::new());
    while at < tar.len() {
        walking.push(&tar[at..at + 512]).expect("a tar");
        at += 512;
        let left_out = walking.skip_data();
        if left_out > 0 {
            skipped.push(left_out);
            at += usize::try_from(left_out.next_multiple_of(512)).expect("small");
            walking
                .push(&vec![9; usize::try_from(left_out.next_multiple_of(512) - left_out).expect("small")])
                .expect("padding");
        }
    }
    assert_eq!(skipped, [1000, 512]);
    assert_eq!(walking.finish(), walk(TarRules::Fill, &[&tar]));
}

#[test]
fn a_tar_may_end_without_its_zeros() {
    let file = with_body(b'0', b"a", b"content");
    let extension = pax(&[("path", b"of nothing")]);
    for (parts, end) in [
        (vec![&file[..], &END[..512]], 1536),
        (vec![&file[..]], 1024),
        (vec![&file[..519]], 519), // cut behind the data
        (vec![&file, &extension], 2048),
        (vec![&file, &extension, &END], 3072),
        (vec![], 0),
        (vec![&END[..]], 1024),
    ] {
        let toc = index(&parts).expect("a good tar");
        assert_eq!(toc.archive_end, end);
        assert_eq!(toc.entries.len(), usize::from(end != 0 && parts[0] != END));
    }
}

#[test]
fn what_ends_within_an_entry_is_cut() {
    let tar = [pax(&[("uname", b"x")]), with_body(b'0', b"a", b"content")].concat();
    for (cut, good) in
        [(1, false), (511, false), (512, false), (520, false), (523, true), (1024, true), (1500, false)]
    {
        assert_eq!(index(&[&tar[..cut]]).is_ok(), good, "cut at {cut}");
    }
    for cut in 1536..1536 + 7 {
        assert_eq!(index(&[&tar[..cut]]), Err(TarError::Truncated { offset: cut as u64 }));
    }
    assert_eq!(index(&[&END[..513]]), Err(TarError::Truncated { offset: 513 }));
}

#[test]
fn types_are_those_of_a_table_of_contents() {
    for (kind, want) in [
        (b'0', EntryKind::Regular),
        (0, EntryKind::Regular),
        (b'1', EntryKind::Hardlink),
        (b'2', EntryKind::Symlink),
        (b'3', EntryKind::Char),
        (b'4', EntryKind::Block),
        (b'5', EntryKind::Directory),
        (b'6', EntryKind::Fifo),
    ] {
        assert_eq!(one(&[&header(kind, b"a", 0, &[]), &END]).kind, want);
    }
    assert_eq!(one(&[&header(0, b"a/", 0, &[])]).kind, EntryKind::Directory);
    assert_eq!(one(&[&header(b'0', b"a/", 0, &[])]).kind, EntryKind::Regular);
    for kind in *b"7SVDXZ8\xff" {
        for rules in [TarRules::Index, TarRules::Fill] {
            let error = walk(rules, &[&END[..0], &header(kind, b"a", 0, &[])]).expect_err("no such entry");
            let TarError::Unsupported { offset: 0, kind: named } = &error else { panic!("{error}") };
            assert_eq!(*named, char::from(kind).to_string());
            assert_eq!(error.is_sparse(), kind == b'S');
        }
    }
}

#[test]
fn only_regular_files_have_data() {
    for kind in *b"123456" {
        let next = header(b'0', b"next", 0, &[]);
        let toc = index(&[&header(kind, b"a", 3000, &[]), &next]).expect("no data to be passed over");
        assert_eq!(
            toc.entries.iter().map(|entry| (entry.offset, entry.size)).collect::<Vec<_>>(),
            [(512, 0), (1024, 0)]
        );
        let error = invalid(&[&with_body(kind, b"a", &[b'x'; 600])]);
        assert_eq!(error, "invalid tar header at byte 512 of the stream: wrong checksum");
    }
}

#[test]
fn global_headers_are_for_filling_only() {
    let global = with_body(b'g', b"pax_global_header", &record("comment", b"0123"));
    let file = header(b'0', b"a", 0, &[]);
    let error = index(&[&global, &file]).expect_err("no zTOC says it");
    assert_eq!(error, TarError::Unsupported { offset: 0, kind: "g".to_owned() });
    let fill = |parts: &[&[u8]]| walk(TarRules::Fill, parts);
    let toc = fill(&[&global, &file]).expect("containerd passes over it");
    assert_eq!((toc.entries[0].offset, toc.entries[0].pax.len()), (1536, 0));
    // To Go it is an entry: it takes what was said of the next one.
    let toc = fill(&[&pax(&[("path", b"long")]), &global, &file]).expect("a good tar");
    assert_eq!(toc.entries[0].name, b"a");
    fill(&[&with_body(b'g', b"pax_global_header", b"nonsense"), &file]).expect_err("malformed records");
}

#[test]
fn the_header_says_who_when_and_how() {
    let fields: [(usize, &[u8]); 7] = [
        (100, b"104755 \0"),
        (157, b"target"),
        (265, b"root"),
        (297, b"wheel\0rest"),
        (329, b"0000010\0"),
        (337, b"     11\0"),
        (345, b"usr/share"),
    ];
    let entry = one(&[&header(b'3', b"name", 0, &fields)]);
    assert_eq!(entry.name, b"usr/share/name");
    assert_eq!(entry.linkname, b"target");
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o104_755, 1, 2));
    assert_eq!((entry.uname.as_slice(), entry.gname.as_slice()), (&b"root"[..], &b"wheel"[..]));
    assert_eq!((entry.devmajor, entry.devminor), (8, 9));
    assert_eq!(entry.mtime, Some(Timestamp { seconds: 8, nanoseconds: 0 }));
    // Before ustar there was none of it behind the link's name.
    let old = [&fields[..], &[(257, b"\0\0\0\0\0\0\0\0")]].concat();
    let entry = one(&[&header(b'3', b"name", 0, &old)]);
    assert_eq!((entry.name.as_slice(), entry.uname.len(), entry.devmajor), (&b"name"[..], 0, 0));
    // GNU has times where the prefix is, but for old versions of Go.
    let gnu: [(usize, &[u8]); 2] = [(257, b"ustar  \0"), (345, b"00000000010\0")];
    assert_eq!(one(&[&header(b'0', b"name", 0, &gnu)]).name, b"name");
    let gnu: [(usize, &[u8]); 2] = [(257, b"ustar  \0"), (345, b"usr/share")];
    assert_eq!(one(&[&header(b'0', b"name", 0, &gnu)]).name, b"usr/share/name");
    // STAR has its times behind a shorter prefix.
    let star: [(usize, &[u8]); 3] = [(345, &[b'p'; 131]), (476, b"00000000010\0"), (508, b"tar\0")];
    assert_eq!(one(&[&header(b'0', b"name", 0, &star)]).name, [&[b'p'; 131][..], b"/name"].concat());
}

#[test]
fn names_are_bytes_of_any_length_the_field_has() {
    let entry = one(&[&header(b'2', &[0xff; 100], 0, &[(157, &[0xfe; 100])])]);
    assert_eq!((entry.name, entry.linkname), (vec![0xff; 100], vec![0xfe; 100]));
    assert_eq!(one(&[&header(b'0', b"", 0, &[])]).name, b"");
}

#[test]
fn numbers_may_be_in_base_256() {
    let size = [&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0][..]].concat();
    let file = seal(header(b'0', b"a", 0, &[(124, &size)]));
    assert_eq!(one(&[&file, &[1; 512]]).size, 512);
    for (at, field, uid, seconds) in [
        (108, &[0x80, 0, 0, 0, 0xff, 0, 0, 1][..], 0xff00_0001, Some(8)),
        (108, &[0x80, 0, 0, 1, 0, 0, 0, 5], 5, Some(8)), // cut to 32 bits
        (108, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], 0xffff_fffe, Some(8)),
        (136, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], 1, Some(-2)),
        (136, &[0x80, 0, 0, 0, 0, 0, 0, 0x3a, 0xff, 0xf4, 0x41, 0x7f], 1, Some(253_402_300_799)),
        (136, &[0x80, 0, 0, 0, 0, 0, 0, 0x3a, 0xff, 0xf4, 0x41, 0x80], 1, None), // the year 10000
    ] {
        let entry = one(&[&header(b'0', b"a", 0, &[(at, field)])]);
        assert_eq!(entry.uid, uid, "{field:x?}");
        assert_eq!(entry.mtime.map(|time| time.seconds), seconds, "{field:x?}");
    }
    let error = invalid(&[&header(b'0', b"a", 0, &[(136, &[0x80, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0])])]);
    assert!(error.ends_with("the mtime is no number"), "{error}");
    let error = invalid(&[&header(
        b'0',
        b"a",
        0,
        &[(124, &[0xff, 0, 0, 0, 0xff, 255, 255, 255, 255, 255, 255, 255])],
    )]);
    assert!(error.ends_with("the size is no number"), "{error}");
    let error = invalid(&[&header(b'0', b"a", 0, &[(124, &[0xff; 12])])]);
    assert!(error.ends_with("the size is -1"), "{error}");
    assert_eq!(one(&[&header(b'5', b"a", 0, &[(124, &[0xff; 12])])]).size, 0);
}

#[test]
fn octal_numbers_have_blanks_and_zeros_around_them_and_nothing_else() {
    for (field, mode) in [
        (b"644\0\0\0\0\0", Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"77777777", Some(0o7777_7777)),
        (b"644\0junk", Some(0o644)),
        (b"0000648\0", None),
        (b"-000644\0", None),
        (b"0x00644\0", None),
        (b"64 4   \0", None),
    ] {
        let entry = index(&[&header(b'0', b"a", 0, &[(100, field)])]).map(|toc| toc.entries[0].mode);
        assert_eq!(entry.ok(), mode, "{field:?}");
    }
}

#[test]
fn checksums_may_be_of_signed_bytes() {
    let mut block = header(b'0', b"\xff\xfe", 0, &[]);
    assert_eq!(one(&[&block]).name, b"\xff\xfe");
    block[148..156].fill(b' ');
    let sum: i32 = block.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(one(&[&block]).name, b"\xff\xfe");
    block[148] ^= 1;
    assert!(invalid(&[&block]).ends_with("wrong checksum"));
}

#[test]
fn pax_records_take_the_place_of_fields() {
    let entry = one(&[
        &pax(&[
            ("path", b"a/long\xff/name"),
            ("linkpath", b"to"),
            ("size", b"3"),
            ("uid", b"4294967297"),
            ("gid", b"-1"),
            ("uname", b"somebody"),
            ("gname", b"some group"),
            ("mtime", b"1600000000.123456789123"),
            ("SCHILY.xattr.user.a", b"line\nbreak=and\0NUL"),
            ("SCHILY.xattr.user.empty", b""),
            ("comment", b"kept"),
        ]),
        &with_body(b'0', b"short", b"abc"),
    ]);
    assert_eq!(entry.name, b"a/long\xff/name");
    assert_eq!((entry.linkname.as_slice(), entry.size, entry.uid, entry.gid), (&b"to"[..], 3, 1, u32::MAX));
    assert_eq!((entry.uname.as_slice(), entry.gname.as_slice()), (&b"somebody"[..], &b"some group"[..]));
    assert_eq!(entry.mtime, Some(Timestamp { seconds: 1_600_000_000, nanoseconds: 123_456_789 }));
    assert_eq!(entry.pax.len(), 11, "all of them are kept");
    assert!(entry.pax.is_sorted());
    assert_eq!(entry.pax[0], (b"SCHILY.xattr.user.a".to_vec(), b"line\nbreak=and\0NUL".to_vec()));
}

#[test]
fn the_size_of_a_pax_record_is_how_much_data_there_is() {
    let data = padded(&[1; 700]);
    let toc =
        index(&[&pax(&[("size", b"700")]), &header(b'0', b"a", 0, &[]), &data, &END]).expect("a good tar");
    assert_eq!((toc.entries[0].size, toc.archive_end), (700, 1536 + 1024 + 1024));
    assert!(invalid(&[&pax(&[("size", b"-1")]), &header(b'0', b"a", 0, &[])]).ends_with("the size is -1"));
}

#[test]
fn of_records_the_last_counts_and_an_empty_one_means_nothing() {
    let file = header(b'0', b"name", 0, &[]);
    let entry = one(&[&pax(&[("path", b"a"), ("path", b"b"), ("uname", b"x"), ("uname", b"")]), &file]);
    assert_eq!((entry.name.as_slice(), entry.uname.as_slice()), (&b"b"[..], &b""[..]));
    assert_eq!(entry.pax, [(b"path".to_vec(), b"b".to_vec()), (b"uname".to_vec(), b"".to_vec())]);
    // A second header takes the place of the first as a whole.
    let entry = one(&[&pax(&[("path", b"a"), ("uid", b"9")]), &pax(&[("gid", b"9")]), &file]);
    assert_eq!((entry.name.as_slice(), entry.uid, entry.gid), (&b"name"[..], 1, 9));
    // And none is for two entries.
    let toc = index(&[&pax(&[("path", b"a")]), &file, &file]).expect("a good tar");
    assert_eq!(toc.entries[1].name, b"name");
    assert_eq!(toc.entries[1].pax, []);
}

#[test]
fn pax_times_have_a_sign_and_any_number_of_decimals() {
    for (text, time) in [
        ("0", Some((0, 0))),
        ("1.5", Some((1, 500_000_000))),
        ("1.", Some((1, 0))),
        ("+7.000000001", Some((7, 1))),
        ("-1", Some((-1, 0))),
        ("-0.25", Some((-1, 750_000_000))),
        ("-2.5", Some((-3, 500_000_000))),
        ("253402300799.9999999999", Some((253_402_300_799, 999_999_999))),
        ("253402300800", None),
        ("-62167219200", Some((-62_167_219_200, 0))),
        ("-62167219200.1", None),
        ("-9223372036854775808.1", None),
    ] {
        let entry = one(&[&pax(&[("mtime", text.as_bytes())]), &header(b'0', b"a", 0, &[])]);
        assert_eq!(entry.mtime.map(|time| (time.seconds, time.nanoseconds)), time, "{text}");
    }
    for text in ["1e9", "1.5x", ".5", "1,5", " 1", "9223372036854775808", "--1", "1.-5"] {
        for key in ["mtime", "atime", "ctime"] {
            let error = invalid(&[&pax(&[(key, text.as_bytes())]), &header(b'0', b"a", 0, &[])]);
            assert!(error.ends_with(&format!("the PAX record {key} is no number")), "{text}: {error}");
        }
    }
}

#[test]
fn malformed_pax_records_are_refused() {
    for body in [
        &b"6 a=b"[..],
        b"6 a=b\n\0",
        b"7 a=b\n",
        b"5 a=b\n",
        b"x a=b\n",
        b" a=b\n",
        b"5 ab\n",
        b"5 =b\n",
        b"12345678901234567890 a=b\n",
        b"-6 a=b\n",
        b"9 a\0b=c\n",
        b"9 path=\0\n",
        b"11 uname=\0\n",
        b"22 GNU.sparse.offset=1\n22 GNU.sparse.offset=1\n",
    ] {
        let error = invalid(&[&with_body(b'x', b"x", body), &header(b'0', b"a", 0, &[])]);
        assert!(error.contains("at byte 0 "), "{}: {error}", String::from_utf8_lossy(body));
    }
    let entry = one(&[&with_body(b'x', b"x", b"008 a=b\n"), &header(b'0', b"a", 0, &[])]);
    assert_eq!(entry.pax, [(b"a".to_vec(), b"b".to_vec())]);
}

#[test]
fn gnu_names_win_over_all_others() {
    let long = [&[b'n'; 300][..], b"\0junk"].concat();
    let entry = one(&[
        &with_body(b'L', b"././@LongLink", &long),
        &with_body(b'K', b"././@LongLink", b"target\0"),
        &pax(&[("path", b"pax"), ("linkpath", b"pax")]),
        &header(b'2', b"name", 0, &[(157, b"link")]),
    ]);
    assert_eq!((entry.name, entry.linkname), (vec![b'n'; 300], b"target".to_vec()));
    assert_eq!(entry.offset, 512 + 512 + 1024 + 1024 + 512);
    // The last of two, and an empty one is none.
    let file = header(b'0', b"name", 0, &[]);
    let entry = one(&[&with_body(b'L', b"L", b"a"), &with_body(b'L', b"L", b"b"), &file]);
    assert_eq!(entry.name, b"b");
    let entry = one(&[&with_body(b'L', b"L", b"a"), &with_body(b'L', b"L", b""), &file]);
    assert_eq!(entry.name, b"name");
}

#[test]
fn sparse_files_are_refused_by_their_name() {
    for records in [
        &[("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")][..],
        &[("GNU.sparse.major", b"0"), ("GNU.sparse.minor", b"1")],
        &[("GNU.sparse.map", b"0,1")],
        &[("GNU.sparse.offset", b"0"), ("GNU.sparse.numbytes", b"1")],
    ] {
        for rules in [TarRules::Index, TarRules::Fill] {
            let error = walk(rules, &[&pax(records), &header(b'0', b"a", 0, &[])]).expect_err("sparse");
            assert!(error.is_sparse(), "{error}");
        }
    }
    // Of a version nobody knows: records like any others.
    let records: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"2"), ("GNU.sparse.map", b"0,1")];
    assert_eq!(one(&[&pax(&records), &header(b'0', b"a", 0, &[])]).pax.len(), 2);
}

#[test]
fn one_block_of_zeros_is_not_the_end() {
    let file = header(b'0', b"a", 0, &[]);
    let error = invalid(&[&file, &END[..512], &file]);
    assert!(error.contains("at byte 1024 ") && error.contains("one block of zeros"), "{error}");
}

#[test]
fn what_is_too_long_is_refused_before_it_is_held() {
    let limited = |parts: &[&[u8]]| match index(parts) {
        Err(TarError::Limit { what, limit, .. }) => (what, limit),
        other => panic!("{other:?}"),
    };
    for kind in *b"xLK" {
        let head = header(kind, b"x", MAX_EXTENSION_LEN + 1, &[]);
        assert_eq!(limited(&[&head]), ("length of an extension header", MAX_EXTENSION_LEN));
        assert_eq!(
            index(&[&header(kind, b"x", MAX_EXTENSION_LEN, &[])]),
            Err(TarError::Truncated { offset: 512 })
        );
    }
    let file = header(b'0', b"a", 0, &[(124, &[0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0])]);
    assert_eq!(limited(&[&file]), ("length of the stream", MAX_STREAM_LEN));

    // The rest without walking gigabytes.
    let mut walk = TarWalk::new(TarRules::Index);
    walk.held = MAX_TOC_LEN - 300;
    let len = usize::try_from(300 - RECORD_COST).expect("a small number") - "comment".len() - "a".len();
    let records = pax(&[("comment", &vec![b'x'; len])]);
    let file = header(b'0', b"a", 0, &[]);
    assert_eq!(walk.push(&[&records[..], &file].concat()), Ok(()));
    assert_eq!(walk.held, MAX_TOC_LEN);
    let error = walk.push(&file).expect_err("a byte too many");
    assert!(matches!(error, TarError::Limit { what: "length of the table of contents", .. }), "{error}");
}

#[test]
fn a_walk_that_failed_has_failed() {
    let mut walk = TarWalk::new(TarRules::Fill);
    let error = walk.push(&[1; 512]).expect_err("no header");
    assert_eq!(walk.push(&END), Err(error.clone()));
    assert_eq!(walk.finish(), Err(error));
}

#[test]
fn a_walk_may_begin_at_any_header() {
    let mut walk = TarWalk::starting_at(TarRules::Fill, 1024);
    walk.push(&header(b'0', b"a", 9, &[])).expect("a header");
    assert_eq!(walk.entries()[0].offset, 1536);
    assert!(!walk.at_end());
    for offset in [1, MAX_STREAM_LEN + 512, u64::MAX] {
        TarWalk::starting_at(TarRules::Fill, offset).push(b"x").expect_err("no header there");
    }
}

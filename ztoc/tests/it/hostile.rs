//! Tars that somebody has been at: whatever the bytes, there is an answer, it doesn't depend on how they come in, and what it
//! holds is in proportion to them.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use spandrel_ztoc::build::{BuildOptions, build};
use spandrel_ztoc::tar::{TarError, TarRules, TarWalk, Toc};
use spandrel_ztoc::tree::Tree;
use spandrel_ztoc::{Compression, Ztoc};

use crate::archive::{Format, Item, tar};

fn walk(rules: TarRules, stream: &[u8], piece: usize) -> Result<Toc, TarError> {
    let mut walk = TarWalk::new(rules);
    stream.chunks(piece).try_for_each(|bytes| walk.push(bytes))?;
    walk.finish()
}

/// A tar with everything in it that has a length or a number.
fn sample() -> Vec<u8> {
    let long = "long/".repeat(40);
    let mut items = vec![
        Item { data: vec![b'x'; 700], mtime: (-5, 7), ..Item::new(b'0', "file") },
        Item { linkname: b"file".to_vec(), ..Item::new(b'1', "hard") },
        Item { linkname: long.clone().into_bytes(), ..Item::new(b'2', "sym") },
        Item { device: (8, 1), ..Item::new(b'4', "device") },
        Item::new(b'5', format!("{long}dir/")),
        Item { xattrs: vec![("user.a".to_owned(), vec![0, 1, 255])], uid: 1 << 30, ..Item::new(b'0', "x") },
        Item::new(b'0', "dir/.wh.gone"),
    ];
    items.push(Item { format: Format::Gnu, uid: 1 << 30, ..Item::new(b'0', format!("{long}gnu")) });
    items.push(Item { linkname: b"gnu/link".to_vec(), format: Format::Gnu, ..Item::new(b'2', long) });
    tar(&items)
}

/// Makes the checksums right again, so that what was changed is looked at.
fn reseal(stream: &mut [u8]) {
    for block in stream.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(20_261_125),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn changed_tars_are_read_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![1..=255_u8, Just(0x80)]), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        piece in 1..2_000_usize,
        sealed in any::<bool>(),
    ) {
        let mut stream = sample();
        for (at, mask) in flips {
            let at = at.index(stream.len());
            stream[at] ^= mask;
        }
        if sealed {
            reseal(&mut stream);
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        for rules in [TarRules::Index, TarRules::Fill] {
            let whole = walk(rules, &stream, usize::MAX);
            prop_assert_eq!(&walk(rules, &stream, piece), &whole);
            let Ok(toc) = whole else { continue };
            prop_assert!(toc.archive_end <= stream.len() as u64);
            prop_assert!(toc.entries.len() <= stream.len() / 512);
            let mut free = 0;
            for entry in &toc.entries {
                prop_assert!(entry.offset >= free + 512 && entry.offset.is_multiple_of(512));
                free = (entry.offset + entry.size).next_multiple_of(512);
                let strings = entry.name.len() + entry.linkname.len()
                    + entry.pax.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
                prop_assert!(strings <= 2 * stream.len());
            }
            if let Ok(tree) = Tree::new(&toc.entries, toc.archive_end) {
                prop_assert!(tree.inodes.len() <= 1 + stream.len() / 2);
            }
        }
        // What is built can be read.
        if let Ok(built) = build(&stream[..], Compression::Uncompressed, &BuildOptions { span_size: 1000, ..BuildOptions::default() }) {
            prop_assert_eq!(Ztoc::decode(&built.ztoc.encode()).unwrap(), built.ztoc);
        }
    }
}

/// An endless row of extension headers is neither an entry nor kept.
#[test]
fn extensions_of_nothing_are_not_kept() {
    let longest = Item { data: Vec::new(), ..Item::new(b'0', "n".repeat(60_000)) };
    let extension = {
        let stream = tar(&[longest]);
        stream[..stream.len() - 1024 - 512].to_vec()
    };
    let mut walk = TarWalk::new(TarRules::Index);
    for _ in 0..500 {
        walk.push(&extension).unwrap();
        assert!(format!("{walk:?}").len() < 1 << 20, "one of them is held, and no more");
    }
    let toc = walk.finish().unwrap();
    assert_eq!((toc.entries.len(), toc.archive_end), (0, 500 * extension.len() as u64));
}

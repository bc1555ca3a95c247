//! Any bytes as a tar: the walk doesn't panic, and what it finds doesn't depend on how the bytes come in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::tar::{TarRules, TarWalk};

fuzz_target!(|data: &[u8]| {
    for rules in [TarRules::Index, TarRules::Fill] {
        let walk = |piece: usize| {
            let mut walk = TarWalk::new(rules);
            for bytes in data.chunks(piece) {
                walk.push(bytes)?;
            }
            walk.finish()
        };
        let whole = walk(data.len().max(1));
        for piece in [1, 511, 4096] {
            assert_eq!(walk(piece).ok(), whole.clone().ok(), "in pieces of {piece}");
        }
    }
});

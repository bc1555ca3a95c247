//! Any bytes as a tar, as they are and with the checksums of all blocks made right: the walk doesn't panic, nor does the tree
//! of what it finds, which doesn't depend on how the bytes come in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spandrel_ztoc::tar::{TarRules, TarWalk};
use spandrel_ztoc::tree::Tree;

fuzz_target!(|data: &[u8]| {
    walk_all(data);
    let mut sealed = data.to_vec();
    for block in sealed.chunks_exact_mut(512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    walk_all(&sealed);
});

fn walk_all(data: &[u8]) {
    for rules in [TarRules::Index, TarRules::Fill] {
        let walk = |piece: usize| {
            let mut walk = TarWalk::new(rules);
            for bytes in data.chunks(piece) {
                walk.push(bytes)?;
            }
            walk.finish()
        };
        let whole = walk(data.len().max(1));
        if let Ok(toc) = &whole {
            let _ = Tree::new(&toc.entries, toc.archive_end);
        }
        for piece in [13, 511, 4096] {
            assert_eq!(walk(piece), whole, "in pieces of {piece}");
        }
    }
}

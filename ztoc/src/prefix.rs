//! Deflate blocks that hold nothing, so that a stream can begin anywhere in a byte.
//!
//! zlib has a call that puts a few bits into the decoder's bit buffer before any input; its safe interface here has not.
//! Instead the decoder is fed empty blocks, as many bits long as are missing to a whole byte.

/// Empty blocks that end `bits` bits before a byte does, and the `bits` high-order bits of `first` after them; `bits` is 1 to 7.
pub(crate) fn prefix(bits: u8, first: u8) -> Vec<u8> {
    let mut prefix = Bits::default();
    // A block with fixed codes and nothing in it has ten bits: to an odd number of bits it takes another one.
    if bits % 2 == 1 {
        prefix.push_odd_block();
    }
    while !(prefix.used + bits).is_multiple_of(8) {
        prefix.push(0b010, 3); // not the last block, fixed codes
        prefix.push(0, 7); // end of block
    }
    prefix.push(u16::from(first >> (8 - bits)), bits);
    prefix.bytes
}

/// Bits in the order of deflate: the first is the lowest of the first byte.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    pub(crate) bytes: Vec<u8>,
    /// How many bits of the last byte are used: 0 to 7, 0 when it is full.
    used: u8,
}

impl Bits {
    /// Appends the `count` low-order bits of `value`, lowest first.
    pub(crate) fn push(&mut self, value: u16, count: u8) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> bit & 1 == 1) << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// Appends a block with codes of its own and nothing in it: 93 bits. Its only literal code is the end of the block,
    /// of one bit, and it has one distance code, as the format asks for.
    fn push_odd_block(&mut self) {
        self.push(0b100, 3); // not the last block, dynamic codes
        self.push(0, 5); // 257 literal codes
        self.push(0, 5); // 1 distance code
        self.push(15, 4); // 19 code length codes, in deflate's own order:
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] {
            self.push(u16::from(symbol == 1 || symbol == 18), 3); // two of one bit each: `1` is 0, `18` is 1
        }
        for zeros in [138, 118] {
            self.push(1, 1); // `18`: a run of zeros, of 11 and these many more; 256 in all
            self.push(zeros - 11, 7);
        }
        self.push(0, 1); // literal code 256, the end of the block: length 1
        self.push(0, 1); // distance code 0: length 1
        self.push(0, 1); // the end of the block
    }
}

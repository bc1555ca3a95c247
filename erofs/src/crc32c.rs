//! CRC-32C (Castagnoli) of a superblock, as the kernel computes it: begun with all ones, not inverted at the end.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    // Bit by bit: it is 512 bytes, once for each image.
    bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_castagnolis() {
        // The check value of the catalogue of CRCs is inverted at the end.
        assert_eq!(crc32c(b"123456789"), !0xe306_9283);
    }
}

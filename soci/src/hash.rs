//! Takes the digest of bytes as they pass.

use sha2::{Digest as _, Sha256, Sha512};
use spandrel_registry::Digest;

/// A digest in the making.
#[derive(Debug)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// By `algorithm`: `sha256` or `sha512`.
    pub(crate) fn new(algorithm: &str) -> Self {
        match algorithm {
            "sha512" => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest as text, `algorithm:hex`.
    pub(crate) fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Sha256(hasher) => format!("sha256:{}", hex(&hasher.finalize())),
            Self::Sha512(hasher) => format!("sha512:{}", hex(&hasher.finalize())),
        }
    }
}

/// Digest of a whole reader's bytes, and how many there are.
pub(crate) fn sha256_of(mut reader: impl std::io::Read) -> std::io::Result<(Digest, u64)> {
    let (mut hasher, mut len, mut piece) = (Hasher::new("sha256"), 0u64, vec![0; 256 << 10]);
    loop {
        let read = reader.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        len += read as u64;
    }
    let digest = hasher.finish().parse().map_err(std::io::Error::other)?;
    Ok((digest, len))
}

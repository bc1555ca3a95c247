//! Hashing bytes as they pass, with the algorithm of the digest that they are to be compared with.

use sha2::Digest as _;
use spandrel_registry::Digest;

/// A hash in progress; a clone of it goes on by itself.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hash to be compared with `digest`.
    pub(crate) fn like(digest: &Digest) -> Self {
        // There are no other algorithms: `Digest` is checked when it is made.
        match digest.algorithm() {
            "sha512" => Self::Sha512(sha2::Sha512::new()),
            _ => Self::Sha256(sha2::Sha256::new()),
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
        let text = |name: &str, hash: &[u8]| {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name}:{hex}")
        };
        match self {
            Self::Sha256(hasher) => text("sha256", &hasher.finalize()),
            Self::Sha512(hasher) => text("sha512", &hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_says_which_algorithm() {
        for (bytes, digest) in [
            ("", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (
                "abc",
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let mut hasher = Hasher::like(&digest.parse().expect("a digest"));
            hasher.update(bytes.as_bytes());
            assert_eq!(hasher.finish(), digest);
        }
    }
}

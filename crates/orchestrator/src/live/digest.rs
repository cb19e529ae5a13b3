//! SHA-256 of a token, compared in constant time.

use groundcrew_protocol::ids::Sha256Hex;
use sha2::Digest as _;
use subtle::ConstantTimeEq;

/// The SHA-256 of a token: what is kept and compared instead of it.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// That of a token as it came.
    pub fn of(token: &str) -> TokenDigest {
        TokenDigest(sha2::Sha256::digest(token.as_bytes()).into())
    }

    /// True where both are of the same token.
    pub fn is(&self, other: &TokenDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// As it is stored.
    pub fn hex(&self) -> Sha256Hex {
        Sha256Hex::from_digest(&self.0)
    }
}

impl From<&Sha256Hex> for TokenDigest {
    fn from(text: &Sha256Hex) -> TokenDigest {
        let nibble = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_str().as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        TokenDigest(digest)
    }
}

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_digest() {
        let token = "gcr_0123";
        let text = Sha256Hex::of(token.as_bytes());
        assert!(TokenDigest::of(token).is(&TokenDigest::from(&text)));
        assert!(!TokenDigest::of("gcr_0124").is(&TokenDigest::from(&text)));
        assert_eq!(TokenDigest::of(token).hex(), text);
    }
}

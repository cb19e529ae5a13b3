//! The secret that machines show when they ask over loopback HTTP. It lies in a file, so that it can be replaced without
//! starting the agent again; where it cannot be read, nobody is let in.

use std::path::{Path, PathBuf};

use groundcrew_durable::whole::read_bounded;
use subtle::ConstantTimeEq;

/// A secret of fewer bytes can be guessed. 32 hexadecimal digits are 128 bits.
const BYTES_MIN: usize = 32;
/// Fewer different characters are a word that somebody repeated.
const DISTINCT_MIN: usize = 10;
/// More is no secret but the wrong file.
const BYTES_MAX: u64 = 4096;

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

/// Why a secret does not count.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("reading the drain secret {}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: groundcrew_durable::Error,
    },
    /// There is none.
    #[error("the drain secret {}: found no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It can be guessed.
    #[error(
        "the drain secret {}: found {bytes} bytes with {distinct} different ones, expected at least {BYTES_MIN} with \
         {DISTINCT_MIN}, as `openssl rand -hex 32` makes them", path.display()
    )]
    Weak {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: usize,
        /// How many different bytes it has.
        distinct: usize,
    },
}

impl SecretFile {
    /// A file that holds the secret.
    pub fn new(path: &Path) -> SecretFile {
        SecretFile(path.to_owned())
    }

    /// Whether it is there and no weak one. Reads a small file.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn check(&self) -> Result<(), SecretError> {
        self.read().map(drop)
    }

    /// Whether `shown` is the secret. The comparison takes as long for every text of that length.
    ///
    /// # Errors
    /// Where nobody can tell.
    pub fn is(&self, shown: &[u8]) -> Result<bool, SecretError> {
        let secret = self.read()?;
        Ok(secret.ct_eq(shown).into())
    }

    fn read(&self) -> Result<Vec<u8>, SecretError> {
        let path = || self.0.clone();
        let read = read_bounded(&self.0, BYTES_MAX);
        let bytes = read.map_err(|source| SecretError::Unread { path: path(), source })?;
        let bytes = bytes.ok_or_else(|| SecretError::Missing { path: path() })?;
        let secret = bytes.trim_ascii().to_vec();
        let distinct = secret.iter().collect::<std::collections::BTreeSet<_>>().len();
        if secret.len() < BYTES_MIN || distinct < DISTINCT_MIN {
            return Err(SecretError::Weak { path: path(), bytes: secret.len(), distinct });
        }
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_comparison_in_constant_time_looks_at_the_secret() {
        let code = include_str!("secret.rs").split("#[cfg(test)]").next().unwrap();
        assert_eq!(code.matches(".ct_eq(").count(), 1);
        for quick in ["==", "!=", "starts_with", "strip_", ".eq(", ".cmp(", "contains(", "matches!"] {
            assert!(!code.contains(quick), "{quick} ends at the first byte that differs");
        }
    }

    #[test]
    fn a_secret_is_compared_whole_and_a_weak_one_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let file = SecretFile::new(&path);
        assert!(matches!(file.check(), Err(SecretError::Missing { .. })));
        for weak in ["", "short", &"a".repeat(64), &"abc".repeat(30)] {
            std::fs::write(&path, weak).unwrap();
            assert!(matches!(file.is(weak.as_bytes()), Err(SecretError::Weak { .. })), "{weak}");
        }
        let secret = "0123456789abcdef0123456789abcdef";
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        assert!(file.is(secret.as_bytes()).unwrap());
        for wrong in ["", "0123456789abcdef0123456789abcdee", "0123456789abcdef0123456789abcdef0"] {
            assert!(!file.is(wrong.as_bytes()).unwrap(), "{wrong}");
        }
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        let error = file.check().unwrap_err();
        assert!(matches!(error, SecretError::Unread { .. }) && !error.to_string().contains("xx"), "{error}");
    }
}

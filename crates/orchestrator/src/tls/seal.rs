//! Private keys at rest: sealed with a key that lies outside the data folder (rule 8 of the design).
//!
//! The outer key is a file of at least 32 bytes that nobody can guess; its SHA-256 is the key of ChaCha20-Poly1305. What is
//! sealed is bound to its certificate, so that it opens beside no other. A backup copies the data folder, and so what is
//! sealed alone. The keys of holds are sealed with it too, each bound to its run ([`crate::pair`]).

use std::path::{Path, PathBuf};

use groundcrew_durable::whole;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::causes;

/// Bytes that an outer key has at least.
const KEY_BYTES_MIN: usize = 32;
/// A file that is longer is no key.
const KEY_BYTES_MAX: u64 = 4_096;
/// Keeps what is derived here apart from any other use of the same file.
const PURPOSE: &[u8] = b"groundcrew private keys at rest 1\n";

/// Why a key could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The outer key is not there, and something is sealed with it.
    #[error(
        "the key file {0:?} is missing, and the certificate's key is sealed with it. Bring it back, or name its place with \
         --key-file. Without it, move the folder tls/ away to have another certificate made, which no agent's pin fits"
    )]
    Missing(PathBuf),
    /// It cannot be read or made.
    #[error("the key file {path:?} cannot be used: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What is sealed does not open.
    #[error("it does not open with the key file {0:?}: it was sealed with another, or was changed")]
    Other(PathBuf),
}

/// The file of the outer key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// At this place.
    pub fn at(path: PathBuf) -> KeyFile {
        KeyFile { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Seals a private key for the certificate of this SHA-256. The outer key is made where there is none: a file of mode
    /// 0600.
    ///
    /// # Errors
    /// [`SealError::Unusable`].
    pub fn seal(&self, secret: &[u8], certificate: &str) -> Result<Vec<u8>, SealError> {
        let key = match self.read()? {
            Some(key) => key,
            None => self.make()?,
        };
        self.seal_with(&key, secret, certificate)
    }

    /// Seals another secret, bound to these words. The outer key is there, since the certificate's key is sealed with it: one
    /// that is lost is not made anew.
    ///
    /// # Errors
    /// [`SealError::Missing`], [`SealError::Unusable`].
    pub fn seal_beside(&self, secret: &[u8], bound_to: &str) -> Result<Vec<u8>, SealError> {
        let key = self.read()?.ok_or_else(|| SealError::Missing(self.path.clone()))?;
        self.seal_with(&key, secret, bound_to)
    }

    fn seal_with(&self, key: &LessSafeKey, secret: &[u8], bound_to: &str) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| self.unusable(error.to_string()))?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound_to.as_bytes()),
            &mut sealed,
        )
        .map_err(|_unspecified| self.unusable("sealing failed".to_owned()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`KeyFile::seal`] or [`KeyFile::seal_beside`] made.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, sealed: &[u8], bound_to: &str) -> Result<Vec<u8>, SealError> {
        let key = self.read()?.ok_or_else(|| SealError::Missing(self.path.clone()))?;
        let other = || SealError::Other(self.path.clone());
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(other)?;
        let mut secret = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(bound_to.as_bytes()), &mut secret);
        let length = opened.map_err(|_unspecified| other())?.len();
        secret.truncate(length);
        Ok(secret)
    }

    fn read(&self) -> Result<Option<LessSafeKey>, SealError> {
        let read = whole::read_bounded(&self.path, KEY_BYTES_MAX);
        let Some(bytes) = read.map_err(|error| self.unusable(causes::chain(&error)))? else {
            return Ok(None);
        };
        if bytes.len() < KEY_BYTES_MIN {
            let found = bytes.len();
            return Err(self.unusable(format!("it has {found} bytes, expected at least {KEY_BYTES_MIN}")));
        }
        Ok(Some(derive(&bytes)))
    }

    fn make(&self) -> Result<LessSafeKey, SealError> {
        let mut bytes = [0; KEY_BYTES_MIN];
        getrandom::fill(&mut bytes).map_err(|error| self.unusable(error.to_string()))?;
        let text = format!("{}\n", groundcrew_protocol::ids::hex(&bytes));
        let failed = |error: groundcrew_durable::Error| self.unusable(causes::chain(&error));
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            whole::create_folder(folder, 0o700).map_err(failed)?;
        }
        whole::write_whole(&self.path, text.as_bytes(), &whole::Options::default()).map_err(failed)?;
        Ok(derive(text.as_bytes()))
    }

    fn unusable(&self, why: String) -> SealError {
        SealError::Unusable { path: self.path.clone(), why }
    }
}

fn derive(bytes: &[u8]) -> LessSafeKey {
    let mut hash = Sha256::new();
    hash.update(PURPOSE);
    hash.update(bytes);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &hash.finalize());
    LessSafeKey::new(key.expect("a SHA-256 has as many bytes as this key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_beside_the_same_certificate_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(folder.path().join("below/key"));
        let sealed = file.seal(b"secret", "ab").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(file.open(&sealed, "ab").unwrap(), b"secret");
        assert_ne!(file.seal(b"secret", "ab").unwrap(), sealed, "a nonce of its own each time");
        assert!(matches!(file.open(&sealed, "cd"), Err(SealError::Other(_))));
        assert!(matches!(file.open(&sealed[..5], "ab"), Err(SealError::Other(_))));
        let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        std::fs::write(file.path(), "x".repeat(40)).unwrap();
        assert!(matches!(file.open(&sealed, "ab"), Err(SealError::Other(_))));
        std::fs::write(file.path(), "short").unwrap();
        assert!(matches!(file.open(&sealed, "ab"), Err(SealError::Unusable { .. })));
        std::fs::remove_file(file.path()).unwrap();
        assert!(matches!(file.open(&sealed, "ab"), Err(SealError::Missing(_))));
        assert!(matches!(file.seal_beside(b"secret", "ab"), Err(SealError::Missing(_))));
        assert!(!file.path().exists(), "a key that is lost is not replaced by another");
    }
}

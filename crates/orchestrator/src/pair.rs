//! An SSH key for one hold: made, sealed with the key that lies outside the data folder, opened for an operator.
//!
//! What is sealed is the seed of an ed25519 key, bound to its run and its public half, so that it opens for no other. Nothing
//! here keeps it: the run's document does, from its making to the end of the hold.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use groundcrew_protocol::ids::RunId;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{LineEnding, PrivateKey, PublicKey};

use crate::tls::seal::{KeyFile, SealError};

/// Bytes of the seed of an ed25519 key.
const SEED_BYTES: usize = 32;

/// Why a key could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The system has no random numbers to give.
    #[error("drawing a random number: {0}")]
    Random(getrandom::Error),
    /// The outer key.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What was opened is no seed, or not that of this public half.
    #[error("what is sealed is not the private half of {public}")]
    Other {
        /// The public half.
        public: String,
    },
    /// It could not be written in the format of OpenSSH.
    #[error("writing the key in the format of OpenSSH: {0}")]
    Format(ssh_key::Error),
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The public half: a line for authorized_keys.
    pub public: String,
    /// The private half, sealed, in base64.
    pub sealed: String,
}

/// Makes a key for a hold of that run.
///
/// # Errors
/// [`PairError`].
pub fn make(file: &KeyFile, run: &RunId) -> Result<Pair, PairError> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(PairError::Random)?;
    let public = line_of(public_half(&seed), run)?;
    let sealed = file.seal_beside(&seed, &bound_to(run, &public))?;
    Ok(Pair { public, sealed: BASE64.encode(sealed) })
}

/// The private half of a key that [`make`] made for that run, as a file for ssh.
///
/// # Errors
/// [`PairError`].
pub fn open(file: &KeyFile, run: &RunId, pair: &Pair) -> Result<String, PairError> {
    let other = || PairError::Other { public: pair.public.clone() };
    let sealed = BASE64.decode(&pair.sealed).map_err(|_| other())?;
    let seed = file.open(&sealed, &bound_to(run, &pair.public))?;
    let seed: [u8; SEED_BYTES] = seed.try_into().map_err(|_| other())?;
    let public = public_half(&seed);
    if line_of(public, run)? != pair.public {
        return Err(other());
    }
    let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&seed) };
    let key = PrivateKey::new(KeypairData::Ed25519(pair), comment_of(run)).map_err(PairError::Format)?;
    let text = key.to_openssh(LineEnding::LF).map_err(PairError::Format)?;
    Ok(text.as_str().to_owned())
}

fn public_half(seed: &[u8; SEED_BYTES]) -> Ed25519PublicKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of this length is one");
    let bytes = pair.public_key().as_ref();
    Ed25519PublicKey(bytes.try_into().expect("an ed25519 public key has 32 bytes"))
}

fn line_of(public: Ed25519PublicKey, run: &RunId) -> Result<String, PairError> {
    PublicKey::new(KeyData::Ed25519(public), comment_of(run)).to_openssh().map_err(PairError::Format)
}

fn comment_of(run: &RunId) -> String {
    format!("groundcrew-hold:{run}")
}

/// Keeps what is sealed here apart from all else that is sealed with the same file.
fn bound_to(run: &RunId, public: &str) -> String {
    format!("ssh key of a hold of run {run}: {public}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    /// A key file as the first certificate has left it.
    fn file(folder: &std::path::Path) -> KeyFile {
        let file = KeyFile::at(folder.join("key"));
        file.seal(b"a certificate's", "ab").unwrap();
        file
    }

    #[test]
    fn a_key_opens_for_its_run_alone_and_both_halves_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let pair = make(&file, &run("r-1")).unwrap();
        assert_ne!(make(&file, &run("r-1")).unwrap().public, pair.public);
        assert!(pair.public.starts_with("ssh-ed25519 ") && pair.public.ends_with(" groundcrew-hold:r-1"));
        let text = open(&file, &run("r-1"), &pair).unwrap();
        assert!(text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{text}");
        let private = PrivateKey::from_openssh(&text).unwrap();
        assert_eq!(private.public_key().to_openssh().unwrap(), pair.public);
        assert!(open(&file, &run("r-2"), &pair).is_err());
        let another = make(&file, &run("r-1")).unwrap();
        assert!(open(&file, &run("r-1"), &Pair { public: another.public, ..pair.clone() }).is_err());
        assert!(open(&file, &run("r-1"), &Pair { sealed: "?".to_owned(), ..pair }).is_err());
    }

    #[test]
    fn without_its_key_file_none_is_made_or_opened_and_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let pair = make(&file, &run("r-1")).unwrap();
        std::fs::remove_file(file.path()).unwrap();
        for error in [make(&file, &run("r-1")).unwrap_err(), open(&file, &run("r-1"), &pair).unwrap_err()] {
            let text = crate::causes::chain(&error);
            assert!(text.contains(file.path().to_str().unwrap()) && text.contains("missing"), "{text}");
        }
        assert!(!file.path().exists(), "a certificate is sealed with the one that is lost");
        std::fs::write(file.path(), "x".repeat(64)).unwrap();
        assert!(matches!(open(&file, &run("r-1"), &pair), Err(PairError::Seal(SealError::Other(_)))));
    }
}

//! The server's certificate: made at the first start, pinned by agents, rotated on request.
//!
//! `{data}/tls/current.pem` holds certificate and key of what is served, `{data}/tls/next.pem` those of what will be. The
//! keys in them are sealed ([`seal`]); one that an earlier version left in the clear is sealed by the next start.
//! Both files are written whole with mode 0600, so that a certificate is never without its key, and a rotation that was
//! announced is still announced after a restart. They belong to the owner of the data folder, whoever makes them. Whether the next may be served is decided by
//! [`crate::task::certificate`]; nothing here knows of agents.

pub mod seal;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use groundcrew_durable::whole;
use groundcrew_protocol::ids::Sha256Hex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

use crate::owner;
use seal::{KeyFile, SealError};

/// A certificate and its key are a few kilobytes.
const PEM_BYTES_MAX: u64 = 64 * 1024;
/// How the sealed key begins and ends in its file.
const SEALED_BEGIN: &str = "-----BEGIN GROUNDCREW SEALED KEY-----";
const SEALED_END: &str = "-----END GROUNDCREW SEALED KEY-----";

/// What went wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("keeping the certificate in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: groundcrew_durable::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no certificate with its key: {why}; move it away and start again to have one made")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// The key cannot be sealed or opened.
    #[error("the key of the certificate in {path}")]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SealError,
    },
    /// A file could not be given to the owner of the data folder.
    #[error("giving {path} to the owner of the data folder")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is none yet.
    #[error("there is no certificate in {path}; `groundcrewd serve` makes one at its first start")]
    None {
        /// The file.
        path: PathBuf,
    },
    /// One could not be made.
    #[error("making a certificate")]
    Make(#[source] rcgen::Error),
    /// TLS could not be set up.
    #[error("setting up TLS")]
    Setup(#[source] rustls::Error),
}

/// A certificate with its key, and the SHA-256 that agents pin.
#[derive(Debug, Clone)]
pub struct Identity {
    /// SHA-256 of the certificate as it is sent (DER).
    pub fingerprint: Sha256Hex,
    certified: Arc<CertifiedKey>,
}

/// Where the certificates of a data folder are.
#[derive(Debug, Clone)]
pub struct Files {
    data: PathBuf,
    folder: PathBuf,
    key: KeyFile,
}

impl Files {
    /// Those of a data folder, their keys sealed with the key in this file.
    pub fn of(data: &Path, key: KeyFile) -> Files {
        Files { data: data.to_owned(), folder: data.join("tls"), key }
    }

    /// The file of the outer key.
    pub fn key(&self) -> &KeyFile {
        &self.key
    }

    fn current_path(&self) -> PathBuf {
        self.folder.join("current.pem")
    }

    fn next_path(&self) -> PathBuf {
        self.folder.join("next.pem")
    }

    /// What is served.
    ///
    /// # Errors
    /// [`TlsError::None`] before the first start; otherwise where the file is unreadable or holds something else.
    pub fn current(&self) -> Result<Identity, TlsError> {
        let path = self.current_path();
        self.load(&path)?.ok_or(TlsError::None { path })
    }

    /// What is served, made where there is none yet. A key that lies in the clear is sealed.
    ///
    /// # Errors
    /// Where it cannot be made, kept or read.
    pub fn current_or_made(&self) -> Result<Identity, TlsError> {
        let path = self.current_path();
        if self.load(&path)?.is_none() {
            self.make(&path)?;
        }
        self.seal_clear(&path)?;
        self.current()
    }

    /// What will be served, where a rotation is announced. A key that lies in the clear is sealed.
    ///
    /// # Errors
    /// Where the file is unreadable or holds something else.
    pub fn next(&self) -> Result<Option<Identity>, TlsError> {
        let path = self.next_path();
        let next = self.load(&path)?;
        if next.is_some() {
            self.seal_clear(&path)?;
        }
        Ok(next)
    }

    /// Announces a rotation: makes the next certificate. One that is announced already stays, because agents may
    /// know it by now.
    ///
    /// # Errors
    /// Where there is no current one, or the next cannot be made or kept.
    pub fn announce_next(&self) -> Result<Identity, TlsError> {
        self.current()?;
        let path = self.next_path();
        match self.next()? {
            Some(identity) => {
                self.give(&path)?;
                Ok(identity)
            }
            None => self.make(&path),
        }
    }

    /// Makes the next certificate the current one.
    ///
    /// # Errors
    /// Where the files cannot be moved.
    pub fn promote_next(&self) -> Result<(), TlsError> {
        let (next, current) = (self.next_path(), self.current_path());
        let bytes = read(&next)?.ok_or(TlsError::None { path: next.clone() })?;
        // Written first, removed then: after a crash between the two the next is the current one, and is removed by
        // the next pass of whoever promotes.
        whole::write_whole(&current, &bytes, &whole::Options::default())
            .map_err(|source| TlsError::File { path: current, source })?;
        whole::remove(&next).map(drop).map_err(|source| TlsError::File { path: next, source })
    }

    fn make(&self, path: &Path) -> Result<Identity, TlsError> {
        let pem = make_pem().map_err(TlsError::Make)?;
        let kept = |source| TlsError::File { path: path.to_owned(), source };
        whole::create_folder(&self.folder, 0o700).map_err(kept)?;
        self.give(&self.folder)?;
        self.write_sealed(path, pem.as_bytes())?;
        self.give(path)?;
        self.load(path)?.ok_or_else(|| TlsError::None { path: path.to_owned() })
    }

    fn give(&self, path: &Path) -> Result<(), TlsError> {
        owner::give(path, &self.data).map_err(|source| TlsError::Owner { path: path.to_owned(), source })
    }

    fn seal_clear(&self, path: &Path) -> Result<(), TlsError> {
        match read(path)? {
            Some(pem) if sealed_part(&pem).is_none() => self.write_sealed(path, &pem),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes a certificate and its key, which is in the clear, with the key sealed.
    fn write_sealed(&self, path: &Path, pem: &[u8]) -> Result<(), TlsError> {
        let malformed = |why: String| TlsError::Malformed { path: path.to_owned(), why };
        let certificate = certificate_in(path, pem)?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| malformed(format!("key: {error}")))?;
        let PrivateKeyDer::Pkcs8(key) = key else {
            return Err(malformed("its key is not in the form PKCS #8".to_owned()));
        };
        let fingerprint = Sha256Hex::of(&certificate);
        let sealed = self
            .key
            .seal(key.secret_pkcs8_der(), fingerprint.as_str())
            .map_err(|source| TlsError::Seal { path: path.to_owned(), source })?;
        let block =
            |begin: &str, bytes: &[u8], end: &str| format!("{begin}\n{}\n{end}\n", BASE64.encode(bytes));
        let text = block("-----BEGIN CERTIFICATE-----", &certificate, "-----END CERTIFICATE-----")
            + &block(SEALED_BEGIN, &sealed, SEALED_END);
        whole::write_whole(path, text.as_bytes(), &whole::Options::default())
            .map_err(|source| TlsError::File { path: path.to_owned(), source })
    }

    fn load(&self, path: &Path) -> Result<Option<Identity>, TlsError> {
        let Some(pem) = read(path)? else { return Ok(None) };
        let malformed = |why: String| TlsError::Malformed { path: path.to_owned(), why };
        let certificate = certificate_in(path, &pem)?;
        let fingerprint = Sha256Hex::of(&certificate);
        let key = match sealed_part(&pem) {
            None => {
                PrivateKeyDer::from_pem_slice(&pem).map_err(|error| malformed(format!("key: {error}")))?
            }
            Some(sealed) => {
                let sealed =
                    BASE64.decode(sealed).map_err(|error| malformed(format!("sealed key: {error}")))?;
                let opened = self.key.open(&sealed, fingerprint.as_str());
                let opened = opened.map_err(|source| TlsError::Seal { path: path.to_owned(), source })?;
                PrivateKeyDer::Pkcs8(opened.into())
            }
        };
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(vec![certificate], key, &provider)
            .map_err(|error| malformed(format!("certificate and key do not fit: {error}")))?;
        Ok(Some(Identity { fingerprint, certified: Arc::new(certified) }))
    }
}

/// SHA-256 of the certificate that a data folder serves, without its key.
///
/// # Errors
/// As [`Files::current`].
pub fn fingerprint_of(data: &Path) -> Result<Sha256Hex, TlsError> {
    let path = data.join("tls").join("current.pem");
    let pem = read(&path)?.ok_or(TlsError::None { path: path.clone() })?;
    Ok(Sha256Hex::of(&certificate_in(&path, &pem)?))
}

/// A self-signed certificate with its key. Agents pin it and ignore names and dates (rule 10 of the design).
fn make_pem() -> Result<String, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(vec!["groundcrewd".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "groundcrewd");
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    whole::read_bounded(path, PEM_BYTES_MAX)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn certificate_in(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem)
        .map_err(|error| TlsError::Malformed { path: path.to_owned(), why: format!("certificate: {error}") })
}

/// The sealed key in a file, in base64.
fn sealed_part(pem: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, after) = text.split_once(SEALED_BEGIN)?;
    let (inner, _) = after.split_once(SEALED_END)?;
    Some(inner.split_whitespace().collect())
}

/// Gives each handshake the certificate that is served at that moment.
#[derive(Debug)]
pub struct Served {
    now: RwLock<Identity>,
}

impl Served {
    /// Serves this one at first.
    pub fn new(identity: Identity) -> Arc<Served> {
        Arc::new(Served { now: RwLock::new(identity) })
    }

    /// SHA-256 of what is served.
    pub fn fingerprint(&self) -> Sha256Hex {
        self.now.read().expect("no holder of this lock panics").fingerprint.clone()
    }

    /// Serves another from the next handshake on. Connections that are open stay.
    pub fn replace(&self, identity: Identity) {
        *self.now.write().expect("no holder of this lock panics") = identity;
    }

    /// Settings of a TLS server that serves it. HTTP/1.1 alone is spoken.
    ///
    /// # Errors
    /// Where the library refuses its own defaults.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            // Said, because another user of rustls in this program may bring the older version in.
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.read().expect("no holder of this lock panics").certified.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A data folder, with the key file beside it.
    fn files(folder: &Path) -> Files {
        std::fs::create_dir_all(folder.join("data")).unwrap();
        Files::of(&folder.join("data"), KeyFile::at(folder.join("key")))
    }

    #[test]
    fn a_private_key_never_lies_in_the_clear_and_one_of_before_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let fingerprint = files.current_or_made().unwrap().fingerprint;
        files.announce_next().unwrap();
        for path in [files.current_path(), files.next_path()] {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(SEALED_BEGIN) && !text.contains("PRIVATE KEY"), "{text}");
        }
        assert_eq!(fingerprint_of(&files.data).unwrap(), fingerprint, "the certificate itself is no secret");
        // As the version before kept it.
        let clear = make_pem().unwrap();
        std::fs::write(files.current_path(), &clear).unwrap();
        let before = files.current().unwrap().fingerprint;
        assert_eq!(files.current_or_made().unwrap().fingerprint, before);
        let text = std::fs::read_to_string(files.current_path()).unwrap();
        assert!(text.contains(SEALED_BEGIN) && !text.contains("PRIVATE KEY"), "{text}");
        // Another key file, or none, is named; nothing is made anew.
        let lost = Files::of(&files.data, KeyFile::at(folder.path().join("elsewhere")));
        let error = crate::causes::chain(&lost.current_or_made().unwrap_err());
        assert!(error.contains("elsewhere") && error.contains("missing"), "{error}");
        assert_eq!(std::fs::read_to_string(files.current_path()).unwrap(), text);
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn what_root_announces_belongs_to_the_owner_of_the_data_folder() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        files.current_or_made().unwrap();
        let owner =
            if rustix::process::geteuid().is_root() { 54_321 } else { rustix::process::geteuid().as_raw() };
        std::os::unix::fs::chown(&files.data, Some(owner), None).unwrap();
        files.announce_next().unwrap();
        assert_eq!(std::fs::metadata(files.next_path()).unwrap().uid(), owner);
        assert_eq!(std::fs::metadata(&files.folder).unwrap().uid(), owner);
    }

    #[test]
    fn the_first_start_makes_a_certificate_and_the_second_finds_it() {
        let data = tempfile::tempdir().unwrap();
        let files = files(data.path());
        assert!(matches!(files.current(), Err(TlsError::None { .. })));
        let made = files.current_or_made().unwrap();
        assert_eq!(files.current_or_made().unwrap().fingerprint, made.fingerprint);
        let mode = std::fs::metadata(files.current_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_rotation_that_is_announced_stays_the_same_until_it_is_promoted() {
        let data = tempfile::tempdir().unwrap();
        let files = files(data.path());
        assert!(files.announce_next().is_err(), "there is nothing to rotate yet");
        let first = files.current_or_made().unwrap().fingerprint;
        let next = files.announce_next().unwrap().fingerprint;
        assert_ne!(first, next);
        assert_eq!(files.announce_next().unwrap().fingerprint, next);
        assert_eq!(files.current().unwrap().fingerprint, first);
        files.promote_next().unwrap();
        assert_eq!(files.current().unwrap().fingerprint, next);
        assert!(files.next().unwrap().is_none());
    }

    #[test]
    fn what_is_no_certificate_is_named_and_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let files = files(data.path());
        std::fs::create_dir(&files.folder).unwrap();
        std::fs::write(files.current_path(), "nonsense").unwrap();
        let error = files.current_or_made().unwrap_err();
        assert!(error.to_string().contains("current.pem"), "{error}");
        assert_eq!(std::fs::read_to_string(files.current_path()).unwrap(), "nonsense");
    }
}

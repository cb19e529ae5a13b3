//! The server's certificate: made at the first start, pinned by agents, rotated on request.
//!
//! `{data}/tls/current.pem` holds certificate and key of what is served, `{data}/tls/next.pem` those of what will be.
//! Both files are written whole with mode 0600, so that a certificate is never without its key, and a rotation that was
//! announced is still announced after a restart. Whether the next may be served is decided by
//! [`crate::task::certificate`]; nothing here knows of agents.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use groundcrew_durable::whole;
use groundcrew_protocol::ids::Sha256Hex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

/// A certificate and its key are a few kilobytes.
const PEM_BYTES_MAX: u64 = 64 * 1024;

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
    folder: PathBuf,
}

impl Files {
    /// Those of a data folder.
    pub fn of(data: &Path) -> Files {
        Files { folder: data.join("tls") }
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
        load(&path)?.ok_or(TlsError::None { path })
    }

    /// What is served, made where there is none yet.
    ///
    /// # Errors
    /// Where it cannot be made, kept or read.
    pub fn current_or_made(&self) -> Result<Identity, TlsError> {
        let path = self.current_path();
        match load(&path)? {
            Some(identity) => Ok(identity),
            None => self.make(&path),
        }
    }

    /// What will be served, where a rotation is announced.
    ///
    /// # Errors
    /// Where the file is unreadable or holds something else.
    pub fn next(&self) -> Result<Option<Identity>, TlsError> {
        load(&self.next_path())
    }

    /// Announces a rotation: makes the next certificate. One that is announced already stays, because agents may
    /// know it by now.
    ///
    /// # Errors
    /// Where there is no current one, or the next cannot be made or kept.
    pub fn announce_next(&self) -> Result<Identity, TlsError> {
        self.current()?;
        match self.next()? {
            Some(identity) => Ok(identity),
            None => self.make(&self.next_path()),
        }
    }

    /// Makes the next certificate the current one.
    ///
    /// # Errors
    /// Where the files cannot be moved.
    pub fn promote_next(&self) -> Result<(), TlsError> {
        let (next, current) = (self.next_path(), self.current_path());
        let bytes = whole::read_bounded(&next, PEM_BYTES_MAX)
            .map_err(|source| TlsError::File { path: next.clone(), source })?
            .ok_or(TlsError::None { path: next.clone() })?;
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
        whole::write_whole(path, pem.as_bytes(), &whole::Options::default()).map_err(kept)?;
        parse(path, pem.as_bytes())
    }
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

fn load(path: &Path) -> Result<Option<Identity>, TlsError> {
    let bytes = whole::read_bounded(path, PEM_BYTES_MAX)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    bytes.map(|bytes| parse(path, &bytes)).transpose()
}

fn parse(path: &Path, pem: &[u8]) -> Result<Identity, TlsError> {
    let malformed = |why: String| TlsError::Malformed { path: path.to_owned(), why };
    let certificate =
        CertificateDer::from_pem_slice(pem).map_err(|error| malformed(format!("certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| malformed(format!("key: {error}")))?;
    let fingerprint = Sha256Hex::of(&certificate);
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(vec![certificate], key, &provider)
        .map_err(|error| malformed(format!("certificate and key do not fit: {error}")))?;
    Ok(Identity { fingerprint, certified: Arc::new(certified) })
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
            .with_safe_default_protocol_versions()
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

    #[test]
    fn the_first_start_makes_a_certificate_and_the_second_finds_it() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::of(data.path());
        assert!(matches!(files.current(), Err(TlsError::None { .. })));
        let made = files.current_or_made().unwrap();
        assert_eq!(files.current_or_made().unwrap().fingerprint, made.fingerprint);
        let mode = std::fs::metadata(files.current_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_rotation_that_is_announced_stays_the_same_until_it_is_promoted() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::of(data.path());
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
        let files = Files::of(data.path());
        std::fs::create_dir(data.path().join("tls")).unwrap();
        std::fs::write(files.current_path(), "nonsense").unwrap();
        let error = files.current_or_made().unwrap_err();
        assert!(error.to_string().contains("current.pem"), "{error}");
        assert_eq!(std::fs::read_to_string(files.current_path()).unwrap(), "nonsense");
    }
}

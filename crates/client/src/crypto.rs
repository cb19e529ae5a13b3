//! The cryptography of a connection: what orchestrators use, and nothing else.
//!
//! rustls's own set has RSA, P-384, ChaCha20 and the loading of keys as well. Whatever a set names is linked, and agents are
//! small.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use webpki::ring::ECDSA_P256_SHA256;

/// Signatures of certificates: `groundcrewd` makes keys for P-256.
static SIGNATURES: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: P256, mapping: &[(SignatureScheme::ECDSA_NISTP256_SHA256, P256)] };
static P256: &[&dyn SignatureVerificationAlgorithm] = &[ECDSA_P256_SHA256];

/// AES, for which servers have instructions; one curve for the key exchange and for signatures.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::SECP256R1],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Kernel,
        key_provider: &NoKeys,
    }
}

/// getrandom(2).
#[derive(Debug)]
struct Kernel;

impl SecureRandom for Kernel {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buf).map_err(|_| GetRandomFailed)
    }
}

/// Our clients show a token, never a certificate.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("a client has no key of its own".into()))
    }
}

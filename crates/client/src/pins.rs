//! Pins: which certificates are the orchestrator's, by the SHA-256 of the whole certificate.
//!
//! A certificate counts when its digest is in the list **and** the server proves, by the handshake's
//! signature, that it has the certificate's key. Dates, names and issuers do not count: a node in a live image
//! may not know the date yet (rule 10 of the design).

use std::sync::{Arc, PoisonError, RwLock};

use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::wire::PINS_HEADER;
use http::HeaderMap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::Digest;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;

/// Greatest number of pins at a time. A rotation needs two; a list of hundreds would be a mistake.
pub const PINS_MAX: usize = 16;

/// Greatest number of pins that count at a time: as many as settings may name, and as many as a server may announce. What a
/// server announces can so push out nothing that its operator names, nor the other way round.
const PINS_COUNTED_MAX: usize = 2 * PINS_MAX;

/// A list of pins was not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected {expected}")]
pub struct BadPins {
    /// What was found, cut to 80 characters.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

/// Reads pins as people paste them: 64 hexadecimal digits each, in either case, with or without colons
/// between the bytes, separated by commas. Refused: none at all, and more than [`PINS_MAX`].
pub fn parse_pins(text: &str) -> Result<Vec<Sha256Hex>, BadPins> {
    let bad = |found: &str, expected| BadPins { found: found.chars().take(80).collect(), expected };
    let mut pins = Vec::new();
    for part in text.split(',') {
        let digits = part.trim().replace(':', "").to_ascii_lowercase();
        let pin = digits.parse().map_err(|_| {
            bad(part, "the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons, comma between two")
        })?;
        pins.push(pin);
    }
    if pins.len() > PINS_MAX {
        return Err(bad(&format!("{} pins", pins.len()), "at most 16 pins"));
    }
    Ok(pins)
}

/// The pins that count at this moment. Clones share one list, so that a rotation reaches every connection
/// made afterwards. An empty list accepts nobody.
#[derive(Debug, Clone)]
pub struct PinSet {
    pins: Arc<RwLock<Vec<Sha256Hex>>>,
    announced: Arc<watch::Sender<Vec<Sha256Hex>>>,
}

impl PinSet {
    /// A list of pins; those behind the first 32 different ones do not count.
    pub fn new(pins: impl IntoIterator<Item = Sha256Hex>) -> PinSet {
        let announced = Arc::new(watch::channel(Vec::new()).0);
        PinSet { pins: Arc::new(RwLock::new(bounded(pins))), announced }
    }

    /// What the server announces ([`PINS_HEADER`]) in whatever it answers to any client with this list; empty where it has
    /// announced nothing yet. Whether those count is for who asks here to decide.
    pub fn announced(&self) -> watch::Receiver<Vec<Sha256Hex>> {
        self.announced.subscribe()
    }

    /// Takes in what an answer announces. One that cannot be read announces nothing: it is the word of a server that is
    /// newer than this client, and what it is an answer to stands all the same.
    pub(crate) fn hear(&self, answer: &HeaderMap) {
        let text = answer.get(PINS_HEADER).and_then(|value| value.to_str().ok());
        let Some(pins) = text.and_then(|text| parse_pins(text).ok()) else { return };
        self.announced.send_if_modified(|known| {
            let changes = *known != pins;
            if changes {
                *known = pins;
            }
            changes
        });
    }

    /// Puts another list in the place of this one. Connections that stand are not ended.
    pub fn replace(&self, pins: impl IntoIterator<Item = Sha256Hex>) {
        // A list is put in whole, so that a panic elsewhere cannot have left half of one.
        *self.pins.write().unwrap_or_else(PoisonError::into_inner) = bounded(pins);
    }

    /// The pins that count now.
    pub fn list(&self) -> Vec<Sha256Hex> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares with every pin, in a time that says nothing about which one fits or how far.
    fn contains(&self, found: &Sha256Hex) -> bool {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        let found = found.as_str().as_bytes();
        let any = pins.iter().fold(Choice::from(0), |any, pin| any | pin.as_str().as_bytes().ct_eq(found));
        any.into()
    }
}

fn bounded(pins: impl IntoIterator<Item = Sha256Hex>) -> Vec<Sha256Hex> {
    let mut counted: Vec<Sha256Hex> = Vec::new();
    for pin in pins {
        if counted.len() < PINS_COUNTED_MAX && !counted.contains(&pin) {
            counted.push(pin);
        }
    }
    counted
}

/// The server's certificate has a digest that is not in the list.
#[derive(Debug, Clone, thiserror::Error)]
#[error("certificate with SHA-256 {found}")]
pub(crate) struct WrongPin {
    pub(crate) found: Sha256Hex,
}

/// What rustls asks about a server's certificate and signature.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pub(crate) pins: PinSet,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Sha256Hex::from_digest(&sha2::Sha256::digest(end_entity));
        if self.pins.contains(&found) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::Other(OtherError(Arc::new(WrongPin { found }))))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Sha256Hex {
        Sha256Hex::of(&[byte])
    }

    #[test]
    fn pins_are_read_as_people_paste_them() {
        let plain = digest(1).to_string();
        let pairs: Vec<&str> = (0..32).map(|at| &plain[at * 2..at * 2 + 2]).collect();
        let colons = pairs.join(":").to_uppercase();
        assert_eq!(parse_pins(&format!("{colons}, {}", digest(2))), Ok(vec![digest(1), digest(2)]));
        let many = vec![plain.as_str(); PINS_MAX + 1].join(",");
        for bad in ["", ",", "abc", &plain[1..], &format!("{plain},"), &many] {
            assert!(parse_pins(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_replaced_list_counts_for_every_clone_and_an_empty_one_accepts_nobody() {
        let pins = PinSet::new([digest(1), digest(2)]);
        let other = pins.clone();
        assert!(pins.contains(&digest(1)) && pins.contains(&digest(2)) && !pins.contains(&digest(3)));
        other.replace([digest(3)]);
        assert!(!pins.contains(&digest(1)) && pins.contains(&digest(3)));
        // One that is named twice is one.
        let repeated = std::iter::repeat_n(digest(0), 100).chain((0..100).map(digest));
        other.replace(repeated);
        assert_eq!(pins.list(), (0..32).map(digest).collect::<Vec<_>>());
        other.replace([]);
        assert!(!pins.contains(&digest(3)));
    }
}

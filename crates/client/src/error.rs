//! What can become of a call, one variant for each thing that a caller may do differently.

use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::wire::ErrorBody;

use crate::resolve::ResolveError;

/// Why a call has no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is another one, or has another certificate: only an operator can mend it.
    #[error(
        "the server {server} showed a certificate with SHA-256 {found}, expected {}",
        expected_words(expected)
    )]
    WrongPin {
        /// Who was asked.
        server: String,
        /// The digest of the certificate that was shown.
        found: Sha256Hex,
        /// The pins that count.
        expected: Vec<Sha256Hex>,
    },
    /// The server's name leads to no address.
    #[error("looking up {name}")]
    Resolve {
        /// The name.
        name: String,
        /// Why not.
        source: ResolveError,
    },
    /// No connection to any address of the server.
    #[error("connecting to {server}")]
    Connect {
        /// Who was asked.
        server: String,
        /// The last refusal.
        source: std::io::Error,
    },
    /// The handshake failed: among others, where the server does not have its certificate's key.
    #[error("TLS handshake with {server}")]
    Handshake {
        /// Who was asked.
        server: String,
        /// What TLS says.
        source: std::io::Error,
    },
    /// Nothing, or not everything, came in time.
    #[error("{call} had no answer within {after_ms} ms")]
    Timeout {
        /// Method and path.
        call: String,
        /// How long it was waited for, in milliseconds.
        after_ms: u64,
    },
    /// The connection ended in the middle, or what came was not HTTP.
    #[error("{call}: the connection ended or spoke no HTTP")]
    Broken {
        /// Method and path.
        call: String,
        /// What HTTP says.
        source: hyper::Error,
    },
    /// The server answered with a refusal.
    #[error("{call} was answered with {code}: {}", body.error)]
    Status {
        /// Method and path.
        call: String,
        /// The HTTP status.
        code: u16,
        /// What it says. An answer without such a body gets one with the code `unexplained`.
        body: Box<ErrorBody>,
    },
    /// The answer is larger than a caller of this client can want.
    #[error("the answer to {call} is larger than {bytes_max} bytes")]
    AnswerTooLarge {
        /// Method and path.
        call: String,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The answer is not the JSON that was expected.
    #[error("the answer to {call} is not what was expected")]
    BadAnswer {
        /// Method and path.
        call: String,
        /// What JSON says.
        source: serde_json::Error,
    },
    /// The answer is not the part that was asked for.
    #[error("{call}: found {found}, expected all of it or the rest from byte {asked} on")]
    OtherPart {
        /// Method and path.
        call: String,
        /// The first byte that was asked for.
        asked: u64,
        /// What the answer says that it is.
        found: String,
    },
    /// What was to be sent cannot be: a value that JSON does not have, or a path or token that no header takes.
    #[error("{call} cannot be put into words: {why}")]
    Unsendable {
        /// Method and path.
        call: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// True where time alone may mend it, so that it is asked again after a pause of seconds. The others
    /// (401, 403, 404, 410, a wrong pin) wait for an operator and are asked again every
    /// [`SLOW_RETRY_MS`](groundcrew_protocol::limits::SLOW_RETRY_MS).
    pub fn is_retried_quickly(&self) -> bool {
        match self {
            Error::WrongPin { .. } | Error::Unsendable { .. } => false,
            Error::Status { code, .. } => !matches!(code, 401 | 403 | 404 | 410),
            Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Broken { .. }
            | Error::AnswerTooLarge { .. }
            | Error::OtherPart { .. }
            | Error::BadAnswer { .. } => true,
        }
    }

    /// The HTTP status, where there was an answer with one.
    pub fn status(&self) -> Option<u16> {
        if let Error::Status { code, .. } = self { Some(*code) } else { None }
    }

    /// The word for programs of a refusal (`old_claim`, `other_content`, …), empty where there is none.
    pub fn code(&self) -> &str {
        if let Error::Status { body, .. } = self { &body.code } else { "" }
    }

    /// After how many seconds a refusal says that it is worth asking again.
    pub fn retry_after_s(&self) -> Option<u64> {
        if let Error::Status { body, .. } = self { body.retry_after_s } else { None }
    }

    /// The error and what caused it, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

fn expected_words(expected: &[Sha256Hex]) -> String {
    match expected {
        [] => "a pin, and none is set".to_owned(),
        pins => pins.iter().map(Sha256Hex::as_str).collect::<Vec<_>>().join(" or "),
    }
}

//! One try to tell one sink: a POST over a connection of its own, bounded in time as a whole, of whose answer only the
//! status counts. No redirect is followed, as that would give the message, and what its address keeps secret, to somebody
//! whom the settings do not name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groundcrew_client::{Names, ResolveError};
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::sinks::Sink;

/// A try takes no longer, from the name to the status. No shutdown waits for more than one try.
pub const TRY_MS_MAX: u64 = 5_000;
/// One address of several gets this long, so that a dead one leaves time for the next.
const ADDRESS_WAIT: Duration = Duration::from_millis(1_500);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 3;
/// Greatest head of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Why a sink was not told. No text of it has the sink's path or what the sink answered: a path may be a secret, and an
/// answer may repeat it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Its name leads nowhere.
    #[error("finding its address: {0}")]
    Resolve(#[source] ResolveError),
    /// Nobody takes the connection.
    #[error("connecting: {0}")]
    Connect(#[source] std::io::Error),
    /// Its certificate is not trusted, or it speaks no TLS.
    #[error("TLS: {0}")]
    Tls(#[source] std::io::Error),
    /// The exchange broke.
    #[error("the exchange broke: {0}")]
    Http(#[source] hyper::Error),
    /// The message cannot be put into words of HTTP.
    #[error("writing the message: {0}")]
    Message(#[source] http::Error),
    /// It did not answer in time.
    #[error("found no answer within {after_ms} ms")]
    Late {
        /// How long it was waited for.
        after_ms: u64,
    },
    /// It points elsewhere.
    #[error("found a redirect (status {status}), which is not followed: give the address to which it leads")]
    Redirect {
        /// The status.
        status: u16,
    },
    /// It answered with something else than success.
    #[error("found status {status}, expected 200 to 299")]
    Status {
        /// The status.
        status: u16,
    },
}

impl SendError {
    /// True where another try would come out the same: the settings must change, or what the sink keeps.
    pub fn is_final(&self) -> bool {
        match self {
            SendError::Redirect { .. } | SendError::Message(_) => true,
            // Over the time or the rate that it allows.
            SendError::Status { status } => (400..500).contains(status) && ![408, 425, 429].contains(status),
            SendError::Resolve(_)
            | SendError::Connect(_)
            | SendError::Tls(_)
            | SendError::Http(_)
            | SendError::Late { .. } => false,
        }
    }
}

/// This machine names no authority whose certificates are to be trusted.
#[derive(Debug, thiserror::Error)]
#[error(
    "sinks over https: found no trusted certificate authority on this machine, expected those of the package \
     ca-certificates, or a file that SSL_CERT_FILE names{}", self.said()
)]
pub struct TlsRootsError {
    errors: Vec<rustls_native_certs::Error>,
}

impl TlsRootsError {
    fn said(&self) -> String {
        self.errors.first().map(|error| format!(" ({error})")).unwrap_or_default()
    }
}

/// Tells sinks.
#[derive(Clone)]
pub struct Sender {
    tls: Option<Arc<ClientConfig>>,
    names: Names,
}

impl Sender {
    /// One that trusts whom this machine trusts. It reads the machine's certificates.
    ///
    /// # Errors
    /// Where there are none.
    pub fn with_roots_of_system() -> Result<Sender, TlsRootsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, unreadable) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            return Err(TlsRootsError { errors: found.errors });
        }
        for error in &found.errors {
            tracing::warn!(%error, "certificates of authorities left out");
        }
        if unreadable > 0 {
            tracing::warn!(unreadable, taken, "certificates of authorities left out");
        }
        Ok(Sender::with_roots(roots))
    }

    /// One that trusts these.
    pub fn with_roots(roots: RootCertStore) -> Sender {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for what rustls is built with")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Sender { tls: Some(Arc::new(config)), names: Names::default() }
    }

    /// One for sinks in the clear alone.
    pub fn without_tls() -> Sender {
        Sender { tls: None, names: Names::default() }
    }

    /// Tells a sink, within `limit` and [`TRY_MS_MAX`].
    ///
    /// # Errors
    /// Why it was not told, or nobody knows whether it was.
    pub async fn send(&self, sink: &Sink, body: Vec<u8>, limit: Duration) -> Result<(), SendError> {
        let limit = limit.min(Duration::from_millis(TRY_MS_MAX));
        match timeout(limit, self.exchange(sink, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SendError::Late { after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }),
        }
    }

    async fn exchange(&self, sink: &Sink, body: Vec<u8>) -> Result<(), SendError> {
        let request = request_of(sink, body).map_err(SendError::Message)?;
        let host = sink.url.host();
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.names.look_up(host).await.map_err(SendError::Resolve)?,
        };
        let tcp = connect(&addresses, sink.url.port()).await.map_err(SendError::Connect)?;
        let status = if sink.url.is_tls() {
            let failed = |text: &str| SendError::Tls(std::io::Error::other(text.to_owned()));
            let tls = self.tls.as_ref().ok_or_else(|| failed("no authorities were read at the start"))?;
            let name = ServerName::try_from(host.to_owned()).map_err(|_| failed("its host is no name"))?;
            let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(SendError::Tls)?;
            post(stream, request).await?
        } else {
            post(tcp, request).await?
        };
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(SendError::Redirect { status: status.as_u16() }),
            status => Err(SendError::Status { status: status.as_u16() }),
        }
    }
}

fn request_of(sink: &Sink, body: Vec<u8>) -> Result<Request<Full<Bytes>>, http::Error> {
    let uri = sink.url.reveal();
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("groundcrewd/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(authorization) = &sink.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.body(Full::new(Bytes::from(body)))
}

async fn connect(addresses: &[IpAddr], port: u16) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match timeout(ADDRESS_WAIT, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

/// Asks, and gives the status. What follows it is not read: it may be without end.
async fn post<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(SendError::Http)?;
    // The connection goes with this call, whenever that ends.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // It has ended in order, and with what it has brought.
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    Ok(answer.map_err(SendError::Http)?.status())
}

#[cfg(test)]
mod tests;

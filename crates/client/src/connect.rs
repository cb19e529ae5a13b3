//! One connection: TCP, TLS with the pin, HTTP/1.1.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::crypto::provider;
use crate::error::Error;
use crate::outgoing::Outgoing;
use crate::pins::{PinSet, PinVerifier, WrongPin};
use crate::resolve::Names;
use crate::url::{BaseUrl, Host};

/// One address of several gets this long, so that a dead one leaves time for the next.
const ADDRESS_WAIT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Headers of an answer, all together and in number. Ours have a handful.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 48;

/// A connection that can take a call. Its I/O is a task that ends with it.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Outgoing>,
    io: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.io.abort();
    }
}

/// TLS settings for a set of pins.
///
/// Sessions are not resumed: a resumed session shows no certificate, so that a pin which was taken away
/// would go on being accepted.
pub fn tls_config(pins: PinSet) -> Arc<ClientConfig> {
    let provider = Arc::new(provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are cipher suites for what rustls is built with: TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier { pins, algorithms }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Opens a connection. The caller bounds the whole.
pub(crate) async fn connect(
    base: &BaseUrl,
    names: &Names,
    pins: &PinSet,
    tls: &Arc<ClientConfig>,
) -> Result<Connection, Error> {
    let server = base.authority();
    let addresses = match &base.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            names.look_up(name).await.map_err(|source| Error::Resolve { name: name.clone(), source })?
        }
    };
    let tcp = connect_tcp(&addresses, base.port)
        .await
        .map_err(|source| Error::Connect { server: server.clone(), source })?;
    // Calls are single small messages; waiting to fill a segment only delays them.
    tcp.set_nodelay(true).map_err(|source| Error::Connect { server: server.clone(), source })?;
    let stream = TlsConnector::from(tls.clone())
        .connect(base.server_name.clone(), tcp)
        .await
        .map_err(|source| handshake_error(server.clone(), pins, source))?;
    let (sender, connection) = Builder::new()
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| Error::Broken { call: format!("opening HTTP to {server}"), source })?;
    let io = tokio::spawn(async move {
        // How the connection ended is told to the call that waits on it; an idle one is only opened anew.
        let _told_to_the_call = connection.await;
    });
    Ok(Connection { sender, io })
}

async fn connect_tcp(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match timeout(ADDRESS_WAIT, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

fn handshake_error(server: String, pins: &PinSet, source: io::Error) -> Error {
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::Other(other)) = tls
        && let Some(wrong) = other.0.downcast_ref::<WrongPin>()
    {
        return Error::WrongPin { server, found: wrong.found.clone(), expected: pins.list() };
    }
    Error::Handshake { server, source }
}

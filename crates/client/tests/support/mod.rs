//! A TLS server on loopback that does exactly what a test tells it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use groundcrew_protocol::ids::Sha256Hex;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A self-signed certificate for a name that is not the server's, valid in a year long past.
    pub fn expired() -> Identity {
        let mut params = rcgen::CertificateParams::new(vec!["elsewhere.lab".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(1999, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Identity { certificate: certificate.der().clone(), key: key.serialize_der().try_into().unwrap() }
    }

    pub fn pin(&self) -> Sha256Hex {
        Sha256Hex::of(&self.certificate)
    }
}

/// Serves one certificate, with whatever key.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

pub struct Server {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

pub type Stream = TlsStream<TcpStream>;

impl Server {
    /// Serves `certificate` with the key of `key`; `serve` gets every connection whose handshake succeeds.
    pub async fn start<F, W>(identity: &Identity, key: &Identity, tls12: bool, serve: F) -> Server
    where
        F: Fn(Stream) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let signer = provider.key_provider.load_private_key(key.key.clone_key()).unwrap();
        let certified = Arc::new(CertifiedKey::new(vec![identity.certificate.clone()], signer));
        let versions: &[&rustls::SupportedProtocolVersion] =
            if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Fixed(certified)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            let serve = Arc::new(serve);
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, serve, counted) = (acceptor.clone(), serve.clone(), counted.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        counted.fetch_add(1, Ordering::SeqCst);
                        serve(stream).await;
                    }
                });
            }
        });
        Server { port, connections }
    }

    /// Connections whose handshake succeeded.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads one request: its head, and its body by `content-length`. `None` at the end of the connection.
pub async fn read_request(stream: &mut Stream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// Answers with a status and a body.
pub async fn answer(stream: &mut Stream, status: &str, body: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    send(stream, text.as_bytes()).await;
}

/// Sends bytes as they are.
pub async fn send(stream: &mut Stream, bytes: &[u8]) {
    // The client may be gone already; what it says of that is what the test looks at.
    if stream.write_all(bytes).await.is_ok() {
        let _gone = stream.flush().await;
    }
}

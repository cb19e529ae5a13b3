//! The limit for heartbeats and logs: a route of axum's that takes a body, looks at nothing and answers bytes that
//! stand ready, under the same TLS. It runs as a process of its own (`groundcrew-bench bare-axum`), as the
//! orchestrator does, so that both share the machine with the load generator in the same way.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::post;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use groundcrew_protocol::ids::Sha256Hex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::load::Connector;
use crate::process::{Service, line_with};

/// How the line begins that says where it listens.
const LISTENING: &str = "listening on ";
/// How the line begins that says what it is pinned by.
const CERTIFICATE: &str = "certificate SHA-256 ";

/// The limit's process.
pub struct BareAxum {
    /// Opens connections to it.
    pub connector: Connector,
    _service: Service,
}

impl BareAxum {
    /// Starts it. It answers every call with `answer`.
    pub fn start(answer: &str) -> Result<BareAxum> {
        let own = std::env::current_exe().context("looking for this very program")?;
        let mut command = std::process::Command::new(own);
        command.args(["bare-axum", "--answer", answer]).stdout(Stdio::piped());
        let (service, mut lines) = Service::start(command, "bare axum")?;
        let fingerprint: Sha256Hex =
            line_with(&mut lines, CERTIFICATE)?.parse().map_err(|why| anyhow!("{why}"))?;
        let address = line_with(&mut lines, LISTENING)?.parse().context("reading where bare axum listens")?;
        Ok(BareAxum { connector: Connector::new(address, fingerprint), _service: service })
    }
}

/// The process itself: serves until the pipe on its standard input closes.
pub fn serve(answer: String) -> Result<()> {
    std::thread::spawn(|| {
        // The benchmark holds the other end and never writes; an end or an error both mean that it has gone.
        let _ended = std::io::stdin().lock().read_line(&mut String::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let der = certificate.cert.der().clone();
        let fingerprint = Sha256Hex::of(&der);
        let key =
            PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).map_err(|why| anyhow!(why))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{CERTIFICATE}{fingerprint}\n{LISTENING}{address}")?;
        out.flush()?;
        drop(out);
        let acceptor =
            RustlsAcceptor::new(RustlsConfig::from_config(tls(der, key)?)).acceptor(NoDelayAcceptor::new());
        let server = axum_server::from_tcp(listener)?.acceptor(acceptor).http1_only();
        Ok(server.serve(router(answer).into_make_service()).await?)
    })
}

/// Settings as the orchestrator's: both versions of TLS, HTTP/1.1 alone.
pub fn tls(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn router(answer: String) -> Router {
    let answer = axum::body::Bytes::from(answer);
    let route = post(move |_body: axum::body::Bytes| {
        let mut response = Response::new(axum::body::Body::from(answer.clone()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        std::future::ready(response)
    });
    Router::new().route("/api/v1/runs/{run}/{call}", route).layer(DefaultBodyLimit::disable())
}

//! Takes connections: TLS, HTTP/1.1, and a bound on everything that a peer can make us wait for or hold.
//!
//! Called by [`crate::serve`]. Knows nothing of what is served.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A peer that takes longer over its handshake is let go.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// A request's head must have come within this, counted from the end of the one before: also the longest idle
/// time of a connection. Three heartbeats.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Headers of a request: a token and a handful of others.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a connection buffers in each direction; larger bodies are read in pieces.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests under way may take this long to end when the server stops.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until told to stop; then takes no new request and lets those under way end, for [`STOP_TIME_MAX`].
pub async fn run_listener(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    app: Router,
    connections_max: usize,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let tcp = tokio::select! {
            () = stop.cancelled() => break,
            tcp = accept(&listener) => tcp,
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, app, stop) = (acceptor.clone(), app.clone(), stop.clone());
        connections.spawn(async move {
            run_connection(tcp, acceptor, app, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME_MAX, rest).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests under way did not end in time");
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _peer)) => return tcp,
            Err(error) => {
                // A peer that went away is nothing; a lack of descriptors passes once connections close.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn run_connection(tcp: TcpStream, acceptor: TlsAcceptor, app: Router, stop: CancellationToken) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "answers may be delayed");
    }
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(tcp)) => handshake,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
        Err(_elapsed) => return tracing::debug!("handshake took too long"),
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection =
        std::pin::pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

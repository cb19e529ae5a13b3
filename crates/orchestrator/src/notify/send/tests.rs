//! Against real servers on loopback, of every kind that there is: one that takes it, and those that do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::causes;
use crate::notify::sinks::Sinks;

/// What must never be shown.
const SECRET: &str = "T0SECRET";
/// How long a test lets a sink that does not answer be silent.
const SHORT: Duration = Duration::from_millis(300);
/// More than any test needs where an answer comes.
const LONG: Duration = Duration::from_secs(600);

/// A server that does this with each connection, after it has read a request; what it read.
fn server(answers: impl Fn(&mut TcpStream) + Send + 'static) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let request = read_request(&mut stream);
            answers(&mut stream);
            if tell.send(request).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// The head and the body of a request.
fn read_request(stream: &mut impl Read) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = |head: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            line.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head));
        if whole || count == 0 {
            return text;
        }
    }
}

fn sink(scheme: &str, authority: &str, more: &str) -> Sink {
    let text = format!(
        "[[sink]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"{scheme}://{authority}/services/{SECRET}?q=1\"\n{more}\n"
    );
    Sinks::parse(&text).unwrap().all()[0].clone()
}

async fn send(sink: &Sink, limit: Duration) -> Result<(), SendError> {
    Sender::without_tls().send(sink, b"{}".to_vec(), limit).await
}

fn answer(stream: &mut impl Write, head: &str) {
    // Whoever asked may be gone.
    let _gone = stream.write_all(head.as_bytes());
}

#[tokio::test]
async fn a_sink_gets_one_post_with_all_that_it_needs() {
    let (address, told) = server(|stream| answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let sink = sink("http", &address.to_string(), "authorization = \"Bearer x\"");
    send(&sink, LONG).await.unwrap();
    let request = told.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("POST /services/{SECRET}?q=1 HTTP/1.1\r\n")), "{head}");
    let version = concat!("user-agent: groundcrewd/", env!("CARGO_PKG_VERSION"));
    for line in
        [&format!("host: {address}"), "content-type: application/json", "authorization: Bearer x", version]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!(body, "{}");
}

#[tokio::test]
async fn what_is_no_success_is_said_and_never_what_the_address_keeps() {
    let moved =
        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/{SECRET}\r\ncontent-length: 0\r\n\r\n");
    let echoes = format!("HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\n\r\nCannot POST {SECRET}");
    let cases = [
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "found status 500, expected 200 to 299", false),
        ("HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n", "found status 429", false),
        (&moved, "found a redirect (status 302), which is not followed", true),
        (&echoes, "found status 404", true),
        ("no HTTP at all\r\n\r\n", "the exchange broke", false),
        ("", "the exchange broke", false),
    ];
    for (head, expected, is_final) in cases {
        let head = head.to_owned();
        let (address, _told) = server(move |stream| answer(stream, &head));
        let error = send(&sink("http", &address.to_string(), ""), LONG).await.unwrap_err();
        let said = causes::chain(&error);
        assert!(said.contains(expected) && !said.contains(SECRET), "{said}");
        assert_eq!(error.is_final(), is_final, "{said}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_waited_for() {
    let (address, _told) = server(|stream| {
        answer(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        // Until nobody reads it any more.
        while stream.write_all(b"1000\r\n").and_then(|()| stream.write_all(&[b'x'; 4098])).is_ok() {}
    });
    send(&sink("http", &address.to_string(), ""), LONG).await.unwrap();
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (address, _told) = server(|stream| {
        answer(stream, "HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-more: and more of it, and more of it, and more of it\r\n").is_ok() {}
    });
    let error = send(&sink("http", &address.to_string(), ""), LONG).await.unwrap_err();
    assert!(matches!(error, SendError::Http(_)), "{error}");
}

#[tokio::test]
async fn whoever_refuses_is_named_and_whoever_never_answers_is_left() {
    // Nobody is given that port, and nobody listens there.
    let error = send(&sink("http", "127.0.0.1:1", ""), LONG).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(_)) && !error.is_final(), "{error}");
    // One that listens, and takes nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let error = send(&sink("http", &address.to_string(), ""), SHORT).await.unwrap_err();
    assert_eq!(error.to_string(), "found no answer within 300 ms");
    // One that answers a byte, and then nothing more.
    let (address, _told) = server(|stream| {
        answer(stream, "H");
        let _until_gone = stream.read(&mut [0; 1]);
    });
    let error = send(&sink("http", &address.to_string(), ""), SHORT).await.unwrap_err();
    assert!(matches!(error, SendError::Late { .. }), "{error}");
    // No caller waits for longer than a try may take, whatever it asks for.
    let error = send(&sink("http", &silent.local_addr().unwrap().to_string(), ""), LONG).await.unwrap_err();
    assert_eq!(error.to_string(), format!("found no answer within {TRY_MS_MAX} ms"));
}

/// A server that speaks TLS with a certificate of its own, which is the authority too.
fn tls_server() -> (SocketAddr, RootCertStore) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            read_request(&mut stream);
            answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    (address, roots)
}

#[tokio::test]
async fn over_tls_only_whom_the_machine_trusts_is_told() {
    let (address, roots) = tls_server();
    let port = address.port();
    let named = sink("https", &format!("localhost:{port}"), "");
    Sender::with_roots(roots.clone()).send(&named, b"{}".to_vec(), LONG).await.unwrap();
    // Another name than the certificate's.
    let other = sink("https", &format!("127.0.0.1:{port}"), "");
    let error = Sender::with_roots(roots).send(&other, b"{}".to_vec(), LONG).await.unwrap_err();
    assert!(matches!(error, SendError::Tls(_)) && error.to_string().contains("certificate"), "{error}");
    // Another authority.
    let (_address, others) = tls_server();
    let error = Sender::with_roots(others).send(&named, b"{}".to_vec(), LONG).await.unwrap_err();
    assert!(matches!(error, SendError::Tls(_)) && error.to_string().contains("certificate"), "{error}");
}

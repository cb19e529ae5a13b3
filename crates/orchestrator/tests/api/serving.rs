//! The server over real sockets: TLS with a pinned certificate, and the ordered stop.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;
use groundcrew_orchestrator::api::app::App;
use groundcrew_orchestrator::api::runs::list;
use groundcrew_orchestrator::notify::send::TRY_MS_MAX;
use groundcrew_orchestrator::run::decide::{Input, NewRun};
use groundcrew_orchestrator::run::state::Machine;
use groundcrew_orchestrator::serve::Server;
use groundcrew_orchestrator::store::{RunColumns, RunDoc, RunWrite};
use groundcrew_protocol::ids::{ClaimNumber, Sha256Hex};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::Shutdown;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, PROFILE, options};

/// Takes any certificate: what it was is looked at afterwards.
#[derive(Debug)]
struct AnyCertificate(rustls::crypto::CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A connection over which nothing was said yet.
async fn connect_bare(address: std::net::SocketAddr) -> Stream {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("groundcrewd").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// A connection, and the SHA-256 of the certificate that it was shown.
pub(crate) async fn connect(address: std::net::SocketAddr) -> (Sender, Sha256Hex) {
    let stream = connect_bare(address).await;
    let leaf = Sha256Hex::of(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    (sender, leaf)
}

pub(crate) async fn get(
    sender: &mut Sender,
    path: &str,
    token: Option<&str>,
) -> http::Response<hyper::body::Incoming> {
    let mut request = http::Request::get(path).header("host", "orchestrator:1");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    sender.send_request(request.body(Full::default()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_server_answers_over_tls_and_stops_in_order() {
    let data = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let token_file = data.path().join("token");
    let mut options = options(data.path().join("data"));
    options.print_token_to = Some(token_file.clone());
    let server = Server::start(options.clone(), stop.clone()).await.unwrap();
    assert_eq!(server.first_token, None, "it went to the file");
    let token = std::fs::read_to_string(&token_file).unwrap();
    assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    let address = std::fs::read_to_string(data.path().join("data/address")).unwrap();
    assert_eq!(address, format!("https://{}\n", server.address));
    let (address, fingerprint) = (server.address, server.fingerprint.clone());
    let served = tokio::spawn(server.run());

    let (mut sender, leaf) = connect(address).await;
    assert_eq!(leaf, fingerprint);
    let answer = get(&mut sender, "/healthz", None).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok\n");
    let answer = get(&mut sender, "/api/v1/tasks", Some(token.trim())).await;
    assert_eq!(answer.status(), 200);
    drop(answer.into_body().collect().await.unwrap());

    stop.cancel();
    served.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(!data.path().join("data/address").exists());

    // The second start has the same certificate and makes no other token.
    let stop = CancellationToken::new();
    let server = Server::start(options, stop.clone()).await.unwrap();
    assert_eq!(server.fingerprint, fingerprint);
    assert_eq!(std::fs::read_to_string(&token_file).unwrap(), token);
    stop.cancel();
    server.run().await.unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let server = Server::start(options(data.path().join("data")), stop.clone()).await.unwrap();
    let address = server.address;
    let served = tokio::spawn(server.run());
    let (mut sender, _leaf) = connect(address).await;
    let answer = get(&mut sender, "/healthz", Some(&"x".repeat(20 * 1024))).await;
    assert_eq!(answer.status(), 431);
    stop.cancel();
    served.await.unwrap().unwrap();
}

/// What came until the end of a head, or of the connection.
async fn read_head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_request_that_is_under_way_when_the_stop_comes_is_answered_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let server = Server::start(options(data.path().join("data")), stop.clone()).await.unwrap();
    let (address, token) = (server.address, server.first_token.clone().unwrap());
    let served = tokio::spawn(server.run());
    let (mut under_way, mut idle) = (connect_bare(address).await, connect_bare(address).await);
    let body = r#"{"name": "bob"}"#;
    let (first, second) = body.split_at(5);
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: orchestrator:1\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    under_way.write_all(head.as_bytes()).await.unwrap();
    // The handler reads the body: from here on the request is under way.
    assert!(read_head(&mut under_way).await.starts_with("HTTP/1.1 100"));
    stop.cancel();
    // Whoever asks for nothing is let go at once: by then the server has heard of the stop.
    let ended = idle.read_u8().await;
    assert!(ended.is_err(), "{ended:?}");
    under_way.write_all(second.as_bytes()).await.unwrap();
    let answer = read_head(&mut under_way).await;
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 201"), "{answer}");
    served.await.unwrap().unwrap();

    let server = Server::start(options(data.path().join("data")), CancellationToken::new()).await.unwrap();
    let names: Vec<String> =
        server.store().tokens().await.unwrap().into_iter().map(|token| token.name).collect();
    assert_eq!(names, ["admin", "bob"]);
}

#[tokio::test]
async fn a_request_with_more_headers_than_anybody_needs_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let server = Server::start(options(data.path().join("data")), stop.clone()).await.unwrap();
    let address = server.address;
    let served = tokio::spawn(server.run());
    for (count, status) in [(64, "HTTP/1.1 200"), (65, "HTTP/1.1 431")] {
        let mut stream = connect_bare(address).await;
        let more: String = (1..count).map(|number| format!("x-{number}: y\r\n")).collect();
        let head = format!("GET /healthz HTTP/1.1\r\nhost: orchestrator:1\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_head(&mut stream).await;
        assert!(answer.starts_with(status), "{count} headers: {answer}");
    }
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_above_the_most_waits_until_one_ends() {
    let data = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let mut options = options(data.path().join("data"));
    options.connections_max = 1;
    let server = Server::start(options, stop.clone()).await.unwrap();
    let address = server.address;
    let served = tokio::spawn(server.run());
    let (mut first, _leaf) = connect(address).await;
    let second = tokio::spawn(connect(address));
    // The server has had every occasion to take the second one.
    for _ask in 0..50 {
        let answer = get(&mut first, "/healthz", None).await;
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok\n");
    }
    assert!(!second.is_finished(), "there were two at a time");
    drop(first);
    let (mut second, _leaf) = second.await.unwrap();
    assert_eq!(get(&mut second, "/healthz", None).await.status(), 200);
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_unreadable_run_stops_neither_a_start_nor_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(options(data.clone()), CancellationToken::new()).await.unwrap();
    let app = server.app();
    for id in ["r-good", "r-torn"] {
        let new = NewRun {
            id: id.parse().unwrap(),
            node: "n1".parse().unwrap(),
            node_is: Machine::default(),
            profile: Profile::parse(PROFILE).unwrap(),
            boot_token: Sha256Hex::of(id.as_bytes()),
            by: "admin".to_owned(),
            notify: Vec::new(),
        };
        app.create(new).await.unwrap();
    }
    let columns = RunColumns {
        node: "n1".parse().unwrap(),
        profile: "short".parse().unwrap(),
        state: State::FailedHolding,
        created: WallMs(1),
        updated: WallMs(1),
        ended: None,
        owes_notices: false,
        boot_token: Sha256Hex::of(b"r-torn"),
        run_token: None,
        packages: Vec::new(),
    };
    let torn = RunWrite {
        doc: Some((RunDoc::of("{}"), columns)),
        events: Vec::new(),
        audit: None,
        results: Vec::new(),
        tells_restored: false,
    };
    let landed = app.store.change_run("r-torn".parse().unwrap(), move |_| Ok::<_, ()>((torn, ()))).await;
    landed.unwrap().unwrap();
    app.store.close().await.unwrap();
    drop((app, server));

    let server = Server::start(options(data), CancellationToken::new()).await.unwrap();
    let app = server.app();
    assert!(app.live.get(&"r-good".parse().unwrap()).is_some());
    let listed = list(&app, None, None, None, 100).await.unwrap();
    let ids: Vec<&str> = listed.runs.iter().map(|run| run.run.as_str()).collect();
    assert_eq!(ids, ["r-good"]);
    assert_eq!(app.run(&"r-torn".parse().unwrap()).await.unwrap_err().status(), 500);
}

/// Notices that are due when the stop comes: more than a stop has room for where their sink is dead.
const DUE: usize = 16;

#[tokio::test]
async fn a_stop_gives_a_dead_sink_one_round_of_tries_however_much_it_is_owed() {
    // It takes connections, and answers none.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notify.toml");
    let address = dead.local_addr().unwrap();
    std::fs::write(
        &file,
        format!("[[sink]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"http://{address}/\"\n"),
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let bench = Bench::with(|options| options.notify = Some(file)).await;
    for number in 0..DUE {
        let agent = bench.make_agent(&format!("n{number}")).await;
        let input = Input::ShutsDown {
            claim: ClaimNumber(agent.claim),
            said: Shutdown::default(),
            fleet: vec!["ops".parse().unwrap()],
        };
        bench.app.advance(&agent.run.parse().unwrap(), input).await.unwrap();
    }
    let due = |app: &App| app.live.all().iter().map(|live| live.state().notices.len()).sum::<usize>();
    let app = bench.app.clone();
    assert_eq!(due(&app), DUE);
    bench.stop().await;
    assert_eq!(due(&app), DUE, "they wait for the next start");
    dead.set_nonblocking(true).unwrap();
    let asked = std::iter::from_fn(|| dead.accept().ok()).count();
    // A try takes all the time that is left, 5 s at most, and four are made at a time: by the pass that is under way, by the
    // stop itself, and one tells of the server's own end. Without a bound every notice is tried, four by four.
    assert!((1..=4 + 4 + 1).contains(&asked), "{asked} tries");
    assert_eq!(TRY_MS_MAX, 5_000);
}

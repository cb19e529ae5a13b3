//! The client against a real TLS server on loopback: whom it trusts, what it bounds, what it says.

mod support;

use std::time::Duration;

use groundcrew_client::{BaseUrl, Client, Error, PinSet};
use groundcrew_protocol::ids::{Sha256Hex, TokenText};
use http::Method;
use serde_json::{Value, json};
use support::{Identity, Server, Stream, answer, read_request, send};

const LIMIT: Duration = Duration::from_secs(60);

fn client(server: &Server, pins: impl IntoIterator<Item = Sha256Hex>) -> Client {
    let base: BaseUrl = format!("https://127.0.0.1:{}", server.port).parse().unwrap();
    Client::new(base, PinSet::new(pins), Some(TokenText::run([7; 32])))
}

/// Answers every request with its path, header and body.
async fn echo(mut stream: Stream) {
    while let Some((head, body)) = read_request(&mut stream).await {
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        answer(&mut stream, "200 OK", &json!({"head": head, "body": body}).to_string()).await;
    }
}

async fn echo_server(identity: &Identity) -> Server {
    Server::start(identity, identity, false, echo).await
}

/// A server that answers every request with the same bytes and closes the connection.
async fn rude_server(identity: &Identity, bytes: Vec<u8>) -> Server {
    let serve = move |mut stream: Stream| {
        let bytes = bytes.clone();
        async move {
            if read_request(&mut stream).await.is_some() {
                send(&mut stream, &bytes).await;
            }
        }
    };
    Server::start(identity, identity, false, serve).await
}

async fn get(client: &Client) -> Result<Value, Error> {
    client.get_json("/x", LIMIT).await
}

#[tokio::test]
async fn an_expired_certificate_for_another_name_counts_under_its_pin() {
    let identity = Identity::expired();
    let server = echo_server(&identity).await;
    let client = client(&server, [identity.pin()]);
    let found: Value = client.call(Method::POST, "/api/v1/x", &json!({"a": 1}), LIMIT).await.unwrap();
    assert_eq!(found["body"], json!({"a": 1}));
    let head = found["head"].as_str().unwrap();
    assert!(head.starts_with("POST /api/v1/x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{head}");
    assert!(head.contains(&format!("authorization: Bearer {}\r\n", TokenText::run([7; 32]))), "{head}");
}

#[tokio::test]
async fn a_wrong_pin_names_what_was_found_and_expected_and_sends_nothing() {
    let (identity, other) = (Identity::expired(), Identity::expired());
    let server = echo_server(&identity).await;
    let error = get(&client(&server, [other.pin()])).await.unwrap_err();
    assert!(!error.is_retried_quickly());
    let text = error.to_string();
    assert!(text.contains(identity.pin().as_str()) && text.contains(other.pin().as_str()), "{text}");
    let Error::WrongPin { found, expected, .. } = error else { panic!("{error:?}") };
    assert_eq!((found, expected), (identity.pin(), vec![other.pin()]));
    assert_eq!(server.connections(), 0);
    assert!(matches!(get(&client(&server, [])).await, Err(Error::WrongPin { .. })));
}

#[tokio::test]
async fn the_second_pin_counts_and_a_replaced_list_counts_for_the_next_connection() {
    let (identity, other) = (Identity::expired(), Identity::expired());
    let server = echo_server(&identity).await;
    let client = client(&server, [other.pin(), identity.pin()]);
    get(&client).await.unwrap();
    client.pins().replace([other.pin()]);
    get(&client).await.expect("a connection that stands goes on");
    client.disconnect();
    assert!(matches!(get(&client).await, Err(Error::WrongPin { .. })));
    client.pins().replace([identity.pin()]);
    get(&client).await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_the_certificate_but_not_its_key_is_refused() {
    let (identity, thief) = (Identity::expired(), Identity::expired());
    let server = Server::start(&identity, &thief, false, echo).await;
    let error = get(&client(&server, [identity.pin()])).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. }), "{error:?}");
    assert!(error.chain().contains("BadSignature"), "{}", error.chain());
    // The same with the right key, so that the refusal above is about the key.
    let server = Server::start(&identity, &identity, false, echo).await;
    get(&client(&server, [identity.pin()])).await.unwrap();
}

/// Whatever this program's rustls was built with: the client names suites of TLS 1.3 alone.
#[tokio::test]
async fn a_server_that_speaks_an_older_tls_alone_is_refused() {
    let identity = Identity::expired();
    let server = Server::start(&identity, &identity, true, echo).await;
    let error = get(&client(&server, [identity.pin()])).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. }), "{error:?}");
    assert!(error.chain().contains("ProtocolVersion"), "{}", error.chain());
}

#[tokio::test]
async fn calls_share_a_connection_and_a_closed_one_is_opened_anew() {
    let identity = Identity::expired();
    let server = echo_server(&identity).await;
    let client = client(&server, [identity.pin()]);
    for _ in 0..5 {
        get(&client).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    let (one, two) = tokio::join!(get(&client), get(&client));
    one.unwrap();
    two.unwrap();
    assert_eq!(server.connections(), 2);
    get(&client).await.unwrap();
    assert_eq!(server.connections(), 2);

    // One answer a connection, each of which looks as if it were kept.
    let once = Server::start(&identity, &identity, false, |mut stream: Stream| async move {
        read_request(&mut stream).await.unwrap();
        answer(&mut stream, "200 OK", "1").await;
    })
    .await;
    let client = self::client(&once, [identity.pin()]);
    for count in 1..=5 {
        assert_eq!(get(&client).await.unwrap(), json!(1));
        assert_eq!(once.connections(), count);
    }
}

#[tokio::test]
async fn refusals_carry_their_words_and_say_how_soon_to_ask_again() {
    let identity = Identity::expired();
    let refuse = |status: &'static str, body: &'static str| {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        rude_server(&identity, text.into_bytes())
    };
    let own = r#"{"error":"claim 2 holds this run","code":"old_claim","claim":2}"#;
    let server = refuse("409 Conflict", own).await;
    let error = get(&client(&server, [identity.pin()])).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(409), "old_claim"));
    assert!(error.is_retried_quickly());
    assert!(error.to_string().contains("claim 2 holds this run"), "{error}");

    let server = refuse("502 Bad Gateway", "<html>\x1b[31mproxy</html>").await;
    let error = get(&client(&server, [identity.pin()])).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(502), "unexplained"));
    assert!(error.to_string().contains("<html>[31mproxy"), "{error}");

    let found = [
        ("400 x", true),
        ("401 x", false),
        ("403 x", false),
        ("404 x", false),
        ("410 x", false),
        ("413 x", true),
        ("422 x", true),
        ("429 x", true),
        ("500 x", true),
        ("507 x", true),
    ];
    for (status, quickly) in found {
        let server = refuse(status, "").await;
        let error = get(&client(&server, [identity.pin()])).await.unwrap_err();
        assert_eq!(error.is_retried_quickly(), quickly, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let identity = Identity::expired();
    let text = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let server = rude_server(&identity, text.to_vec()).await;
    assert_eq!(get(&client(&server, [identity.pin()])).await.unwrap_err().status(), Some(302));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_is_too_large_or_no_answer_at_all_is_said() {
    let identity = Identity::expired();
    let ask = async |bytes: Vec<u8>| {
        let server = rude_server(&identity, bytes).await;
        get(&client(&server, [identity.pin()]).with_answer_bytes_max(100)).await.unwrap_err()
    };
    let announced = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".to_vec()).await;
    assert!(matches!(announced, Error::AnswerTooLarge { bytes_max: 100, .. }), "{announced:?}");
    let chunk = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{}\r\n", "1".repeat(101));
    let unannounced = ask(chunk.into_bytes()).await;
    assert!(matches!(unannounced, Error::AnswerTooLarge { bytes_max: 100, .. }), "{unannounced:?}");
    let cut = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"a\"".to_vec()).await;
    assert!(matches!(cut, Error::Broken { .. }), "{cut:?}");
    let garbage = ask(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await;
    assert!(matches!(garbage, Error::Broken { .. }), "{garbage:?}");
    let silent = ask(Vec::new()).await;
    assert!(matches!(silent, Error::Broken { .. }), "{silent:?}");
    let headers = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(20_000));
    let headers = ask(headers.into_bytes()).await;
    assert!(matches!(headers, Error::Broken { .. }), "{headers:?}");
    let text = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
    assert!(matches!(text, Error::BadAnswer { .. }), "{text:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out() {
    let identity = Identity::expired();
    let silent = |mut stream: Stream| async move {
        while read_request(&mut stream).await.is_some() {}
        std::future::pending::<()>().await;
    };
    let server = Server::start(&identity, &identity, false, silent).await;
    let client = client(&server, [identity.pin()]);
    let error = client.get_json::<Value>("/x", Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after_ms: 200, .. }), "{error:?}");
    assert!(error.is_retried_quickly());
    // One that takes the connection and never speaks TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client = Client::new(base, PinSet::new([identity.pin()]), None);
    let error = client.get_json::<Value>("/x", Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_at_the_port_is_a_connect_error() {
    // Bound, so that nobody else is given the port, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("https://{}", socket.local_addr().unwrap()).parse().unwrap();
    let client = Client::new(base, PinSet::new([]), None);
    let error = get(&client).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_retried_quickly(), "{error:?}");
}

#[tokio::test]
async fn events_are_followed_from_an_id_on() {
    let identity = Identity::expired();
    let server = Server::start(&identity, &identity, false, |mut stream: Stream| async move {
        let (head, _) = read_request(&mut stream).await.unwrap();
        assert!(head.contains("last-event-id: 41\r\n"), "{head}");
        send(&mut stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        send(&mut stream, b"11\r\nid: 42\ndata: {}\n\n\r\n2\r\n:\n\r\n").await;
        send(&mut stream, b"8\r\ndata: a\n\r\n1\r\n\n\r\n0\r\n\r\n").await;
    })
    .await;
    let client = client(&server, [identity.pin()]);
    let mut events = client.events("/x", Some("41"), LIMIT).await.unwrap();
    let first = events.next(LIMIT).await.unwrap().unwrap();
    assert_eq!((first.id.as_str(), first.data.as_str()), ("42", "{}"));
    assert_eq!(events.next(LIMIT).await.unwrap().unwrap().data, "a");
    assert!(events.next(LIMIT).await.unwrap().is_none());
}

#[tokio::test]
async fn a_token_is_not_in_what_is_shown_of_a_client() {
    let base = "https://127.0.0.1:1".parse().unwrap();
    let client = Client::new(base, PinSet::new([]), Some(TokenText::run([7; 32])));
    assert!(!format!("{client:?}").contains("0707"), "{client:?}");
    let error = client.get_json::<Value>("/a b", LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Unsendable { .. }), "{error:?}");
}

#[tokio::test]
async fn whatever_an_answer_is_about_its_header_announces_the_next_certificate() {
    let (identity, next) = (Identity::expired(), Identity::expired().pin());
    let both = vec![identity.pin(), next.clone()];
    let said = format!("{},{}", both[0], both[1]);
    let heads = [
        ("200 OK", said.as_str(), Some(&both)),
        ("409 Conflict", &said, Some(&both)),
        ("503 Service Unavailable", &said, Some(&both)),
        ("200 OK", "", None),
        ("200 OK", "something newer", None),
    ];
    for (status, said, expected) in heads {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\ngroundcrew-pins: {said}\r\n\r\n{{}}");
        let server = rude_server(&identity, text.into_bytes()).await;
        let asks = client(&server, [identity.pin()]);
        for call in 0..3 {
            // What one client is told is known to all with the same list.
            let client = Client::new(asks.base().clone(), PinSet::new([identity.pin()]), None);
            let announced = client.pins().announced();
            let _answer_or_refusal = match call {
                0 => get(&client).await.err(),
                1 => client.events("/x", None, LIMIT).await.err(),
                _ => client.download("/x", 0, LIMIT).await.err(),
            };
            assert_eq!(announced.has_changed().unwrap(), expected.is_some(), "{status} {said:?} {call}");
            assert_eq!(*announced.borrow(), *expected.unwrap_or(&Vec::new()));
            // It is for others to decide whether they count.
            assert_eq!(client.pins().list(), [identity.pin()]);
        }
        let shared = asks.pins().clone();
        let _answer_or_refusal = get(&asks).await;
        assert_eq!(shared.announced().borrow().is_empty(), expected.is_none());
    }
}

/// All of a download from a byte on: where it began, how much the whole is, and what came.
async fn downloaded(client: &Client, from: u64) -> Result<(u64, u64, Vec<u8>), Error> {
    let mut download = client.download("/large", from, LIMIT).await?;
    let (began, whole, mut all) = (download.from(), download.whole(), Vec::new());
    while let Some(bytes) = download.next(LIMIT).await? {
        all.extend_from_slice(&bytes);
    }
    Ok((began, whole, all))
}

#[tokio::test]
async fn a_download_begins_where_it_is_asked_to_and_says_when_it_was_torn() {
    let identity = Identity::expired();
    let server = Server::start(&identity, &identity, false, |mut stream: Stream| async move {
        let (head, _body) = read_request(&mut stream).await.unwrap();
        let range = head.lines().find_map(|line| line.strip_prefix("range: ")).unwrap_or("none");
        let (status, more, body) = match range {
            "none" => ("200 OK", "", "0123456789"),
            "bytes=4-" => ("206 Partial Content", "content-range: bytes 4-9/10\r\n", "456789"),
            "bytes=5-" => ("206 Partial Content", "content-range: bytes 4-9/10\r\n", "456789"),
            "bytes=6-" => ("206 Partial Content", "content-range: bytes 6-9/10\r\n", "67"),
            _ => ("416 Range Not Satisfiable", "", r#"{"error": "no", "code": "range"}"#),
        };
        // The one from byte 6 on is torn.
        let length = if range == "bytes=6-" { 4 } else { body.len() };
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{more}\r\n{body}");
        send(&mut stream, text.as_bytes()).await;
    })
    .await;
    let client = client(&server, [identity.pin()]);
    assert_eq!(downloaded(&client, 0).await.unwrap(), (0, 10, b"0123456789".to_vec()));
    assert_eq!(downloaded(&client, 4).await.unwrap(), (4, 10, b"456789".to_vec()));
    let other = downloaded(&client, 5).await.unwrap_err();
    assert!(matches!(&other, Error::OtherPart { asked: 5, .. }) && other.is_retried_quickly(), "{other:?}");
    let torn = downloaded(&client, 6).await.unwrap_err();
    assert!(matches!(torn, Error::Broken { .. }) && torn.is_retried_quickly(), "{torn:?}");
    let past = downloaded(&client, 10).await.unwrap_err();
    assert_eq!((past.status(), past.code()), (Some(416), "range"));
}

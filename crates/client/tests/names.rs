//! Names looked up by a DNS server of the test's own on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use groundcrew_client::{Names, ResolveError};
use tokio::net::UdpSocket;

/// What the server sends back for a question, as whole datagrams.
type Answers = fn(question: &[u8]) -> Vec<Vec<u8>>;

struct Fixture {
    names: Names,
    _folder: tempfile::TempDir,
}

async fn fixture(hosts: &str, resolv_conf: &str, answers: Answers) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let (hosts_path, conf_path) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    std::fs::write(&hosts_path, hosts).unwrap();
    std::fs::write(&conf_path, resolv_conf).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answers(&buffer[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    let answer_wait = Duration::from_secs(60);
    let names = Names { hosts: hosts_path, resolv_conf: conf_path, port, answer_wait };
    Fixture { names, _folder: folder }
}

/// The question turned into an answer with these flags and, for a question of kind A, this address.
fn answered(question: &[u8], flags: u16, address: Option<[u8; 4]>) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    let is_a = question[question.len() - 3] == 1;
    if let Some(address) = address.filter(|_| is_a) {
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address);
    }
    message
}

fn asks_for(question: &[u8], name: &str) -> bool {
    let wire: Vec<u8> =
        name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    question[12..].starts_with(&wire)
}

const SERVER: &str = "nameserver 127.0.0.1\n";

#[tokio::test]
async fn a_forged_answer_is_passed_over_and_the_real_one_counts() {
    let fixture = fixture("", SERVER, |question| {
        let mut forged = answered(question, 0x8180, Some([6, 6, 6, 6]));
        forged[0] ^= 0xff;
        let mut other_name = answered(question, 0x8180, Some([6, 6, 6, 6]));
        other_name[13] ^= 0x01;
        vec![forged, other_name, b"x".to_vec(), answered(question, 0x8180, Some([10, 1, 2, 3]))]
    })
    .await;
    assert_eq!(fixture.names.look_up("gc.lab").await.unwrap(), [IpAddr::from([10, 1, 2, 3])]);
}

#[tokio::test]
async fn a_search_domain_is_tried_and_a_name_that_is_nowhere_is_said() {
    let fixture = fixture("", "search a.lab b.lab\nnameserver 127.0.0.1\n", |question| {
        let found = asks_for(question, "gc.b.lab").then_some([10, 0, 0, 9]);
        vec![answered(question, if found.is_some() { 0x8180 } else { 0x8183 }, found)]
    })
    .await;
    assert_eq!(fixture.names.look_up("gc").await.unwrap(), [IpAddr::from([10, 0, 0, 9])]);
    let error = fixture.names.look_up("nobody").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoSuchName { .. }), "{error:?}");
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_localhost_needs_nobody() {
    let refuse: Answers = |question| vec![answered(question, 0x8182, None)];
    let fixture = fixture("10.0.0.1 gc.lab\n", SERVER, refuse).await;
    assert_eq!(fixture.names.look_up("gc.lab").await.unwrap(), [IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(fixture.names.look_up("localhost").await.unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    let error = fixture.names.look_up("other.lab").await.unwrap_err();
    assert!(matches!(&error, ResolveError::BadAnswer { what, .. } if what.contains("RCODE 2")), "{error:?}");
}

#[tokio::test]
async fn silence_truncation_and_no_server_are_told_apart() {
    let mut silent = fixture("", SERVER, |_| Vec::new()).await;
    silent.names.answer_wait = Duration::from_millis(500);
    let error = silent.names.look_up("gc.lab").await.unwrap_err();
    assert!(matches!(error, ResolveError::Timeout { after_ms: 500, .. }), "{error:?}");
    let cut = fixture("", SERVER, |question| vec![answered(question, 0x8380, None)]).await;
    let error = cut.names.look_up("gc.lab").await.unwrap_err();
    assert!(
        matches!(&error, ResolveError::BadAnswer { what, .. } if what.contains("truncated")),
        "{error:?}"
    );
    let none = fixture("", "# nothing\n", |_| Vec::new()).await;
    let error = none.names.look_up("gc.lab").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoServer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_second_server_answers_where_the_first_does_not() {
    // Nothing listens at 127.0.0.2 on the port of the first.
    let two = fixture("", "nameserver 127.0.0.2\nnameserver 127.0.0.1\n", |question| {
        vec![answered(question, 0x8180, Some([10, 0, 0, 4]))]
    })
    .await;
    assert_eq!(two.names.look_up("gc.lab").await.unwrap(), [IpAddr::from([10, 0, 0, 4])]);
}

//! Machines that ask for a drain over loopback HTTP, with a secret.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use groundcrew_tests::harness::Process;
use serde_json::Value;

use crate::drain_commands::{Alone, agent};

const SECRET: &str = "f3c1d529a774be18b0d2f7c5a1e9d340f3c1d529";

/// Sends a request; status and body.
fn ask(address: &str, line: &str, secret: Option<&str>, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let bearer = secret.map(|secret| format!("authorization: Bearer {secret}\r\n")).unwrap_or_default();
    write!(stream, "{line} HTTP/1.1\r\nhost: a\r\n{bearer}content-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_machine_with_the_secret_drains_and_nobody_else_does() {
    let mut alone = Alone::new();
    let secret = alone.beside("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    alone.start(&[
        ("GROUNDCREW_DRAIN_LISTEN", "127.0.0.1:0"),
        ("GROUNDCREW_DRAIN_SECRET_FILE", secret.to_str().unwrap()),
    ]);
    let line = alone.agent().wait_for_line("drains may be asked for at ");
    let address = line.rsplit(' ').next().unwrap().to_owned();
    let status = || ask(&address, "GET /api/status", Some(SECRET), "");
    assert_eq!(status().1["gateway_state"], "starting");

    let post = "POST /api/gateway/drain";
    let begin = r#"{"action": "begin", "suppress_notification": true}"#;
    for wrong in [None, Some(""), Some("f3c1"), Some(&SECRET[1..])] {
        assert_eq!(ask(&address, post, wrong, begin).0, 401, "{wrong:?}");
        assert_eq!(ask(&address, "GET /api/status", wrong, "").0, 401, "{wrong:?}");
    }
    assert!(!alone.marker().exists());
    let (code, answer) = ask(&address, post, Some(SECRET), begin);
    assert_eq!(
        (code, &answer["suppress_notification"], &answer["action"]),
        (200, &true.into(), &"begin".into())
    );
    assert_eq!(answer["status"]["gateway_state"], "draining");
    assert_eq!(answer["status"]["drain"]["principal"], "drain-control");
    let (code, answer) = ask(&address, post, Some(SECRET), r#"{"action": "cancel"}"#);
    assert_eq!((code, &answer["status"]["drain"]["draining"]), (200, &false.into()), "{answer}");
    for (line, body, code) in [
        (post, r#"{"action": "dance"}"#, 400),
        (post, "", 400),
        (post, r#"{"action": "begin", "principal": "a\nb"}"#, 400),
        ("GET /api/gateway/drain", "", 405),
        ("GET /", "", 404),
    ] {
        assert_eq!(ask(&address, line, Some(SECRET), body).0, code, "{line} {body}");
    }
    // It may be replaced while the agent runs; where it cannot be checked, nobody is let in.
    let other = SECRET.replace('f', "e");
    std::fs::write(&secret, &other).unwrap();
    assert_eq!((status().0, ask(&address, "GET /api/status", Some(&other), "").0), (401, 200));
    for weak in [None, Some("weak")] {
        match weak {
            Some(text) => std::fs::write(&secret, text).unwrap(),
            None => std::fs::remove_file(&secret).unwrap(),
        }
        let (code, answer) = ask(&address, "GET /api/status", Some("weak"), "");
        assert_eq!(code, 503, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("the secret cannot be checked"), "{answer}");
    }
    let mode = std::fs::metadata(alone.home().join("agent.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(alone.agent().stop().success());
    assert!(!alone.home().join("agent.sock").exists());
}

#[test]
fn an_agent_with_a_weak_secret_or_an_open_address_does_not_start() {
    let alone = Alone::new();
    let secret = alone.beside("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let secret = secret.to_str().unwrap();
    for (listen, file, part) in [
        ("127.0.0.1:0", Some(secret), "found 7 bytes"),
        ("127.0.0.1:0", Some("/nowhere/secret"), "no such file"),
        ("127.0.0.1:0", None, "drain-secret-file"),
        ("0.0.0.0:7070", Some(secret), "a loopback address"),
    ] {
        let mut command = agent(&alone.home());
        command.env("GROUNDCREW_DRAIN_LISTEN", listen);
        if let Some(file) = file {
            command.env("GROUNDCREW_DRAIN_SECRET_FILE", file);
        }
        let mut process = Process::start("agent", &mut command);
        let status = process.wait();
        let said = process.lines().join("\n");
        assert!(!status.success() && said.contains(part), "{listen} {file:?}: {status} {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

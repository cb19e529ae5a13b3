//! `groundcrewctl` against a scripted server: one that breaks off in the middle of `run watch` and `run logs`, and one that
//! answers what concerns no single run.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use groundcrew_protocol::ids::Sha256Hex;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the server answers to the n-th question for something: a body, and for a stream its end.
type Script = Arc<dyn Fn(&str, usize) -> (u16, String) + Send + Sync>;

struct Server {
    url: String,
    pin: Sha256Hex,
    heads: Arc<Mutex<Vec<String>>>,
}

/// Answers each request with what the script says of its path, and closes the connection.
async fn serve(script: Script) -> Server {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["lab".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let pin = Sha256Hex::of(&certificate);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, script, seen) = (acceptor.clone(), script.clone(), seen.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    answer(stream, script, seen).await;
                }
            });
        }
    });
    Server { url, pin, heads }
}

async fn answer(mut stream: TlsStream<TcpStream>, script: Script, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let count = {
        let mut seen = seen.lock().unwrap();
        let count = seen.iter().filter(|one| one.split(' ').nth(1) == Some(&path)).count();
        seen.push(head);
        count
    };
    let (code, body) = script(&path, count);
    let kind = if path.ends_with("/events") { "text/event-stream" } else { "application/json" };
    let text = format!("HTTP/1.1 {code} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}");
    // The client may have seen enough already.
    let _gone = stream.write_all(text.as_bytes()).await;
    let _gone = stream.shutdown().await;
}

fn view(state: &str) -> String {
    json!({"run": "r-1", "node": "n1", "profile": "p", "state": state, "stage": "Inventory", "attempt": 1,
        "verdict": null, "reason": "a disk is missing", "wait": null, "agent": "running", "created": 0, "ended": null,
        "stages": [], "claim": 1, "ip": "", "last_heard": 0, "activity": "", "skew_ms": null, "gaps": [],
        "directives": []})
    .to_string()
}

fn event(id: u64, kind: &str, state: &str) -> String {
    let event = json!({"id": id, "run": "r-1", "at": 0, "kind": kind, "actor": "orchestrator",
        "text": format!("words of {id}"), "state": state});
    format!("id: {id}\nevent: event\ndata: {event}\n\n")
}

fn named(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn command(server: &Server, arguments: &[&str]) -> tokio::process::Command {
    let token = format!("gco_{}", "ab".repeat(32));
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_groundcrewctl"));
    command
        .args(arguments)
        .env("GROUNDCREW_URL", &server.url)
        .env("GROUNDCREW_FPR", server.pin.as_str())
        .env("GROUNDCREW_OPERATOR_TOKEN", token)
        .env("HOME", "/no/home")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null());
    command
}

async fn ctl(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(server, arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_where_it_was_broken_off() {
    let agent = || named("agent", &json!({"agent": "running", "activity": "", "drain": ""}));
    let script = move |path: &str, count: usize| match (path, count) {
        ("/api/v1/runs/r-1/events", 0) => {
            (200, event(3, "created", "InventoryCheck") + &event(7, "claimed", "InventoryCheck") + &agent())
        }
        ("/api/v1/runs/r-1/events", 1) => (503, json!({"error": "not now", "code": "not_now"}).to_string()),
        ("/api/v1/runs/r-1/events", _) => {
            (200, event(7, "claimed", "InventoryCheck") + &event(9, "completed", "Completed") + &agent())
        }
        ("/api/v1/runs/r-1", 0 | 1) => (200, view("InventoryCheck")),
        _ => (200, view("Completed")),
    };
    let server = serve(Arc::new(script)).await;
    let (code, stdout, stderr) = ctl(&server, &["run", "watch", "r-1"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let said: Vec<&str> = stdout.lines().filter_map(|line| line.split("words of ").nth(1)).collect();
    assert_eq!(said, ["3", "7", "9"], "each once and in order:\n{stdout}");
    assert_eq!(stdout.matches("Connection lost").count(), 1, "{stdout}");
    assert!(stdout.contains("Connected again.") && stdout.ends_with("Completed\n"), "{stdout}");
    let heads = server.heads.lock().unwrap();
    let asked: Vec<bool> = heads
        .iter()
        .filter(|head| head.contains("/events "))
        .map(|head| head.contains("last-event-id: 7\r\n"))
        .collect();
    assert_eq!(asked, [false, true, true]);
}

/// What comes behind the end is shown; what goes wrong behind it changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_the_last_lines_and_keeps_to_the_end_that_it_knows() {
    let line = json!({"ts": "t", "level": "info", "stage": "Inventory", "text": "the last line"});
    let log = named("log", &json!({"stage": "Inventory", "lines": [line]}));
    let agent = named("agent", &json!({"agent": "ended", "activity": "", "drain": ""}));
    let unclear = named("log", &json!({"stage": "Inventory", "lines": "none"}));
    let unclear_view = "[]".to_owned();
    for (behind, (code, view_at_last), texts) in [
        (String::new(), (200, view("Completed")), &["9"][..]),
        (event(10, "late", "Completed"), (200, view("Completed")), &["9", "10"]),
        (
            event(10, "late", "Completed"),
            (503, json!({"error": "not now", "code": "x"}).to_string()),
            &["9", "10"],
        ),
        (event(10, "late", "Completed"), (200, unclear_view), &["9", "10"]),
        (unclear, (200, view("Completed")), &["9"]),
    ] {
        let stream = event(9, "completed", "Completed") + &agent + &log + &behind;
        let script = move |path: &str, count: usize| match (path, count) {
            ("/api/v1/runs/r-1/events", _) => (200, stream.clone()),
            // The one at first, and the one that is asked for once the history is told.
            (_, 0 | 1) => (200, view("Completed")),
            _ => (code, view_at_last.clone()),
        };
        let server = serve(Arc::new(script)).await;
        let (exit, stdout, stderr) = ctl(&server, &["run", "watch", "r-1"]).await;
        assert_eq!(exit, Some(0), "{behind}: {stdout}{stderr}");
        assert!(stdout.contains("Inventory | the last line\n"), "{behind}: {stdout}");
        assert!(stdout.ends_with("Completed\n") && !stdout.contains("Connection"), "{behind}: {stdout}");
        let said: Vec<&str> = stdout.lines().filter_map(|line| line.split("words of ").nth(1)).collect();
        assert_eq!(said, texts, "{behind}: {stdout}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_meets_a_hold_says_why_and_fails() {
    let script = |path: &str, _count: usize| {
        let agent = named("agent", &json!({"agent": "holding", "activity": "", "drain": ""}));
        let events = path.ends_with("/events");
        (200, if events { event(1, "held", "FailedHolding") + &agent } else { view("FailedHolding") })
    };
    let server = serve(Arc::new(script)).await;
    let (code, stdout, stderr) = ctl(&server, &["run", "watch", "r-1"]).await;
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("The run is held at Inventory. A disk is missing."), "{stdout}");
    assert!(!stdout.contains("Completed"), "{stdout}");
    let (code, stdout, _) = ctl(&server, &["run", "watch", "r-1", "--json"]).await;
    assert_eq!(code, Some(1));
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["kind"], "held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_page_by_page_to_its_end() {
    let script = |path: &str, _count: usize| {
        let line = |text: &str| json!({"ts": "t", "level": "info", "stage": "Inventory", "text": text});
        let page = if path.contains("after=1.0") {
            json!({"lines": [line("second\u{1b}[2J")], "next": "2.0", "at_end": true})
        } else {
            json!({"lines": [line("first")], "next": "1.0", "at_end": false})
        };
        (200, page.to_string())
    };
    let server = serve(Arc::new(script)).await;
    let (code, stdout, stderr) = ctl(&server, &["run", "logs", "r-1", "--stage", "Inventory"]).await;
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "t info  Inventory first\nt info  Inventory second [2J\n"),
        "{stderr}"
    );
    assert!(server.heads.lock().unwrap().iter().all(|head| head.contains("stage=inventory")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_what_the_orchestrator_said_and_a_refusal_is_its_words() {
    let said = r#"{"nodes":[{"name":"n1","serial":null,"macs":[],"labels":{},"newer":1.10}],"next":null}"#;
    let script = move |path: &str, _count: usize| match path {
        "/api/v1/nodes" => (200, said.to_owned()),
        _ => (409, json!({"error": "retry needs a held run", "code": "order"}).to_string()),
    };
    let server = serve(Arc::new(script)).await;
    let (code, stdout, _) = ctl(&server, &["node", "list", "--json"]).await;
    assert_eq!((code, stdout), (Some(0), format!("{said}\n")));
    let (code, _, stderr) = ctl(&server, &["run", "retry", "r-1"]).await;
    assert_eq!((code, stderr.as_str()), (Some(1), "groundcrewctl: retry needs a held run (409)\n"));
    let (code, _, stderr) = ctl(&server, &["run", "retry", "r_1"]).await;
    assert_eq!(code, Some(64), "{stderr}");
    // A failure is JSON too, where that was asked for.
    for (words, exit, wanted) in [
        (&["run", "retry", "r-1", "--json"][..], 1, json!(["order", 409])),
        (&["--json", "run", "retry", "r_1"], 64, json!(["usage", null])),
        (&["profile", "put", "/no/such/file", "--json"], 1, json!(["failed", null])),
        (&["node", "list", "--json", "--context", "/no/such/file"], 64, json!(["usage", null])),
    ] {
        let (code, stdout, stderr) = ctl(&server, words).await;
        assert_eq!((code, stdout.as_str()), (Some(exit), ""), "{words:?}: {stderr}");
        let said: Value = serde_json::from_str(&stderr).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        assert_eq!(json!([said["code"], said["status"]]), wanted, "{words:?}: {stderr}");
        assert!(!said["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_concerns_no_single_run_is_shown_and_artifacts_are_fetched_to_the_byte() {
    let pin = "ab".repeat(32);
    let certificate = json!({"fingerprint": pin, "next": "cd".repeat(32), "waiting_for": ["r-1", "r-2"]});
    let script = move |path: &str, _count: usize| {
        let body = match path {
            "/api/v1/certificate" => certificate.to_string(),
            "/api/v1/tasks" => json!([{"name": "deadlines", "healthy": false, "said": "no disk", "passes": 7,
                "failures": 2, "last": 0}])
            .to_string(),
            "/api/v1/audit?after=9&limit=1" => {
                json!({"rows": [{"id": 8, "at": 0, "actor": "ann", "action": "override",
                "run": "r-1", "text": "known\u{1b}[2J cable"}], "next": 8})
                .to_string()
            }
            "/api/v1/runs/r-1/artifacts" => {
                json!([{"stage": "CPUStress", "attempt": 2, "name": "stress-ng.yaml",
                "sha256": "ab".repeat(32), "bytes": 3, "at": 0}])
                .to_string()
            }
            "/api/v1/runs/r-1/artifact?stage=cpustress&attempt=2&name=a%2fb" => "a\u{1b}b".to_owned(),
            "/api/v1/hold-key" => json!({"authorized_key": "ssh-ed25519 AAAA ann"}).to_string(),
            "/api/v1/tokens" => "[]".to_owned(),
            "/api/v1/runs/r-1" | "/api/v1/nodes/n1" | "/api/v1/profiles/p" | "/api/v1/tokens/ann" => {
                String::new()
            }
            "/api/v1/profiles/shown" => "name = \"shown\"\n".to_owned(),
            other => panic!("{other}"),
        };
        (200, body)
    };
    let server = serve(Arc::new(script)).await;
    for (words, said) in [
        (&["certificate"][..], &["Served: abab", "Next:   cdcd", "of 2 runs: r-1 r-2"][..]),
        (&["tasks"], &["deadlines", "no disk", " 7", " 2"]),
        (&["audit", "--after", "9", "--limit", "1"], &["ann", "override", "known [2J cable", "--after 8"]),
        (&["artifact", "list", "r-1"], &["CPUStress", "stress-ng.yaml", "1970-01-01"]),
        (&["hold-key", "show"], &["ssh-ed25519 AAAA ann"]),
        (&["run", "delete", "r-1"], &["Run r-1 is deleted."]),
        (&["node", "delete", "n1"], &["Node n1 is deleted."]),
        (&["profile", "delete", "p"], &["Profile p is deleted."]),
        (&["profile", "delete", "p", "--json"], &["{\"deleted\":\"profile\",\"name\":\"p\"}\n"]),
        (&["token", "revoke", "ann", "--json"], &["{\"revoked\":\"ann\"}\n"]),
        (&["profile", "show", "shown"], &["name = \"shown\"\n"]),
        (&["profile", "show", "shown", "--json"], &["\"toml\":\"name = \\\"shown\\\"\\n\""]),
    ] {
        let (code, stdout, stderr) = ctl(&server, words).await;
        assert_eq!(code, Some(0), "{words:?}: {stderr}");
        for part in said {
            assert!(stdout.contains(part), "{words:?} does not say {part:?}: {stdout}");
        }
    }
    let get = ["artifact", "get", "r-1", "CPUStress", "2", "a/b"];
    assert_eq!(ctl(&server, &get).await.1, "a\u{1b}b", "a pipe gets what the tool wrote, to the byte");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let (code, ..) = ctl(&server, &[&get[..], &["--output", path.to_str().unwrap()]].concat()).await;
    assert_eq!((code, std::fs::read(&path).unwrap()), (Some(0), b"a\x1bb".to_vec()));
    let heads = server.heads.lock().unwrap();
    let deleted = heads.iter().filter(|head| head.starts_with("delete ")).count();
    assert_eq!(deleted, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_revokes_the_token_of_his_own_call_is_warned() {
    for (after, is_own) in [
        ((200, "[]".to_owned()), false),
        ((401, json!({"error": "no such token", "code": "token"}).to_string()), true),
        // Whatever else goes wrong says nothing of the token.
        ((503, json!({"error": "not now", "code": "not_now"}).to_string()), false),
    ] {
        let script = move |path: &str, _count: usize| match path {
            "/api/v1/tokens" => after.clone(),
            _ => (204, String::new()),
        };
        let server = serve(Arc::new(script)).await;
        for words in [&["token", "revoke", "ann"][..], &["token", "revoke", "ann", "--json"]] {
            let (code, stdout, stderr) = ctl(&server, words).await;
            assert_eq!((code, stdout.contains("ann")), (Some(0), true), "{stdout}{stderr}");
            assert_eq!(stderr.contains("that was the token of this very call"), is_own, "{stderr}");
        }
    }
}

/// As `groundcrewctl … | head -0` has it, and with `2>&1` too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_closes_the_pipe_has_read_enough_but_of_a_run_that_is_followed() {
    let script = |path: &str, _count: usize| {
        let body = match path {
            "/api/v1/nodes" => json!({"nodes": [], "next": null}).to_string(),
            "/api/v1/runs" => json!({"runs": [], "next": null}).to_string(),
            "/api/v1/runs/r-1/events" => {
                event(1, "completed", "Completed")
                    + &named("agent", &json!({"agent": "offline", "activity": ""}))
            }
            "/api/v1/runs/r-1/logs?limit=5000" => {
                let line = json!({"ts": "t", "level": "info", "stage": "Inventory", "text": "a line"});
                json!({"lines": [line], "next": "1.0", "at_end": true}).to_string()
            }
            _ => view("Completed"),
        };
        (200, body)
    };
    let server = serve(Arc::new(script)).await;
    for (words, exit) in [
        (&["node", "list"][..], 0),
        (&["node", "list", "--json"], 0),
        (&["run", "list"], 0),
        (&["run", "show", "r-1"], 0),
        (&["run", "why", "r-1"], 0),
        (&["run", "logs", "r-1"], 0),
        (&["run", "logs", "r-1", "--json"], 0),
        (&["node", "delete", "n1", "--json"], 0),
        (&["--help"], 0),
        // How it ended is what this status says, and that is not known.
        (&["run", "watch", "r-1"], 141),
        (&["run", "watch", "r-1", "--json"], 141),
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        // Not `output()`, which would set a pipe of its own.
        let started = command(&server, words).stdout(closed()).stderr(Stdio::piped()).spawn().unwrap();
        let output = started.wait_with_output().await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(exit), ""), "{words:?}");
        let both = command(&server, words).stdout(closed()).stderr(closed()).status().await.unwrap();
        assert_eq!(both.code(), Some(exit), "{words:?} with standard error closed, too");
    }
    let wrong =
        command(&server, &["run", "show", "r_1"]).stderr(std::io::pipe().unwrap().1).status().await.unwrap();
    assert_eq!(wrong.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_holds_are_listed_taken_away_and_fetched() {
    let script = |path: &str, _count: usize| {
        let body = match path {
            "/api/v1/hold-keys" => json!({"keys": [{"name": "ann", "authorized_key": "ssh-ed25519 BBBB"}]}),
            "/api/v1/hold-keys/ben" => json!({}),
            "/api/v1/runs/r-1/hold-key" => {
                json!({"run": "r-1", "private_key": "the private half\n", "public_key": "ssh-ed25519 C", "expires_at": 0})
            }
            other => panic!("{other}"),
        };
        (200, body.to_string())
    };
    let server = serve(Arc::new(script)).await;
    for (words, said) in [
        (&["hold-key", "list"][..], "ann  ssh-ed25519 BBBB\n"),
        (&["hold-key", "clear", "--name", "ben"], "Hold key ben is deleted.\n"),
        (&["run", "hold-key", "r-1"], "the private half\n"),
    ] {
        let (code, stdout, stderr) = ctl(&server, words).await;
        assert_eq!((code, stdout.as_str()), (Some(0), said), "{words:?}: {stderr}");
    }
    let (code, stdout, _) = ctl(&server, &["run", "hold-key", "r-1", "--json"]).await;
    assert!(code == Some(0) && stdout.contains(r#""private_key":"the private half\n""#), "{stdout}");
    // Without an address of the machine ssh is not even tried.
    let (code, _, stderr) = ctl(&server, &["run", "ssh", "r-1"]).await;
    assert!(code == Some(1) && stderr.contains("--host"), "{stderr}");
    let (code, _, stderr) = ctl(&server, &["run", "ssh", "r-1", "--host", "192.0.2.1"]).await;
    assert!(code == Some(1) && stderr.contains("no host keys"), "{stderr}");
}

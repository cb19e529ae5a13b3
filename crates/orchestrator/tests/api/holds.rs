//! Keys of holds: registered by operators, or made for one hold, sealed, handed out and destroyed.

use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};

use crate::bench::{Agent, Bench, request};

const ANN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI ann@desk";
const BEN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAJ ben@desk";

/// An agent whose run is held.
async fn held(bench: &Bench) -> Agent {
    let agent = bench.make_agent("n1").await;
    agent.result(bench, 1, false).await.expect(200);
    agent
}

async fn ask(bench: &Bench, agent: &Agent) -> Value {
    let said = json!({ "host_keys": ["ssh-ed25519 AAAA"], "user": "ann" });
    agent.post(bench, "hold", said).await.expect(200)
}

async fn hand_out(bench: &Bench, agent: &Agent) -> crate::bench::Answer {
    bench.order("POST", &agent.path("hold-key"), json!(null)).await
}

/// The words of a private key that name it, without the lines around it.
fn body_of(private: &str) -> Vec<&str> {
    private.lines().filter(|line| !line.starts_with("-----")).collect()
}

/// Every file beneath a folder, in one piece.
fn everything_in(folder: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes.extend(everything_in(&path)),
            false => bytes.extend(std::fs::read(&path).unwrap()),
        }
    }
    bytes
}

#[tokio::test]
async fn a_hold_without_registered_keys_has_one_of_its_own_for_operators_alone() {
    let bench = Bench::start().await;
    let agent = held(&bench).await;
    hand_out(&bench, &agent).await.expect_error(409, "not_asked", &["not asked"]);
    let first = ask(&bench, &agent).await;
    let public = first["authorized_key"].as_str().unwrap();
    assert!(public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"), "{public}");
    assert_eq!(first["authorized_keys"], json!([public]));
    assert_eq!(ask(&bench, &agent).await, first, "the same for the whole hold");
    let answer = hand_out(&bench, &agent).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let key = answer.expect(200);
    assert_eq!((&key["public_key"], &key["user"]), (&json!(public), &json!("ann")));
    assert_eq!((&key["ip"], &key["host_keys"]), (&json!("127.0.0.1"), &json!(["ssh-ed25519 AAAA"])));
    assert_eq!(key["expires_at"], first["expires_at"]);
    let private = key["private_key"].as_str().unwrap();
    assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{private}");
    // Nobody else: no token, an agent's, a session's.
    let path = agent.path("hold-key");
    for token in [None, Some(agent.token.as_str()), Some(agent.boot.as_str())] {
        assert_eq!(bench.call("POST", &path, token, Body::empty()).await.status, StatusCode::UNAUTHORIZED);
    }
    let form = format!("token={}", bench.operator);
    let login = request("POST", "/login", None).header("content-type", "application/x-www-form-urlencoded");
    let login = bench.send(login.body(Body::from(form)).unwrap()).await;
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let session = request("POST", &path, None).header("cookie", cookie).body(Body::empty()).unwrap();
    assert_eq!(bench.send(session).await.status, StatusCode::UNAUTHORIZED);
    // It is in the trail who had it, and nowhere what it is.
    let trail = bench.order("GET", "/api/v1/audit?limit=1", json!(null)).await.expect(200);
    let row = &trail["rows"][0];
    assert_eq!(
        (&row["action"], &row["actor"], &row["run"]),
        (&json!("hand_out_hold_key"), &json!("admin"), &json!(agent.run))
    );
    let view = bench.order("GET", &format!("/api/v1/runs/{}", agent.run), json!(null)).await.expect(200);
    assert_eq!((&view["hold_key"], &view["hold_user"]), (&json!(public), &json!("ann")));
    let kept = everything_in(&bench.data());
    assert!(kept.windows(public.len()).any(|part| part == public.as_bytes()), "the public half is kept");
    for word in body_of(private) {
        assert!(!kept.windows(word.len()).any(|part| part == word.as_bytes()), "{word} lies in the clear");
    }
    // With its hold it is gone.
    bench.order("POST", &agent.path("release"), json!({})).await.expect(200);
    hand_out(&bench, &agent).await.expect_error(410, "gone", &["destroyed", "Cancelled"]);
}

#[tokio::test]
async fn a_run_that_is_not_held_has_no_key_and_the_next_hold_has_another() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    hand_out(&bench, &agent).await.expect_error(409, "not_held", &["not held"]);
    agent.result(&bench, 1, false).await.expect(200);
    let first = ask(&bench, &agent).await["authorized_key"].clone();
    bench.order("POST", &agent.path("retry"), json!({})).await.expect(200);
    hand_out(&bench, &agent).await.expect_error(409, "not_held", &[]);
    agent.result(&bench, 2, false).await.expect(200);
    let second = ask(&bench, &agent).await["authorized_key"].clone();
    assert!(second.is_string() && second != first, "{second}");
    bench.order("POST", "/api/v1/runs/r-none/hold-key", json!(null)).await.expect_error(
        404,
        "none",
        &["r-none"],
    );
}

#[tokio::test]
async fn registered_keys_are_preferred_all_of_them_and_can_be_taken_back() {
    let bench = Bench::start().await;
    let agent = held(&bench).await;
    let own = ask(&bench, &agent).await["authorized_key"].clone();
    let put = |name: &str, key: &str| (format!("/api/v1/hold-keys/{name}"), json!({ "authorized_key": key }));
    for (name, key) in [("ben", BEN), ("ann", ANN), ("ann", ANN)] {
        let (path, body) = put(name, key);
        let kept = bench.order("PUT", &path, body).await.expect(200);
        assert_eq!(kept, json!({ "name": name, "authorized_key": key }));
    }
    let answer = ask(&bench, &agent).await;
    assert_eq!((&answer["authorized_keys"], &answer["authorized_key"]), (&json!([ANN, BEN]), &json!(ANN)));
    hand_out(&bench, &agent).await.expect_error(409, "registered", &["ann, ben"]);
    // The one that has no name is one of them.
    bench.order("PUT", "/api/v1/hold-key", json!({ "authorized_key": BEN })).await.expect(200);
    let list = bench.order("GET", "/api/v1/hold-keys", json!(null)).await.expect(200);
    let names: Vec<&str> =
        list["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ann", "ben", "default"]);
    let (path, body) = put("default", ANN);
    bench.order("PUT", &path, body).await.expect(200);
    assert_eq!(bench.order("GET", "/api/v1/hold-key", json!(null)).await.expect(200)["authorized_key"], ANN);
    for name in ["ann", "ben", "default"] {
        bench.order("DELETE", &format!("/api/v1/hold-keys/{name}"), json!(null)).await.expect(204);
    }
    bench.order("DELETE", "/api/v1/hold-keys/ann", json!(null)).await.expect_error(404, "none", &["ann"]);
    // Without any, the hold's own lets in again.
    assert_eq!(ask(&bench, &agent).await["authorized_key"], own);
    hand_out(&bench, &agent).await.expect(200);
}

#[tokio::test]
async fn what_is_no_key_or_too_much_is_refused() {
    let bench = Bench::start().await;
    for (name, key, status, code, words) in [
        ("A_b", ANN, 400, "bad", &["in the path", "name of a hold key"][..]),
        ("ann", "command=\"id\" ssh-ed25519 AAAA", 422, "unfit", &["authorized_key"]),
    ] {
        let path = format!("/api/v1/hold-keys/{name}");
        let refused = bench.order("PUT", &path, json!({ "authorized_key": key })).await;
        refused.expect_error(status, code, words);
    }
    let long = format!("ssh-rsa {} someone", "A".repeat(4_000));
    for number in 0..6 {
        let path = format!("/api/v1/hold-keys/k{number}");
        bench.order("PUT", &path, json!({ "authorized_key": long })).await.expect(200);
    }
    let body = json!({ "authorized_key": long });
    for path in ["/api/v1/hold-keys/k6", "/api/v1/hold-key"] {
        bench.order("PUT", path, body.clone()).await.expect_error(422, "unfit", &["24576", "delete one"]);
    }
    // In the place of another of its name there is room.
    bench.order("PUT", "/api/v1/hold-keys/k0", body).await.expect(200);
}

#[tokio::test]
async fn a_key_file_that_is_lost_costs_the_key_of_a_hold_and_nothing_else() {
    let bench = Bench::start().await;
    let agent = held(&bench).await;
    let file = bench.app.certificates.key().path().to_owned();
    let outer = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let answer = ask(&bench, &agent).await;
    assert_eq!((&answer["authorized_key"], answer.get("authorized_keys")), (&Value::Null, None));
    assert!(!file.exists(), "the certificate is sealed with the one that was there");
    let named = [file.to_str().unwrap(), "hold-key set"];
    hand_out(&bench, &agent).await.expect_error(409, "no_key", &named);
    let view = bench.order("GET", &format!("/api/v1/runs/{}", agent.run), json!(null)).await.expect(200);
    assert!(view["hold_key_failed"].as_str().unwrap().contains("missing"), "{view}");
    // Brought back, the next question finds it.
    std::fs::write(&file, &outer).unwrap();
    assert!(ask(&bench, &agent).await["authorized_key"].is_string());
    hand_out(&bench, &agent).await.expect(200);
    std::fs::write(&file, "x".repeat(64)).unwrap();
    hand_out(&bench, &agent).await.expect_error(409, "sealed", &named);
    bench.order("POST", &agent.path("release"), json!({})).await.expect(200);
}

#[tokio::test]
async fn two_questions_at_once_get_one_key() {
    let bench = Bench::start().await;
    let agent = held(&bench).await;
    let body = json!({ "claim": agent.claim, "host_keys": [], "user": "ann" }).to_string();
    let ask = || {
        let request = request("POST", &agent.path("hold"), Some(agent.token.as_str()));
        bench.begin(request.body(Body::from(body.clone())).unwrap())
    };
    let mut keys = std::collections::BTreeSet::new();
    for asked in [ask(), ask(), ask(), ask()] {
        let answer = asked.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        keys.insert(answer["authorized_key"].as_str().unwrap().to_owned());
    }
    assert_eq!(keys.len(), 1, "{keys:?}");
}

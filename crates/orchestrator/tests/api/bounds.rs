//! Everything that a caller can make too large, too often or not of its form.

use std::sync::Arc;

use axum::body::Body;
use futures_util::StreamExt;
use groundcrew_orchestrator::run::decide::NewRun;
use groundcrew_orchestrator::store::{DiskProbe, DiskSpace, StoreOptions};
use groundcrew_protocol::ids::{Sha256Hex, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::profile::Profile;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bench::{Agent, Bench, PROFILE, request};

#[tokio::test]
async fn an_error_is_always_a_body_that_says_what_and_where() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let none = bench.call("GET", "/api/v1/nonsense", None, Body::empty()).await;
    none.expect_error(404, "none", &["/api/v1/nonsense"]);
    let method = bench.call("PATCH", "/api/v1/runs", Some(&bench.operator), Body::empty()).await;
    method.expect_error(405, "method", &["PATCH"]);
    let token = agent.token.as_str();
    let path = agent.path("heartbeat");
    let form = request("POST", &path, Some(token)).header("content-type", "text/plain");
    let answer = bench.send(form.body(Body::from("{}")).unwrap()).await;
    answer.expect_error(415, "type", &["text/plain", "application/json"]);
    let answer = bench.call("POST", &path, Some(token), r#"{"claim": "one"}"#).await;
    answer.expect_error(400, "bad", &["claim", "\"one\"", "expected u64"]);
    let answer = bench.call("POST", &path, Some(token), "nonsense").await;
    answer.expect_error(400, "bad", &["line 1"]);
    let answer = bench.order("GET", "/api/v1/runs?limit=many", json!(null)).await;
    answer.expect_error(400, "bad", &["limit"]);
    let answer = bench.order("GET", "/api/v1/runs?colour=red", json!(null)).await;
    answer.expect_error(400, "bad", &["colour"]);
    let answer = bench.order("GET", "/api/v1/runs/..%2F..", json!(null)).await;
    answer.expect_error(400, "bad", &["run id", "expected"]);
}

#[tokio::test]
async fn bodies_and_lists_are_bounded() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let token = agent.token.as_str();
    for (call, bytes_max) in
        [("heartbeat", 128 * 1024), ("result", limits::BODY_BYTES_MAX), ("log", limits::LOG_BODY_BYTES_MAX)]
    {
        let body = " ".repeat(bytes_max + 1);
        let answer = bench.call("POST", &agent.path(call), Some(token), body).await;
        answer.expect_error(413, "too_large", &[&bytes_max.to_string()]);
    }
    // A body that names no length is cut off where it passes the limit.
    let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let answer = bench.call("POST", &agent.path("result"), Some(token), body).await;
    answer.expect_error(413, "too_large", &[]);
    let line = json!({ "ts": "t", "level": "info", "text": "x".repeat(limits::LOG_LINE_BYTES_MAX + 1) });
    let answer = agent.post(&bench, "log", json!({ "lines": [line] })).await;
    answer.expect_error(422, "unfit", &["lines[0].text", "8193", "8192"]);
    let outcome = json!({ "stage": "Package:a/apply", "attempt": 1, "made_under": 1 });
    let outbox = vec![outcome; limits::OUTBOX_MAX + 1];
    let answer = agent.post(&bench, "claim", json!({ "outbox": outbox })).await;
    answer.expect_error(422, "unfit", &["outbox", "257", "256"]);
}

/// A body that begins and does not end before it is let go; it says when its beginning was taken.
fn unfinished(bytes: usize, taken: tokio::sync::mpsc::Sender<()>, go: CancellationToken) -> Body {
    let begin = futures_util::stream::once(async move { Ok::<_, std::io::Error>(vec![b' '; bytes]) });
    let rest = futures_util::stream::once(async move {
        taken.send(()).await.unwrap();
        go.cancelled().await;
        Ok(b"{}".to_vec())
    });
    Body::from_stream(begin.chain(rest))
}

#[tokio::test]
async fn unfinished_bodies_hold_no_more_than_there_is_room_for_and_keep_no_agent_from_being_heard() {
    const MIB: usize = 1024 * 1024;
    let bench = Bench::start().await;
    let free_bytes = bench.app.bodies.free_bytes();
    let (taken, mut was_taken) = tokio::sync::mpsc::channel(1);
    let go = CancellationToken::new();
    let (mut waiting, mut refusals) = (Vec::new(), Vec::new());
    let mut last = None;
    for node in ["n1", "n2", "n3", "n4"] {
        let agent = bench.make_agent(node).await;
        let mut of_agent = 0;
        loop {
            let body = unfinished(3 * MIB, taken.clone(), go.clone());
            let path = agent.path("log");
            let mut call =
                bench.begin(request("POST", &path, Some(agent.token.as_str())).body(body).unwrap());
            tokio::select! {
                Some(()) = was_taken.recv() => waiting.push(call),
                answer = &mut call => {
                    let answer = answer.unwrap();
                    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
                    assert!(answer.headers().contains_key("retry-after"));
                    refusals.push((of_agent, answer.into_body().collect().await.unwrap().to_bytes()));
                    break;
                }
            }
            of_agent += 1;
        }
        last = Some(agent);
    }
    // 20 MiB of each token, and 64 MiB of all.
    let counts: Vec<_> = refusals.iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, [6, 6, 6, 3]);
    for (index, (_, body)) in refusals.iter().enumerate() {
        let text = String::from_utf8_lossy(body);
        assert!(text.contains(if index < 3 { "with this token" } else { "all the room" }), "{text}");
    }
    let last = last.unwrap();
    last.beat(&bench, json!({})).await.expect(200);
    assert_eq!(last.result(&bench, 1, true).await.expect(200)["taken"], "first");
    go.cancel();
    for call in waiting {
        assert_eq!(call.await.unwrap().status(), StatusCode::CONFLICT, "a log of no claim");
    }
    assert_eq!(bench.app.bodies.free_bytes(), free_bytes);
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_when_to_come_back() {
    let bench = Bench::with(|options| options.requests_per_second_max = 1).await;
    let mut refused = None;
    for _call in 0..50 {
        let answer = bench.call("GET", "/api/v1/tasks", Some(&bench.operator), Body::empty()).await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    refused.expect_error(429, "too_often", &["ask again in"]);
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    // Those without a good token have one bucket together, and the health check none.
    assert_eq!(bench.call("GET", "/healthz", None, Body::empty()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_full_disk_refuses_logs_and_new_runs_and_still_takes_results() {
    let bench = Bench::with(|options| {
        let space = DiskSpace { free_bytes: 4, total_bytes: 100 };
        let probe: DiskProbe = Arc::new(move || Ok(space));
        options.store =
            StoreOptions { free_percent_min: 5.0, disk_probe: Some(probe), ..StoreOptions::default() };
    })
    .await;
    bench.order("PUT", "/api/v1/nodes/n1", json!({ "name": "n1" })).await.expect(200);
    let run = bench.order("POST", "/api/v1/runs", json!({ "node": "n1", "profile": "short" })).await;
    run.expect_error(507, "full", &["new runs"]);
    // A run from before the disk was full.
    let boot = TokenText::boot([7; 32]);
    let new = NewRun {
        id: "r-before".parse().unwrap(),
        node: "n1".parse().unwrap(),
        node_is: Default::default(),
        profile: Profile::parse(PROFILE).unwrap(),
        boot_token: boot.sha256(),
        by: "admin".to_owned(),
        notify: Vec::new(),
    };
    bench.app.create(new).await.unwrap();
    let mut agent = Agent::new("r-before".to_owned(), boot.as_str().to_owned());
    agent.claim(&bench).await.expect(200);
    let lines = json!({ "stream": "0".repeat(32), "lines": [] });
    agent.post(&bench, "log", lines).await.expect_error(507, "full", &["logs", "send them again"]);
    let samples = json!({ "stream": "0".repeat(32), "samples": [] });
    agent.post(&bench, "sensor", samples).await.expect_error(507, "full", &[]);
    let taken = agent.result(&bench, 1, true).await.expect(200);
    assert_eq!((&taken["taken"], &taken["next_state"]), (&json!("first"), &json!("Completed")));
}

#[tokio::test]
async fn an_artifact_is_stored_once_and_comes_back_as_a_download() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let content = b"raw output".to_vec();
    let sha256 = Sha256Hex::of(&content);
    let name = "attempt=1&stage=Package:a/apply&name=smartctl";
    let path = |sha: &Sha256Hex| format!("{}?{name}&sha256={sha}", agent.path("artifact"));
    let put = |sha: Sha256Hex, body: Vec<u8>| {
        let path = path(&sha);
        let (bench, token) = (&bench, agent.token.as_str());
        async move { bench.call("PUT", &path, Some(token), body).await }
    };
    assert_eq!(put(sha256.clone(), content.clone()).await.expect(200)["taken"], "first");
    assert_eq!(put(sha256.clone(), content.clone()).await.expect(200)["taken"], "repeated");
    put(Sha256Hex::of(b"x"), b"x".to_vec()).await.expect_error(409, "other_content", &[]);
    // What belongs to no attempt that was given out, or comes under a claim that is past, is not kept.
    let refuse = |query: String| {
        let path = format!("{}?{query}&name=x&sha256={}", agent.path("artifact"), Sha256Hex::of(b"x"));
        let (bench, token) = (&bench, agent.token.as_str());
        async move { bench.call("PUT", &path, Some(token), "x").await }
    };
    let long = format!("attempt=1&stage={}", "S".repeat(3_000));
    for query in ["attempt=1&stage=NoSuch", "attempt=1&stage=Reporting", long.as_str()] {
        refuse(query.to_owned()).await.expect_error(422, "unfit", &["query stage", &agent.run]);
    }
    for attempt in ["0", "2", "4000000000"] {
        let answer = refuse(format!("attempt={attempt}&stage=Package:a/apply")).await;
        answer.expect_error(422, "unfit", &["query attempt", attempt, "1 to 1"]);
    }
    refuse("attempt=1&stage=Package:a/apply&claim=0".to_owned()).await.expect_error(409, "old_claim", &[]);
    refuse("attempt=1&stage=Package:a/apply&claim=2".to_owned()).await.expect_error(
        409,
        "unknown_claim",
        &[],
    );
    refuse(format!("attempt=1&stage=Package:a/apply&claim={}", agent.claim)).await.expect(200);
    let got = bench.order("GET", &format!("{}?{name}", agent.path("artifact")), json!(null)).await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &content[..]));
    assert_eq!(got.headers["content-disposition"], "attachment");
    let listed = bench.order("GET", &agent.path("artifacts"), json!(null)).await.expect(200);
    assert_eq!(listed[0]["sha256"], sha256.as_str());
}

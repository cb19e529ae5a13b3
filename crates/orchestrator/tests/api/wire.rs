//! What agents and the orchestrator say to each other.

use axum::body::Body;
use groundcrew_orchestrator::task::deadline;
use http::StatusCode;
use serde_json::json;

use crate::bench::{Agent, Bench};

#[tokio::test]
async fn a_walk_from_claim_to_completed() {
    let bench = Bench::start().await;
    let (run, boot) = bench.make_run("n1").await;
    let mut agent = Agent::new(run, boot);
    let hello = json!({ "protocol_min": 2, "protocol_max": 3, "agent_version": "0.1.0" }).to_string();
    let hello = bench.call("POST", &agent.path("hello"), Some(&agent.boot), hello).await.expect(200);
    assert_eq!((&hello["protocol"], &hello["generation"]), (&json!(2), &json!(1)));
    assert_eq!(hello["pins"], json!([bench.app.served.fingerprint()]));
    let claim = agent.claim(&bench).await.expect(200);
    assert_eq!(
        (&claim["claim"], &claim["attempt"], &claim["current_state"]),
        (&json!(1), &json!(1), &json!("Package:a/apply"))
    );
    assert_eq!((&claim["iperf_port"], &claim["pins"]), (&json!(5201), &hello["pins"]));
    assert!(claim["server_time"].as_i64().unwrap() > 0);
    let beat =
        agent.beat(&bench, json!({ "phase": "running", "activity": "Package:a/apply" })).await.expect(200);
    assert_eq!((&beat["state"], &beat["generation"]), (&json!("Package:a/apply"), &json!(1)));
    let result = agent.result(&bench, 1, true).await.expect(200);
    assert_eq!((&result["taken"], &result["next_state"]), (&json!("first"), &json!("Completed")));
    let again = agent.result(&bench, 1, false).await.expect(200);
    assert_eq!((&again["taken"], &again["next_state"]), (&json!("repeated"), &json!("Completed")));
    let view = bench.order("GET", &format!("/api/v1/runs/{}", agent.run), json!(null)).await.expect(200);
    assert_eq!((&view["verdict"], &view["activity"]), (&json!("pass"), &json!("Package:a/apply")));
    let report = bench.order("GET", &agent.path("report"), json!(null)).await.expect(200);
    assert_eq!((&report["verdict"], &report["state"]), (&json!("pass"), &json!("Completed")));
    assert_eq!(report["stages"][0]["checks"][0]["name"], "steps");
    let page = bench.order("GET", &format!("{}?format=html", agent.path("report")), json!(null)).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&page.body).contains("steps"));
}

#[tokio::test]
async fn heartbeats_are_answered_without_a_decision_once_the_claim_has_spoken() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let decided = bench.app.counters.heartbeats_decided.get();
    assert_eq!(decided, 1);
    for _beat in 0..10 {
        agent.beat(&bench, json!({ "activity": "busy" })).await.expect(200);
    }
    assert_eq!(bench.app.counters.heartbeats_decided.get(), decided);
    assert_eq!(bench.app.counters.heartbeats.get(), 10);
}

#[tokio::test]
async fn a_directive_is_repeated_until_its_outcome_is_reported() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let held = agent.result(&bench, 1, false).await.expect(200);
    assert_eq!(held["next_state"], "FailedHolding");
    bench.order("POST", &agent.path("retry"), json!({ "reason": "cable" })).await.expect(200);
    for _beat in 0..3 {
        let beat = agent.beat(&bench, json!({})).await.expect(200);
        assert_eq!(
            (&beat["cmd"], &beat["stage"], &beat["attempt"]),
            (&json!("retry_stage"), &json!("Package:a/apply"), &json!(2))
        );
        assert_eq!(beat["planned_checks"][0]["name"], "steps");
    }
    let told = agent.beat(&bench, json!({})).await.expect(200);
    let doing = json!({ "directives": [{ "id": told["directive"], "outcome": "doing" }] });
    let decided = bench.app.counters.heartbeats_decided.get();
    agent.beat(&bench, doing.clone()).await.expect(200);
    agent.beat(&bench, doing).await.expect(200);
    assert_eq!(bench.app.counters.heartbeats_decided.get(), decided + 1, "the same word is no news");
    // What is newer and not heard of yet goes first.
    bench.order("POST", &agent.path("cancel"), json!({})).await.expect(200);
    let beat = agent.beat(&bench, json!({})).await.expect(200);
    assert_ne!(beat["directive"], told["directive"], "{beat}");
    let done = json!({ "directives": [{ "id": beat["directive"], "outcome": "done" }] });
    let next = agent.beat(&bench, done).await.expect(200);
    assert_ne!(next["directive"], beat["directive"], "{next}");
}

#[tokio::test]
async fn a_message_of_a_past_claim_is_fenced_everywhere() {
    let bench = Bench::start().await;
    let mut agent = bench.make_agent("n1").await;
    let first = agent.claim;
    // The home's next process: another claim, with the run token that it has stored.
    agent.restart();
    let reclaim = agent.claim(&bench).await.expect(200);
    assert_eq!(reclaim["claim"], first + 1);
    for (call, body) in [
        ("heartbeat", json!({})),
        ("log", json!({ "stream": "0".repeat(32), "lines": [] })),
        ("sensor", json!({ "stream": "0".repeat(32), "samples": [] })),
        ("result", json!({ "stage": "Package:a/apply", "attempt": 1, "passed": true })),
        ("hold", json!({})),
    ] {
        let mut old = body.clone();
        old["claim"] = first.into();
        let error = agent.post(&bench, call, old).await.expect_error(409, "old_claim", &["Stand down"]);
        assert_eq!(
            (&error["claim"], &error["state"]),
            (&json!(first + 1), &json!("Package:a/apply")),
            "{call}"
        );
        let mut unknown = body.clone();
        unknown["claim"] = 99.into();
        agent.post(&bench, call, unknown).await.expect_error(409, "unknown_claim", &["Claim again"]);
    }
}

#[tokio::test]
async fn an_agent_of_the_protocol_before_walks_with_its_boot_token() {
    let bench = Bench::start().await;
    let (run, boot) = bench.make_run("n1").await;
    let call = async |call: &str, body: serde_json::Value| {
        let path = format!("/api/v1/runs/{run}/{call}");
        bench.call("POST", &path, Some(&boot), body.to_string()).await
    };
    assert_eq!(call("hello", json!({})).await.expect(200)["protocol"], 1);
    let claim = call("claim", json!({ "ip": "10.0.0.7" })).await.expect(200);
    assert_eq!(
        (&claim["current_state"], &claim["non_destructive"]),
        (&json!("Package:a/apply"), &json!(true))
    );
    call("heartbeat", json!({})).await.expect(200);
    let line = json!({ "ts": "2026-01-01T00:00:00Z", "level": "info", "text": "hi" });
    call("log", json!({ "lines": [line] })).await.expect(200);
    let result = json!({ "stage": "Package:a/apply", "passed": false, "summary": { "found": 3 }, "message": "bad disk" });
    assert_eq!(call("result", result).await.expect(200)["next_state"], "FailedHolding");
    call("hold", json!({ "ip": "10.0.0.7" })).await.expect(200);
}

#[tokio::test]
async fn a_chunk_of_log_is_stored_once_and_other_content_is_refused() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let chunk = |seq: u64, text: &str| {
        let line = json!({ "ts": "2026-01-01T00:00:00Z", "level": "info", "stage": "Package:a/apply", "text": text });
        json!({ "stream": "a".repeat(32), "seq": seq, "lines": [line] })
    };
    assert_eq!(agent.post(&bench, "log", chunk(0, "one")).await.expect(200)["taken"], "first");
    assert_eq!(agent.post(&bench, "log", chunk(0, "one")).await.expect(200)["taken"], "repeated");
    let other = agent.post(&bench, "log", chunk(0, "two")).await;
    other.expect_error(409, "other_content", &["new stream"]);
    agent.post(&bench, "log", chunk(1, "esc \u{1b}[31m")).await.expect(200);
    let page = bench
        .order("GET", &format!("{}?stage=Package:a/apply", agent.path("logs")), json!(null))
        .await
        .expect(200);
    assert_eq!(page["lines"].as_array().unwrap().len(), 2);
    assert_eq!((&page["lines"][0]["text"], &page["at_end"]), (&json!("one"), &json!(true)));
    let path = format!("{}?after={}", agent.path("logs"), page["next"].as_str().unwrap());
    assert_eq!(bench.order("GET", &path, json!(null)).await.expect(200)["lines"], json!([]));
    let text = bench.order("GET", &format!("{}?format=text", agent.path("logs")), json!(null)).await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    assert_eq!(text.lines().next().unwrap(), "2026-01-01T00:00:00Z info Package:a/apply one");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[tokio::test]
async fn a_hold_gives_the_key_and_the_pages_show_the_run() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    agent.post(&bench, "hold", json!({})).await.expect_error(409, "order", &["not held"]);
    agent.result(&bench, 1, false).await.expect(200);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI ann";
    bench.order("PUT", "/api/v1/hold-key", json!({ "authorized_key": key })).await.expect(200);
    let hold = agent.post(&bench, "hold", json!({ "host_keys": ["ssh-ed25519 AAAA"] })).await.expect(200);
    assert_eq!(hold["authorized_key"], key);
    assert!(hold["expires_at"].as_i64().unwrap() > 0);
    let list = bench.order("GET", "/api/v1/runs?state=FailedHolding", json!(null)).await.expect(200);
    assert_eq!(list["runs"][0]["run"], agent.run.as_str());
    assert!(list["runs"][0]["wait"]["for"].as_str().unwrap().contains("operator"));
    for path in ["/".to_owned(), format!("/runs/{}", agent.run)] {
        let page = bench.order("GET", &path, json!(null)).await;
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(text.contains("FailedHolding") && text.contains(&agent.run), "{text}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let page = bench.call("GET", "/", None, Body::empty()).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(String::from_utf8_lossy(&page.body).contains("<form"));
}

#[tokio::test]
async fn runs_are_listed_in_pages() {
    let bench = Bench::start().await;
    for node in ["n1", "n2", "n3"] {
        bench.make_run(node).await;
    }
    let first = bench.order("GET", "/api/v1/runs?limit=2", json!(null)).await.expect(200);
    assert_eq!(first["runs"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/runs?limit=2&after={}", first["next"].as_str().unwrap());
    let second = bench.order("GET", &path, json!(null)).await.expect(200);
    assert_eq!((second["runs"].as_array().unwrap().len(), &second["next"]), (1, &json!(null)));
    let of_one = bench.order("GET", "/api/v1/runs?node=n2&state=going", json!(null)).await.expect(200);
    assert_eq!(of_one["runs"].as_array().unwrap().len(), 1);
    assert_eq!(of_one["runs"][0]["node"], "n2");
    let ended = bench.order("GET", "/api/v1/runs?state=Completed", json!(null)).await.expect(200);
    assert_eq!(ended["runs"], json!([]));
}

#[tokio::test]
async fn silence_holds_a_run_and_a_word_of_the_agent_ends_the_hold() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let start = std::time::Instant::now();
    let state = async || {
        let path = format!("/api/v1/runs/{}", agent.run);
        bench.order("GET", &path, json!(null)).await.expect(200)["state"].clone()
    };
    // As many seconds as were watched; the stage's deadline and the limit of silence are longer together.
    for second in 1..=15 * 60 {
        bench.app.live.clock.tick(start + std::time::Duration::from_secs(second));
    }
    deadline::pass(bench.app.clone()).await.unwrap();
    assert_eq!(state().await, "FailedHolding");
    let beat = agent.beat(&bench, json!({})).await.expect(200);
    assert_eq!(beat["state"], "Package:a/apply");
    assert_eq!(state().await, "Package:a/apply");
    deadline::pass(bench.app.clone()).await.unwrap();
    assert_eq!(state().await, "Package:a/apply", "it was heard");
}

#[tokio::test]
async fn a_result_with_words_of_a_newer_agent_is_taken_and_holds_by_name() {
    for (verdict, kind, word) in [("degraded", "found", "degraded"), ("pass", "ranged", "ranged")] {
        let bench = Bench::start().await;
        let agent = bench.make_agent("n1").await;
        let observed = json!({ "kind": kind, "text": "done", "low": 1 });
        let body = json!({
            "made_under": 1, "stage": "Package:a/apply", "attempt": 1, "passed": true, "summary": "s",
            "checks": [{ "name": "steps", "observed": observed, "verdict": verdict }],
        });
        let result = agent.post(&bench, "result", body).await.expect(200);
        assert_eq!((&result["taken"], &result["next_state"]), (&json!("first"), &json!("FailedHolding")));
        let report = bench.order("GET", &agent.path("report"), json!(null)).await.expect(200);
        let check = &report["stages"][0]["checks"][0];
        assert_eq!(check["verdict"], "inconclusive");
        assert!(check["reason"].as_str().unwrap().contains(&format!("\"{word}\"")), "{check}");
    }
}

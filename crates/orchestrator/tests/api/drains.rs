//! Drains: from an operator's call to the directive, and how they stand on a node.

use groundcrew_orchestrator::task::drains;
use serde_json::{Value, json};

use crate::bench::{Agent, Bench};

async fn pass(bench: &Bench) {
    drains::pass(bench.app.clone()).await.unwrap();
}

async fn drain(bench: &Bench, body: Value) -> String {
    let made = bench.order("POST", "/api/v1/drains", body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

async fn state(bench: &Bench, node: &str) -> Value {
    let view = bench.order("GET", &format!("/api/v1/nodes/{node}"), json!(null)).await.expect(200);
    view["drain"]["state"].clone()
}

/// What a heartbeat that says this is told about drains: command, drain, and the directive's number.
async fn told(bench: &Bench, agent: &Agent, body: Value) -> (Value, Value, Value) {
    let answer = agent.beat(bench, body).await.expect(200);
    (answer["cmd"].clone(), answer["drain"]["id"].clone(), answer["directive"].clone())
}

#[tokio::test]
async fn a_drain_of_a_node_is_told_confirmed_shown_and_taken_off() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let other = bench.make_agent("n2").await;
    assert_eq!(state(&bench, "n1").await, Value::Null);
    let id = drain(&bench, json!({ "target": { "node": "n1" }, "reason": "new PSU" })).await;
    assert_eq!(state(&bench, "n1").await, "asked");
    pass(&bench).await;
    let (cmd, which, number) =
        told(&bench, &agent, json!({ "stage": "Package:a/apply", "attempt": 1 })).await;
    assert_eq!((&cmd, &which), (&json!("drain"), &json!(id)));
    assert_eq!(told(&bench, &other, json!({})).await.0, Value::Null);
    let done = json!([{ "id": number, "outcome": "done" }]);
    let holds = json!({ "drains": [id], "drain": "asked for", "stage": "Package:a/apply", "attempt": 1, "directives": done });
    assert_eq!(told(&bench, &agent, holds).await.0, Value::Null);
    assert_eq!(state(&bench, "n1").await, "draining");
    let view = bench.order("GET", "/api/v1/nodes/n1", json!(null)).await.expect(200);
    assert_eq!(view["drain"]["drains"][0]["reason"], "new PSU");
    assert_eq!(view["drain"]["agents"][0]["active"]["stage"], "Package:a/apply");
    let idle = json!({ "drains": [id], "drain": "asked for", "phase": "draining" });
    agent.beat(&bench, idle.clone()).await.expect(200);
    assert_eq!(state(&bench, "n1").await, "idle");

    let end = json!({ "target": { "node": "n1" } });
    bench.order("POST", "/api/v1/drains/end", end.clone()).await.expect(200);
    assert_eq!(state(&bench, "n1").await, "leaving");
    pass(&bench).await;
    let (cmd, which, number) = told(&bench, &agent, idle).await;
    assert_eq!((cmd, which), (json!("undrain"), json!(id)));
    agent.beat(&bench, json!({ "directives": [{ "id": number, "outcome": "done" }] })).await.expect(200);
    assert_eq!(state(&bench, "n1").await, Value::Null);
    let none = bench.order("POST", "/api/v1/drains/end", end).await;
    none.expect_error(404, "none", &["no active drain of node n1"]);
    let audit = bench.order("GET", "/api/v1/audit", json!(null)).await.expect(200);
    assert_eq!(audit["rows"][0]["action"], "end_drain");
}

#[tokio::test]
async fn a_label_drains_every_node_that_has_it_also_later() {
    let bench = Bench::start().await;
    let label = |node: &str| json!({ "name": node, "labels": { "rack": "1" } });
    let agent = bench.make_agent("n1").await;
    bench.order("PUT", "/api/v1/nodes/n1", label("n1")).await.expect(200);
    let id = drain(&bench, json!({ "target": { "label": { "key": "rack", "value": "1" } } })).await;
    pass(&bench).await;
    assert_eq!(told(&bench, &agent, json!({})).await.1, json!(id));
    let later = bench.make_agent("n2").await;
    pass(&bench).await;
    assert_eq!(told(&bench, &later, json!({})).await.1, Value::Null);
    bench.order("PUT", "/api/v1/nodes/n2", label("n2")).await.expect(200);
    pass(&bench).await;
    assert_eq!(told(&bench, &later, json!({})).await.1, json!(id));
    // Ending it by a node's name ends nothing, and says what holds the node.
    let wrong = bench.order("POST", "/api/v1/drains/end", json!({ "target": { "node": "n1" } })).await;
    wrong.expect_error(404, "none", &[&id, "rack=1"]);
}

#[tokio::test]
async fn an_agent_that_was_away_is_told_with_its_claim() {
    let bench = Bench::start().await;
    let mut agent = bench.make_agent("n1").await;
    let id = drain(&bench, json!({ "target": { "node": "n1" }, "suppress_notification": true })).await;
    pass(&bench).await;
    agent.restart();
    let claim = agent.claim(&bench).await.expect(200);
    assert_eq!(claim["drains"][0]["id"], json!(id));
    assert_eq!(claim["drains"][0]["suppress_notification"], json!(true));
    bench.order("POST", "/api/v1/drains/end", json!({ "id": id })).await.expect(200);
    pass(&bench).await;
    // It was away while the drain ended, and its marker holds: its first word brings the undrain.
    agent.beat(&bench, json!({ "drains": [id] })).await.expect(200);
    pass(&bench).await;
    assert_eq!(told(&bench, &agent, json!({ "drains": [id] })).await.0, "undrain");
}

#[tokio::test]
async fn a_drain_ends_with_its_run() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let id = drain(&bench, json!({ "target": { "node": "n1" }, "run": agent.run })).await;
    pass(&bench).await;
    agent.beat(&bench, json!({ "drains": [id] })).await.expect(200);
    bench.order("POST", &agent.path("cancel"), json!({})).await.expect(200);
    pass(&bench).await;
    pass(&bench).await;
    let list = bench.order("GET", "/api/v1/drains?ended=true", json!(null)).await.expect(200);
    let why = list["drains"][0]["ended"]["why"].as_str().unwrap();
    assert!(why.contains("has ended (Cancelled)"), "{why}");
    assert_eq!(list["drains"].as_array().unwrap().len(), 1);
    let again = json!({ "target": { "node": "n1" }, "run": agent.run });
    bench.order("POST", "/api/v1/drains", again).await.expect_error(422, "unfit", &["has ended"]);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_named() {
    let bench = Bench::start().await;
    bench.make_agent("n1").await;
    let node = json!({ "node": "n1" });
    for (body, word) in [
        (json!({ "target": { "node": "n9" } }), "there is no node n9"),
        (json!({ "target": node, "for_ms": 0 }), "for_ms"),
        (json!({ "target": node, "for_ms": 92_u64 * 86_400_000 + 1 }), "for_ms"),
        (json!({ "target": node, "reason": "a\nb" }), "control character"),
        (json!({ "target": node, "reason": "x".repeat(501) }), "reason"),
    ] {
        bench.order("POST", "/api/v1/drains", body).await.expect_error(422, "unfit", &[word]);
    }
}

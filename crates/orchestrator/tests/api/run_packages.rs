//! Packages of runs: frozen when a run is made, kept while it goes on, and given to its agent alone.

use axum::body::Body;
use groundcrew_protocol::ids::Sha256Hex;
use serde_json::{Value, json};

use crate::bench::{Agent, Answer, Bench, request};
use crate::packages::{archive, dropped_after};

const PLACE: &str = "/api/v1/packages/tuning/1.0.0+b";

fn profile(more: &str) -> String {
    format!(
        "name = \"stored\"\n[[stage]]\nname = \"Package:tuning/apply\"\n\
         [[package]]\nname = \"tuning\"\nversion = \"1.0.0+b\"\nenv = {{ LEVEL = \"high\" }}\n{more}"
    )
}

/// Asks for a run with the package; `more` stands in the profile's `[[package]]`.
async fn make_run(bench: &Bench, node: &str, more: &str) -> Answer {
    bench.order("PUT", &format!("/api/v1/nodes/{node}"), json!({ "name": node })).await.expect(200);
    let put = bench.call("PUT", "/api/v1/profiles/stored", Some(&bench.operator), profile(more)).await;
    put.expect(200);
    bench.order("POST", "/api/v1/runs", json!({ "node": node, "profile": "stored" })).await
}

fn agent_of(made: &Value) -> Agent {
    Agent::new(made["run"].as_str().unwrap().to_owned(), made["boot_token"].as_str().unwrap().to_owned())
}

/// Stores a package whose archive `text` makes its own. Its bytes.
async fn put(bench: &Bench, text: &str) -> Vec<u8> {
    let content = archive("1.0.0+b", "config.json", text);
    bench.call("PUT", PLACE, Some(&bench.operator), content.clone()).await.expect(200);
    content
}

async fn fetch(bench: &Bench, agent: &Agent, range: Option<&str>) -> Answer {
    let call = request("GET", &agent.path("package/tuning/1.0.0+b"), Some(agent.token.as_str()));
    let call = range.into_iter().fold(call, |call, range| call.header("range", range));
    bench.send(call.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_run_freezes_the_sum_of_a_package_that_is_stored_and_none_is_made_without() {
    let bench = Bench::start().await;
    let words = ["package[1]", "tuning 1.0.0+b is not stored here", "groundcrewctl package put"];
    make_run(&bench, "n1", "").await.expect_error(422, "unfit", &words);
    let sum = Sha256Hex::of(&put(&bench, "#!/bin/sh\n").await);
    let other = format!("sha256 = \"{}\"\n", "ab".repeat(32));
    make_run(&bench, "n1", &other).await.expect_error(422, "unfit", &[sum.as_str(), &"ab".repeat(32)]);
    for (node, more) in [("n1", String::new()), ("n2", format!("sha256 = \"{sum}\"\n"))] {
        let mut agent = agent_of(&make_run(&bench, node, &more).await.expect(201));
        let claimed = agent.claim(&bench).await.expect(200);
        let told = &claimed["stored_packages"];
        assert_eq!(
            (&told[0]["sha256"], &told[0]["env"]["LEVEL"]),
            (&json!(sum), &json!("high")),
            "{claimed}"
        );
        assert!(told[0].get("path").is_none() && told.as_array().unwrap().len() == 1, "{told}");
        // Whoever knows of no stored packages finds no settings, rather than some without a path.
        assert!(claimed["stage_settings"][0].get("package").is_none_or(Value::is_null), "{claimed}");
    }
    // One that takes its package from a folder asks nothing of the store.
    bench.call("PUT", "/api/v1/profiles/stored", Some(&bench.operator), profile("path = \"/p\"\n")).await;
    let made = bench.order("POST", "/api/v1/runs", json!({ "node": "n1", "profile": "stored" })).await;
    let claimed = agent_of(&made.expect(201)).claim(&bench).await.expect(200);
    assert_eq!(claimed["stage_settings"][0]["package"]["path"], json!("/p"));
    assert!(claimed.get("stored_packages").is_none());
}

#[tokio::test]
async fn a_package_stays_for_as_long_as_a_run_that_has_not_ended_uses_it() {
    let bench = Bench::start().await;
    put(&bench, "#!/bin/sh\n").await;
    let mut runs = Vec::new();
    for number in 0..7 {
        runs.push(agent_of(&make_run(&bench, &format!("n{number}"), "").await.expect(201)));
    }
    // In the order of their ids, of which the last part is drawn.
    runs.sort_by(|one, other| one.run.cmp(&other.run));
    let refused = bench.order("DELETE", PLACE, Value::Null).await;
    refused.expect_error(409, "in_use", &["tuning 1.0.0+b", &runs[0].run, &runs[4].run, "and 2 others"]);
    bench.order("DELETE", "/api/v1/packages/tuning/2", Value::Null).await.expect(404);
    for run in &runs {
        bench.order("DELETE", PLACE, Value::Null).await.expect_error(409, "in_use", &[&run.run]);
        bench.order("POST", &run.path("cancel"), json!({})).await.expect(200);
    }
    bench.order("DELETE", PLACE, Value::Null).await.expect(204);
    make_run(&bench, "n1", "").await.expect_error(422, "unfit", &["not stored"]);
}

#[tokio::test]
async fn an_agent_fetches_all_of_it_or_the_rest_and_nothing_of_other_runs() {
    let bench = Bench::start().await;
    let content = put(&bench, &"x".repeat(700_000)).await;
    let mut agent = agent_of(&make_run(&bench, "n1", "").await.expect(201));
    agent.claim(&bench).await.expect(200);
    let whole = fetch(&bench, &agent, None).await;
    assert_eq!((whole.status.as_u16(), whole.headers["content-length"].to_str().unwrap()), (200, "702976"));
    assert!(whole.body == content && content.len() == 702_976, "{} bytes", whole.body.len());
    for from in [0, 1, 262_144, 702_975] {
        let rest = fetch(&bench, &agent, Some(&format!("bytes={from}-"))).await;
        assert_eq!(rest.status.as_u16(), 206);
        assert_eq!(rest.headers["content-range"], format!("bytes {from}-702975/702976"));
        assert!(rest.body == content[from..], "from {from}");
    }
    let past = fetch(&bench, &agent, Some("bytes=702976-")).await;
    past.expect_error(416, "range", &["702976"]);
    assert_eq!(fetch(&bench, &agent, Some("bytes=5-7")).await.status.as_u16(), 200);

    // Another run's agent, and another package: neither is given.
    let other = bench.make_agent("n2").await;
    fetch(&bench, &other, None).await.expect_error(404, "none", &[&other.run, "has no package tuning"]);
    let path = agent.path("package/tuning/2");
    let none = bench.call("GET", &path, Some(agent.token.as_str()), Body::empty()).await;
    none.expect_error(404, "none", &["has no package tuning 2"]);
    let path = agent.path("package/tuning/1.0.0+b");
    bench.call("GET", &path, Some(other.token.as_str()), Body::empty()).await.expect(401);
    bench.call("GET", &path, Some(&bench.operator), Body::empty()).await.expect(401);

    // What the run has frozen is what it gets, or nothing.
    let file = bench.app.store.data().join("packages").join(Sha256Hex::of(&content).as_str());
    std::fs::remove_file(file).unwrap();
    fetch(&bench, &agent, None).await.expect_error(404, "none", &["is gone from this store", "put it again"]);
}

#[tokio::test]
async fn a_run_has_its_package_also_where_a_delete_or_a_making_was_given_up_half_way() {
    let bench = Bench::start().await;
    put(&bench, "#!/bin/sh\n").await;
    let stands = async || bench.order("GET", PLACE, Value::Null).await.status == 200;
    for waits in 0..20 {
        let node = format!("n{waits}");
        make_run(&bench, &node, "").await.expect(201);
        let order = || bench.order("POST", "/api/v1/runs", json!({ "node": node, "profile": "stored" }));
        cancel_all(&bench, &node).await;
        // One that is deleted and given up, and a run that waits for its turn to be made meanwhile.
        let delete = bench.order("DELETE", PLACE, Value::Null);
        let (_given_up, made) = tokio::join!(dropped_after(waits, delete), order());
        if made.status == 201 {
            assert!(stands().await, "the run's package is gone; dropped after {waits} waits");
            cancel_all(&bench, &node).await;
        } else {
            made.expect_error(422, "unfit", &["not stored"]);
            put(&bench, "#!/bin/sh\n").await;
        }
        // A run whose maker goes away, and a delete that waits for its turn meanwhile.
        let delete = bench.order("DELETE", PLACE, Value::Null);
        let (_given_up, deleted) = tokio::join!(dropped_after(waits, order()), delete);
        let going = cancel_all(&bench, &node).await;
        let deleted = deleted.status == 204;
        assert!(!deleted || going == 0, "{going} runs have no package; dropped after {waits} waits");
        if deleted {
            put(&bench, "#!/bin/sh\n").await;
        }
    }
}

/// Cancels the runs of a node. How many there were.
async fn cancel_all(bench: &Bench, node: &str) -> usize {
    let going = bench.order("GET", &format!("/api/v1/runs?node={node}&state=going"), Value::Null).await;
    let going = going.expect(200)["runs"].as_array().unwrap().clone();
    for run in &going {
        let cancel = format!("/api/v1/runs/{}/cancel", run["run"].as_str().unwrap());
        bench.order("POST", &cancel, json!({})).await.expect(200);
    }
    going.len()
}

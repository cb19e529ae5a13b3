//! Following a run: its events with replay, its log as it comes.

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::bench::{Agent, Bench, request};

/// A stream of events as a client reads it.
struct Reader {
    body: Body,
    text: String,
}

#[derive(Debug)]
struct Told {
    name: String,
    id: Option<u64>,
    data: Value,
}

impl Reader {
    async fn open(bench: &Bench, agent: &Agent, after: Option<u64>) -> Reader {
        let mut call = request("GET", &agent.path("events"), Some(&bench.operator));
        if let Some(after) = after {
            call = call.header("last-event-id", after.to_string());
        }
        let answer = bench.open(call.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Reader { body: answer.into_body(), text: String::new() }
    }

    async fn more(&mut self) -> bool {
        let Some(frame) = self.body.frame().await else { return false };
        self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        true
    }

    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((one, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| one.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let told = field("event:").map(|name| Told {
                    name: name.to_owned(),
                    id: field("id:").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(field("data:").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                if told.is_some() {
                    return told;
                }
            } else if !self.more().await {
                return None;
            }
        }
    }

    /// The next of this name; others are left out.
    async fn next_named(&mut self, name: &str) -> Told {
        loop {
            let told = self.next().await.unwrap();
            if told.name == name {
                return told;
            }
        }
    }
}

#[tokio::test]
async fn events_are_replayed_after_the_last_one_that_was_seen() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    bench.make_agent("n2").await;
    agent.result(&bench, 1, false).await.expect(200);
    let mut all = Reader::open(&bench, &agent, None).await;
    let mut seen = Vec::new();
    loop {
        let told = all.next().await.unwrap();
        // What the agent says of itself marks the end of what was stored.
        if told.name == "agent" {
            break;
        }
        assert_eq!(told.data["run"], agent.run.as_str());
        assert_eq!(Some(told.data["id"].as_u64().unwrap()), told.id);
        seen.push((told.id.unwrap(), told.data["kind"].as_str().unwrap().to_owned()));
    }
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{seen:?}");
    assert_eq!(seen[0].1, "created");
    let last = seen.last().unwrap().0;

    let middle = seen[1].0;
    let mut later = Reader::open(&bench, &agent, Some(middle)).await;
    for (id, _kind) in &seen[2..] {
        assert_eq!(later.next_named("event").await.id, Some(*id));
    }
    // What happens now comes to both, once, in order and after the rest.
    bench.order("POST", &agent.path("retry"), json!({})).await.expect(200);
    let told = later.next_named("event").await;
    assert!(told.id.unwrap() > last, "{told:?}");
    assert_eq!(told.data["kind"], "retried");
    assert_eq!(all.next_named("event").await.id, told.id);
}

#[tokio::test]
async fn lines_of_log_and_the_agents_words_are_told_live() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let mut reader = Reader::open(&bench, &agent, None).await;
    reader.next_named("agent").await;
    let line =
        |stage: Option<&str>, text: &str| json!({ "ts": "t", "level": "info", "stage": stage, "text": text });
    let lines = [line(Some("Package:a/apply"), "a"), line(Some("Package:a/apply"), "b"), line(None, "c")];
    agent.post(&bench, "log", json!({ "stream": "0".repeat(32), "lines": lines })).await.expect(200);
    let told = reader.next_named("log").await;
    assert_eq!(
        (&told.data["stage"], told.data["lines"].as_array().unwrap().len()),
        (&json!("Package:a/apply"), 2)
    );
    let told = reader.next_named("log").await;
    assert_eq!((&told.data["stage"], &told.data["lines"][0]["text"]), (&json!(null), &json!("c")));
    agent.beat(&bench, json!({ "activity": "reading disks" })).await.expect(200);
    let told = reader.next_named("agent").await;
    assert_eq!((&told.data["agent"], &told.data["activity"]), (&json!("running"), &json!("reading disks")));
}

#[tokio::test]
async fn a_log_is_followed_and_every_stream_ends_with_the_server() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let chunk = |seq: u64, text: &str| {
        let line = json!({ "ts": "t", "level": "info", "text": text });
        json!({ "stream": "0".repeat(32), "seq": seq, "lines": [line] })
    };
    agent.post(&bench, "log", chunk(0, "before")).await.expect(200);
    let path = format!("{}?follow=true", agent.path("logs"));
    let call = request("GET", &path, Some(&bench.operator)).body(Body::empty()).unwrap();
    let mut body = bench.open(call).await.into_body();
    let text = async |body: &mut Body| {
        let frame = body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
        frame.map(|data| String::from_utf8(data.to_vec()).unwrap())
    };
    assert_eq!(text(&mut body).await.as_deref(), Some("t info before\n"));
    agent.post(&bench, "log", chunk(1, "after")).await.expect(200);
    assert_eq!(text(&mut body).await.as_deref(), Some("t info after\n"));
    let mut events = Reader::open(&bench, &agent, None).await;
    bench.app.stop.cancel();
    assert_eq!(text(&mut body).await, None);
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn a_watcher_who_falls_behind_is_told_how_much_it_missed() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let mut reader = Reader::open(&bench, &agent, None).await;
    reader.next_named("agent").await;
    let stream = "a".repeat(32);
    // More than waits for a watcher who does not read.
    for seq in 0..100 {
        let line =
            json!({ "ts": "t", "level": "info", "text": format!("line {seq}"), "stage": "Package:a/apply" });
        agent.post(&bench, "log", json!({ "stream": stream, "seq": seq, "lines": [line] })).await.expect(200);
    }
    let gap = reader.next_named("gap").await;
    let missed = gap.data["missed"].as_u64().unwrap();
    assert!(missed > 0 && gap.data.get("first_kept").is_none(), "{gap:?}");
    // What was missed is in the log, and reading goes on behind a tail without a line lost or doubled.
    let tail = bench.order("GET", &agent.path("logs?tail=3"), Value::Null).await.expect(200);
    assert_eq!(tail["lines"].as_array().unwrap().len(), 3);
    let line = json!({ "ts": "t", "level": "info", "text": "after", "stage": "Package:a/apply" });
    let more = json!({ "stream": stream, "seq": 100, "lines": [line] });
    agent.post(&bench, "log", more).await.expect(200);
    let path = agent.path(&format!("logs?after={}", tail["next"].as_str().unwrap()));
    let next = bench.order("GET", &path, Value::Null).await.expect(200);
    assert_eq!((next["lines"].as_array().unwrap().len(), &next["lines"][0]["text"]), (1, &json!("after")));
}

#[tokio::test]
async fn the_view_says_what_an_operator_must_know_of_the_machine() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let path = format!("/api/v1/runs/{}", agent.run);
    let mut reader = Reader::open(&bench, &agent, None).await;
    agent.beat(&bench, json!({ "home_failed": true })).await.expect(200);
    let told = loop {
        let told = reader.next_named("agent").await;
        if told.data["home_failed"] == true {
            break told;
        }
    };
    assert!(told.id.is_none());
    agent.result(&bench, 1, false).await.expect(200);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA host";
    agent.post(&bench, "hold", json!({ "ip": "192.0.2.7", "host_keys": [key] })).await.expect(200);
    let view = bench.order("GET", &path, Value::Null).await.expect(200);
    assert_eq!((&view["home_failed"], &view["home"]), (&json!(true), &json!("durable")));
    assert_eq!(view["host_keys"], json!([key]));
    let page = bench.order("GET", &format!("/runs/{}", agent.run), Value::Null).await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains(key) && page.contains("its home has failed"), "{page}");
}

/// The agent of a run of a node that is registered with the serial REALSERIAL. It has not claimed yet.
async fn agent_of_registered_node(bench: &Bench) -> Agent {
    bench.make_run("n1").await;
    let node = json!({ "name": "n1", "serial": "REALSERIAL" });
    bench.order("PUT", "/api/v1/nodes/n1", node).await.expect(200);
    let made = bench.order("POST", "/api/v1/runs", json!({ "node": "n1", "profile": "short" })).await;
    let made = made.expect(201);
    let (run, boot) = (made["run"].as_str().unwrap(), made["boot_token"].as_str().unwrap());
    Agent::new(run.to_owned(), boot.to_owned())
}

#[tokio::test]
async fn a_claim_from_another_machine_than_the_node_is_refused_and_shows() {
    let bench = Bench::start().await;
    let mut agent = agent_of_registered_node(&bench).await;
    agent.serial = Some("OTHERBOX");
    let refused = agent.claim(&bench).await;
    refused.expect_error(403, "wrong_machine", &["n1", "REALSERIAL", "OTHERBOX"]);
    let path = format!("/api/v1/runs/{}", agent.run);
    let view = bench.order("GET", &path, Value::Null).await.expect(200);
    let said = view["wrong_machine"].as_str().unwrap();
    assert!(said.contains("REALSERIAL") && said.contains("OTHERBOX"), "{said}");
    agent.serial = Some("realserial ");
    agent.claim(&bench).await.expect(200);
    let view = bench.order("GET", &path, Value::Null).await.expect(200);
    assert_eq!((&view["wrong_machine"], &view["machine_unproved"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_claim_of_a_machine_that_cannot_say_its_serial_shows() {
    let bench = Bench::start().await;
    let mut agent = agent_of_registered_node(&bench).await;
    agent.serial = None;
    agent.claim(&bench).await.expect(200);
    let view = bench.order("GET", &format!("/api/v1/runs/{}", agent.run), Value::Null).await.expect(200);
    let said = view["machine_unproved"].as_str().unwrap();
    assert!(said.contains("REALSERIAL"), "{said}");
}

#[tokio::test]
async fn whoever_makes_a_second_run_of_a_node_is_told_of_the_first_while_it_goes() {
    let bench = Bench::start().await;
    let (first, _boot) = bench.make_run("n1").await;
    let wanted = json!({ "node": "n1", "profile": "short" });
    let made = bench.order("POST", "/api/v1/runs", wanted.clone()).await.expect(201);
    assert_eq!(made["also_going"], json!([first]));
    for run in [&first, made["run"].as_str().unwrap()] {
        bench.order("POST", &format!("/api/v1/runs/{run}/cancel"), json!({})).await.expect(200);
    }
    let made = bench.order("POST", "/api/v1/runs", wanted).await.expect(201);
    assert_eq!(made.get("also_going"), None);
}

//! The rotation of the certificate: who is told of the next one, and for whom it waits.

use axum::body::Body;
use groundcrew_orchestrator::api::app::ANNOUNCED_MS_MIN;
use groundcrew_orchestrator::live::clock::{TICK_CREDIT_MS_MAX, wall_now};
use groundcrew_orchestrator::store::AgentSeen;
use groundcrew_orchestrator::task::certificate;
use groundcrew_orchestrator::{api, dashboard};
use groundcrew_protocol::ids::RandomId;
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::PINS_HEADER;
use http::Method;
use serde_json::json;

use crate::bench::{Agent, Bench, request};

#[tokio::test]
async fn the_next_certificate_is_served_once_every_agent_knows_it() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let slow = bench.make_agent("n2").await;
    let files = bench.app.certificates.clone();
    let first = bench.app.served.fingerprint();
    let next = files.announce_next().unwrap().fingerprint;
    certificate::pass(bench.app.clone()).await.unwrap();
    let both = json!([first, next]);
    assert_eq!(agent.beat(&bench, json!({})).await.expect(200)["pins"], both);
    agent.beat(&bench, json!({ "pins_known": both })).await.expect(200);
    let said = certificate::pass(bench.app.clone()).await.unwrap();
    assert!(said.contains(&slow.run) && !said.contains(&agent.run), "{said}");
    assert_eq!(bench.app.served.fingerprint(), first);
    let view = bench.order("GET", "/api/v1/certificate", json!(null)).await.expect(200);
    assert_eq!((&view["next"], &view["waiting_for"]), (&json!(next), &json!([slow.run])));

    slow.beat(&bench, json!({ "pins_known": both })).await.expect(200);
    // Everybody who can say so knows it; who is only refused has ten minutes to hear of it.
    // No tick comes here, so that the clock gains less than ten seconds by itself.
    let last_ms = 2 * TICK_CREDIT_MS_MAX;
    bench.app.live.clock.step(ANNOUNCED_MS_MIN - last_ms);
    let said = certificate::pass(bench.app.clone()).await.unwrap();
    assert!(said.contains("known to every agent"), "{said}");
    assert_eq!(bench.app.served.fingerprint(), first);
    let view = bench.order("GET", "/api/v1/certificate", json!(null)).await.expect(200);
    assert_eq!(view["waiting_for"], json!([]));
    let left_s = view["earliest_in_s"].as_u64().unwrap();
    assert!((5..=10).contains(&left_s), "{left_s}");
    bench.app.live.clock.step(last_ms);
    certificate::pass(bench.app.clone()).await.unwrap();
    assert_eq!(bench.app.served.fingerprint(), next);
    assert_eq!(files.current().unwrap().fingerprint, next);
    assert!(files.next().unwrap().is_none());
    // Once it is over, heartbeats are as short as before.
    assert_eq!(agent.beat(&bench, json!({})).await.expect(200).get("pins"), Some(&json!([next])));
}

#[tokio::test]
async fn every_answer_announces_the_next_certificate_whoever_asks_for_what() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let routes = || {
        let mut routes = api::routes();
        routes.extend(dashboard::routes());
        let routes = routes.into_iter().map(|route| (route.method, route.path));
        // And what is none.
        routes.chain([(Method::GET, "/nowhere"), (Method::PATCH, "/api/v1/runs")]).collect::<Vec<_>>()
    };
    let announced = async |expected: Option<&str>| {
        for (method, template) in routes() {
            let path =
                template.replace("{run}", &agent.run).replace("{name}", "n1").replace("{version}", "1");
            for token in [None, Some(agent.boot.as_str()), Some(agent.token.as_str()), Some(&bench.operator)]
            {
                let request = request(method.as_str(), &path, token).body(Body::from("{}")).unwrap();
                let answer = bench.open(request).await;
                let found = answer.headers().get(PINS_HEADER).map(|value| value.to_str().unwrap());
                assert_eq!(found, expected, "{method} {path} answered {}", answer.status());
            }
        }
    };
    announced(None).await;
    let first = bench.app.served.fingerprint();
    let next = bench.app.certificates.announce_next().unwrap().fingerprint;
    certificate::pass(bench.app.clone()).await.unwrap();
    announced(Some(&format!("{first},{next}"))).await;
    assert!(routes().len() > 45, "{} routes", routes().len());
}

#[tokio::test]
async fn a_rotation_shows_at_once_and_waits_for_an_agent_whose_run_has_ended_too() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let next = bench.app.certificates.announce_next().unwrap().fingerprint;
    // Before any pass of the task.
    let view = bench.order("GET", "/api/v1/certificate", json!(null)).await.expect(200);
    assert_eq!((&view["next"], &view["waiting_for"]), (&json!(next), &json!([agent.run])));
    assert_eq!(view["earliest_in_s"], json!(ANNOUNCED_MS_MIN / 1_000), "not announced yet");
    bench.order("POST", &format!("/api/v1/runs/{}/cancel", agent.run), json!({})).await.expect(200);
    let said = certificate::pass(bench.app.clone()).await.unwrap();
    assert!(said.contains(&agent.run), "it may still wait for an order about its run: {said}");
    assert_ne!(bench.app.served.fingerprint(), next);
    // However long it is silent, up to the seven days.
    bench.app.live.clock.step(ANNOUNCED_MS_MIN);
    let said = certificate::pass(bench.app.clone()).await.unwrap();
    assert!(said.contains(&agent.run), "{said}");
    assert_ne!(bench.app.served.fingerprint(), next);
}

#[tokio::test]
async fn a_rotation_waits_for_agents_of_the_last_seven_days_and_no_longer() {
    let bench = Bench::start().await;
    let first = bench.app.served.fingerprint();
    let next = bench.app.certificates.announce_next().unwrap().fingerprint;
    certificate::pass(bench.app.clone()).await.unwrap();
    bench.app.live.clock.step(ANNOUNCED_MS_MIN);
    let today = wall_now().0.div_euclid(86_400_000);
    // The same home, heard the later the more days ago.
    for (days_ago, served) in [(0, &first), (5, &first), (9, &next)] {
        let agent = AgentSeen {
            instance: RandomId::from_bytes([9; 16]),
            run: "r-before".parse().unwrap(),
            seen_day: today - days_ago,
            pins: vec![first.clone()],
        };
        bench.app.store.note_agent(agent).await.unwrap();
        certificate::pass(bench.app.clone()).await.unwrap();
        assert_eq!(bench.app.served.fingerprint(), *served, "{days_ago} days ago");
    }
}

#[tokio::test]
async fn an_agent_whose_home_goes_with_the_power_is_the_same_one_after_a_reset() {
    for (home_kind, waits) in [("volatile", false), ("durable", true)] {
        let bench = Bench::start().await;
        let (run, boot) = bench.make_run("n1").await;
        let mut agent = Agent::new(run, boot);
        (agent.home_kind, agent.serial) = (home_kind, Some("S-1"));
        agent.claim(&bench).await.expect(200);
        let first = bench.app.served.fingerprint();
        agent.beat(&bench, json!({ "pins_known": [first] })).await.expect(200);
        let next = bench.app.certificates.announce_next().unwrap().fingerprint;
        certificate::pass(bench.app.clone()).await.unwrap();

        agent.boot_without_memory();
        bench.app.live.clock.step(limits::FRESH_MS);
        agent.claim(&bench).await.expect(200);
        let said = certificate::pass(bench.app.clone()).await.unwrap();
        assert!(said.contains(&agent.run), "the one that is back knows nothing yet: {said}");
        agent.beat(&bench, json!({ "pins_known": [first, next] })).await.expect(200);
        bench.app.live.clock.step(ANNOUNCED_MS_MIN);
        certificate::pass(bench.app.clone()).await.unwrap();
        // The disk of the one before may be put into another machine; memory cannot.
        assert_eq!(bench.app.served.fingerprint(), if waits { first } else { next }, "{home_kind}");
    }
}

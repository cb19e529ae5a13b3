//! An operator allows an attempt to write over disks.

use serde_json::json;

use crate::bench::{Agent, Bench};

const PROFILE: &str = r#"
name = "wipes"
in_service = true
[[stage]]
name = "Storage"
deadline = "2m"
storage.destructive = true
[write]
disks = [{ serial = "S1", size_gb = 960, wwn = "naa.1" }]
"#;

#[tokio::test]
async fn a_wipe_goes_with_a_retry_alone_and_its_agent_and_the_audit_are_told() {
    let bench = Bench::start().await;
    let profile = bench.call("PUT", "/api/v1/profiles/wipes", Some(&bench.operator), PROFILE).await;
    profile.expect(200);
    bench.order("PUT", "/api/v1/nodes/n1", json!({ "name": "n1" })).await.expect(200);
    let made =
        bench.order("POST", "/api/v1/runs", json!({ "node": "n1", "profile": "wipes" })).await.expect(201);
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let mut agent = Agent::new(text("run"), text("boot_token"));
    let claim = agent.claim(&bench).await.expect(200);
    let storage = &claim["stage_settings"][0]["storage"];
    assert_eq!(storage["allowance"]["disks"][0]["serial"], "S1", "the stage is told what it may write over");
    assert_eq!(claim["non_destructive"], false);
    agent.beat(&bench, json!({})).await.expect(200);
    let failed = json!({ "made_under": 1, "stage": "Storage", "attempt": 1, "passed": false, "checks": [] });
    let held = agent.post(&bench, "result", failed).await.expect(200);
    assert_eq!(held["next_state"], "FailedHolding");
    for word in ["override", "cancel", "release", "abort"] {
        let order = json!({ "reason": "x", "wipe": true });
        bench.order("POST", &agent.path(word), order).await.expect_error(400, "bad", &["with a retry alone"]);
    }
    bench.order("POST", &agent.path("retry"), json!({ "wipe": true })).await.expect(200);
    let audit = bench.order("GET", "/api/v1/audit?limit=1", json!(null)).await.expect(200);
    assert_eq!(audit["rows"][0]["action"], "retry_with_wipe");
    let beat = agent.beat(&bench, json!({})).await.expect(200);
    assert_eq!(
        (&beat["cmd"], &beat["override_flags"]["wipe"]),
        (&json!("retry_stage"), &json!(true)),
        "{beat}"
    );
    assert!(beat["override_flags"]["id"].as_str().is_some_and(|id| id.len() == 32), "{beat}");
    let of_attempt = |attempt: u32, disk: &str| {
        json!({ "stage": "Storage", "attempt": attempt, "kind": "wipe", "disks": [disk],
            "boot_id": "11111111-2222-3333-4444-000000000001" })
    };
    let intent = |disk: &str| of_attempt(2, disk);
    // The agent of another run has no part in it: not with its own token here, and not with this override there.
    bench.order("PUT", "/api/v1/nodes/n2", json!({ "name": "n2" })).await.expect(200);
    let made =
        bench.order("POST", "/api/v1/runs", json!({ "node": "n2", "profile": "wipes" })).await.expect(201);
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let mut other = Agent::new(text("run"), text("boot_token"));
    other.claim(&bench).await.expect(200);
    other.beat(&bench, json!({})).await.expect(200);
    let own = std::mem::replace(&mut other.run, agent.run.clone());
    other.post(&bench, "intent", intent("S1")).await.expect_error(401, "token", &["run token of this run"]);
    other.run = own;
    let refused = other.post(&bench, "intent", of_attempt(1, "S1")).await;
    refused.expect_error(422, "unfit", &["no wipe override is armed for attempt 1"]);
    agent.post(&bench, "intent", intent("S2")).await.expect_error(422, "unfit", &["\"S2\" is not in"]);
    agent.post(&bench, "intent", intent("S1")).await.expect(200);
}

//! Reboots inside a run, over the wire: what is shown of one that was asked for, and what the next boot says of it.

use serde_json::{Value, json};

use crate::bench::{Agent, Bench};

/// Two interrupts, of a profile that lets a reboot take 40 minutes.
const PROFILE: &str = "name = \"reboots\"\n[limits]\nreboot = \"40m\"\n[[stage]]\nname = \"Interrupt:kernel\"\n\
                       [[stage]]\nname = \"Interrupt:after\"\n[[interrupt]]\nname = \"kernel\"\ntype = \"node_restart\"\n\
                       [[interrupt]]\nname = \"after\"\ntype = \"no_op\"\n";
const LIMIT_MS: i64 = 40 * 60_000;

/// The agent of a run of that profile on a node.
async fn begin(bench: &Bench, node: &str) -> Agent {
    bench.order("PUT", &format!("/api/v1/nodes/{node}"), json!({ "name": node })).await.expect(200);
    let put = bench.call("PUT", "/api/v1/profiles/reboots", Some(&bench.operator), PROFILE).await;
    put.expect(200);
    let made = bench.order("POST", "/api/v1/runs", json!({ "node": node, "profile": "reboots" })).await;
    let made = made.expect(201);
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let mut agent = Agent::new(text("run"), text("boot_token"));
    agent.serial = Some("S-1");
    let told = agent.claim(bench).await.expect(200);
    // How long it may take is told with the stage, so that the agent waits for as long.
    assert_eq!(told["stage_settings"][0]["interrupt"]["reboot_ms"], LIMIT_MS, "{told}");
    agent
}

async fn get(bench: &Bench, path: &str) -> Value {
    bench.order("GET", path, json!(null)).await.expect(200)
}

async fn view(bench: &Bench, agent: &Agent) -> Value {
    get(bench, &format!("/api/v1/runs/{}", agent.run)).await
}

/// How many events of a kind the run has.
async fn told(bench: &Bench, agent: &Agent, kind: &str) -> usize {
    let run = agent.run.parse().unwrap();
    let events = bench.app.store.events(Some(&run), 0, 500).await.unwrap();
    events.iter().filter(|event| event.kind == kind).count()
}

async fn asks(bench: &Bench, agent: &Agent, attempt: u32, boot: u32) {
    let boot_id = format!("11111111-2222-3333-4444-{boot:012}");
    let intent =
        json!({ "stage": "Interrupt:kernel", "attempt": attempt, "kind": "reboot", "boot_id": boot_id });
    agent.post(bench, "intent", intent).await.expect(200);
}

#[tokio::test]
async fn a_node_is_shown_as_rebooting_by_the_profiles_limit_until_another_boot_id_claims() {
    let bench = Bench::start().await;
    let mut agent = begin(&bench, "n1").await;
    assert_eq!(get(&bench, "/api/v1/nodes/n1").await["rebooting"], Value::Null);
    asks(&bench, &agent, 1, 1).await;
    let rebooting = view(&bench, &agent).await["rebooting"].clone();
    assert_eq!(rebooting["until"].as_i64().unwrap() - rebooting["asked"].as_i64().unwrap(), LIMIT_MS);
    let named = ["run", "stage", "boot_id"].map(|field| rebooting[field].as_str().unwrap());
    assert_eq!(named, [&*agent.run, "Interrupt:kernel", "11111111-2222-3333-4444-000000000001"]);
    assert_eq!((&rebooting["attempt"], &rebooting["missed"]), (&json!(1), &json!(0)));
    assert_eq!(get(&bench, "/api/v1/nodes/n1").await["rebooting"], rebooting);
    // Of another node nothing of the kind is said.
    begin(&bench, "n2").await;
    assert_eq!(get(&bench, "/api/v1/nodes/n2").await["rebooting"], Value::Null);

    // A live image: another boot id, and nothing of what the agent knew. It shows the spent token again.
    agent.boot_without_memory();
    let answer = agent.claim(&bench).await.expect(200);
    assert_eq!(
        (answer["current_state"].as_str(), answer["attempt"].as_u64()),
        (Some("Interrupt:after"), Some(1))
    );
    assert_eq!(told(&bench, &agent, "reboot_proved").await, 1);
    assert_eq!(told(&bench, &agent, "unexpected_reset").await, 0);
    let after = view(&bench, &agent).await;
    assert_eq!((&after["rebooting"], &after["stages"][0]["verdict"]), (&Value::Null, &json!("pass")));
    assert_eq!(get(&bench, "/api/v1/nodes/n1").await["rebooting"], Value::Null);
}

#[tokio::test]
async fn the_same_boot_is_told_to_ask_again_three_times_and_then_holds() {
    let bench = Bench::start().await;
    let mut agent = begin(&bench, "n1").await;
    for attempt in 1..=3_u8 {
        asks(&bench, &agent, attempt.into(), 1).await;
        assert_eq!(view(&bench, &agent).await["rebooting"]["missed"], attempt - 1);
        agent.restart_as(attempt);
        let answer = agent.claim(&bench).await.expect(200);
        if attempt < 3 {
            assert_eq!(
                (&answer["current_state"], &answer["attempt"]),
                (&json!("Interrupt:kernel"), &json!(attempt + 1))
            );
        }
    }
    let held = view(&bench, &agent).await;
    let why = "a reboot was asked for 3 times and the machine is still in the same boot";
    assert_eq!((held["state"].as_str(), held["reason"].as_str()), (Some("FailedHolding"), Some(why)));
    assert_eq!((told(&bench, &agent, "reboot_missed").await, told(&bench, &agent, "crashed").await), (3, 0));
}

#[tokio::test]
async fn a_boot_that_nobody_asked_for_is_an_unexpected_reset() {
    let bench = Bench::start().await;
    let mut agent = begin(&bench, "n1").await;
    asks(&bench, &agent, 1, 1).await;
    agent.boot_with_memory();
    agent.claim(&bench).await.expect(200);
    assert_eq!(told(&bench, &agent, "reboot_proved").await, 1);
    // The boot after it is nobody's wish: no claim that was good makes a pass of this stage.
    agent.boot_with_memory();
    let answer = agent.claim(&bench).await.expect(200);
    assert_eq!((&answer["current_state"], &answer["attempt"]), (&json!("Interrupt:after"), &json!(2)));
    assert_eq!(told(&bench, &agent, "unexpected_reset").await, 1);
    let check =
        json!({ "name": "commands", "observed": { "kind": "found", "text": "done" }, "verdict": "pass" });
    let result = json!({
        "made_under": agent.claim, "stage": "Interrupt:after", "attempt": 2, "passed": true, "summary": "s",
        "checks": [check],
    });
    let answer = agent.post(&bench, "result", result).await.expect(200);
    assert_eq!(answer["next_state"], "FailedHolding", "{answer}");
    let held = view(&bench, &agent).await;
    assert!(held["reason"].as_str().unwrap().contains("unexpected_reset"), "{held}");
    let order = format!("/api/v1/runs/{}/override", agent.run);
    bench.order("POST", &order, json!({ "reason": "a fuse" })).await.expect(200);
    assert_eq!(view(&bench, &agent).await["state"], "Completed");
}

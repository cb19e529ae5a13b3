//! An agent of the protocol before, played call by call: the boot token for everything, no numbers, no streams.

use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::agent_path;
use groundcrew_tests::harness::Server;
use http::Method;
use serde_json::{Value, json};

use crate::profiles::INVENTORY_AND_LOAD;

#[test]
fn an_agent_of_the_protocol_before_walks_to_the_end() {
    let mut server = Server::start();
    let run = server.create_run("n1", INVENTORY_AND_LOAD);
    let say = |server: &Server, call: &str, body: Value| -> Value {
        let agent = server.caller(Some(run.token.clone()));
        let answered = agent.call(Method::POST, &agent_path(&run.id, call), &body);
        answered.unwrap_or_else(|error| panic!("{call}: {}", error.chain()))
    };
    assert_eq!(say(&server, "hello", json!({}))["protocol"], 1);
    let claim = say(&server, "claim", json!({"ip": "10.0.0.7"}));
    assert_eq!(claim["current_state"], "InventoryCheck");
    assert_eq!(claim["stages"][0], "Inventory");
    say(&server, "heartbeat", json!({}));
    let line =
        json!({"ts": "2026-01-01T00:00:00Z", "level": "info", "stage": "Inventory", "text": "old and well"});
    say(&server, "log", json!({"lines": [line]}));
    let sample = json!({"kind": "temperature", "key": "cpu", "value": 41.5, "unit": "°C"});
    say(&server, "sensor", json!({"samples": [sample]}));
    let inventory = json!({"stage": "Inventory", "passed": true, "summary": {"cores": 4}});
    assert_eq!(say(&server, "result", inventory.clone())["next_state"], "CPUStress");
    server.start_again(&[]);
    // A result that is sent again changes nothing, and the answer says where the run stands.
    assert_eq!(say(&server, "result", inventory)["next_state"], "CPUStress");

    let failed = json!({"stage": "CPUStress", "passed": false, "message": "too hot"});
    assert_eq!(say(&server, "result", failed)["next_state"], "FailedHolding");
    say(&server, "hold", json!({"ip": "10.0.0.7"}));
    assert_eq!(say(&server, "heartbeat", json!({}))["cmd"], Value::Null);
    server.order(&run, "retry", "");
    let order = say(&server, "heartbeat", json!({}));
    assert_eq!((&order["cmd"], &order["stage"]), (&json!("retry_stage"), &json!("CPUStress")));
    let passed = json!({"stage": "CPUStress", "passed": true});
    assert_eq!(say(&server, "result", passed)["next_state"], "Completed");
    let view = server.view(&run);
    assert_eq!((view.summary.state, view.stages[1].attempts), (State::Completed, 2));
    assert_eq!(server.log(&run, None), ["old and well"]);
    let report: Report = server.get(&format!("/api/v1/runs/{}/report", run.id));
    assert_eq!(report.sensors.len(), 1);
}

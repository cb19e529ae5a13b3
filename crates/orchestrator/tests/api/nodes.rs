//! Nodes, as operators write them.

use groundcrew_orchestrator::api::auth::Operator;
use groundcrew_orchestrator::api::nodes::audit;
use groundcrew_protocol::operator::Node;
use serde_json::{Value, json};

use crate::bench::{Agent, Bench};

#[tokio::test]
async fn a_serial_that_was_left_empty_is_none_and_keeps_no_machine_out() {
    let bench = Bench::start().await;
    let (run, _boot) = bench.make_run("n1").await;
    for serial in ["", "  "] {
        let node = json!({ "name": "n1", "serial": serial });
        let put = bench.order("PUT", "/api/v1/nodes/n1", node).await.expect(200);
        assert_eq!(put["serial"], Value::Null);
        assert_eq!(
            bench.order("GET", "/api/v1/nodes/n1", json!(null)).await.expect(200)["serial"],
            Value::Null
        );
    }
    bench.order("POST", &format!("/api/v1/runs/{run}/cancel"), json!({})).await.expect(200);
    // One that an earlier version has stored so.
    let node =
        Node { serial: Some(String::new()), ..serde_json::from_value(json!({ "name": "n1" })).unwrap() };
    let operator = Operator { name: "admin".into() };
    bench.app.store.put_node(node, audit(&operator, "put_node", "n1".to_owned())).await.unwrap();
    let made =
        bench.order("POST", "/api/v1/runs", json!({ "node": "n1", "profile": "short" })).await.expect(201);
    let mut agent =
        Agent::new(made["run"].as_str().unwrap().to_owned(), made["boot_token"].as_str().unwrap().to_owned());
    agent.serial = Some("S-1");
    agent.claim(&bench).await.expect(200);
    // And a machine that says an empty one says none: it is not another than the node's.
    bench.order("PUT", "/api/v1/nodes/n2", json!({ "name": "n2", "serial": "S-2" })).await.expect(200);
    let made =
        bench.order("POST", "/api/v1/runs", json!({ "node": "n2", "profile": "short" })).await.expect(201);
    let mut agent =
        Agent::new(made["run"].as_str().unwrap().to_owned(), made["boot_token"].as_str().unwrap().to_owned());
    agent.serial = Some(" ");
    agent.claim(&bench).await.expect(200);
    let view = bench.order("GET", &format!("/api/v1/runs/{}", agent.run), json!(null)).await.expect(200);
    assert!(view["machine_unproved"].as_str().unwrap().contains("could not read a serial"), "{view}");
}

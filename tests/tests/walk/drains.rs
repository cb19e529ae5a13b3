//! Drains of a node: what is in flight ends, nothing new starts, and everybody can see what is waited for.

use std::process::Command;

use groundcrew_protocol::drain::{DrainState, NodeDrain};
use groundcrew_protocol::operator::NodeView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Server, binary, eventually};

/// A load that a test ends, and a stage behind it that ends by itself.
pub const LOAD_THEN_INVENTORY: &str = r#"
name = "load-then-inventory"
in_service = true
[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "1s"
workers = 1
throttled_percent_max = 100.0
[[stage]]
name = "Inventory"
"#;
const SECOND: &str = "stage Inventory: attempt";

/// Runs `groundcrewctl`, which must succeed; what it prints.
pub fn ctl(server: &Server, words: &[&str]) -> String {
    let output = Command::new(binary("groundcrewctl"))
        .args(words)
        .env_clear()
        .env("GROUNDCREW_URL", server.url())
        .env("GROUNDCREW_FPR", server.fingerprint())
        .env("GROUNDCREW_OPERATOR_TOKEN", server.token().as_str())
        .output()
        .expect("the binary can be started");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Waits until the drain of the node stands as wanted.
pub fn wait_for_drain(server: &Server, what: &str, wanted: impl Fn(Option<&NodeDrain>) -> bool) -> NodeView {
    eventually(what, || {
        let view: NodeView = server.get("/api/v1/nodes/n1");
        wanted(view.drain.as_ref()).then_some(view)
    })
}

pub fn stands(state: DrainState) -> impl Fn(Option<&NodeDrain>) -> bool {
    move |drain| drain.is_some_and(|drain| drain.state == state)
}

#[test]
fn a_drained_node_ends_its_stage_starts_no_other_and_goes_on_when_it_is_undrained() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_INVENTORY);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    ctl(&server, &["node", "drain", "n1", "--reason", "new firmware"]);
    let view = wait_for_drain(&server, "the agent that drains", stands(DrainState::Draining));
    let agent = &view.drain.as_ref().unwrap().agents[0];
    assert_eq!(agent.active.as_ref().unwrap().stage, Stage::CpuStress);
    assert_eq!(agent.agent, "draining");
    let holder = format!("orchestrator:{}", view.drain.as_ref().unwrap().drains[0].id);
    assert!(agent.drain.contains(&holder), "{}", agent.drain);
    let marker = machine.home().join(".drain_request.json");
    let fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    assert!(fields["holders"][&holder].is_object() && fields["action"] == "drain", "{fields}");

    machine.load.pass();
    wait_for_drain(&server, "nothing active", stands(DrainState::Idle));
    let view = server.wait_for(&run, "a run that waits for the drain", |view| {
        view.summary.wait.as_ref().is_some_and(|wait| wait.r#for.contains("drain"))
    });
    assert_eq!(view.summary.state, State::At(Stage::Inventory));
    assert!(view.activity.contains("Inventory waits for its end"), "{}", view.activity);
    assert!(ctl(&server, &["node", "show", "n1"]).contains("nothing is active"));

    // What the drain was for: the agent is stopped and started again, and still drained. No attempt crashed by that.
    assert!(machine.stop().success());
    machine.start();
    machine.agent().wait_for_line("drains, asked for by orchestrator:");
    wait_for_drain(&server, "the next agent that drains", stands(DrainState::Idle));
    assert_eq!((machine.agent().count_of(SECOND), server.count_of(&run, "crashed")), (0, 0));

    ctl(&server, &["node", "undrain", "n1"]);
    server.wait_for_state(&run, State::Completed);
    assert!(machine.agent().count_of(SECOND) > 0);
    wait_for_drain(&server, "a node without a drain", |drain| drain.is_none());
    assert!(!marker.exists());
    assert!(machine.stop().success());
}

#[test]
fn a_drain_is_renewed_as_often_as_the_agents_greatest_age_asks_for() {
    // More than a third of ten minutes, and far less than of the default.
    let server = Server::start_with_steps_of(210_000);
    let run = server.create_run("n1", LOAD_THEN_INVENTORY);
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start_with(&[("GROUNDCREW_DRAIN_MAX_AGE", "10m")]);
    machine.load.started();
    ctl(&server, &["node", "drain", "n1"]);
    wait_for_drain(&server, "the agent that drains", stands(DrainState::Draining));
    let marker = machine.home().join(".drain_request.json");
    let asked_at = || {
        let fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
        fields["requested_at"].as_str().unwrap().to_owned()
    };
    let before = asked_at();
    server.pass_time();
    eventually("a renewal", || (asked_at() != before).then_some(()));
}

#[test]
fn an_agent_that_comes_to_a_drained_node_starts_nothing() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_INVENTORY);
    ctl(&server, &["node", "drain", "n1"]);
    // Claims are told what the task has last read.
    eventually("the drain read", || {
        server.text("/api/v1/tasks").contains("1 drains hold 1 nodes").then_some(())
    });
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start();
    wait_for_drain(&server, "nothing active", stands(DrainState::Idle));
    assert!(machine.load.is_quiet());
    assert_eq!(machine.agent().count_of("attempt 1 starts"), 0);
    ctl(&server, &["node", "undrain", "n1"]);
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn a_marker_that_somebody_writes_on_the_node_drains_and_its_removal_by_hand_goes_on() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_INVENTORY);
    let mut machine = Machine::new(&server, &run, "m1");
    std::fs::create_dir_all(machine.home()).unwrap();
    let marker = machine.home().join(".drain_request.json");
    std::fs::write(&marker, "half a mark").unwrap();
    machine.start();
    machine.agent().wait_for_line("a malformed drain marker drains all the same");
    wait_for_drain(&server, "nothing active", stands(DrainState::Idle));
    assert!(machine.load.is_quiet());
    std::fs::remove_file(&marker).unwrap();
    machine.load.started();
    // The end of the agent wins over the end of a drain: it stops, whatever becomes of the marker.
    std::fs::write(&marker, "{}").unwrap();
    machine.agent().wait_for_line("drains, asked for by drain-control");
    assert!(machine.stop().success());
}

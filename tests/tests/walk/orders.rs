//! What operators order: cancel, abort, release, a hold with its key.

use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Run, Server};
use http::Method;

use crate::profiles::LOAD;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl operator@desk";
const OTHERS: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody@else\n";

fn put_hold_key(server: &Server) {
    let body = serde_json::json!({"authorized_key": KEY});
    let _kept: serde_json::Value = server.must(Method::PUT, "/api/v1/hold-key", &body);
}

/// A held run whose machine has the operator's key in its file, beside somebody else's.
fn held_with_key(server: &Server) -> (Run, Machine) {
    put_hold_key(server);
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(server, &run, "m1");
    std::fs::write(machine.authorized_keys(), OTHERS).unwrap();
    machine.start();
    machine.load.started();
    machine.load.fail();
    server.wait_for_state(&run, State::FailedHolding);
    machine.agent().wait_for_line("an operator's key may log in");
    assert_eq!(keys_of(&machine).matches("groundcrew-hold:").count(), 1);
    (run, machine)
}

fn keys_of(machine: &Machine) -> String {
    let text = std::fs::read_to_string(machine.authorized_keys()).unwrap();
    assert!(text.starts_with(OTHERS), "{text}");
    text
}

#[test]
fn a_cancel_ends_every_process_of_the_stage_and_its_result_is_kept_as_late() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    let tool = machine.load.started();
    machine.load.be_stubborn();
    let children = [machine.load.bear_child(), machine.load.bear_child()];
    let view = server.order(&run, "cancel", "wrong machine");
    assert_eq!(view.summary.state, State::Cancelled);
    assert_eq!(view.summary.reason, "cancelled by admin: wrong machine");
    tool.wait_gone();
    children.iter().for_each(|child| child.wait_gone());
    server.wait_for_event(&run, "late_result");
    let report: Report = server.get(&format!("/api/v1/runs/{}/report", run.id));
    let stage = &report.stages[0];
    assert_eq!(
        (stage.summary.as_str(), stage.message.as_str()),
        ("cancelled", "stage cancelled by operator")
    );
    assert_eq!(server.view(&run).summary.state, State::Cancelled);
    server.wait_for(&run, "the cancel confirmed", |view| view.directives.is_empty());
    assert!(machine.agent().is_alive(), "a cancelled run's machine stays");
    assert!(machine.stop().success());
}

#[test]
fn an_abort_ends_the_stage_and_the_agent() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    let tool = machine.load.started();
    let child = machine.load.bear_child();
    let view = server.order(&run, "abort", "");
    assert_eq!(view.summary.state, State::Cancelled);
    assert!(machine.wait().success());
    assert!(tool.is_gone() && child.is_gone());
    server.wait_for(&run, "the abort confirmed", |view| view.directives.is_empty());
}

#[test]
fn the_key_of_a_hold_goes_in_once_and_a_retry_takes_it_out() {
    let server = Server::start();
    let (run, mut machine) = held_with_key(&server);
    server.order(&run, "retry", "");
    machine.load.started();
    machine.agent().wait_for_line("the operator's key is out of");
    assert_eq!(keys_of(&machine), OTHERS);
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    assert_eq!(keys_of(&machine), OTHERS);
}

#[test]
fn the_key_of_a_hold_goes_out_though_the_agent_was_killed_in_the_hold() {
    let server = Server::start();
    let (run, mut machine) = held_with_key(&server);
    machine.kill();
    machine.start();
    machine.agent().wait_for_line("held: waits for an operator");
    server.wait_for(&run, "the second claim", |view| view.claim.0 == 2);
    assert_eq!(keys_of(&machine).matches("groundcrew-hold:").count(), 1);
    let view = server.order(&run, "release", "done looking");
    assert_eq!(view.summary.state, State::Cancelled);
    machine.agent().wait_for_line("the operator's key is out of");
    assert_eq!(keys_of(&machine), OTHERS);
    server.wait_for(&run, "the release confirmed", |view| view.directives.is_empty());
    assert!(machine.agent().is_alive());
    let last: EventView = server.events(&run).pop().unwrap();
    assert_eq!(last.state, State::Cancelled);
}

#[test]
fn the_key_of_a_hold_goes_out_though_the_run_was_released_while_the_agent_was_dead() {
    let server = Server::start();
    let (run, mut machine) = held_with_key(&server);
    machine.kill();
    server.order(&run, "release", "");
    machine.start();
    machine.agent().wait_for_line("the operator's key is out of");
    assert_eq!(keys_of(&machine), OTHERS);
    assert!(machine.load.is_quiet());
}

//! Those who should not have the run: a second agent with the token, a copied home, a wrong pin, a wrong token.

use groundcrew_agent::probe::{Root, dmi, nics};
use groundcrew_protocol::ids::TokenText;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::RunCreated;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{ClaimAnswer, agent_path};
use groundcrew_tests::harness::{Machine, Run, Server, eventually};
use http::Method;

use crate::profiles::LOAD;

#[test]
fn a_second_agent_with_the_same_token_gets_nothing() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut first = Machine::started(&server, &run, "first");
    first.load.started();
    let mut second = Machine::started(&server, &run, "second");
    second.agent().wait_for_line("asked again in 5 minutes");
    let said = second.agent().wait_for_line("boot token");
    assert!(said.contains("401"), "{said}");
    first.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (1, 1));
    assert!(second.load.is_quiet() && second.agent().is_alive());
    assert_eq!(server.count_of(&run, "hands_changed"), 0);
    assert!(second.stop().success());
}

#[test]
fn two_agents_that_start_at_once_with_the_same_token_never_both_walk() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machines = [Machine::started(&server, &run, "a"), Machine::started(&server, &run, "b")];
    let winner = eventually("a load on one of the two", || {
        machines.iter_mut().position(|machine| !machine.load.is_quiet())
    });
    let loser = 1 - winner;
    machines[loser].agent().wait_for_line("asked again in 5 minutes");
    machines[winner].load.started();
    machines[winner].load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (1, 1));
    assert!(machines[loser].load.is_quiet());
}

#[test]
fn an_older_copy_of_the_home_waits_while_the_original_is_alive() {
    let server = Server::start_with_steps_of(limits::FRESH_MS);
    let run = server.create_run("n1", LOAD);
    let mut original = Machine::started(&server, &run, "original");
    original.load.started();
    original.kill();
    let mut copy = Machine::new(&server, &run, "copy");
    copy.clone_home_of(&original);
    original.start();
    original.load.started();
    // Until the second claim has spoken its answer may have been lost, and any copy of the home may be its holder.
    // A heartbeat says what the agent is busy with, and a load says so after its first second.
    server.wait_for(&run, "a heartbeat under the second claim", |view| !view.activity.is_empty());
    copy.start();
    let said = copy.agent().wait_for_line("waits: ");
    assert!(said.contains("409"), "{said}");
    original.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (2, 2));
    assert!(copy.load.is_quiet());
}

#[test]
fn a_copy_of_the_home_that_takes_over_makes_the_original_stand_down() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut original = Machine::started(&server, &run, "original");
    let tool = original.load.started();
    let child = original.load.bear_child();
    let mut copy = Machine::new(&server, &run, "copy");
    copy.clone_home_of(&original);
    copy.start();
    copy.load.started();
    original.agent().wait_for_line("stands down");
    tool.wait_gone();
    child.wait_gone();
    copy.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (2, 2));
    assert!(original.load.is_quiet() && original.agent().is_alive());
}

#[test]
fn one_home_has_one_agent() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let mut second = machine.second_agent();
    assert_eq!(second.wait().code(), Some(1));
    second.wait_for_line("another agent uses the home");
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn a_wrong_pin_is_said_and_nothing_is_sent() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let wrong = "0".repeat(64);
    let mut machine = Machine::new(&server, &run, "m1").with_pin(&wrong);
    machine.start();
    let said = machine.agent().wait_for_line("asked again in 5 minutes");
    assert!(said.contains(server.fingerprint()) && said.contains(&wrong), "{said}");
    assert_eq!(server.view(&run).claim.0, 0);
    assert!(machine.stop().success());
}

#[test]
fn a_wrong_token_is_said_and_changes_nothing() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1").with_token(TokenText::boot([7; 32]));
    machine.start();
    let said = machine.agent().wait_for_line("asked again in 5 minutes");
    assert!(said.contains("401"), "{said}");
    assert_eq!(server.view(&run).claim.0, 0);
    assert!(
        machine.agent().lines().iter().all(|line| !line.contains(&"07".repeat(32))),
        "the token is shown"
    );
    assert!(machine.stop().success());
}

#[test]
fn a_machine_that_reset_quickly_asks_again_as_soon_as_its_boot_token_is_good() {
    // One step leaves the claim fresh for one more second, the next ends that.
    let server = Server::start_with_steps_of(limits::FRESH_MS - 1_000);
    let run = server.create_run("n1", LOAD);
    let root = Root::system();
    let (serial, macs) = (dmi::serial(&root), nics::macs(&root));
    assert!(serial.is_some() || !macs.is_empty(), "this machine has no serial and no address to be known by");
    // This machine on the boot before: its agent has claimed and is heard no more.
    let before = serde_json::json!({
        "boot_id": "00000000-0000-4000-8000-000000000001", "serial": serial, "macs": macs,
        "instance": "1".repeat(32), "session": "2".repeat(32), "token_sha256": "3".repeat(64),
    });
    let path = agent_path(&run.id, "claim");
    let claimed: ClaimAnswer =
        server.caller(Some(run.token.clone())).call(Method::POST, &path, &before).unwrap();
    assert_eq!(claimed.claim.0, 1);
    server.pass_time();
    let mut machine = Machine::started(&server, &run, "m1");
    let said = machine.agent().wait_for_line("asked again in 2 s");
    assert!(said.contains("401") && said.contains("was heard"), "{said}");
    server.pass_time();
    machine.load.started();
    assert_eq!(server.view(&run).claim.0, 2);
    assert_eq!(server.count_of(&run, "boot_token_reused"), 1);
    assert_eq!(machine.agent().count_of("5 minutes"), 0);
}

#[test]
fn a_spent_boot_token_says_how_to_make_another() {
    let server = Server::start_with_steps_of(limits::FRESH_MS);
    let run = server.create_run("n1", LOAD);
    let mut first = Machine::started(&server, &run, "first");
    first.load.started();
    first.kill();
    // The same machine on the same boot, and its home is gone.
    let mut second = Machine::started(&server, &run, "second");
    let said = second.agent().wait_for_line("asked again in 5 minutes");
    let advice = format!("groundcrewctl run token {}", run.id);
    assert!(said.contains("401") && said.matches(&advice).count() == 1, "{said}");
    second.kill();
    let path = format!("/api/v1/runs/{}/token", run.id);
    let made: RunCreated = server.must(Method::POST, &path, &serde_json::json!({}));
    let run = Run { id: run.id, token: made.boot_token };
    // The first was heard a moment ago, and only here it is decided when that is long ago.
    let mut third = Machine::started(&server, &run, "third");
    third.agent().wait_for_line("waits: ");
    server.pass_time();
    third.load.started();
    third.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts), (2, 2));
    assert_eq!(server.count_of(&run, "hands_changed"), 1);
}

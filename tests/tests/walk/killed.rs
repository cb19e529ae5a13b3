//! Walks in which the orchestrator or the agent ends in the middle of a stage, nearly always by SIGKILL.

use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Server};

use crate::profiles::LOAD;

#[test]
fn the_orchestrator_is_killed_in_the_middle_of_a_stage_and_comes_back() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.print(50);
    server.kill();
    let last = machine.load.print(50);
    server.start_again(&[]);
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.claim.0), (1, 1));
    server.expect_lines(&run, last);
    assert_eq!(server.count_of(&run, "stage_started"), 1);
    assert!(machine.load.is_quiet(), "the load was started again");
}

#[test]
fn an_outcome_that_nobody_could_take_is_kept_and_sent_later() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    server.kill();
    machine.load.pass();
    machine.agent().wait_for_line("the outcome is kept");
    machine.kill();
    machine.start();
    server.start_again(&[]);
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 1);
    assert_eq!(server.count_of(&run, "crashed"), 0);
    assert!(machine.load.is_quiet(), "the load was started again");
}

#[test]
fn nothing_is_missing_or_doubled_after_the_orchestrator_was_away() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    for _ in 0..3 {
        machine.load.print(2_000);
        server.kill();
        machine.load.print(3_000);
        server.start_again(&[]);
    }
    let last = machine.load.print(10);
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    server.expect_lines(&run, last);
    assert_eq!(last, 15_010);
    assert!(server.view(&run).gaps.is_empty(), "{:?}", server.view(&run).gaps);
}

#[test]
fn the_agent_is_killed_in_the_middle_of_a_stage_and_comes_back() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    let tool = machine.load.started();
    machine.load.be_stubborn();
    let child = machine.load.bear_child();
    let printed = machine.load.print(700);
    machine.agent().wait_for_line(&format!("line {printed}"));
    machine.kill();
    machine.start();
    let second = machine.load.started();
    assert!(tool.is_gone() && child.is_gone(), "an orphan of the first load lives beside the second");
    assert_ne!(tool.pid(), second.pid());
    let last = machine.load.print(300);
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.claim.0), (2, 2));
    assert_eq!(server.count_of(&run, "crashed"), 1);
    server.expect_lines(&run, last);
    let starts = server.log(&run, Some(&Stage::CpuStress));
    let starts = starts.iter().filter(|text| text.starts_with("runs stress-ng ")).count();
    assert_eq!(starts, 2);
}

#[test]
fn three_crashes_in_one_stage_hold_the_run() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    for _ in 0..3 {
        machine.start();
        machine.load.started();
        machine.kill();
    }
    machine.start();
    let view = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(view.stages[0].attempts, 3);
    assert!(view.summary.reason.contains('3'), "{}", view.summary.reason);
    machine.agent().wait_for_line("held: waits for an operator");
    assert!(machine.load.is_quiet(), "the load was started again");
    server.order(&run, "retry", "");
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn an_agent_that_is_asked_to_end_leaves_nothing_behind_and_the_next_goes_on() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    let tool = machine.load.started();
    let child = machine.load.bear_child();
    let printed = machine.load.print(200);
    assert!(machine.stop().success());
    assert!(tool.is_gone() && child.is_gone(), "the stage's processes outlived the agent");
    // It waited for its last lines to be taken, so they are there without a second agent.
    server.expect_lines(&run, printed);
    machine.start();
    machine.load.started();
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 2);
    server.expect_lines(&run, printed);
}

#[test]
fn an_agent_that_is_stopped_in_order_again_and_again_is_no_crash() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    for _ in 0..4 {
        machine.start();
        machine.load.started();
        assert!(machine.stop().success());
    }
    machine.start();
    machine.load.started();
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 5);
    assert_eq!((server.count_of(&run, "stopped"), server.count_of(&run, "crashed")), (4, 0));
}

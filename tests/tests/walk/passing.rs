//! Walks in which nobody dies: to the end, by way of a hold, past an override.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Server};

use crate::profiles::{INVENTORY_AND_LOAD, LOAD, LOAD_THEN_HELD};

#[test]
fn a_machine_is_vetted_to_the_end_and_its_report_needs_nothing_else() {
    let server = Server::start();
    let run = server.create_run("n1", INVENTORY_AND_LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let last = machine.load.print(300);
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages.len(), 3, "{:?}", view.stages);
    assert!(view.stages.iter().all(|stage| stage.attempts == 1));
    server.expect_lines(&run, last);
    let framing =
        server.log(&run, None).into_iter().any(|text| text == "claim 1: the run stands at InventoryCheck");
    assert!(framing, "{:#?}", server.log(&run, None));

    let report: Report = server.get(&format!("/api/v1/runs/{}/report", run.id));
    assert_eq!(report.state, State::Completed);
    assert!(matches!(report.verdict, Verdict::Pass | Verdict::Warn), "{report:#?}");
    assert!(report.inventory.is_some_and(|inventory| inventory.cpu.logical > Some(0)));
    let page = server.text(&format!("/api/v1/runs/{}/report?format=html", run.id));
    for part in ["<html", "Completed", "CPUStress", "miscompares", "line 300"] {
        assert!(page.contains(part), "the page lacks {part:?}");
    }
    for outside in ["<script", "<link", "<iframe", "@import", "src=\"http", "href=\"http", "url("] {
        assert!(!page.contains(outside), "the page has {outside:?}");
    }
    assert!(machine.stop().success());
}

#[test]
fn a_failed_stage_holds_and_a_retry_goes_on_to_the_end() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.fail();
    let held = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(held.stages[0].verdict, Some(Verdict::Fail));
    assert!(held.summary.reason.contains("miscompares"), "{}", held.summary.reason);
    let wait = held.summary.wait.expect("a held run waits for an operator");
    assert!(wait.until > wait.since && !wait.then.is_empty());

    server.order(&run, "retry", "");
    machine.load.started();
    machine.load.fail();
    let held = server.wait_for(&run, "the second hold", |view| {
        view.summary.state == State::FailedHolding && view.stages[0].attempts == 2
    });
    assert_eq!(held.stages[0].verdict, Some(Verdict::Fail));

    server.order(&run, "retry", "");
    machine.load.started();
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.stages[0].verdict), (3, Some(Verdict::Pass)));
    assert_eq!(server.count_of(&run, "held"), 2);
}

#[test]
fn an_overridden_verdict_goes_on() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_HELD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    machine.load.fail();
    server.wait_for_state(&run, State::FailedHolding);
    server.order(&run, "override", "known and harmless");
    let view = server.wait_for(&run, "a hold at the next stage", |view| {
        view.summary.state == State::FailedHolding && view.summary.stage == Some(Stage::Soak)
    });
    assert_eq!(view.stages[0].overridden.as_deref(), Some("known and harmless"));
    assert_eq!(view.stages[1].verdict, Some(Verdict::Inconclusive));
    server.order(&run, "override", "nobody has the tool");
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.summary.verdict, Some(Verdict::Warn));
    assert!(machine.load.is_quiet(), "the load was started again");
}

#[test]
fn a_stage_whose_tool_is_missing_is_inconclusive_and_holds() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1").without_tools();
    machine.start();
    let view = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(view.stages[0].verdict, Some(Verdict::Inconclusive));
    let report: Report = server.get(&format!("/api/v1/runs/{}/report", run.id));
    assert!(report.stages[0].message.contains("stress-ng is not installed"), "{:?}", report.stages[0]);
}

//! Walks in which nobody dies: to the end, by way of a hold, past an override.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Run, Server};

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
    // What frames the stages is of none of them.
    for stage in [Stage::Inventory, Stage::CpuStress] {
        let lines = server.log(&run, Some(&stage));
        assert!(!lines.iter().any(|text| text.starts_with("claim 1:")), "{stage}: {lines:#?}");
    }
    assert!(server.log(&run, Some(&Stage::CpuStress)).iter().any(|text| text == "line 300"));

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
    expect_no_token(&server, &run, &machine);
    assert!(machine.stop().success());
}

/// Whoever reads the data folder, or a backup of it, can speak as nobody: tokens are there by their hashes alone.
fn expect_no_token(server: &Server, run: &Run, machine: &Machine) {
    let kept = std::fs::read_to_string(machine.home().join("run.json")).unwrap();
    let run_token =
        kept.split('"').find(|word| word.starts_with("gcr_")).expect("the agent keeps its run token");
    let tokens = [server.token().as_str(), run.token.as_str(), run_token];
    let mut files = 0;
    let mut folders = vec![server.data()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            files += 1;
            for token in tokens {
                let (_kind, digits) = token.split_once('_').unwrap();
                let raw: Vec<u8> = (0..digits.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                    .collect();
                assert_eq!(raw.len(), 32);
                let holds = |needle: &[u8]| content.windows(needle.len()).any(|bytes| bytes == needle);
                assert!(!holds(digits.as_bytes()), "{} holds a token in hexadecimal", path.display());
                assert!(!holds(&raw), "{} holds the bytes of a token", path.display());
            }
        }
    }
    assert!(files > 4, "only {files} files were looked at");
    let lines = server.log(run, None);
    assert!(!lines.iter().any(|line| tokens.iter().any(|token| line.contains(token))), "{lines:#?}");
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
        view.summary.state == State::FailedHolding && view.summary.stage == Some(Stage::Network)
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

//! What an agent says of itself in its home, through its life and after it.

use std::path::Path;
use std::process::Output;

use groundcrew_durable::epoch::{PROC, boot_epoch};
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server, binary, eventually};
use serde_json::{Value, json};

use crate::profiles::LOAD;

/// The file in the agent's home, which is whole at any moment.
fn file(machine: &Machine) -> Option<Value> {
    let bytes = std::fs::read(machine.home().join("agent-info.json")).ok()?;
    Some(serde_json::from_slice(&bytes).expect("the file is whole at any moment"))
}

fn wait_for(machine: &Machine, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || file(machine).filter(|file| wanted(file)))
}

fn status(machine: &Machine, more: &[&str]) -> Output {
    let mut command = std::process::Command::new(binary("groundcrew"));
    command.arg("status").args(more).env_clear().env("GROUNDCREW_HOME", machine.home());
    command.output().expect("the binary can be started")
}

fn status_json(machine: &Machine) -> (i32, Value) {
    let output = status(machine, &["--json"]);
    let shown = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    (output.status.code().expect("it ends by itself"), shown)
}

#[test]
fn an_agent_says_in_its_home_where_it_stands_and_status_judges_it() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    let none = status(&machine, &[]);
    assert_eq!(none.status.code(), Some(2), "no agent has lived there");
    assert!(String::from_utf8_lossy(&none.stderr).contains("m1/home"), "{none:?}");

    std::fs::create_dir_all(machine.home()).unwrap();
    std::fs::write(machine.home().join("agent-info.json"), r#"{"owner":"lab","phase":"stopped"}"#).unwrap();
    machine.start();
    machine.load.started();
    let said = wait_for(&machine, "a stage in the file", |file| file["stage"] == "CPUStress");
    let pid = machine.agent().pid();
    assert_eq!((&said["phase"], &said["activity"]), (&json!("running"), &json!("executing")), "{said}");
    assert_eq!((&said["owner"], &said["claim"], &said["attempt"]), (&json!("lab"), &json!(1), &json!(1)));
    assert_eq!((&said["run"], &said["pid"]), (&json!(run.id.as_str()), &json!(pid)));
    assert_eq!(said["runtime"], "local");
    // The test runs under the same boot, in the same processes' numbers.
    assert_eq!(said["epoch"], boot_epoch(Path::new(PROC)));
    assert!(said["last_seen"].is_string() && said["started_at"].is_string(), "{said}");
    // A beat comes without any change.
    wait_for(&machine, "a later beat", |file| {
        file["last_seen_up_ms"].as_u64() > said["last_seen_up_ms"].as_u64()
    });
    let (code, shown) = status_json(&machine);
    assert_eq!((code, &shown["phase"], &shown["staleness"]["is"]), (0, &json!("running"), &json!("fresh")));

    machine.kill();
    let (code, shown) = status_json(&machine);
    assert_eq!((code, &shown["staleness"]["is"]), (1, &json!("stale")));
    assert_eq!(shown["staleness"]["why"], format!("its process {pid} is gone and did not say so"));
    let lines = String::from_utf8(status(&machine, &[]).stdout).unwrap();
    assert!(lines.contains("phase      running\n") && lines.contains("stale      its process"), "{lines}");

    machine.start();
    machine.load.started();
    wait_for(&machine, "the second claim in the file", |file| file["claim"] == 2 && file["attempt"] == 2);
    machine.load.fail();
    server.wait_for_state(&run, State::FailedHolding);
    let held = wait_for(&machine, "the hold in the file", |file| file["activity"] == "waiting_for_input");
    assert!(held["detail"].as_str().unwrap().contains("held: waits for an operator"), "{held}");
    assert!(held.get("stage").is_none(), "{held}");
    assert!(machine.stop().success());
    let (code, shown) = status_json(&machine);
    assert_eq!((code, &shown["phase"], &shown["staleness"]["is"]), (0, &json!("stopped"), &json!("final")));
    let last = file(&machine).unwrap();
    assert_eq!((last.get("activity"), &last["owner"]), (None, &json!("lab")));
}

#[test]
fn an_agent_that_cannot_start_says_so() {
    let server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    // Where a stream of its spool should lie is a file, which nothing mends.
    std::fs::create_dir_all(machine.home().join("spool")).unwrap();
    let stream = format!("spool/log-{}", "1".repeat(32));
    std::fs::write(machine.home().join(stream), "in the way").unwrap();
    machine.start();
    assert!(!machine.wait().success());
    let last = file(&machine).expect("the file is written");
    assert_eq!(last["phase"], "error", "{last}");
    assert!(!last["detail"].as_str().unwrap_or_default().is_empty(), "{last}");
}

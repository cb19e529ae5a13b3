//! What happens to the data folder: torn, backed up, restored, nearly full, swept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use groundcrew_protocol::operator::TaskView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Machine, Server, eventually};
use http::Method;

use crate::profiles::{LOAD, LOAD_THEN_HELD};

/// Every file below a folder with its bytes. The lock is left out: who starts writes its own number there.
fn content_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content_of(&path));
        } else if path.file_name() != Some("lock".as_ref()) {
            all.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    all
}

fn database_of(server: &Server) -> PathBuf {
    let entries = std::fs::read_dir(server.data()).unwrap();
    let is_database = |path: &PathBuf| {
        path.is_file() && std::fs::read(path).unwrap_or_default().starts_with(b"SQLite format 3\0")
    };
    entries.map(|entry| entry.unwrap().path()).find(is_database).expect("there is a database")
}

#[test]
fn a_torn_database_is_said_and_left_as_it_is() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    assert!(server.stop().success());
    let database = database_of(&server);
    let whole = std::fs::read(&database).unwrap();
    let mut no_header = whole.clone();
    no_header[..64].fill(0);
    let mut torn_inside = whole.clone();
    let middle = whole.len() / 2;
    torn_inside[middle..middle + 8192].fill(0xa5);
    for torn in [&whole[..whole.len() / 2], &whole[..40], b"", &no_header, &torn_inside] {
        std::fs::write(&database, torn).unwrap();
        let before = content_of(&server.data());
        let (status, said) = server.start_in_vain();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&database.display().to_string()), "{said}");
        assert_eq!(content_of(&server.data()), before, "{said}");
    }
    std::fs::write(&database, whole).unwrap();
    server.start_again(&[]);
    assert_eq!(server.view(&run).summary.state, State::At(Stage::CpuStress));
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start();
    let (status, said) = server.start_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("in use"), "{said}");
    assert_eq!(server.caller(None).status(Method::GET, "/healthz"), 200);
}

#[test]
fn a_restore_in_the_middle_of_a_run_loses_and_repeats_nothing() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD_THEN_HELD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let (data, backup) = (server.data().display().to_string(), server.beside("backup").display().to_string());
    let made = server.command(&["backup", "--data", &data, &backup]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    machine.load.pass();
    // The outcome of the load, and that of the stage behind it, came after the backup.
    server.wait_for_state(&run, State::FailedHolding);
    assert!(server.stop().success());
    let refused = server.command(&["restore", "--data", &data, &backup]);
    assert_eq!(refused.status.code(), Some(1), "a folder that holds something was taken");
    let restored = server.command(&["restore", "--data", &data, "--force", &backup]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    server.start_again(&[]);
    let view = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!((view.summary.stage, view.stages[0].attempts), (Some(Stage::Network), 1));
    assert_eq!(view.stages[1].attempts, 1);
    assert!(view.claim.0 >= 2);
    assert_eq!(server.count_of(&run, "restored"), 1);
    assert_eq!(server.count_of(&run, "crashed"), 0);
    machine.agent().wait_for_line("the orchestrator was restored");
    assert!(machine.load.is_quiet(), "the load was started again");
    server.order(&run, "override", "nobody has the tool");
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn a_restore_in_the_middle_of_a_stage_lets_it_go_on() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let (data, backup) = (server.data().display().to_string(), server.beside("backup").display().to_string());
    assert!(server.command(&["backup", "--data", &data, &backup]).status.success());
    let elsewhere = server.create_run("n2", LOAD);
    server.kill();
    assert!(server.command(&["restore", "--data", &data, "--force", &backup]).status.success());
    server.start_again(&[]);
    server.wait_for(&run, "a claim after the restore", |view| view.claim.0 >= 2);
    machine.load.pass();
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].attempts, 1);
    assert!(machine.load.is_quiet(), "the load was started again");
    let gone: Result<serde_json::Value, _> = server.try_get(&format!("/api/v1/runs/{}", elsewhere.id));
    assert_eq!(gone.unwrap_err().status(), Some(404));
}

#[test]
fn a_nearly_full_disk_takes_results_and_leaves_logs_to_the_agents() {
    let mut server = Server::start();
    let run = server.create_run("n1", LOAD);
    server.start_again(&["--keep-free-percent", "100"]);
    let mut machine = Machine::started(&server, &run, "m1");
    machine.load.started();
    let last = machine.load.print(500);
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    assert!(server.log(&run, None).is_empty());
    let body = serde_json::json!({"node": "n1", "profile": "load"});
    let refused: Result<serde_json::Value, _> = server.call(Method::POST, "/api/v1/runs", &body);
    assert_eq!(refused.unwrap_err().status(), Some(507));
    server.start_again(&[]);
    server.expect_lines(&run, last);
}

#[test]
fn what_is_past_its_time_is_swept_and_then_gone() {
    let mut server = Server::start();
    let ended = server.create_run("n1", LOAD);
    server.order(&ended, "cancel", "");
    let going = server.create_run("n1", LOAD);
    server.start_again(&["--keep-runs-days", "0", "--keep-logs-days", "0"]);
    let swept = eventually("a pass of the retention", || {
        let tasks: Vec<TaskView> = server.get("/api/v1/tasks");
        tasks.into_iter().find(|task| task.name == "retention")
    });
    assert!(swept.healthy && swept.said.starts_with("swept 1 runs"), "{swept:?}");
    let gone: Result<serde_json::Value, _> = server.try_get(&format!("/api/v1/runs/{}", ended.id));
    assert_eq!(gone.unwrap_err().status(), Some(410));
    assert_eq!(server.view(&going).summary.state, State::At(Stage::CpuStress));
}

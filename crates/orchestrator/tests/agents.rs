//! An agent's file under two writers, and under a reconciler that is killed at each of its steps.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use groundcrew_durable::Error;
use groundcrew_durable::agent_info::{open_own_home, read, update};
use groundcrew_durable::fault::{Point, VARIABLE};
use groundcrew_durable::points;
use groundcrew_orchestrator::agents::homes::{Home, Homes};
use groundcrew_protocol::agent_info::{
    AgentInfo, AgentLife, Ending, FILE_NAME, InfoActivity, InfoPhase, RuntimeFact, RuntimeSource,
    RuntimeState,
};
use groundcrew_protocol::time::WallMs;
use serde_json::{Value, json};

/// The folder of homes that a victim works on.
const FOLDER: &str = "GROUNDCREW_TEST_HOMES";
const SIGKILL: i32 = 9;
/// Writes of the agent; the reconciler makes as many as it can beside them.
const WRITES: u64 = 10_000;
/// After so many of them the agent waits until the reconciler has written once more.
const MEET_EVERY: u64 = 100;
const BEFORE: &str = r#"{"name":"a","phase":"running","activity":"executing","owner":{"team":"lab"}}"#;

fn homes_in(folder: &Path) -> (Homes, Home) {
    let homes: Homes = format!("{}/{{agent}}", folder.display()).parse().unwrap();
    let home = homes.home_of("", "one").unwrap();
    (homes, home)
}

fn ended() -> RuntimeFact {
    RuntimeFact {
        source: RuntimeSource::Local,
        life: AgentLife { runtime_id: Some("life-1".to_owned()), ..AgentLife::default() },
        state: RuntimeState::Ended {
            ending: Ending::Error,
            exit: None,
            reason: "OOMKilled".to_owned(),
            detail: "OOMKilled: it took too much".to_owned(),
        },
        container_status: "Failed (OOMKilled)".to_owned(),
        at: WallMs(1),
    }
}

/// Where syncing costs nothing, so that ten thousand writes meet each other in seconds.
fn fast_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn an_agent_and_a_reconciler_write_the_same_file_ten_thousand_times() {
    let folder = fast_folder();
    let path = folder.path().join("one").join(FILE_NAME);
    fs::create_dir(folder.path().join("one")).unwrap();
    fs::write(&path, BEFORE).unwrap();
    let (homes, home) = homes_in(folder.path());
    let is_over = AtomicBool::new(false);
    let corrected = AtomicU64::new(0);
    let seen = std::thread::scope(|scope| {
        let reconciler = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let said = match homes.persist(&home, &ended()) {
                    Ok(said) => said.expect("the file is there"),
                    // The agent was quicker for as long as a pass waits; the next pass tries again.
                    Err(Error::LockWait { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!((said.phase, said.activity), (Some(InfoPhase::Error), None));
                corrected.fetch_add(1, Ordering::Release);
            }
        });
        let reader = scope.spawn(|| {
            let mut seen = 0_u64;
            while !is_over.load(Ordering::Acquire) {
                let fields: Value = serde_json::from_slice(&fs::read(&path).unwrap()).expect("a torn file");
                assert_eq!(fields["owner"], json!({"team": "lab"}), "a field was lost");
                let count = fields["last_seen_up_ms"].as_u64().unwrap_or(0);
                assert!(count >= seen, "the agent's write {seen} was taken back to {count}");
                seen = count;
            }
            seen
        });
        for count in 1..=WRITES {
            let said = AgentInfo {
                phase: Some(InfoPhase::Running),
                activity: Some(InfoActivity::Executing),
                runtime_id: Some("life-1".to_owned()),
                last_seen_up_ms: Some(count),
                ..AgentInfo::default()
            };
            let opened = open_own_home(&folder.path().join("one")).unwrap();
            update(opened, &path, Duration::from_secs(60), |fields| {
                said.put(fields);
                true
            })
            .unwrap();
            // However the threads are scheduled, they meet.
            let so_far = corrected.load(Ordering::Acquire);
            while count % MEET_EVERY == 0 && corrected.load(Ordering::Acquire) == so_far {
                assert!(!reconciler.is_finished(), "it panicked");
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Release);
        reconciler.join().unwrap();
        reader.join().unwrap()
    });
    let corrected = corrected.into_inner();
    assert!(corrected >= WRITES / MEET_EVERY && seen > 0, "{corrected} corrections, write {seen} seen");
    // The agent is gone: what the next pass says stands.
    homes.persist(&home, &ended()).unwrap();
    let fields = read(open_own_home(&folder.path().join("one")).unwrap(), &path).unwrap().unwrap();
    assert_eq!(fields["last_seen_up_ms"], WRITES);
    assert_eq!((&fields["phase"], &fields["activity"]), (&json!("error"), &json!("")));
    assert_eq!(fields["name"], "a");
    let names = fs::read_dir(folder.path().join("one")).unwrap().count();
    assert_eq!(names, 2, "the file and its lock, and nothing that was left");
}

#[test]
#[ignore = "run by the test below, in the process that it kills"]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (homes, home) = homes_in(&folder);
    homes.persist(&home, &ended()).unwrap();
}

/// The points that a reconciliation passes: all of an update under the lock, and of a whole write over a file of the same
/// owner.
fn passes(point: Point) -> bool {
    let (operation, _) = point.name().split_once('.').unwrap();
    operation == "json" || operation == "whole"
}

#[test]
fn a_reconciler_that_is_killed_at_any_step_leaves_the_old_file_or_the_new_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one").join(FILE_NAME);
    fs::create_dir(folder.path().join("one")).unwrap();
    let (homes, home) = homes_in(folder.path());
    let mut turned = Vec::new();
    for point in points::ALL.iter().copied().filter(|point| passes(*point)) {
        fs::write(&path, BEFORE).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["victim", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(FOLDER, folder.path()).env(VARIABLE, point.name());
        let ended_by = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ended_by.signal(), Some(SIGKILL), "{} was not passed", point.name());
        let found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let phase = found["phase"].as_str().unwrap().to_owned();
        assert!(["running", "error"].contains(&phase.as_str()), "{}: {found}", point.name());
        if phase == "error" {
            turned.push(point.name());
        } else {
            assert_eq!(found, serde_json::from_str::<Value>(BEFORE).unwrap(), "{}", point.name());
        }
        // The next pass finds its lock free, finishes, and sweeps what was left.
        homes.persist(&home, &ended()).unwrap();
        let found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let expected = json!({"name": "a", "phase": "error", "activity": "", "owner": {"team": "lab"},
            "detail": "OOMKilled: it took too much"});
        assert_eq!(found, expected, "{}", point.name());
        if phase == "running" {
            let names = fs::read_dir(folder.path().join("one")).unwrap().count();
            assert_eq!(names, 2, "{}: something is left", point.name());
        }
    }
    assert_eq!(turned, ["whole.renamed", "whole.done", "json.written"]);
}

//! What becomes of outcomes over restarts, crashes and failing disks.

mod killed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use groundcrew_protocol::ids::{ClaimNumber, RunId};
use groundcrew_protocol::time::WallMs;

use super::*;
use crate::io_thread::HomeHealth;

fn result(stage: &str, attempt: u32) -> ResultRequest {
    ResultRequest {
        claim: ClaimNumber(9),
        made_under: ClaimNumber(3),
        stage: Stage::from(stage),
        attempt: Attempt(attempt),
        passed: true,
        summary: "ok".into(),
        message: String::new(),
        checks: Vec::new(),
        inventory: None,
        began: WallMs(1),
        ended: WallMs(2),
    }
}

fn run() -> RunId {
    "r-1".parse().unwrap()
}

fn open(path: &Path) -> (Home, Outbox, Vec<String>) {
    let home = Home::open(path, &run()).unwrap();
    let io = IoThread::start(HomeHealth::default()).unwrap();
    let (outbox, notes) = Outbox::open(&home, io).unwrap();
    (home, outbox, notes)
}

fn shown(outbox: &Outbox) -> Vec<String> {
    let words = |entry: &OutboxEntry| format!("{}/{}/{}", entry.stage, entry.attempt, entry.acknowledged);
    outbox.entries().iter().map(words).collect()
}

fn oldest_unacknowledged(outbox: &Outbox) -> OutboxEntry {
    outbox.entries().into_iter().find(|entry| !entry.acknowledged).unwrap()
}

#[tokio::test]
async fn an_outcome_is_found_again_until_it_is_acknowledged_and_kept_until_the_run_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (home, mut outbox, _) = open(folder.path());
    for attempt in [2, 1] {
        assert_eq!(outbox.put(result("Package:a/apply", attempt)).await.unwrap(), Put::Durable);
    }
    assert_eq!(outbox.put(result("Package:a/apply", 1)).await.unwrap(), Put::AlreadyThere);
    drop((home, outbox));

    let (home, mut outbox, notes) = open(folder.path());
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(shown(&outbox), ["Package:a/apply/2/false", "Package:a/apply/1/false"]);
    let next = oldest_unacknowledged(&outbox);
    assert_eq!((next.attempt, next.made_under), (Attempt(2), ClaimNumber(3)));
    let loaded = outbox.load(&next.stage, next.attempt).await.unwrap().unwrap();
    assert_eq!(*loaded, result("Package:a/apply", 2));
    outbox.acknowledge(&next.stage, next.attempt).await;
    assert_eq!(oldest_unacknowledged(&outbox).attempt, Attempt(1));
    drop((home, outbox));

    let (_home, mut outbox, _) = open(folder.path());
    assert_eq!(shown(&outbox), ["Package:a/apply/2/true", "Package:a/apply/1/false"]);
    assert!(outbox.load(&next.stage, next.attempt).await.unwrap().is_some());
    outbox.forget_run().await.unwrap();
    assert_eq!(shown(&outbox), ["Package:a/apply/1/false"]);
    assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 0);
    assert_eq!(outbox.load(&next.stage, next.attempt).await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_outcome_lies_beside_its_reason_and_the_outbox_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, mut outbox, _) = open(folder.path());
    outbox.put(result("SMART", 1)).await.unwrap();
    outbox.put(result("SMART", 2)).await.unwrap();
    outbox.refuse(&Stage::Smart, Attempt(1), "422: no such stage").await.unwrap();
    assert_eq!(shown(&outbox), ["SMART/2/false"]);
    let reason = fs::read_to_string(folder.path().join("refused/SMART-1.why.json")).unwrap();
    assert!(reason.contains("422: no such stage"), "{reason}");
    assert!(folder.path().join("refused/SMART-1.json").is_file());
}

#[tokio::test]
async fn broken_and_foreign_outcomes_are_set_aside_and_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (home, mut outbox, _) = open(folder.path());
    outbox.put(result("SMART", 1)).await.unwrap();
    drop((home, outbox));
    let written = fs::read_to_string(folder.path().join("outbox/SMART-1.json")).unwrap();
    fs::write(folder.path().join("outbox/SMART-2.json"), written.replace("r-1", "r-2")).unwrap();
    fs::write(folder.path().join("outbox/SMART-3.json"), &written[..written.len() / 2]).unwrap();
    let (_home, outbox, notes) = open(folder.path());
    assert_eq!(shown(&outbox), ["SMART/1/false"]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(folder.path().join("runs/r-2/SMART-2.json").is_file());
    assert!(folder.path().join("outbox/SMART-3.json.broken-1").is_file());
}

#[tokio::test]
async fn the_oldest_acknowledged_go_first_and_never_an_unacknowledged_one() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, mut outbox, _) = open(folder.path());
    for attempt in 0..OUTBOX_MAX as u32 {
        outbox.put(result("SMART", attempt)).await.unwrap();
    }
    let error = outbox.put(result("Network", 1)).await.unwrap_err();
    assert!(matches!(error, OutboxError::Full { unacknowledged: OUTBOX_MAX }), "{error:?}");
    outbox.acknowledge(&Stage::Smart, Attempt(7)).await;
    outbox.acknowledge(&Stage::Smart, Attempt(5)).await;
    outbox.put(result("Network", 1)).await.unwrap();
    assert_eq!(outbox.entries().len(), OUTBOX_MAX);
    assert_eq!(outbox.find(&Stage::Smart, Attempt(5)), None);
    assert!(outbox.find(&Stage::Smart, Attempt(7)).is_some());
    assert!(!folder.path().join("kept/SMART-5.json").exists());
}

#[tokio::test]
async fn a_failing_disk_leaves_outcomes_in_memory_bounded_and_a_better_one_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, mut outbox, _) = open(folder.path());
    // Even root cannot make a file in a folder that is not there.
    fs::remove_dir(folder.path().join("outbox")).unwrap();
    for attempt in 0..IN_MEMORY_MAX as u32 {
        assert_eq!(outbox.put(result("SMART", attempt)).await.unwrap(), Put::InMemory);
    }
    assert!(outbox.io.health().failure().unwrap().starts_with("writing an outcome: "));
    assert!(matches!(outbox.put(result("Network", 1)).await, Err(OutboxError::Full { .. })));
    assert_eq!(*outbox.load(&Stage::Smart, Attempt(3)).await.unwrap().unwrap(), result("SMART", 3));
    outbox.acknowledge(&Stage::Smart, Attempt(0)).await;
    outbox.retry().await;
    assert_eq!(outbox.in_memory(), IN_MEMORY_MAX);
    fs::create_dir(folder.path().join("outbox")).unwrap();
    fs::set_permissions(folder.path().join("outbox"), fs::Permissions::from_mode(0o700)).unwrap();
    outbox.retry().await;
    assert_eq!(outbox.in_memory(), 0);
    assert!(folder.path().join("kept/SMART-0.json").is_file());
    assert!(folder.path().join("outbox/SMART-1.json").is_file());
    assert!(outbox.io.health().failure().is_some(), "once failed is said until the agent starts anew");
}

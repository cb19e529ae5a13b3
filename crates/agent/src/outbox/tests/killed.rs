//! An agent that is killed while it writes, moves or refuses outcomes, or moves another run's things aside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use groundcrew_durable::fault::{self, Point};
use groundcrew_protocol::ids::{Attempt, RunId};
use groundcrew_protocol::stage::Stage;

use super::{open, result, shown};
use crate::home::Home;
use crate::points;

const HOME: &str = "OUTBOX_TEST_HOME";

/// The process that is killed. It is a test only so that the binary can be run again with its name.
#[tokio::test]
#[ignore = "run by the tests of this file, as a process of its own"]
async fn agent() {
    let home = std::env::var_os(HOME).unwrap();
    let (_home, mut outbox, _) = open(Path::new(&home));
    // The first word stands behind the test's name.
    println!();
    for attempt in 1..=3 {
        outbox.put(result("SMART", attempt)).await.unwrap();
        println!("put {attempt}");
    }
    outbox.acknowledge(&Stage::Smart, Attempt(1)).await;
    outbox.refuse(&Stage::Smart, Attempt(2), "422").await.unwrap();
    println!("refused 2");
}

/// Opens the home for another run.
#[test]
#[ignore = "run by the tests of this file, as a process of its own"]
fn mover() {
    let home = std::env::var_os(HOME).unwrap();
    Home::open(Path::new(&home), &"r-2".parse().unwrap()).unwrap();
}

/// Runs one of the above with a point armed; what it said, and whether it was killed.
fn run_killed(name: &str, home: &Path, point: Point, count: u32) -> (BTreeSet<String>, bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("outbox::tests::killed::{name}"), "--ignored", "--nocapture"]);
    command.env(HOME, home).env(fault::VARIABLE, format!("{}:{count}", point.name()));
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let was_killed = output.status.signal() == Some(9);
    assert!(was_killed || output.status.success(), "{}", output.status);
    let said = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (said, was_killed)
}

fn durable_points() -> impl Iterator<Item = Point> {
    groundcrew_durable::points::ALL.iter().copied().filter(|point| {
        ["whole.", "folder.", "home."].iter().any(|operation| point.name().starts_with(operation))
    })
}

#[tokio::test]
async fn a_killed_agent_finds_every_outcome_that_it_had_put() {
    let mut deaths = 0;
    for point in durable_points().chain([points::MOVE_RENAMED]) {
        // The first of them pass while the home is made.
        for count in [1, 2, 3, 4, 5, 6] {
            let folder = tempfile::tempdir().unwrap();
            let (said, was_killed) = run_killed("agent", folder.path(), point, count);
            deaths += u32::from(was_killed);
            let (_home, outbox, notes) = open(folder.path());
            assert!(notes.is_empty(), "{notes:?}");
            let found = shown(&outbox);
            let there =
                |attempt: u32| found.iter().any(|text| text.starts_with(&format!("SMART/{attempt}/")));
            for attempt in [1, 3] {
                let put = said.contains(&format!("put {attempt}"));
                assert!(
                    !put || there(attempt),
                    "{}:{count}: {attempt} is missing in {found:?}",
                    point.name()
                );
            }
            let is_refused = folder.path().join("refused/SMART-2.json").is_file();
            let put = said.contains("put 2");
            assert!(!put || there(2) != is_refused, "{}:{count}: {found:?}, {is_refused}", point.name());
            assert!(!is_refused || folder.path().join("refused/SMART-2.why.json").is_file());
            for entry in outbox.entries() {
                assert!(outbox.load(&entry.stage, entry.attempt).await.unwrap().is_some());
            }
        }
    }
    assert!(deaths > 40, "the points were passed only {deaths} times");
}

#[test]
fn a_killed_agent_leaves_another_run_s_things_whole_for_the_next() {
    let mut deaths = 0;
    for point in durable_points().chain([points::MOVE_RENAMED, points::HOME_PART_MOVED, points::HOME_MOVED]) {
        for count in [1, 2, 3, 4] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            let run: RunId = "r-1".parse().unwrap();
            let first = Home::open(path, &run).unwrap();
            let instance = first.instance().clone();
            drop(first);
            let files = ["outbox/a.json", "kept/b.json", "refused/c.json", "spool/d"];
            files.iter().for_each(|file| fs::write(path.join(file), "x").unwrap());
            let (_, was_killed) = run_killed("mover", path, point, count);
            deaths += u32::from(was_killed);
            let home = Home::open(path, &"r-2".parse().unwrap()).unwrap();
            assert_eq!((home.instance(), home.run().run.as_str()), (&instance, "r-2"));
            for file in files.iter().chain(&["run.json"]) {
                let moved = path.join("runs/r-1").join(file);
                assert!(moved.is_file(), "{}:{count}: {} is not there", point.name(), moved.display());
            }
            assert_eq!(fs::read_dir(path.join("outbox")).unwrap().count(), 0);
        }
    }
    assert!(deaths > 20, "the points were passed only {deaths} times");
}

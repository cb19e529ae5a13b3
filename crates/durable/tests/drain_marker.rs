//! Several processes ask for a drain at once, and one asks and takes back as fast as it can.

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{given_task, victim as victim_command};
use groundcrew_durable::drain_marker::read::{Against, Drain, judge, look};
use groundcrew_durable::drain_marker::sighting::Now;
use groundcrew_durable::drain_marker::write::{Cancelled, When, Whom, begin, cancel};
use groundcrew_durable::drain_marker::{MAX_AGE_DEFAULT, path_in};

const EPOCH: &str = "boot:1";
const WALL_MS: i64 = 1_782_907_200_000;
const WHEN: When<'static> = When {
    epoch: EPOCH,
    boot_id: "boot",
    now: Now { wall_ms: WALL_MS, boot_ms: 0 },
    max_age: MAX_AGE_DEFAULT,
};
/// Turns of each of the two writers.
const TURNS: u32 = 250;

fn holders(home: &Path) -> Vec<String> {
    let against =
        Against { epoch: EPOCH, wall_ms: WALL_MS, known_for: Duration::ZERO, max_age: MAX_AGE_DEFAULT };
    match judge(&look(home), &against) {
        Drain::Active(active) => {
            assert_eq!(active.defect, None, "a reader never sees half a marker");
            active.holders.iter().map(|holder| holder.principal.to_string()).collect()
        }
        Drain::Absent(_) => Vec::new(),
    }
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn victim() {
    let Some((name, home)) = given_task() else { return };
    let me = name.parse().unwrap();
    for turn in 0..TURNS {
        begin(&home, &me, true, &WHEN).unwrap();
        let held = holders(&home);
        assert!(held.contains(&name), "turn {turn}: {name} asked, and {held:?} hold the marker");
        let ended = cancel(&home, Whom::One(&me), &WHEN).unwrap();
        assert!(matches!(ended, Cancelled::Gone | Cancelled::StillHeld(_)), "turn {turn}: {ended:?}");
        assert!(!holders(&home).contains(&name), "turn {turn}");
    }
    begin(&home, &me, true, &WHEN).unwrap();
}

#[test]
fn two_writers_at_once_never_take_off_each_other() {
    let home = tempfile::tempdir().unwrap();
    let start = |name| victim_command(&[], name, home.path()).stdout(Stdio::null()).spawn().unwrap();
    let children = [start("a"), start("b")];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut held = holders(home.path());
    held.sort();
    assert_eq!(held, ["a", "b"]);
}

#[test]
fn of_a_thousand_begins_and_cancels_the_last_one_wins() {
    let home = tempfile::tempdir().unwrap();
    let me = "updater".parse().unwrap();
    for _ in 0..1_000 {
        begin(home.path(), &me, true, &WHEN).unwrap();
        assert_eq!(cancel(home.path(), Whom::All, &WHEN).unwrap(), Cancelled::Gone);
    }
    assert!(!path_in(home.path()).exists() && holders(home.path()).is_empty());
    begin(home.path(), &me, true, &WHEN).unwrap();
    assert_eq!(holders(home.path()), ["updater"]);
}

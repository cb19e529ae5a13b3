//! The override by which disks may be written over: rule 9.

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused, UnfitFor};
use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::Intent;

use crate::bench::*;

const PROFILE: &str = r#"
name = "wipes"
[[stage]]
name = "Storage"
deadline = "2m"
storage.destructive = true
[[stage]]
name = "CPUStress"
[write]
disks = [
    { serial = "S1 A", size_gb = 960, wwn = "naa.1" },
    { serial = "S2", size_gb = 960, wwn = "naa.2" },
]
"#;

fn storage() -> Stage {
    Stage::Storage
}

/// Held at Storage, whose first attempt had no override.
fn waiting() -> Bench {
    let mut bench = Bench::new(Profile::parse(PROFILE).unwrap());
    bench.claim(&agent(1)).unwrap();
    bench.report(1, storage(), 1, Outcome::Fail);
    assert_eq!(bench.run.state(), State::FailedHolding);
    bench
}

/// The agent says that it is about to write over these.
fn wipes(bench: &mut Bench, attempt: u32, disks: &[&str]) -> Result<(), Refused> {
    let intent = Intent {
        claim: ClaimNumber(bench.run.claims.0),
        stage: Some(storage()),
        attempt: Attempt(attempt),
        kind: "wipe".to_owned().into(),
        boot_id: boot(1),
        disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
    };
    bench.put(&Input::Intent(intent)).map(drop)
}

#[track_caller]
fn assert_refused(done: Result<(), Refused>, why: &str) {
    match done {
        Err(Refused::Unfit { why: UnfitFor::NoWipeOverride, text }) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}, expected a refusal with {why:?}"),
    }
}

#[test]
fn an_armed_override_is_for_one_attempt_and_for_the_disks_of_the_profile() {
    let mut bench = waiting();
    bench.order(OrderKind::RetryWithWipe, None, "new disks").unwrap();
    let armed = bench.run.attempt().unwrap();
    assert!(armed.flags.wipe && armed.flags.id.is_some());
    assert!(bench.events.iter().any(|event| event.kind == "wipe_armed" && event.text.contains("S1 A, S2")));
    assert_refused(wipes(&mut bench, 2, &["S1 A", "S3"]), "\"S3\" is not in [[write.disks]]");
    assert_refused(wipes(&mut bench, 2, &[]), "names no disk");
    // As the kernel pads it. Its answer was lost: it is said again.
    wipes(&mut bench, 2, &["s1 a  "]).unwrap();
    assert!(bench.told("intent"));
    wipes(&mut bench, 2, &["s1 a  "]).unwrap();
    // The next attempt has none, whatever became of this one.
    bench.report(1, storage(), 2, Outcome::Fail);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_refused(wipes(&mut bench, 3, &["S2"]), "no wipe override is armed for attempt 3");
}

#[test]
fn an_agent_that_lost_the_attempt_has_lost_its_override() {
    let mut bench = waiting();
    bench.order(OrderKind::RetryWithWipe, None, "").unwrap();
    wipes(&mut bench, 2, &["S2"]).unwrap();
    let answer = bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert_eq!(answer.attempt, Attempt(3));
    assert_refused(wipes(&mut bench, 3, &["S2"]), "no wipe override is armed for attempt 3");
}

#[test]
fn an_override_lapses_after_an_hour_by_either_clock() {
    for (listened, wall, lapses) in
        [(HOUR, HOUR, false), (HOUR + 1, 0, true), (0, HOUR + 1, true), (1, 1, false)]
    {
        let mut bench = waiting();
        bench.order(OrderKind::RetryWithWipe, None, "").unwrap();
        bench.now.listened_ms += listened;
        bench.now.wall = bench.now.wall.plus(wall);
        let done = wipes(&mut bench, 2, &["S2"]);
        match lapses {
            true => assert_refused(done, "has lapsed"),
            false => done.unwrap(),
        }
    }
}

#[test]
fn a_restored_store_allows_nothing_that_it_may_have_seen_used() {
    let mut bench = waiting();
    bench.order(OrderKind::RetryWithWipe, None, "").unwrap();
    bench.put(&Input::Restored).unwrap();
    let answer = bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert_refused(wipes(&mut bench, answer.attempt.0, &["S2"]), "no wipe override is armed");
}

#[test]
fn a_wait_for_the_end_of_a_drain_prolongs_no_override() {
    let mut bench = waiting();
    bench.order(OrderKind::RetryWithWipe, None, "").unwrap();
    bench.put(&Input::AttemptWaits(true)).unwrap();
    bench.pass_heard(HOUR + 1);
    bench.put(&Input::AttemptWaits(false)).unwrap();
    assert_refused(wipes(&mut bench, 2, &["S2"]), "has lapsed");
}

#[test]
fn a_stage_that_writes_over_nothing_is_given_no_override() {
    let mut bench = waiting();
    bench.order(OrderKind::Override, None, "known").unwrap();
    bench.report(1, stress(), 1, Outcome::Fail);
    let refused = bench.order(OrderKind::RetryWithWipe, None, "").unwrap_err();
    assert!(refused.to_string().contains("CPUStress of run r-1 writes over no disk"), "{refused}");
    assert_eq!(bench.run.state(), State::FailedHolding);
    // It can be gone back to.
    bench.order(OrderKind::RetryWithWipe, Some(storage()), "").unwrap();
    wipes(&mut bench, 2, &["S2"]).unwrap();
}

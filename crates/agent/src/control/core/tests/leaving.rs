//! What is said of the orderly end of the process.

use groundcrew_durable::drain_marker::read::{Against, judge, look};
use groundcrew_protocol::wire::{Shutdown, Unheard};

use super::*;

const EPOCH: &str = "boot:1";
const ASKED: i64 = 1_790_000_000_000;

/// What a marker with these fields says to an agent of this epoch, so long after it was written.
fn marker(fields: serde_json::Value, after_s: i64) -> Drain {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".drain_request.json"), fields.to_string()).unwrap();
    let found = look(folder.path());
    let max_age = std::time::Duration::from_secs(3600);
    let wall_ms = ASKED + after_s * 1000;
    judge(&found, &Against { epoch: EPOCH, wall_ms, known_for: std::time::Duration::ZERO, max_age })
}

fn quiet(value: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "action": "drain", "principal": "updater", "epoch": EPOCH, "requested_at": "2026-09-21T14:13:20Z",
        "suppress_notification": value
    })
}

fn said(agent: &Loop) -> Option<Shutdown> {
    agent.core.heartbeat("", false, WallMs(0)).unwrap().shutdown
}

#[test]
fn only_an_active_marker_that_says_true_makes_a_quiet_shutdown() {
    let other_boot = serde_json::json!({"epoch": "boot:2", "suppress_notification": true});
    let without = serde_json::json!({"epoch": EPOCH, "requested_at": "2026-09-21T14:13:20Z"});
    for (fields, after_s, drained, is_quiet) in [
        (quiet(true.into()), 5, true, true),
        (quiet(false.into()), 5, true, false),
        (quiet("true".into()), 5, true, false),
        (quiet(1.into()), 5, true, false),
        (without, 5, true, false),
        (serde_json::json!([]), 5, true, false),
        // Lapsed, and of another boot.
        (quiet(true.into()), 3601, false, false),
        (other_boot, 5, false, false),
    ] {
        let mut agent = walking();
        agent.marker = marker(fields.clone(), after_s);
        assert_eq!(said(&agent), None);
        assert_eq!(agent.on(Event::Stop), ["end Stop"]);
        let cut_off = Some(StageAttempt { stage: Stage::CpuStress, attempt: Attempt(1) });
        assert_eq!(
            said(&agent),
            Some(Shutdown { cut_off, drained, suppress_notification: is_quiet }),
            "{fields}"
        );
    }
    let mut unmarked = walking();
    unmarked.on(Event::Stop);
    assert!(!said(&unmarked).unwrap().drained);
}

#[test]
fn the_marker_is_read_for_the_end_and_a_disk_that_does_not_answer_silences_nothing() {
    let mut agent = walking();
    // What was seen before asked for quiet; what stands there now nobody can read.
    agent.marker = marker(quiet(true.into()), 5);
    let sight = agent.sight();
    agent.on(Event::Drain(sight));
    let actions = agent.core.step(Event::Stop, 2_000);
    let look = actions.iter().find_map(|action| match action {
        Action::LookForDrain(look) => Some(*look),
        _other => None,
    });
    assert_eq!(said(&agent), None, "it is not said before it is known");
    assert!(agent.core.step(Event::StageEnded, 2_000).iter().all(|action| *action != Action::Exit));
    let last = agent.core.step(Event::Looked { look: look.unwrap(), sight: None }, 7_000);
    assert!(last.contains(&Action::Exit));
    let said = said(&agent).unwrap();
    assert!(said.drained && !said.suppress_notification);
}

#[test]
fn a_second_stop_waits_for_no_marker() {
    let mut agent = holding();
    agent.core.step(Event::Stop, 2_000);
    assert_eq!(said(&agent), None);
    assert!(agent.core.step(Event::Stop, 2_000).contains(&Action::Exit));
    assert_eq!(said(&agent), Some(Shutdown::default()));
}

#[test]
fn an_abort_is_an_orderly_end_too() {
    let mut agent = walking();
    agent.beat(directive(4, Command::Abort, "Cancelled", "", 0));
    let cut_off = Some(StageAttempt { stage: Stage::CpuStress, attempt: Attempt(1) });
    assert_eq!(said(&agent), Some(Shutdown { cut_off, ..Shutdown::default() }));
}

/// What the next process of the home says in its claim.
fn claims_with(agent: &Loop) -> Option<Unheard> {
    let mut next = Core::new(facts(), agent.core.memory().clone(), 1);
    let actions = next.step(Event::Start(Vec::new()), 0);
    let later = next.step(Event::Answered(Err(Failure::Soon(String::new()))), 1);
    actions.into_iter().chain(later).find_map(|action| match action {
        Action::Send(Call::Claim { request, .. }) => Some(request.unheard),
        _other => None,
    })?
}

#[test]
fn an_end_is_kept_in_the_home_until_it_was_heard() {
    let mut agent = walking();
    agent.on(Event::Stop);
    let cut_off = Some(StageAttempt { stage: Stage::CpuStress, attempt: Attempt(1) });
    let unheard = claims_with(&agent).expect("it is kept");
    assert_eq!(unheard.said, Shutdown { cut_off, ..Shutdown::default() });
    assert_eq!(unheard.session, facts().session);
    let kept = agent.core.shutdown_heard().expect("that is to be kept");
    assert_eq!((kept.unheard.as_ref(), claims_with(&agent)), (None, None));
    assert_eq!(agent.core.shutdown_heard(), None, "nothing changes");
    // Whoever stops twice waits for nothing, and the end is kept all the same.
    let mut hasty = holding();
    hasty.core.step(Event::Stop, 2_000);
    let last = hasty.core.step(Event::Stop, 2_000);
    let keeps = |action: &Action| matches!(action, Action::Persist(memory) if memory.unheard.is_some());
    let exits = last.iter().position(|action| *action == Action::Exit);
    assert!(last.iter().position(keeps).is_some_and(|keeps| Some(keeps) < exits), "{last:?}");
    // A claim that was answered has told it.
    let mut next = Loop::new(facts(), hasty.core.memory().clone());
    next.on(Event::Start(Vec::new()));
    next.fails(Failure::Soon(String::new()));
    assert!(next.core.memory().unheard.is_some());
    next.told(claim("FailedHolding", 0));
    assert_eq!(next.core.memory().unheard, None);
}

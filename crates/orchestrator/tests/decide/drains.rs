//! Drains of a run's node: what operators want beside what the agent says.

use groundcrew_orchestrator::run::decide::Input;
use groundcrew_orchestrator::run::state::{Fate, HeldFor, WaitFor};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::Command::{Drain, Undrain};
use groundcrew_protocol::wire::DirectiveOutcome::{Doing, Done, Refused};

use crate::bench::*;

fn about(bench: &Bench) -> Vec<String> {
    let directives = bench.run.directives.iter();
    directives.filter_map(|d| Some(format!("{} {}", d.command, d.drain.as_ref()?.id))).collect()
}

#[test]
fn a_drain_is_ordered_once_and_taken_off_once_it_is_over() {
    let mut bench = Bench::claimed();
    assert!(bench.drains(&["d-1"], &[]).changed && bench.told("drain_asked"));
    assert_eq!(bench.orders(), [(1, Drain, 0)]);
    assert!(!bench.drains(&["d-1"], &[]).changed, "it is under way");
    bench.heard(1, &[(1, Doing)]).unwrap();
    bench.heard(1, &[(1, Done)]).unwrap();
    assert!(bench.told("directive_done") && about(&bench).is_empty());
    assert!(!bench.drains(&["d-1"], &["d-1"]).changed, "it holds");
    assert!(bench.drains(&[], &["d-1"]).changed && bench.told("undrain_asked"));
    assert_eq!(bench.orders(), [(2, Undrain, 0)]);
    bench.heard(1, &[(2, Done)]).unwrap();
    bench.drains(&[], &[]);
    assert!(bench.run.drains.is_empty(), "it is forgotten");
    assert!(!bench.drains(&[], &[]).changed);
}

#[test]
fn one_that_ends_before_the_agent_heard_of_it_is_taken_back() {
    let mut bench = Bench::claimed();
    bench.drains(&["d-1"], &[]);
    bench.drains(&[], &[]);
    assert_eq!(about(&bench), Vec::<String>::new());
    // The agent had it in hand all the same: its next word says so, and it is told.
    bench.drains(&[], &["d-1"]);
    assert_eq!(about(&bench), ["undrain d-1"]);
}

#[test]
fn an_agent_that_lost_it_is_asked_again() {
    let mut bench = Bench::claimed();
    bench.drains(&["d-1"], &[]);
    bench.heard(1, &[(1, Done)]).unwrap();
    bench.drains(&["d-1"], &["d-1"]);
    // Started again, on another boot: its marker counts no more.
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert!(bench.drains(&["d-1"], &[]).changed);
    assert_eq!(about(&bench), ["drain d-1"]);
    // Removed by hand, under the same claim.
    bench.heard(2, &[(2, Done)]).unwrap();
    assert!(!bench.drains(&["d-1"], &[]).changed, "its next word may be on its way");
    bench.pass_heard(MINUTE);
    assert!(bench.drains(&["d-1"], &[]).changed);
}

#[test]
fn one_that_holds_is_renewed_without_a_word() {
    let mut bench = Bench::claimed();
    bench.drains(&["d-1"], &[]);
    bench.heard(1, &[(1, Done)]).unwrap();
    bench.drains(&["d-1"], &["d-1"]);
    bench.now.listened_ms += 19 * MINUTE;
    assert!(!bench.drains(&["d-1"], &["d-1"]).changed);
    bench.now.listened_ms += MINUTE;
    bench.drains(&["d-1"], &["d-1"]);
    assert!(!bench.told("drain_asked"));
    assert_eq!(about(&bench), ["drain d-1"]);
    bench.heard(1, &[(2, Done)]).unwrap();
    assert!(!bench.told("directive_done"));
}

#[test]
fn one_is_renewed_thrice_within_the_greatest_age_that_the_agent_has() {
    let renewed_after = |max_age_ms: Option<u64>| {
        let mut bench = Bench::claimed();
        bench.drains(&["d-1"], &[]);
        bench.heard(1, &[(1, Done)]).unwrap();
        let Input::Drains { wanted, held, .. } = drains(&["d-1"], &["d-1"]) else { unreachable!() };
        let again = Input::Drains { wanted, held, max_age_ms };
        bench.put(&again).unwrap();
        (1..=30).find(|_minute| {
            bench.now.listened_ms += MINUTE;
            bench.put(&again).unwrap().changed
        })
    };
    // One that says none has the default, or a longer one that is older than this word.
    for (max_age, minutes) in [(None, 20), (Some(10), 4), (Some(3), 1), (Some(60), 20), (Some(1440), 20)] {
        assert_eq!(renewed_after(max_age.map(|max_age| max_age * MINUTE)), Some(minutes), "{max_age:?}");
    }
}

#[test]
fn a_refusal_is_kept_and_asked_about_again_after_a_while_or_of_another_agent() {
    let mut bench = Bench::claimed();
    bench.drains(&["d-1"], &[]);
    bench.heard(1, &[(1, Refused)]).unwrap();
    assert!(bench.told("directive_refused"));
    assert_eq!(bench.run.drains[0].refused.as_deref(), Some("because"));
    bench.now.listened_ms += 4 * MINUTE;
    assert!(!bench.drains(&["d-1"], &[]).changed);
    bench.now.listened_ms += MINUTE;
    assert!(bench.drains(&["d-1"], &[]).changed);
    bench.heard(1, &[(2, Refused)]).unwrap();
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert!(bench.drains(&["d-1"], &[]).changed, "another process may know better");
}

#[test]
fn drains_leave_room_for_an_operators_orders() {
    let mut bench = Bench::held();
    let many: Vec<String> = (0..40).map(|number| format!("d-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    bench.drains(&many, &[]);
    assert_eq!(about(&bench).len(), 8);
    bench.order(groundcrew_orchestrator::run::decide::OrderKind::Retry, None, "").unwrap();
    bench.heard(1, &[(1, Done)]).unwrap();
    bench.drains(&many, &["d-0"]);
    assert_eq!(about(&bench).len(), 8, "the rest follows");
}

#[test]
fn the_agent_of_an_ended_run_is_told_and_its_farewell_is_not_held_up() {
    let mut bench = Bench::claimed();
    bench.order(groundcrew_orchestrator::run::decide::OrderKind::Cancel, None, "").unwrap();
    bench.heard(1, &[(1, Done)]).unwrap();
    assert_eq!((bench.run.state(), bench.waits_for()), (State::Cancelled, None));
    bench.drains(&["d-1"], &[]);
    assert_eq!((about(&bench), bench.waits_for()), (vec!["drain d-1".to_owned()], None::<WaitFor>));
}

impl Bench {
    /// The agent says that its attempt waits for the end of a drain, or does so no more.
    fn attempt_waits(&mut self, waits: bool) -> bool {
        self.put(&Input::AttemptWaits(waits)).unwrap().changed
    }
}

#[test]
fn a_stage_that_waits_for_a_drain_has_no_deadline_running_and_then_the_whole_of_it() {
    let mut bench = Bench::claimed();
    bench.pass_heard(MINUTE);
    assert!(bench.attempt_waits(true) && bench.told("waits_for_drain"));
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Drain), HOLD));
    assert!(!bench.attempt_waits(true));
    bench.pass_heard(24 * HOUR);
    assert_eq!(bench.at(), (walking(inventory()), 1, IN_FLIGHT));
    assert!(bench.attempt_waits(false) && bench.told("drain_over"));
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Result), DEADLINE + SILENCE));
    assert!(!bench.attempt_waits(false));
    // Also after a silence, which counts the time of an attempt from where it began.
    bench.pass(SILENCE);
    bench.heard(1, &[]).unwrap();
    assert_eq!(bench.waits_ms(), SILENCE);
}

#[test]
fn a_drain_without_end_and_an_agent_that_falls_silent_in_it_hold() {
    let mut bench = Bench::claimed();
    bench.attempt_waits(true);
    bench.pass_heard(HOLD);
    assert_eq!(bench.why(), &HeldFor::Drained { limit_ms: HOLD });
    let mut bench = Bench::claimed();
    bench.attempt_waits(true);
    bench.pass(SILENCE);
    assert_eq!(bench.why(), &HeldFor::Silence { limit_ms: SILENCE });
    bench.heard(1, &[]).unwrap();
    assert!(bench.attempt_waits(true), "it drains still");
}

#[test]
fn what_the_drain_was_for_counts_against_no_attempt_that_was_not_begun() {
    // The machine boots again, or the agent is killed and started again.
    for boot_number in [9, 1] {
        let mut bench = Bench::claimed();
        bench.attempt_waits(true);
        let mut request = restarted(agent(1), 1);
        request.boot_id = Some(boot(boot_number));
        bench.claim_again(&request).unwrap();
        assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
        assert_eq!((bench.run.stages[0].crashes, bench.run.stages[0].resets.len()), (0, 0));
        assert_eq!(bench.run.stages[0].attempts[0].fate, Fate::Replaced);
        assert_eq!(bench.waits_for(), Some(WaitFor::Result));
        // One that was begun meanwhile is a crash, or a reset, as ever.
        let mut bench = Bench::claimed();
        bench.attempt_waits(true);
        request.started = vec![of(inventory(), 1)];
        bench.claim_again(&request).unwrap();
        assert_eq!(bench.run.stages[0].crashes, 1);
    }
}

//! A store that was restored from a backup: what the agent knows may be ahead of it.

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused};
use groundcrew_orchestrator::run::state::{ATTEMPTS_KEPT_MAX, Fate};
use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{OverrideFlags, Taken};

use crate::bench::*;

/// Puts an earlier version of the run in the place of the present one.
fn restore(bench: &mut Bench, backup: &groundcrew_orchestrator::run::state::Run) {
    bench.run = backup.clone();
    bench.put(&Input::Restored).unwrap();
    assert!(bench.told("restored") && bench.run.restored);
}

#[test]
fn overrides_are_disarmed() {
    let mut bench = Bench::claimed();
    bench.run.stages[0].attempts[0].flags = OverrideFlags { wipe: true, id: Some(id(1)) };
    let backup = bench.run.clone();
    restore(&mut bench, &backup);
    assert_eq!(bench.run.stages[0].attempts[0].flags, OverrideFlags::default());
    assert!(matches!(bench.intent(1, "wipe", Some((inventory(), 1)), 1), Err(Refused::UnknownClaim { .. })));
}

#[test]
fn nothing_is_taken_under_an_old_claim_so_that_nothing_is_refused_for_good() {
    let mut bench = Bench::claimed();
    let backup = bench.run.clone();
    bench.report(1, inventory(), 1, Outcome::Pass);
    restore(&mut bench, &backup);
    let request = bench.outcome(1, stress(), 1, Outcome::Pass);
    assert!(matches!(bench.result(request), Err(Refused::UnknownClaim { .. })));
    assert!(matches!(bench.heard(1, &[]), Err(Refused::UnknownClaim { .. })));
    assert!(matches!(bench.heard(3, &[]), Err(Refused::UnknownClaim { .. })));
}

#[test]
fn the_next_claim_is_above_what_store_and_agent_have_known() {
    for (known, next) in [(0, 2), (1, 2), (5, 6)] {
        let mut bench = Bench::claimed();
        let backup = bench.run.clone();
        restore(&mut bench, &backup);
        // Even the very same process gets a new one.
        let mut request = agent(1);
        request.known_claim = ClaimNumber(known);
        request.in_flight = Some(of(inventory(), 1));
        let answer = bench.claim_again(&request).unwrap();
        assert_eq!((answer.claim, answer.attempt), (ClaimNumber(next), Attempt(1)));
        assert!(!bench.run.restored);
    }
}

#[test]
fn outcomes_that_the_agent_offers_again_count_as_their_attempts() {
    // From before the first claim, and from the middle of a stage.
    for claimed_before in [false, true] {
        let mut bench = if claimed_before { Bench::claimed() } else { Bench::fresh() };
        let backup = bench.run.clone();
        if !claimed_before {
            bench.claim(&agent(1)).unwrap();
        }
        bench.report(1, inventory(), 1, Outcome::Fail);
        bench.order(OrderKind::Retry, None, "").unwrap();
        bench.report(1, inventory(), 2, Outcome::Pass);
        bench.report(1, stress(), 1, Outcome::Pass);
        assert_eq!(bench.at(), (walking(reboot()), 1, IN_FLIGHT));

        restore(&mut bench, &backup);
        let mut request = agent(1);
        request.known_claim = ClaimNumber(1);
        request.outbox = vec![entry(inventory(), 1, 1), entry(inventory(), 2, 1), entry(stress(), 1, 1)];
        request.started = vec![of(inventory(), 2), of(stress(), 1), of(reboot(), 1)];
        request.in_flight = Some(of(reboot(), 1));
        let answer = bench.claim(&request).unwrap();
        assert_eq!((answer.current_state, answer.attempt), (walking(inventory()), Attempt(2)));
        assert_eq!(answer.planned_checks[0].name, "cpu", "and is judged by its plan");
        assert_eq!(bench.run.stage().crashes, 0);
        assert_eq!(bench.report(2, inventory(), 1, Outcome::Fail).0, Taken::Late);
        assert_eq!(bench.report(2, inventory(), 2, Outcome::Pass), (Taken::First, walking(stress()), 1));
        assert!(bench.told("attempt_known_again"));
        assert_eq!(bench.report(2, stress(), 1, Outcome::Pass), (Taken::First, walking(reboot()), 2));
        assert_eq!(bench.report(2, reboot(), 2, Outcome::Pass).1, State::Completed);
    }
}

#[test]
fn an_outcome_of_before_that_reports_nothing_is_no_pass() {
    let mut bench = Bench::fresh();
    let backup = bench.run.clone();
    bench.claim(&agent(1)).unwrap();
    restore(&mut bench, &backup);
    let mut request = agent(1);
    request.known_claim = ClaimNumber(1);
    request.outbox = vec![entry(inventory(), 1, 1)];
    bench.claim(&request).unwrap();
    let mut outcome = bench.outcome(2, inventory(), 1, Outcome::Pass);
    outcome.checks.truncate(1);
    assert_eq!(bench.result(outcome).unwrap().0.next_state, State::FailedHolding);
}

#[test]
fn offers_hold_for_the_claim_that_made_them_and_until_an_operator_orders_a_new_try() {
    let offer = || {
        let mut bench = Bench::claimed();
        let backup = bench.run.clone();
        restore(&mut bench, &backup);
        let mut request = agent(1);
        request.known_claim = ClaimNumber(1);
        request.outbox = vec![entry(inventory(), 1, 1), entry(stress(), 1, 1)];
        bench.claim_again(&request).unwrap();
        assert_eq!(bench.run.offered, [of(stress(), 1)]);
        (bench, request)
    };
    // A crash in the middle of it: the next claim offers what is left.
    let (mut bench, request) = offer();
    bench.report(2, inventory(), 1, Outcome::Pass);
    bench.claim_again(&restarted(request, 2)).unwrap();
    assert_eq!(bench.report(3, stress(), 1, Outcome::Pass).0, Taken::First);
    // The home is gone: a new attempt.
    let (mut bench, request) = offer();
    let mut emptied = restarted(request, 2);
    emptied.outbox.clear();
    bench.claim_again(&emptied).unwrap();
    assert_eq!(bench.run.offered, []);
    // A retry is a new try.
    let (mut bench, _) = offer();
    bench.report(2, inventory(), 1, Outcome::Fail);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!((bench.at().1, bench.run.offered.len()), (2, 0));
}

#[test]
fn an_outcome_that_came_before_the_walk_did_is_not_waited_for_once_it_comes_there() {
    for claims_between in [false, true] {
        let mut bench = Bench::claimed();
        let backup = bench.run.clone();
        restore(&mut bench, &backup);
        let mut request = agent(1);
        request.known_claim = ClaimNumber(1);
        request.started = vec![of(stress(), 1)];
        request.outbox = vec![entry(stress(), 1, 1)];
        bench.claim_again(&request).unwrap();
        assert_eq!(bench.run.offered, [of(stress(), 1)]);
        // Its agent sends it at once, and has it acknowledged: it will not come again.
        assert_eq!(bench.report(2, stress(), 1, Outcome::Pass).0, Taken::Late);
        assert_eq!(bench.run.offered, []);
        let mut claim = 2;
        if claims_between {
            let mut again = restarted(request, 2);
            again.outbox[0].acknowledged = true;
            bench.claim_again(&again).unwrap();
            claim = 3;
        }
        let attempt = bench.at().1;
        bench.report(claim, inventory(), attempt, Outcome::Pass);
        let (state, attempt, _) = bench.at();
        assert_eq!((state, attempt), (State::At(stress()), 2), "another attempt than the one that is over");
        assert_eq!(bench.report(claim, stress(), 2, Outcome::Pass).0, Taken::First);
    }
}

#[test]
fn what_was_forgotten_is_no_crash_and_no_reset() {
    let mut bench = Bench::claimed();
    let backup = bench.run.clone();
    restore(&mut bench, &backup);
    let mut request = restarted(agent(1), 3);
    request.boot_id = Some(boot(90));
    request.started = vec![of(inventory(), 4)];
    let answer = bench.claim_again(&request).unwrap();
    assert_eq!(answer.attempt, Attempt(5));
    assert_eq!((bench.run.stage().crashes, bench.run.stage().resets.len()), (0, 0));
    assert_eq!(bench.run.stage().attempts[0].fate, Fate::Replaced);
    // The next one is.
    bench.claim_again(&restarted(request, 4)).unwrap();
    assert_eq!(bench.run.stage().crashes, 1);
}

#[test]
fn ids_of_directives_are_never_given_twice() {
    let mut bench = Bench::held();
    let backup = bench.run.clone();
    let mut ids = Vec::new();
    for _ in 0..3 {
        restore(&mut bench, &backup);
        bench.now.wall = bench.now.wall.plus(MINUTE);
        bench.order(OrderKind::Retry, None, "").unwrap();
        ids.push(bench.orders()[0].0);
    }
    assert!(ids[0] > 1 && ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
}

#[test]
fn an_ended_run_stays_as_it_is() {
    let mut bench = Bench::claimed();
    bench.order(OrderKind::Cancel, None, "").unwrap();
    let before = bench.run.clone();
    assert!(!bench.put(&Input::Restored).unwrap().changed);
    assert_eq!(bench.run, before);
}

#[test]
fn restores_again_and_again_keep_the_document_bounded() {
    let mut bench = Bench::claimed();
    std::sync::Arc::make_mut(&mut bench.run.profile).limits.crashes = u32::MAX;
    for turn in 1..=200u32 {
        bench.put(&Input::Restored).unwrap();
        let mut request = restarted(agent(1), u64::from(turn));
        request.session = Some(id(9_000 + u64::from(turn)));
        let last = bench.run.stage().attempts_made.0;
        request.outbox = (1..=64).map(|n| entry(inventory(), last + n, 1)).collect();
        bench.claim_again(&request).unwrap();
        assert_eq!(bench.at().1, last + 64);
    }
    assert_eq!(bench.run.stage().attempts.len(), ATTEMPTS_KEPT_MAX);
}

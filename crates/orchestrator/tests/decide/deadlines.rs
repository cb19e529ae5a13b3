//! Time: every wait ends, silence holds and ends by itself, nothing waits for ever.

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused};
use groundcrew_orchestrator::run::state::{Fate, HeldFor, WaitFor};
use groundcrew_protocol::ids::{Attempt, ClaimNumber, Sha256Hex};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{Command, Taken};

use crate::bench::*;

#[test]
fn three_missed_heartbeats_hold_nothing() {
    let mut bench = Bench::claimed();
    let before = bench.run.clone();
    bench.pass(SILENCE - 1);
    assert_eq!(bench.run, before);
}

#[test]
fn silence_holds_and_ends_when_the_claim_speaks() {
    type Speak = fn(&mut Bench);
    let ways: [(&str, Speak); 4] = [
        ("heartbeat", |bench| {
            bench.heard(1, &[]).unwrap();
        }),
        ("the same claim", |bench| {
            assert_eq!(bench.claim(&agent(1)).unwrap().current_state, walking(inventory()));
        }),
        ("intent", |bench| bench.intent(1, "poweroff", Some((inventory(), 1)), 1).unwrap()),
        ("another claim that goes on", |bench| {
            let mut request = restarted(agent(1), 1);
            request.in_flight = Some(of(inventory(), 1));
            bench.claim_again(&request).unwrap();
        }),
    ];
    for (what, speak) in ways {
        let mut bench = Bench::claimed();
        bench.pass(SILENCE);
        assert_eq!(bench.why(), &HeldFor::Silence { limit_ms: SILENCE });
        assert_eq!((bench.waits_for(), bench.at().2), (Some(WaitFor::Operator), IN_FLIGHT));
        speak(&mut bench);
        assert_eq!(bench.at(), (walking(inventory()), 1, IN_FLIGHT), "{what}");
        assert_eq!(bench.waits_for(), Some(WaitFor::Result), "{what}");
        assert!(bench.told("resumed"), "{what}");
    }
}

#[test]
fn a_result_after_silence_is_the_first_and_goes_on() {
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass), (Taken::First, walking(stress()), 1));
}

#[test]
fn an_agent_that_is_back_has_the_limit_of_silence_to_bring_its_result_and_no_more() {
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    bench.now.listened_ms += 2 * HOUR;
    bench.heard(1, &[]).unwrap();
    assert_eq!(bench.waits_ms(), SILENCE);
    // It speaks, brings nothing, and cannot draw it out by falling silent again.
    bench.pass(SILENCE - 1);
    assert_eq!(bench.run.state(), walking(inventory()));
    bench.pass(1);
    assert_eq!(bench.why(), &HeldFor::OverDeadline { limit_ms: DEADLINE + SILENCE });
}

#[test]
fn claims_do_not_prolong_a_stage() {
    let mut bench = Bench::claimed();
    let mut spent_ms = 0;
    let mut known = 1;
    while bench.run.state() == walking(inventory()) {
        let mut request = restarted(agent(1), known);
        request.session = Some(id(9_000 + known));
        request.in_flight = Some(of(inventory(), 1));
        bench.claim_again(&request).unwrap();
        known += 1;
        bench.pass_heard(MINUTE);
        spent_ms += MINUTE;
    }
    assert_eq!(spent_ms, DEADLINE + SILENCE);
    assert!(matches!(bench.why(), HeldFor::OverDeadline { .. }));
}

#[test]
fn a_stage_over_its_deadline_and_the_limit_of_silence_holds_and_is_ended() {
    let mut bench = Bench::claimed();
    bench.pass_heard(DEADLINE + SILENCE - 1);
    assert_eq!(bench.run.state(), walking(inventory()));
    bench.pass_heard(1);
    assert_eq!(bench.why(), &HeldFor::OverDeadline { limit_ms: DEADLINE + SILENCE });
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1)]);
    assert_eq!(bench.at().2, Some(Fate::Replaced));
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass), (Taken::Late, State::FailedHolding, 0));
}

#[test]
fn a_cancel_names_the_attempt_in_flight_whatever_numbers_are_known() {
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.in_flight = Some(of(inventory(), 1));
    request.started = vec![of(inventory(), 9)];
    bench.claim_again(&request).unwrap();
    bench.pass_heard(DEADLINE + SILENCE);
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1)]);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.at().1, 10, "later attempts are numbered above what the agent knows");
}

#[test]
fn a_hold_ends_after_its_limit() {
    let mut bench = Bench::held();
    bench.pass_heard(HOLD - 1);
    assert_eq!(bench.run.state(), State::FailedHolding);
    bench.pass_heard(1);
    assert_eq!(bench.run.state(), State::Cancelled);
    assert_eq!(bench.run.reason(), "held for 7d without a decision");
    assert_eq!(bench.orders(), [(1, Command::Release, 0)]);
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Farewell), SILENCE));
    bench.pass(SILENCE);
    assert_eq!((bench.waits_for(), bench.commands()), (None, vec![]));
    assert!(bench.told("farewell_missed"));
}

#[test]
fn a_hold_for_silence_ends_after_its_limit_and_ends_the_stage() {
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    bench.pass(HOLD);
    assert_eq!(bench.at(), (State::Cancelled, 1, Some(Fate::Cancelled)));
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1)]);
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass).0, Taken::Late);
}

#[test]
fn a_run_that_nobody_claims_is_held_and_a_claim_then_holds() {
    let mut bench = Bench::fresh();
    bench.pass(CLAIM_WITHIN - 1);
    assert_eq!(bench.run.state(), walking(inventory()));
    bench.pass(1);
    assert_eq!(bench.why(), &HeldFor::NeverClaimed { limit_ms: CLAIM_WITHIN });
    assert_eq!(bench.claim(&agent(1)).unwrap().current_state, State::FailedHolding);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::RetryStage, 1)]);
    // Or nobody ever does.
    let mut bench = Bench::fresh();
    bench.pass(CLAIM_WITHIN);
    bench.pass(HOLD);
    assert_eq!((bench.run.state(), bench.waits_for(), bench.commands()), (State::Cancelled, None, vec![]));
}

#[test]
fn a_claim_that_a_new_agent_takes_ends_the_hold_for_silence() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    bench.pass(SILENCE);
    let token = Sha256Hex::of(b"second");
    bench.put(&Input::NewBootToken { token: token.clone(), by: "olga".into() }).unwrap();
    let answer = bench.claim_as(&agent(2), 2, &token).unwrap();
    assert_eq!((answer.claim, answer.current_state), (ClaimNumber(2), walking(inventory())));
    assert_eq!((answer.attempt, answer.cancelled_attempts), (Attempt(2), vec![of(inventory(), 1)]));
    assert_eq!(bench.run.stage().crashes, 1);
    // The silent one is fenced when it comes back.
    assert!(matches!(bench.heard(1, &[]), Err(Refused::OldClaim { .. })));
    let request = bench.outcome(1, inventory(), 1, Outcome::Pass);
    assert!(matches!(bench.result(request), Err(Refused::OldClaim { .. })));
}

#[test]
fn a_wait_that_is_not_over_changes_nothing_and_silence_counts_only_for_a_result() {
    // Held, ended, waiting for a claim or for a reboot: an agent may be silent.
    let mut held = Bench::held();
    let mut unclaimed = Bench::fresh();
    let mut rebooting = Bench::claimed();
    rebooting.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap();
    for bench in [&mut held, &mut unclaimed, &mut rebooting] {
        let before = bench.run.clone();
        bench.pass(SILENCE + 1);
        assert_eq!(bench.run, before);
    }
}

#[test]
fn at_end_shutdown_is_ordered_and_the_farewell_ends_when_it_is_confirmed() {
    use groundcrew_protocol::wire::DirectiveOutcome::{Doing, Done};
    let mut bench = Bench::new(profile(&["Inventory"], "shutdown"));
    bench.claim(&agent(1)).unwrap();
    bench.report(1, inventory(), 1, Outcome::Pass);
    assert_eq!(bench.orders(), [(1, Command::Shutdown, 0)]);
    bench.heard(1, &[(1, Doing)]).unwrap();
    assert_eq!(bench.waits_for(), Some(WaitFor::Farewell));
    bench.intent(1, "poweroff", None, 1).unwrap();
    bench.heard(1, &[(1, Done)]).unwrap();
    assert_eq!((bench.waits_for(), bench.commands()), (None, vec![]));
}

#[test]
fn no_clock_and_no_limit_makes_it_panic() {
    for clock in [0, u64::MAX / 2, u64::MAX] {
        for limit in [0, u64::MAX] {
            let mut bench = Bench::claimed();
            let limits = &mut std::sync::Arc::make_mut(&mut bench.run.profile).limits;
            (limits.silence, limits.hold, limits.reboot) = (limit, limit, limit);
            bench.now.listened_ms = clock;
            bench.now.wall = groundcrew_protocol::time::WallMs(i64::MAX);
            bench.heard(1, &[]).unwrap();
            for _ in 0..3 {
                bench.put(&Input::Deadline).unwrap();
            }
            bench.claim_again(&restarted(agent(1), 1)).unwrap();
            bench.put(&Input::Restored).unwrap();
        }
    }
}

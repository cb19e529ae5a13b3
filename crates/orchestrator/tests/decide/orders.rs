//! Operators' orders: retry, override, cancel, release, abort.

use groundcrew_orchestrator::run::decide::OrderKind::{Abort, Cancel, Override, Release, Retry};
use groundcrew_orchestrator::run::decide::Refused;
use groundcrew_orchestrator::run::state::{Fate, HeldFor, Standing, WaitFor};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{Command, DirectiveOutcome, Taken};

use crate::bench::*;

#[test]
fn a_retry_that_fails_again_holds_again_and_one_that_passes_goes_on_to_the_end() {
    let mut bench = Bench::held();
    bench.order(Retry, None, "seated the module").unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
    assert_eq!(bench.orders(), [(1, Command::RetryStage, 2)]);
    assert_eq!(bench.report(1, inventory(), 2, Outcome::Fail), (Taken::First, State::FailedHolding, 0));
    bench.order(Retry, None, "").unwrap();
    assert_eq!(bench.report(1, inventory(), 3, Outcome::Pass), (Taken::First, walking(stress()), 1));
    bench.report(1, stress(), 1, Outcome::Pass);
    assert_eq!(bench.report(1, reboot(), 1, Outcome::Pass).1, State::Completed);
}

#[test]
fn a_retry_of_an_earlier_stage_walks_the_later_ones_again() {
    let mut bench = Bench::claimed();
    bench.report(1, inventory(), 1, Outcome::Pass);
    bench.report(1, stress(), 1, Outcome::Fail);
    assert!(matches!(bench.order(Retry, Some(reboot()), ""), Err(Refused::Order { .. })), "not begun");
    assert!(matches!(bench.order(Retry, Some(Stage::Reporting), ""), Err(Refused::Order { .. })));
    assert!(matches!(bench.order(Retry, Some("Later".into()), ""), Err(Refused::Order { .. })));
    bench.order(Retry, Some(inventory()), "").unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
    assert_eq!((bench.verdict_of(&inventory()), bench.verdict_of(&stress())), (None, None));
    assert_eq!(bench.report(1, inventory(), 2, Outcome::Pass), (Taken::First, walking(stress()), 2));
    assert_eq!(bench.report(1, stress(), 1, Outcome::Pass).0, Taken::Repeated);
    assert_eq!(bench.report(1, stress(), 2, Outcome::Pass).1, walking(reboot()));
}

#[test]
fn an_override_needs_a_reason_and_goes_on() {
    let mut bench = Bench::held();
    for reason in ["", "  \n"] {
        assert!(matches!(bench.order(Override, None, reason), Err(Refused::Order { .. })));
    }
    assert!(matches!(bench.order(Override, Some(stress()), "x"), Err(Refused::Order { .. })));
    bench.order(Override, Some(inventory()), " known bad ").unwrap();
    assert_eq!(bench.at(), (walking(stress()), 1, IN_FLIGHT));
    assert_eq!(bench.orders(), [(1, Command::Continue, 1)]);
    let overridden = bench.run.stages[0].overridden.as_ref().unwrap();
    assert_eq!((overridden.reason.as_str(), overridden.by.as_str()), ("known bad", "olga"));
    assert_eq!(bench.verdict_of(&inventory()), Some(groundcrew_protocol::check::Verdict::Fail));
    bench.order(Override, None, "x").unwrap_err();
}

#[test]
fn an_override_of_the_last_stage_completes_and_lets_the_agent_out_of_its_hold() {
    for (at_end, commands) in
        [("stay", vec![Command::Release]), ("shutdown", vec![Command::Release, Command::Shutdown])]
    {
        let mut bench = Bench::new(profile(&["Inventory"], at_end));
        bench.claim(&agent(1)).unwrap();
        bench.report(1, inventory(), 1, Outcome::Fail);
        let change = bench.order(Override, None, "x").unwrap();
        assert_eq!(bench.run.state(), State::Completed);
        assert_eq!(change.own.len(), 1, "Reporting was resolved");
        assert_eq!(bench.commands(), commands);
        assert_eq!(bench.waits_for(), Some(WaitFor::Farewell));
    }
}

#[test]
fn an_override_while_the_stage_runs_ends_it_too() {
    let mut bench = Bench::new(profile(&["Inventory"], "stay"));
    bench.claim(&agent(1)).unwrap();
    bench.pass(SILENCE);
    bench.order(Override, None, "x").unwrap();
    assert_eq!(bench.run.state(), State::Completed);
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1)]);
    assert_eq!(bench.run.stages[0].attempts[0].fate, Fate::Replaced);
}

#[test]
fn cancel_ends_a_run_wherever_it_stands() {
    // Not claimed: nobody is to be told.
    let mut bench = Bench::fresh();
    bench.order(Cancel, None, "wrong node").unwrap();
    assert_eq!((bench.run.state(), bench.commands(), bench.waits_for()), (State::Cancelled, vec![], None));
    assert_eq!(bench.run.reason(), "cancelled by olga: wrong node");
    // In flight: the stage is ended.
    let mut bench = Bench::claimed();
    bench.order(Cancel, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1)]);
    assert_eq!(bench.at(), (State::Cancelled, 1, Some(Fate::Cancelled)));
    // Held: the hold is.
    let mut bench = Bench::held();
    bench.order(Cancel, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::Release, 0)]);
    // Held over its deadline: what may be running still is ended too.
    let mut bench = Bench::claimed();
    bench.pass_heard(DEADLINE + SILENCE);
    bench.order(Cancel, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::CancelStage, 1), (2, Command::Release, 0)]);
}

#[test]
fn a_cancel_is_confirmed_by_the_cancelled_result_too() {
    let mut bench = Bench::claimed();
    bench.order(Cancel, None, "").unwrap();
    assert_eq!(bench.waits_for(), Some(WaitFor::Farewell));
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Nothing).0, Taken::Late);
    assert_eq!((bench.commands(), bench.waits_for()), (vec![], None));
    bench.heard(1, &[(1, DirectiveOutcome::Done)]).unwrap();
}

#[test]
fn a_cancel_in_flight_holds_on_another_boot() {
    let mut bench = Bench::claimed();
    bench.order(Cancel, None, "").unwrap();
    let mut request = restarted(agent(1), 1);
    request.boot_id = Some(boot(90));
    let answer = bench.claim_again(&request).unwrap();
    assert_eq!((answer.current_state, answer.ended_boot), (State::Cancelled, Some(boot(1))));
    assert_eq!(answer.cancelled_attempts, [of(inventory(), 1)]);
    assert_eq!((bench.commands(), bench.waits_for()), (vec![], None));
}

#[test]
fn abort_says_so_and_release_needs_a_hold() {
    let mut bench = Bench::claimed();
    assert!(matches!(bench.order(Release, None, ""), Err(Refused::Order { .. })));
    bench.order(Abort, None, "fire").unwrap();
    assert_eq!(bench.orders(), [(1, Command::Abort, 0)]);
    assert_eq!(bench.run.reason(), "aborted by olga: fire");
    let mut bench = Bench::held();
    bench.order(Release, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::Release, 0)]);
    assert!(matches!(bench.run.standing, Standing::Cancelled { .. }));
}

#[test]
fn what_nobody_checked_is_not_overridden_but_retried() {
    let mut bench = Bench::fresh();
    bench.pass(CLAIM_WITHIN);
    assert_eq!(bench.why(), &HeldFor::NeverClaimed { limit_ms: CLAIM_WITHIN });
    assert!(matches!(bench.order(Override, None, "x"), Err(Refused::Order { .. })));
    bench.order(Retry, None, "").unwrap();
    assert_eq!((bench.at(), bench.waits_for()), ((walking(inventory()), 0, None), Some(WaitFor::Claim)));
    assert_eq!(bench.commands(), []);
    bench.claim(&agent(1)).unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 1, IN_FLIGHT));
}

#[test]
fn a_retry_while_silent_withdraws_what_was_ordered_before() {
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    for attempt in 2..=4 {
        bench.order(Retry, None, "").unwrap();
        assert_eq!(bench.at(), (walking(inventory()), attempt, IN_FLIGHT));
        // Still silent: held at the next look, and the attempt stands.
        bench.pass(SECOND);
        assert_eq!(bench.why(), &HeldFor::Silence { limit_ms: SILENCE });
    }
    let ended = [1, 2, 3].map(|attempt| (Command::CancelStage, attempt));
    let orders: Vec<_> = bench.orders().into_iter().map(|(_, command, attempt)| (command, attempt)).collect();
    assert_eq!(orders[..3], ended);
    assert_eq!(orders[3..], [(Command::RetryStage, 4)]);
    bench.heard(1, &[]).unwrap();
    assert_eq!(bench.at(), (walking(inventory()), 4, IN_FLIGHT));
    assert_eq!(bench.report(1, inventory(), 4, Outcome::Pass).0, Taken::First);
}

#[test]
fn orders_that_nobody_answers_are_bounded() {
    let mut bench = Bench::claimed();
    bench.pass(SILENCE);
    let refused = loop {
        if let Err(refused) = bench.order(Retry, None, "") {
            break refused;
        }
        bench.pass(SECOND);
        assert!(bench.commands().len() <= 16);
    };
    assert!(matches!(refused, Refused::Order { .. }));
    // A cancel is never refused for that.
    bench.order(Cancel, None, "").unwrap();
    assert!(bench.commands().len() <= 16);
}

#[test]
fn reasons_are_bounded() {
    let mut bench = Bench::held();
    bench.order(Override, None, &"é".repeat(1 << 20)).unwrap();
    assert_eq!(bench.run.stages[0].overridden.as_ref().unwrap().reason.chars().count(), 2_000);
}

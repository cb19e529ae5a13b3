//! What became of directives.

use groundcrew_orchestrator::run::decide::OrderKind;
use groundcrew_orchestrator::run::state::{Fate, HeldFor, WaitFor};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::Command;
use groundcrew_protocol::wire::DirectiveOutcome::{self, Doing, Done, Refused, TooLate, Unknown};

use crate::bench::*;

fn retried() -> Bench {
    let mut bench = Bench::held();
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.orders(), [(1, Command::RetryStage, 2)]);
    bench
}

#[test]
fn a_directive_stays_until_its_outcome_is_known() {
    for outcome in [Doing, Unknown("soon".into())] {
        let mut bench = retried();
        bench.heard(1, &[]).unwrap();
        assert!(bench.heard(1, &[(1, outcome.clone())]).unwrap().changed);
        assert_eq!(bench.run.directives[0].said, Some(outcome.clone()));
        assert!(!bench.heard(1, &[(1, outcome)]).unwrap().changed, "said twice");
    }
    let mut bench = retried();
    bench.heard(1, &[(1, Done)]).unwrap();
    assert_eq!((bench.orders(), bench.at().2), (vec![], IN_FLIGHT));
    assert!(bench.told("directive_done"));
    // An outcome of one that is not known is nothing.
    let change = bench.heard(1, &[(1, Refused), (99, TooLate)]).unwrap();
    assert!(!change.changed);
}

#[test]
fn a_retry_that_the_agent_will_not_do_holds() {
    for outcome in [Refused, TooLate] {
        let mut bench = retried();
        bench.heard(1, &[(1, outcome)]).unwrap();
        assert!(matches!(bench.why(), HeldFor::Verdict { verdict: Verdict::Inconclusive, .. }));
        assert_eq!((bench.orders(), bench.at().2), (vec![], Some(Fate::Replaced)));
        assert_eq!(bench.waits_for(), Some(WaitFor::Operator));
    }
}

#[test]
fn a_result_settles_the_order_to_make_its_attempt() {
    let mut bench = retried();
    bench.report(1, inventory(), 2, Outcome::Pass);
    assert_eq!(bench.orders(), []);
    // What is said of it later is moot, though the attempt in flight has the same number.
    bench.run.stages[1].attempts[0].number.0 = 2;
    let before = bench.run.clone();
    bench.heard(1, &[(1, TooLate)]).unwrap();
    assert_eq!(bench.run, before);
}

#[test]
fn an_order_of_another_stage_does_not_hold_this_one() {
    let mut bench = retried();
    let stale = bench.run.directives[0].clone();
    bench.report(1, inventory(), 2, Outcome::Pass);
    bench.report(1, stress(), 1, Outcome::Fail);
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.at(), (walking(stress()), 2, IN_FLIGHT));
    bench.run.directives.insert(0, stale);
    bench.heard(1, &[(1, TooLate)]).unwrap();
    assert_eq!(bench.at(), (walking(stress()), 2, IN_FLIGHT));
}

#[test]
fn words_of_the_agent_are_bounded() {
    let mut bench = retried();
    let word: DirectiveOutcome = "w".repeat(1 << 20).into();
    bench.heard(1, &[(1, word)]).unwrap();
    assert!(serde_json::to_vec(&bench.run).unwrap().len() < 40_000);
}

#[test]
fn a_farewell_ends_with_the_last_outcome() {
    for outcome in [Done, Refused, TooLate] {
        let mut bench = Bench::claimed();
        bench.order(OrderKind::Cancel, None, "").unwrap();
        bench.heard(1, &[(1, outcome)]).unwrap();
        assert_eq!((bench.run.state(), bench.waits_for()), (State::Cancelled, None));
    }
}

#[test]
fn a_new_claim_says_of_each_order_that_it_came_too_late() {
    let mut bench = retried();
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert_eq!(bench.orders(), []);
    assert!(bench.told("directive_too_late"));
    assert_eq!(bench.at(), (walking(inventory()), 3, IN_FLIGHT));
}

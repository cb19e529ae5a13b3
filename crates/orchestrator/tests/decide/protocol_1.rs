//! An agent of the protocol before: no claim numbers, no attempts, no checks; the boot token serves for every call.

use groundcrew_orchestrator::run::decide::{OrderKind, Refused};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::plan::names::AGENT_WORD;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{Command, ResultRequest, Taken};
use serde_json::json;

use crate::bench::*;

fn old_agent(n: u64) -> groundcrew_protocol::wire::ClaimRequest {
    serde_json::from_value(json!({"ip": format!("10.0.0.{n}")})).unwrap()
}

fn claimed() -> Bench {
    let mut bench = Bench::fresh();
    let answer = bench.claim_as(&old_agent(1), 1, &boot_token()).unwrap();
    assert_eq!((answer.claim, answer.attempt), (ClaimNumber(1), Attempt(1)));
    assert_eq!(answer.planned_checks[0].name, AGENT_WORD);
    bench
}

fn report(bench: &mut Bench, stage: &Stage, passed: bool) -> (Taken, State) {
    let request: ResultRequest =
        serde_json::from_value(json!({"stage": stage.to_string(), "passed": passed, "summary": {"a": 1}}))
            .unwrap();
    let (answer, _) = bench.result(request).unwrap();
    (answer.taken, answer.next_state)
}

#[test]
fn it_walks_to_completed() {
    let mut bench = claimed();
    bench.heard(0, &[]).unwrap();
    assert_eq!(report(&mut bench, &inventory(), true), (Taken::First, walking(stress())));
    assert_eq!(report(&mut bench, &inventory(), true), (Taken::Repeated, walking(stress())));
    assert_eq!(report(&mut bench, &stress(), true), (Taken::First, walking(reboot())));
    assert_eq!(report(&mut bench, &reboot(), true), (Taken::First, State::Completed));
}

#[test]
fn its_word_is_the_one_check() {
    let mut bench = claimed();
    assert_eq!(report(&mut bench, &inventory(), false), (Taken::First, State::FailedHolding));
    assert_eq!(bench.verdict_of(&inventory()), Some(Verdict::Fail));
    bench.order(OrderKind::Retry, None, "").unwrap();
    assert_eq!(bench.commands(), [Command::RetryStage]);
    // It cannot say what became of the order; the result says it.
    assert_eq!(report(&mut bench, &inventory(), true), (Taken::First, walking(stress())));
    assert_eq!(bench.commands(), []);
}

#[test]
fn a_claim_repeated_before_it_spoke_is_the_same_and_later_a_restart() {
    let mut bench = claimed();
    let before = bench.run.clone();
    for _ in 0..20 {
        bench.claim_as(&old_agent(1), 1, &boot_token()).unwrap();
        assert_eq!(bench.run, before);
    }
    bench.heard(0, &[]).unwrap();
    let answer = bench.claim_as(&old_agent(1), 1, &boot_token()).unwrap();
    assert_eq!((answer.claim, answer.attempt), (ClaimNumber(2), Attempt(2)));
    assert_eq!(bench.run.stage().crashes, 1);
}

#[test]
fn another_address_is_another_agent() {
    let mut bench = claimed();
    bench.heard(0, &[]).unwrap();
    assert!(matches!(bench.claim_as(&old_agent(2), 1, &boot_token()), Err(Refused::ClaimedElsewhere { .. })));
    bench.now.listened_ms += 30 * SECOND;
    bench.claim_as(&old_agent(2), 1, &boot_token()).unwrap();
    assert!(bench.told("hands_changed"));
}

#[test]
fn a_number_that_it_sends_nevertheless_is_fenced() {
    let mut bench = claimed();
    assert!(matches!(bench.heard(7, &[]), Err(Refused::UnknownClaim { .. })));
    bench.heard(1, &[]).unwrap();
}

#[test]
fn an_agent_that_was_brought_up_to_date_takes_over_where_it_stood() {
    let mut bench = claimed();
    bench.heard(0, &[]).unwrap();
    report(&mut bench, &inventory(), true);
    bench.now.listened_ms += 30 * SECOND;
    let answer = bench.claim(&agent(1)).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (walking(stress()), Attempt(2)));
    assert!(answer.planned_checks.iter().all(|check| check.name != AGENT_WORD));
    assert!(
        matches!(bench.heard(0, &[]), Err(Refused::OldClaim { .. })),
        "no number is no claim of protocol 2"
    );
}

#[test]
fn an_attempt_that_is_not_said_is_the_latest_that_was_given_out() {
    let mut bench = claimed();
    bench.run.stages[0].attempts_made = Attempt(9);
    assert_eq!(report(&mut bench, &inventory(), true), (Taken::First, walking(stress())));
    assert_eq!(report(&mut bench, &inventory(), true).0, Taken::Repeated);
}

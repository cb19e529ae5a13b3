//! Results: rule 2, verdicts, and the stages that resolve inside a result.

use groundcrew_orchestrator::run::decide::{OrderKind, Refused};
use groundcrew_orchestrator::run::state::{Fate, HeldFor};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::inventory::Inventory;
use groundcrew_protocol::spec_diff::spec_validate;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::Taken;

use crate::bench::*;

#[test]
fn the_first_stands_and_a_repeated_one_changes_nothing() {
    let mut bench = Bench::claimed();
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass), (Taken::First, walking(stress()), 1));
    let before = bench.run.clone();
    // Repeated, even with another content: answered with where the run stands now.
    for outcome in [Outcome::Pass, Outcome::Fail, Outcome::Nothing] {
        assert_eq!(bench.report(1, inventory(), 1, outcome), (Taken::Repeated, walking(stress()), 1));
        assert_eq!(bench.run, before);
    }
    assert_eq!(bench.verdict_of(&inventory()), Some(Verdict::Pass));
}

#[test]
fn a_late_one_is_evidence() {
    // Its attempt crashed.
    let mut bench = Bench::claimed();
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    let before = (bench.run.standing.clone(), bench.run.stages.clone());
    assert_eq!(bench.report(2, inventory(), 1, Outcome::Pass), (Taken::Late, walking(inventory()), 2));
    assert_eq!((bench.run.standing.clone(), bench.run.stages.clone()), before);
    assert!(bench.told("late_result"));
    // Its run was cancelled.
    bench.order(OrderKind::Cancel, None, "").unwrap();
    assert_eq!(bench.report(2, inventory(), 2, Outcome::Pass), (Taken::Late, State::Cancelled, 0));
    // Its run is complete.
    let mut bench = Bench::new(profile(&["Inventory"], "stay"));
    bench.claim(&agent(1)).unwrap();
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass), (Taken::First, State::Completed, 0));
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Fail), (Taken::Repeated, State::Completed, 0));
}

#[test]
fn cancel_against_result_the_first_to_land_stands() {
    let mut bench = Bench::new(profile(&["Inventory"], "stay"));
    bench.claim(&agent(1)).unwrap();
    bench.report(1, inventory(), 1, Outcome::Pass);
    assert!(matches!(bench.order(OrderKind::Cancel, None, ""), Err(Refused::Order { .. })));
    assert_eq!(bench.run.state(), State::Completed);

    let mut bench = Bench::claimed();
    bench.order(OrderKind::Cancel, None, "").unwrap();
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass).0, Taken::Late);
    assert_eq!(bench.at(), (State::Cancelled, 1, Some(Fate::Cancelled)));
}

#[test]
fn the_orchestrators_verdict_counts_not_the_agents_word() {
    for (outcome, word, state, verdict, differs) in [
        (Outcome::Pass, true, walking(stress()), Verdict::Pass, false),
        (Outcome::Pass, false, walking(stress()), Verdict::Pass, true),
        (Outcome::Fail, true, State::FailedHolding, Verdict::Fail, true),
        (Outcome::Fail, false, State::FailedHolding, Verdict::Fail, false),
        (Outcome::Gap, true, State::FailedHolding, Verdict::Inconclusive, true),
        (Outcome::Nothing, true, State::FailedHolding, Verdict::Inconclusive, true),
    ] {
        let mut bench = Bench::claimed();
        let mut request = bench.outcome(1, inventory(), 1, outcome);
        request.passed = word;
        for check in &mut request.checks {
            check.verdict = if word { Verdict::Pass } else { Verdict::Fail };
        }
        let (answer, change) = bench.result(request).unwrap();
        assert_eq!(answer.next_state, state, "{outcome:?} {word}");
        assert_eq!(change.result.unwrap().judged.unwrap().verdict, verdict);
        assert_eq!(bench.told("verdict_differs"), differs, "{outcome:?} {word}");
        assert_eq!(bench.run.stages[0].attempts[0].fate, Fate::Done(verdict));
    }
}

#[test]
fn a_hold_names_what_was_wrong_in_bounded_words() {
    let mut bench = Bench::claimed();
    let mut request = bench.outcome(1, inventory(), 1, Outcome::Nothing);
    request.checks = bench.outcome(1, inventory(), 1, Outcome::Fail).checks;
    for n in 0..1_000 {
        let mut check = request.checks[0].clone();
        check.component = Some(format!("{n}{}", "c".repeat(10_000)));
        check.name = "n".repeat(10_000);
        request.checks.push(check);
    }
    bench.result(request).unwrap();
    assert!(bench.run.reason().contains("it is missing"), "{}", bench.run.reason());
    assert!(bench.run.reason().len() < 4_000);
    assert!(serde_json::to_vec(&bench.run).unwrap().len() < 40_000);
}

#[test]
fn a_result_names_its_claim_and_only_that_is_fenced() {
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.outbox = vec![entry(inventory(), 1, 1)];
    bench.claim_again(&request).unwrap();
    let mut request = bench.outcome(1, inventory(), 1, Outcome::Pass);
    assert!(matches!(bench.result(request.clone()), Err(Refused::OldClaim { .. })));
    request.claim = ClaimNumber(2);
    assert_eq!(bench.result(request).unwrap().0.taken, Taken::First);
}

#[test]
fn what_was_never_given_out_does_not_fit() {
    for (stage, attempt) in [
        (inventory(), 0),
        (inventory(), 2),
        (stress(), 1),
        (Stage::SpecValidate, 1),
        (Stage::Reporting, 1),
        (Stage::Unknown("Later".into()), 1),
    ] {
        let mut bench = Bench::claimed();
        let request = bench.outcome(1, stage.clone(), attempt, Outcome::Pass);
        assert!(matches!(bench.result(request), Err(Refused::Unfit { .. })), "{stage} {attempt}");
    }
}

#[test]
fn the_last_stage_passes_through_reporting_to_completed() {
    let mut bench = Bench::claimed();
    assert_eq!(bench.report(1, inventory(), 1, Outcome::Pass), (Taken::First, walking(stress()), 1));
    assert_eq!(bench.report(1, stress(), 1, Outcome::Pass), (Taken::First, walking(reboot()), 1));
    let request = bench.outcome(1, reboot(), 1, Outcome::Pass);
    let (answer, change) = bench.result(request).unwrap();
    assert_eq!((answer.next_state, answer.attempt), (State::Completed, Attempt(0)));
    let own = change.result.unwrap().own;
    assert_eq!((own[0].0.clone(), own[0].1, own[0].2.verdict), (Stage::Reporting, Attempt(1), Verdict::Pass));
    assert_eq!(change.own, []);
    assert!(bench.told("completed"));
    assert_eq!((bench.run.ended_boot(), bench.waits_for()), (Some(&boot(1)), None));
}

/// A run whose profile expects a processor by name, after an inventory that found `model`.
fn with_spec(model: Option<&str>) -> (Bench, groundcrew_protocol::check::Judged) {
    let mut profile = profile(&["Inventory", "SpecValidate", "CPUStress"], "stay");
    profile.expected.cpu.model = Some("Good CPU".into());
    let expected = profile.expected.clone();
    let mut bench = Bench::new(profile);
    bench.claim(&agent(1)).unwrap();
    let mut request = bench.outcome(1, inventory(), 1, Outcome::Pass);
    let inventory = model.map(|model| {
        let mut inventory = Inventory::default();
        inventory.cpu.model = Some(model.into());
        Box::new(inventory)
    });
    let judged = spec_validate(&expected, inventory.as_deref());
    request.inventory = inventory;
    let (answer, change) = bench.result(request).unwrap();
    let kept = change.result.unwrap();
    assert_eq!(kept.own[0], (Stage::SpecValidate, Attempt(1), judged.clone()));
    assert_eq!(answer.next_state, bench.run.state());
    (bench, judged)
}

#[test]
fn the_spec_resolves_inside_the_inventorys_result() {
    let (bench, judged) = with_spec(Some("Good CPU 9000"));
    let state = if judged.verdict.goes_on() { walking(stress()) } else { State::FailedHolding };
    assert_eq!(bench.run.state(), state);
    assert_eq!(bench.verdict_of(&Stage::SpecValidate), Some(judged.verdict));
    assert_eq!(bench.run.spec, None);
}

#[test]
fn a_difference_from_the_spec_holds_and_only_another_inventory_can_mend_it() {
    for model in [Some("Bad CPU"), None] {
        let (mut bench, judged) = with_spec(model);
        assert!(!judged.verdict.goes_on());
        assert_eq!(bench.run.state(), State::FailedHolding);
        assert_eq!(bench.run.stage().spec.name, Stage::SpecValidate);
        assert!(matches!(bench.why(), HeldFor::Verdict { verdict, .. } if *verdict == judged.verdict));
        bench.order(OrderKind::Retry, None, "").unwrap();
        assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
        bench.report(1, inventory(), 2, Outcome::Pass);
        assert_eq!(
            (bench.at().0, bench.run.stage().spec.name.clone()),
            (State::FailedHolding, Stage::SpecValidate)
        );
        bench.order(OrderKind::Override, None, "it is as good").unwrap();
        assert_eq!(bench.at(), (walking(stress()), 1, IN_FLIGHT));
        assert_eq!(bench.report(1, stress(), 1, Outcome::Pass).1, State::Completed);
    }
}

#[test]
fn a_message_before_the_first_claim_is_refused() {
    let mut bench = Bench::fresh();
    let request = bench.outcome(1, inventory(), 1, Outcome::Pass);
    assert!(matches!(bench.result(request), Err(Refused::NotClaimed { .. })));
}

#[test]
fn how_long_a_stage_took_is_its_agents_to_say_and_not_when_the_result_came() {
    let mut bench = Bench::claimed();
    bench.pass_heard(MINUTE);
    let mut request = bench.outcome(1, inventory(), 1, Outcome::Pass);
    (request.began, request.ended) = (WallMs(5_000), WallMs(7_500));
    bench.result(request).unwrap();
    assert_eq!(bench.run.stages[0].attempts[0].took_ms, Some(2_500));
    bench.report(1, stress(), 1, Outcome::Pass);
    assert_eq!(bench.run.stages[1].attempts[0].took_ms, None, "it did not say");
}

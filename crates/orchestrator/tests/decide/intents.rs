//! Intents, boots and what they prove: rule 4.

use groundcrew_orchestrator::run::decide::{Input, OrderKind, Refused};
use groundcrew_orchestrator::run::state::{Fate, HeldFor, WaitFor};
use groundcrew_protocol::check::{Check, Limit, Observation, Verdict};
use groundcrew_protocol::ids::{Attempt, Sha256Hex};
use groundcrew_protocol::plan::REBOOTED_FOUND;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{Command, Taken};

use crate::bench::*;

/// At the interrupt, with nothing after it but CPUStress.
fn at_reboot() -> Bench {
    let mut bench = Bench::new(profile(&["Interrupt:reboot", "CPUStress"], "stay"));
    bench.claim(&agent(1)).unwrap();
    bench
}

fn booted(known: u64, boot_number: u64) -> groundcrew_protocol::wire::ClaimRequest {
    let mut request = restarted(agent(1), known);
    request.session = Some(id(7_000 + boot_number));
    request.boot_id = Some(boot(boot_number));
    request
}

#[test]
fn a_reboot_that_was_asked_for_is_proved_by_the_next_claims_boot() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Reboot), REBOOT));
    let answer = bench.claim_again(&booted(1, 90)).unwrap();
    assert!(bench.told("reboot_proved"));
    assert_eq!((answer.current_state, answer.attempt), (walking(stress()), Attempt(1)));
    assert_eq!(bench.verdict_of(&reboot()), Some(Verdict::Pass));
    assert_eq!(bench.run.stages[0].crashes, 0);
    assert_eq!((bench.run.intent.clone(), bench.waits_for()), (None, Some(WaitFor::Result)));
    // Its outcome stands; one that the agent brings later is a repetition.
    assert_eq!(bench.report(2, reboot(), 1, Outcome::Fail).0, Taken::Repeated);
}

#[test]
fn a_machine_that_comes_back_with_other_addresses_has_rebooted_by_its_serial() {
    // Its interfaces are others after the boot: a driver that is missing, a bond, a card that was exchanged.
    let of = |request: groundcrew_protocol::wire::ClaimRequest, serial: Option<&str>, mac: &str| {
        groundcrew_protocol::wire::ClaimRequest {
            serial: serial.map(str::to_owned),
            macs: vec![mac.parse().unwrap()],
            ..request
        }
    };
    const ONE: &str = "02:00:00:00:00:01";
    const TWO: &str = "02:00:00:00:00:02";
    for (before, after, is_proved) in [
        (Some("S-1"), Some(" s-1"), true),
        (Some("S-1"), Some("S-2"), false),
        (Some("S-1"), None, false),
        (None, None, false),
    ] {
        let mut bench = Bench::new(profile(&["Interrupt:reboot", "CPUStress"], "stay"));
        bench.claim(&of(agent(1), before, ONE)).unwrap();
        bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
        let back = of(booted(1, 90), after, TWO);
        bench.pass(SILENCE);
        let answer = bench.claim_again(&back).unwrap();
        let what = format!("{before:?}, then {after:?}");
        assert_eq!(bench.told("reboot_proved"), is_proved, "{what}");
        if is_proved {
            assert_eq!((answer.current_state, answer.attempt), (walking(stress()), Attempt(1)), "{what}");
            assert_eq!(bench.run.stages[0].attempts_made, Attempt(1), "it was asked for once");
        }
    }
}

#[test]
fn an_outcome_that_the_agent_kept_counts_before_the_proof() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    let mut request = booted(1, 90);
    request.outbox = vec![entry(reboot(), 1, 1)];
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(1));
    assert_eq!((bench.at(), bench.waits_for()), ((walking(reboot()), 1, IN_FLIGHT), Some(WaitFor::Result)));
    assert_eq!(bench.report(2, reboot(), 1, Outcome::Pass).1, walking(stress()));
}

#[test]
fn an_agent_that_is_back_under_the_same_boot_is_told_to_ask_again_so_often_and_no_more() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    let until_ms = bench.run.wait.as_ref().unwrap().until_ms;
    for known in 1..3 {
        let mut request = booted(u64::from(known), 1);
        request.session = Some(id(8_000 + u64::from(known)));
        // It was ended in order, as a shutdown does that then comes to nothing: this counts all the same.
        request.stopped = Some(of(reboot(), known));
        let answer = bench.claim_again(&request).unwrap();
        let next = Attempt(known + 1);
        assert_eq!((answer.current_state, answer.attempt), (walking(reboot()), next));
        assert!(bench.told("reboot_missed") && !bench.told("crashed"));
        // What was asked for may come yet, and by the time that was set for it.
        let intent = bench.run.intent.as_ref().unwrap();
        assert_eq!((intent.attempt, intent.missed), (next, known));
        assert_eq!(
            (bench.waits_for(), bench.run.wait.as_ref().unwrap().until_ms),
            (Some(WaitFor::Reboot), until_ms)
        );
        bench.intent(u64::from(known) + 1, "reboot", Some((reboot(), known + 1)), 1).unwrap();
        assert_eq!(bench.run.wait.as_ref().unwrap().until_ms, until_ms);
    }
    let mut request = booted(3, 1);
    request.session = Some(id(8_003));
    assert_eq!(bench.claim_again(&request).unwrap().current_state, State::FailedHolding);
    assert_eq!(bench.why(), &HeldFor::RebootsMissed { count: 3 });
    assert_eq!(bench.run.stage().crashes, 0);
    // One that comes at last is no reset.
    bench.claim_again(&booted(4, 90)).unwrap();
    assert!(bench.told("reboot_proved") && !bench.told("unexpected_reset"));
    assert_eq!(bench.why(), &HeldFor::RebootsMissed { count: 3 });
}

#[test]
fn a_reboot_that_was_asked_for_before_the_agent_came_back_proves_the_attempt_after_it() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    assert_eq!(bench.claim_again(&booted(1, 1)).unwrap().attempt, Attempt(2));
    // Before that one has asked for anything, the machine goes down for the first.
    let answer = bench.claim_again(&booted(2, 90)).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (walking(stress()), Attempt(1)));
    assert_eq!(bench.verdict_of(&reboot()), Some(Verdict::Pass));
}

#[test]
fn an_agent_that_claims_anew_with_its_interrupt_in_flight_keeps_the_deadline_of_the_reboot() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    let until_ms = bench.run.wait.as_ref().unwrap().until_ms;
    bench.pass_heard(MINUTE);
    let mut request = booted(1, 1);
    request.in_flight = Some(of(reboot(), 1));
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(1));
    assert_eq!(
        (bench.waits_for(), bench.run.wait.as_ref().unwrap().until_ms),
        (Some(WaitFor::Reboot), until_ms)
    );
}

#[test]
fn a_packages_interrupt_is_proved_as_any_other() {
    let stage = groundcrew_protocol::stage::Stage::from("Package:tuning/interrupt");
    let mut bench = Bench::new(profile(&["Package:tuning/interrupt", "CPUStress"], "stay"));
    bench.claim(&agent(1)).unwrap();
    bench.intent(1, "reboot", Some((stage.clone(), 1)), 1).unwrap();
    assert_eq!(bench.claim_again(&booted(1, 90)).unwrap().current_state, walking(stress()));
    assert_eq!(bench.verdict_of(&stage), Some(Verdict::Pass));
}

#[test]
fn an_agents_word_is_no_proof_of_a_reboot() {
    let mut settled = profile(&["Interrupt:reboot", "CPUStress"], "stay");
    settled.interrupts =
        serde_json::from_value(serde_json::json!([{"name": "reboot", "type": "node_restart"}])).unwrap();
    // Nothing; what the orchestrator itself finds at a proof; and what an agent really says.
    for (said, verdict) in [
        (None, Verdict::Inconclusive),
        (Some(REBOOTED_FOUND), Verdict::Inconclusive),
        (Some("the boot id is the same still"), Verdict::Fail),
    ] {
        let mut bench = Bench::new(settled.clone());
        bench.claim(&agent(1)).unwrap();
        let owed: Vec<&str> = bench.run.plan.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(owed, ["rebooted"]);
        bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
        let mut request = bench.outcome(1, reboot(), 1, Outcome::Pass);
        let check = |text: &str| {
            let observed = Observation::Found { text: text.to_owned() };
            Check::of("rebooted", None, observed, Limit::equal_to(REBOOTED_FOUND))
        };
        request.checks = said.map(check).into_iter().collect();
        request.passed = true;
        bench.result(request).unwrap();
        let held = matches!(bench.why(), HeldFor::Verdict { verdict: found, .. } if *found == verdict);
        assert!(held, "{said:?}: {:?}", bench.why());
    }
}

#[test]
fn a_boot_after_the_boot_that_was_asked_for_is_unexpected() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    bench.claim_again(&booted(1, 90)).unwrap();
    bench.claim_again(&booted(2, 91)).unwrap();
    assert!(bench.told("unexpected_reset"));
    assert_eq!(bench.run.stage().spec.name, stress());
    assert_eq!(bench.run.stage().resets.len(), 1);
}

/// It was asked of one machine. What another does, to which the run went meanwhile, proves nothing of it.
#[test]
fn a_boot_of_another_machine_than_the_one_that_was_to_reboot_is_unexpected() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    bench.pass(SILENCE);
    let token = Sha256Hex::of(b"second");
    bench.put(&Input::NewBootToken { token: token.clone(), by: "olga".into() }).unwrap();
    let other = agent(2);
    bench.claim_as(&other, 2, &token).unwrap();
    assert!(!bench.told("reboot_proved") && !bench.told("unexpected_reset"), "another machine is no reset");
    let mut booted = restarted(other.clone(), 2);
    booted.boot_id = Some(boot(91));
    bench.claim_as(&booted, 2, &other.token_sha256.unwrap()).unwrap();
    assert!(bench.told("unexpected_reset") && !bench.told("reboot_proved"));
    assert_eq!(bench.run.stage().resets.len(), 1);
}

#[test]
fn a_proved_reboot_does_not_wash_off_a_reset() {
    let mut bench = at_reboot();
    bench.claim_again(&booted(1, 90)).unwrap();
    assert_eq!(bench.at(), (walking(reboot()), 2, IN_FLIGHT));
    bench.intent(2, "reboot", Some((reboot(), 2)), 90).unwrap();
    let answer = bench.claim_again(&booted(2, 91)).unwrap();
    assert_eq!(answer.current_state, State::FailedHolding);
    assert!(matches!(bench.why(), HeldFor::Verdict { verdict: Verdict::Fail, .. }));
    assert_eq!(bench.at().2, Some(Fate::Done(Verdict::Fail)));
    bench.order(OrderKind::Override, None, "x").unwrap();
    assert_eq!(bench.run.state(), walking(stress()));
}

#[test]
fn a_reboot_inside_another_stage_is_proved_and_makes_a_new_attempt() {
    let mut bench = Bench::claimed();
    bench.intent(1, "reboot", Some((inventory(), 1)), 1).unwrap();
    assert_eq!(bench.claim_again(&booted(1, 90)).unwrap().attempt, Attempt(2));
    assert_eq!(bench.run.stage().resets, []);
    // Loops are capped: each counts.
    bench.intent(2, "reboot", Some((inventory(), 2)), 90).unwrap();
    bench.claim_again(&booted(2, 91)).unwrap();
    bench.intent(3, "reboot", Some((inventory(), 3)), 91).unwrap();
    bench.claim_again(&booted(3, 92)).unwrap();
    assert_eq!(bench.why(), &HeldFor::Crashes { count: 3 });
}

#[test]
fn a_reboot_that_is_not_seen_holds_and_the_stage_is_over() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    bench.pass_heard(REBOOT - 1);
    assert_eq!(bench.run.state(), walking(reboot()));
    bench.pass_heard(1);
    assert_eq!(bench.why(), &HeldFor::RebootNotSeen { limit_ms: REBOOT });
    assert_eq!((bench.orders(), bench.at().2), (vec![(1, Command::CancelStage, 1)], Some(Fate::Replaced)));
    // A hold stays until an operator decides, whatever comes late.
    assert_eq!(bench.report(1, reboot(), 1, Outcome::Pass), (Taken::Late, State::FailedHolding, 0));
    let answer = bench.claim_again(&booted(1, 90)).unwrap();
    assert_eq!(answer.current_state, State::FailedHolding);
    assert!(bench.told("reboot_proved") && !bench.told("unexpected_reset"));
}

#[test]
fn a_reboot_that_comes_after_the_retry_is_still_the_one_that_was_asked_for() {
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    bench.pass(REBOOT);
    bench.order(OrderKind::Retry, None, "").unwrap();
    let answer = bench.claim_again(&booted(1, 90)).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (walking(reboot()), Attempt(3)));
    assert_eq!((bench.run.stage().resets.len(), bench.run.stage().crashes), (0, 0));
    // But an agent that took up the retry had not gone down: then it is a reset.
    let mut bench = at_reboot();
    bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
    bench.pass_heard(REBOOT);
    bench.order(OrderKind::Retry, None, "").unwrap();
    let retry = bench.orders().last().unwrap().0;
    bench.heard(1, &[(retry, groundcrew_protocol::wire::DirectiveOutcome::Doing)]).unwrap();
    bench.claim_again(&booted(1, 90)).unwrap();
    assert_eq!(bench.run.stage().resets.len(), 1);
}

#[test]
fn a_reboot_of_an_ordered_attempt_is_proved_although_the_order_was_never_confirmed_and_the_home_is_gone() {
    let mut bench = at_reboot();
    bench.report(1, reboot(), 1, Outcome::Fail);
    bench.order(OrderKind::Retry, None, "").unwrap();
    // The agent obeys, and the machine goes down before a heartbeat says so.
    bench.intent(1, "reboot", Some((reboot(), 2)), 1).unwrap();
    assert_eq!(bench.orders(), [(1, Command::RetryStage, 2)]);
    // A live image: it has never started anything.
    let answer = bench.claim_again(&booted(1, 90)).unwrap();
    assert!(bench.told("reboot_proved"));
    assert_eq!((answer.current_state, answer.attempt), (walking(stress()), Attempt(1)));
    assert_eq!(bench.verdict_of(&reboot()), Some(Verdict::Pass));
}

#[test]
fn an_intent_said_again_prolongs_nothing() {
    let mut bench = at_reboot();
    for asked in 0..3 {
        bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
        assert_eq!(bench.told("intent"), asked == 0);
        assert_eq!(bench.run.intent.as_ref().unwrap().asks, asked + 1);
        bench.pass_heard(10 * MINUTE);
    }
    assert!(matches!(bench.why(), HeldFor::RebootNotSeen { .. }));
}

#[test]
fn a_power_off_that_was_asked_for_is_no_reset() {
    let mut bench = Bench::claimed();
    bench.intent(1, "poweroff", Some((inventory(), 1)), 1).unwrap();
    bench.pass(SILENCE);
    assert!(matches!(bench.why(), HeldFor::Silence { .. }));
    bench.claim_again(&booted(1, 90)).unwrap();
    assert_eq!((bench.run.stage().resets.len(), bench.run.intent.clone()), (0, None));
    assert_eq!(bench.at(), (walking(inventory()), 2, IN_FLIGHT));
    // Once.
    bench.claim_again(&booted(2, 91)).unwrap();
    assert_eq!(bench.run.stage().resets.len(), 1);
}

#[test]
fn intents_that_do_not_fit_are_refused() {
    let unfit = |answer: Result<(), Refused>, words: &str| match answer {
        Err(Refused::Unfit { text, .. }) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::claimed();
    unfit(bench.intent(1, "reboot", Some((inventory(), 2)), 1), "not in flight");
    unfit(bench.intent(1, "reboot", Some((stress(), 1)), 1), "not in flight");
    unfit(bench.intent(1, "reboot", None, 1), "outside a stage");
    unfit(bench.intent(1, "poweroff", None, 1), "outside a stage");
    unfit(bench.intent(1, "wipe", Some((inventory(), 1)), 1), "no wipe override");
    unfit(bench.intent(1, "melt", Some((inventory(), 1)), 1), "expected reboot, poweroff or wipe");
    unfit(bench.intent(1, "reboot", Some((inventory(), 1)), 90), "boot id");
    let mut bench = Bench::held();
    unfit(bench.intent(1, "reboot", Some((inventory(), 1)), 1), "not in flight");
    bench.order(OrderKind::Release, None, "").unwrap();
    bench.intent(1, "poweroff", None, 1).unwrap();
    unfit(bench.intent(1, "reboot", None, 1), "outside a stage");
}

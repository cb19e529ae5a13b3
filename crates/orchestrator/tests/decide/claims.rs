//! Claims: rule 3, and what an agent finds when it comes back.

use groundcrew_orchestrator::run::decide::{OrderKind, Refused};
use groundcrew_orchestrator::run::state::{ATTEMPTS_KEPT_MAX, Fate, HeldFor, Standing, WaitFor};
use groundcrew_protocol::check_names;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, Sha256Hex};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::{DirectiveOutcome, Taken};

use crate::bench::*;

#[test]
fn a_fresh_run_is_claimed_at_its_first_stage() {
    let mut bench = Bench::fresh();
    assert_eq!((bench.run.state(), bench.waits_for()), (walking(inventory()), Some(WaitFor::Claim)));
    let answer = bench.claim(&agent(1)).unwrap();
    assert_eq!(answer.claim, ClaimNumber(1));
    assert_eq!(answer.current_state.to_string(), "InventoryCheck");
    assert_eq!(answer.attempt, Attempt(1));
    assert_eq!(answer.planned_checks.len(), check_names::of(&inventory()).len());
    assert_eq!(answer.planned_checks, bench.run.plan);
    assert_eq!(answer.stages.len(), 4);
    assert_eq!(answer.stage_settings.len(), 3, "Reporting is no agent's");
    assert!(answer.non_destructive && answer.cancelled_attempts.is_empty() && answer.ended_boot.is_none());
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Result), DEADLINE + SILENCE));
    assert!(bench.run.boot_token_spent && bench.told("claimed") && bench.told("stage_started"));
}

#[test]
fn the_same_call_again_gets_the_same_claim_and_changes_nothing() {
    let mut bench = Bench::fresh();
    let first = bench.claim(&agent(1)).unwrap();
    let before = bench.run.clone();
    for known in [0, 1] {
        let mut request = agent(1);
        request.known_claim = ClaimNumber(known);
        assert_eq!(bench.claim(&request).unwrap(), first);
        assert_eq!(bench.claim_again(&request).unwrap(), first);
        assert_eq!(bench.run, before);
    }
}

#[test]
fn with_an_outcome_in_the_outbox_the_attempt_stands() {
    let mut bench = Bench::claimed();
    bench.pass_heard(MINUTE);
    let mut request = restarted(agent(1), 1);
    request.outbox = vec![entry(inventory(), 1, 1)];
    let answer = bench.claim_again(&request).unwrap();
    assert_eq!((answer.claim, answer.attempt), (ClaimNumber(2), Attempt(1)));
    assert_eq!(bench.at(), (walking(inventory()), 1, IN_FLIGHT));
    assert_eq!(bench.run.stage().crashes, 0);
    assert_eq!(bench.waits_ms(), MINUTE + SILENCE, "a claim does not prolong a stage");
    let (taken, state, attempt) = bench.report(2, inventory(), 1, Outcome::Pass);
    assert_eq!((taken, state, attempt), (Taken::First, walking(stress()), 1));
}

#[test]
fn an_attempt_is_no_crash_where_the_agent_was_stopped_in_it_in_order() {
    let rows = [
        ("this attempt", Some(of(inventory(), 1)), 0),
        ("nothing", None, 1),
        ("another attempt", Some(of(inventory(), 2)), 1),
        ("another stage's", Some(of(stress(), 1)), 1),
    ];
    for (what, stopped, crashes) in rows {
        let mut bench = Bench::claimed();
        let mut request = restarted(agent(1), 1);
        request.stopped = stopped;
        assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(2), "{what}");
        assert_eq!(bench.run.stage().crashes, crashes, "{what}");
        assert_eq!((bench.told("stopped"), bench.told("crashed")), (crashes == 0, crashes == 1), "{what}");
    }

    // An outcome says more than a stop does.
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.stopped = Some(of(inventory(), 1));
    request.outbox = vec![entry(inventory(), 1, 1)];
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(1));
    assert!(!bench.told("stopped"));

    // However often: nothing is wrong with the stage.
    let mut bench = Bench::claimed();
    let mut request = agent(1);
    for stop in 1..=5 {
        request = restarted(request, u64::from(stop));
        request.stopped = Some(of(inventory(), stop));
        assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(stop + 1));
    }
    assert_eq!((bench.run.state(), bench.run.stage().crashes), (walking(inventory()), 0));

    // But one that runs programs may be what stops it: that is not gone on with for ever, until an operator says so.
    for name in ["Interrupt:services", "Package:tuning/apply"] {
        let stage = groundcrew_protocol::stage::Stage::from(name);
        let mut bench = Bench::new(profile(&[name, "CPUStress"], "stay"));
        bench.claim(&agent(1)).unwrap();
        let mut request = agent(1);
        for stop in 1..=3 {
            assert_eq!(bench.at(), (walking(stage.clone()), stop, IN_FLIGHT));
            request = restarted(request, u64::from(stop));
            request.stopped = Some(of(stage.clone(), stop));
            bench.claim_again(&request).unwrap();
        }
        assert_eq!(bench.why(), &HeldFor::Stopped { count: 3 });
        bench.order(OrderKind::Retry, None, "").unwrap();
        assert_eq!((bench.run.stage().stops, bench.run.stage().crashes), (0, 0));
    }

    // A machine that was reset unasked cannot pass, whoever stopped its agent on the way.
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.stopped = Some(of(inventory(), 1));
    request.boot_id = Some(boot(90));
    bench.claim_again(&request).unwrap();
    assert!(bench.told("unexpected_reset") && bench.told("stopped"));
    assert_eq!(bench.run.stage().resets.len(), 1);
}

#[test]
fn a_process_that_goes_on_keeps_its_attempt() {
    let mut bench = Bench::claimed();
    let mut request = agent(1);
    request.session = Some(id(77));
    request.known_claim = ClaimNumber(1);
    request.in_flight = Some(of(inventory(), 1));
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(1));
    assert_eq!((bench.run.stage().crashes, bench.at().1), (0, 1));
    // Another stage's attempt of that number is not it.
    request.session = Some(id(78));
    request.known_claim = ClaimNumber(2);
    request.in_flight = Some(of(stress(), 1));
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(2));
    assert_eq!(bench.run.stage().crashes, 1);
}

#[test]
fn without_an_outcome_it_is_a_crash_and_the_third_holds() {
    let mut bench = Bench::claimed();
    let mut request = agent(1);
    for crash in 1..=2 {
        request = restarted(request, u64::from(crash));
        let answer = bench.claim_again(&request).unwrap();
        assert_eq!(answer.claim.0, u64::from(crash) + 1);
        assert_eq!(answer.attempt.0, crash + 1);
        assert_eq!(answer.cancelled_attempts.len() as u32, crash);
        assert_eq!(bench.run.stage().crashes, crash);
        assert!(bench.told("crashed"));
    }
    let answer = bench.claim_again(&restarted(request, 3)).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (State::FailedHolding, Attempt(0)));
    assert_eq!(bench.why(), &HeldFor::Crashes { count: 3 });
    assert_eq!((bench.waits_for(), bench.waits_ms()), (Some(WaitFor::Operator), HOLD));
    assert_eq!(bench.at().2, Some(Fate::Crashed));
}

#[test]
fn a_lost_answer_and_a_crash_do_not_lock_the_home_out() {
    let mut bench = Bench::fresh();
    bench.claim(&agent(1)).unwrap();
    // The answer never came: the home knows no claim, and its new process comes at once.
    let answer = bench.claim(&restarted(agent(1), 0)).unwrap();
    assert_eq!((answer.claim, answer.attempt), (ClaimNumber(2), Attempt(2)));
    assert!(bench.run.hands_changed_ms.is_empty());
    let answer = bench.claim_again(&restarted(restarted(agent(1), 0), 0)).unwrap();
    assert_eq!(answer.claim, ClaimNumber(3));
    // Once claim 3 has spoken, who does not know it is somebody else.
    bench.heard(3, &[]).unwrap();
    let copy = restarted(restarted(restarted(agent(1), 0), 0), 2);
    assert!(matches!(bench.claim_again(&copy), Err(Refused::ClaimedElsewhere { .. })));
}

/// An agent of a second home, which got hold of a new boot token.
fn second_home(bench: &mut Bench, n: u64) -> Sha256Hex {
    let token = Sha256Hex::of(format!("boot token {n}").as_bytes());
    bench
        .put(&groundcrew_orchestrator::run::decide::Input::NewBootToken {
            token: token.clone(),
            by: "olga".into(),
        })
        .unwrap();
    token
}

#[test]
fn another_instance_waits_until_the_claim_is_silent() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    let since = bench.run.claim.as_ref().unwrap().since;
    let token = second_home(&mut bench, 2);
    bench.now.listened_ms += 29_999;
    let before = bench.run.clone();
    let refused = bench.claim_as(&agent(2), 2, &token).unwrap_err();
    let expected = Refused::ClaimedElsewhere {
        run: bench.run.id.clone(),
        ip: "10.0.0.1".into(),
        since,
        quiet_ms: 29_999,
        current: ClaimNumber(1),
    };
    assert_eq!(refused, expected);
    assert_eq!(bench.run, before);
    bench.now.listened_ms += 1;
    let answer = bench.claim_as(&agent(2), 2, &token).unwrap();
    assert_eq!((answer.claim, answer.attempt), (ClaimNumber(2), Attempt(2)));
    assert!(bench.told("hands_changed") && !bench.told("unexpected_reset"), "another machine is no reset");
    assert_eq!(bench.run.stage().resets, []);
    // The one before is fenced.
    assert!(matches!(bench.heard(1, &[]), Err(Refused::OldClaim { .. })));
    // The new holder starts again without waiting, though it is not the machine of the first claim.
    assert_eq!(bench.claim_again(&restarted(agent(2), 2)).unwrap().claim, ClaimNumber(3));
    assert_eq!(bench.run.hands_changed_ms.len(), 1);
}

#[test]
fn a_cloned_home_on_another_machine_waits_too() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    let mut clone = restarted(agent(1), 1);
    clone.serial = agent(2).serial;
    clone.macs = agent(2).macs;
    clone.boot_id = agent(2).boot_id;
    assert!(matches!(bench.claim_again(&clone), Err(Refused::ClaimedElsewhere { .. })));
    bench.now.listened_ms += 30 * SECOND;
    assert_eq!(bench.claim_again(&clone).unwrap().claim, ClaimNumber(2));
    assert!(bench.told("hands_changed"));
    // And now the first machine is the other one.
    bench.heard(2, &[]).unwrap();
    assert!(matches!(bench.claim_again(&restarted(agent(1), 2)), Err(Refused::ClaimedElsewhere { .. })));
}

#[test]
fn of_two_claims_in_one_commit_the_second_finds_the_first_one_fresh() {
    let mut bench = Bench::claimed();
    bench.heard(1, &[]).unwrap();
    bench.pass(SILENCE + MINUTE);
    assert!(matches!(bench.why(), HeldFor::Silence { .. }));
    let silent = bench.now;
    let home_on = |n: u64| {
        let machine = agent(n);
        let mut request = restarted(agent(1), 1);
        request.session = Some(id(9_000 + n));
        (request.serial, request.macs, request.boot_id) = (machine.serial, machine.macs, machine.boot_id);
        request.ip = machine.ip;
        request
    };
    assert_eq!(bench.claim_again(&home_on(2)).unwrap().claim, ClaimNumber(2));
    // What is known for the moment has not learnt of claim 2: its change has not landed yet.
    bench.now = silent;
    let refused = bench.claim_again(&home_on(3)).unwrap_err();
    assert!(
        matches!(&refused, Refused::ClaimedElsewhere { ip, quiet_ms: 0, current, .. }
            if ip == "10.0.0.2" && *current == ClaimNumber(2)),
        "{refused}"
    );
    // Nor does a look at the time, right behind it, take the new holder for silent.
    bench.now = silent;
    bench.pass(0);
    assert!(!matches!(bench.run.standing, Standing::Held { why: HeldFor::Silence { .. }, .. }));
}

/// Lets the claim go back and forth between two machines with one home; says how often it changed hands.
fn fight(bench: &mut Bench, times: u64, pause_ms: u64) {
    for turn in 0..times {
        let machine = agent(2 - turn % 2);
        let mut request = restarted(agent(1), turn + 1);
        request.session = Some(id(9_000 + turn));
        request.serial = machine.serial;
        request.macs = machine.macs;
        request.boot_id = machine.boot_id;
        request.ip = machine.ip;
        bench.now.listened_ms += pause_ms;
        bench.claim_again(&request).unwrap();
    }
}

#[test]
fn three_changes_of_hands_in_ten_minutes_hold() {
    let mut bench = Bench::claimed();
    fight(&mut bench, 2, 30 * SECOND);
    assert_eq!(bench.run.state(), walking(inventory()));
    let mut bench = Bench::claimed();
    fight(&mut bench, 3, 30 * SECOND);
    let between = ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
    assert_eq!(bench.why(), &HeldFor::ClaimFight { between });
    assert_eq!(bench.at().2, Some(Fate::Replaced));
    // Three over a longer time are no fight; the crashes that they are hold the run.
    let mut bench = Bench::claimed();
    fight(&mut bench, 3, 5 * MINUTE);
    assert_eq!(bench.why(), &HeldFor::Crashes { count: 3 });
}

#[test]
fn changes_of_hands_in_a_hold_are_bounded() {
    let mut bench = Bench::held();
    fight(&mut bench, 50, 30 * SECOND);
    assert!(bench.run.hands_changed_ms.len() <= 3);
    assert_eq!(bench.run.state(), State::FailedHolding);
    // They count against nobody once an operator has said that it goes on.
    bench.order(OrderKind::Retry, None, "seen to").unwrap();
    assert!(bench.run.hands_changed_ms.is_empty());
}

#[test]
fn a_claim_in_a_hold_holds_again() {
    let mut bench = Bench::held();
    let answer = bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (State::FailedHolding, Attempt(0)));
    assert_eq!(answer.planned_checks, []);
    assert_eq!(bench.run.stage().crashes, 0);
    assert!(matches!(bench.why(), HeldFor::Verdict { .. }));
}

#[test]
fn a_boot_without_an_intent_is_a_failed_check_until_it_is_overridden() {
    let mut bench = Bench::claimed();
    bench.report(1, inventory(), 1, Outcome::Pass);
    let mut request = restarted(agent(1), 1);
    request.boot_id = Some(boot(90));
    let answer = bench.claim_again(&request).unwrap();
    assert!(bench.told("unexpected_reset"));
    assert_eq!(
        (answer.current_state, answer.attempt),
        (walking(stress()), Attempt(2)),
        "from where it stood"
    );
    // Passing does not help, nor does a retry.
    let request = bench.outcome(2, stress(), 2, Outcome::Pass);
    let judged = bench.result(request).unwrap().1.result.unwrap().judged.unwrap();
    let check = judged.checks.iter().find(|check| check.name == "unexpected_reset").unwrap();
    assert_eq!(check.verdict, groundcrew_protocol::check::Verdict::Fail);
    assert!(matches!(bench.why(), HeldFor::Verdict { .. }));
    bench.order(OrderKind::Retry, None, "").unwrap();
    bench.report(2, stress(), 3, Outcome::Pass);
    assert_eq!(bench.run.state(), State::FailedHolding);
    bench.order(OrderKind::Override, None, "a fuse").unwrap();
    assert_eq!(bench.run.state(), walking(reboot()));
    assert_eq!(bench.run.stages[1].resets, []);
}

#[test]
fn a_reset_with_the_outcome_in_the_outbox_fails_that_attempt() {
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.boot_id = Some(boot(90));
    request.outbox = vec![entry(inventory(), 1, 1)];
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(1));
    assert_eq!(bench.report(2, inventory(), 1, Outcome::Pass).1, State::FailedHolding);
}

#[test]
fn resets_are_bounded() {
    let mut bench = Bench::claimed();
    std::sync::Arc::make_mut(&mut bench.run.profile).limits.crashes = 1_000;
    let mut request = agent(1);
    for turn in 1..=100 {
        request = restarted(request, turn);
        request.boot_id = Some(boot(1_000 + turn));
        bench.claim_again(&request).unwrap();
    }
    assert_eq!(bench.run.stage().resets.len(), 8);
    assert_eq!(bench.run.stage().attempts.len(), ATTEMPTS_KEPT_MAX);
    assert_eq!(bench.run.stage().attempts_made, Attempt(101));
}

#[test]
fn a_machine_switched_off_and_on_in_a_hold_has_reset_no_stage() {
    use groundcrew_orchestrator::run::decide::OrderKind;
    let mut bench = Bench::held();
    // A module is replaced; the operator orders the retry while the machine boots.
    bench.pass(5 * MINUTE);
    bench.order(OrderKind::Retry, None, "").unwrap();
    let mut request = restarted(agent(1), 1);
    request.boot_id = Some(boot(90));
    request.started = vec![of(inventory(), 1)];
    let answer = bench.claim_again(&request).unwrap();
    assert_eq!((answer.current_state, answer.attempt), (walking(inventory()), Attempt(3)));
    assert_eq!((bench.run.stage().crashes, bench.run.stage().resets.len()), (0, 0));
    assert!(bench.told("reset") && !bench.told("unexpected_reset"));
    assert_eq!(bench.commands(), []);
}

#[test]
fn an_ordered_attempt_that_was_begun_stands_or_crashes_at_a_claim() {
    use groundcrew_orchestrator::run::decide::OrderKind;
    // Nothing was reported of the directive, but the outcome is there.
    let mut bench = Bench::held();
    bench.order(OrderKind::Retry, None, "").unwrap();
    let mut request = restarted(agent(1), 1);
    request.outbox = vec![entry(inventory(), 2, 1)];
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(2));
    assert_eq!(bench.report(2, inventory(), 2, Outcome::Pass).0, Taken::First);
    // The home says that it began.
    let mut bench = Bench::held();
    bench.order(OrderKind::Retry, None, "").unwrap();
    let mut request = restarted(agent(1), 1);
    request.started = vec![of(inventory(), 2)];
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(3));
    assert_eq!(bench.run.stage().crashes, 1);
    // It said so itself.
    let mut bench = Bench::held();
    bench.order(OrderKind::Retry, None, "").unwrap();
    bench.heard(1, &[(1, DirectiveOutcome::Doing)]).unwrap();
    bench.claim_again(&restarted(agent(1), 1)).unwrap();
    assert_eq!(bench.run.stage().crashes, 1);
}

#[test]
fn absurd_numbers_use_nothing_up() {
    let mut bench = Bench::claimed();
    let mut request = restarted(agent(1), 1);
    request.started = vec![of(inventory(), u32::MAX), of(stress(), u32::MAX), of("Later".into(), 7)];
    request.outbox = vec![entry(inventory(), u32::MAX, u64::MAX), entry(stress(), u32::MAX, 0)];
    request.in_flight = Some(of(inventory(), u32::MAX));
    assert_eq!(bench.claim_again(&request).unwrap().attempt, Attempt(2));
    assert!(bench.run.offered.is_empty());
    let mut request = restarted(request, u64::MAX);
    assert!(matches!(bench.claim_again(&request), Err(Refused::Unfit { .. })));
    request.known_claim = ClaimNumber(50);
    assert_eq!(bench.claim_again(&request).unwrap().claim, ClaimNumber(51));
}

#[test]
fn what_an_agent_says_of_itself_is_bounded() {
    let mut bench = Bench::fresh();
    let mut request = agent(1);
    request.ip = "9".repeat(1 << 20);
    request.serial = Some("s".repeat(1 << 20));
    request.macs = (0..50_000u32)
        .map(|n| format!("02:00:00:00:{:02x}:{:02x}", n / 256 % 256, n % 256).parse().unwrap())
        .collect();
    request.home = Some("h".repeat(1 << 20).into());
    bench.claim(&request).unwrap();
    assert!(serde_json::to_vec(&bench.run).unwrap().len() < 40_000);
    // And it is still the same machine and the same call.
    assert_eq!(bench.claim(&request).unwrap().claim, ClaimNumber(1));
    assert_eq!(bench.claim_again(&restarted(request, 1)).unwrap().claim, ClaimNumber(2));
}

#[test]
fn a_claim_of_another_protocol_is_refused() {
    for protocol in [0, 3, 99, u32::MAX] {
        let mut bench = Bench::fresh();
        let refused = bench.claim_as(&agent(1), protocol, &boot_token()).unwrap_err();
        assert!(
            matches!(&refused, Refused::Unfit { text, .. } if text.contains("expected 1 to 2")),
            "{refused}"
        );
    }
}

#[test]
fn a_claim_after_the_end_says_how_it_ended_and_on_which_boot() {
    use groundcrew_orchestrator::run::decide::OrderKind;
    for (order, held) in [(OrderKind::Cancel, false), (OrderKind::Release, true)] {
        let mut bench = if held { Bench::held() } else { Bench::claimed() };
        bench.order(order, None, "").unwrap();
        let before = bench.run.standing.clone();
        let mut request = restarted(agent(1), 1);
        request.boot_id = Some(boot(90));
        let answer = bench.claim_again(&request).unwrap();
        assert_eq!((answer.claim, answer.current_state), (ClaimNumber(2), State::Cancelled));
        assert_eq!((answer.ended_boot, answer.attempt), (Some(boot(1)), Attempt(0)));
        assert_eq!(answer.cancelled_attempts.len(), usize::from(!held));
        assert_eq!(bench.run.standing, before);
    }
}

#[test]
fn a_machine_switched_on_by_hand_is_not_told_to_switch_off() {
    use groundcrew_orchestrator::run::decide::OrderKind;
    use groundcrew_protocol::wire::Command;
    let ends = [(OrderKind::Cancel, Command::CancelStage), (OrderKind::Release, Command::Release)];
    let boots = [Some(boot(1)), Some(boot(90)), None];
    for ((order, first), boot_id) in ends.iter().flat_map(|end| boots.iter().map(move |boot| (end, boot))) {
        let mut bench = Bench::new(profile(&["Inventory"], "shutdown"));
        bench.claim(&agent(1)).unwrap();
        if *order == OrderKind::Release {
            bench.report(1, inventory(), 1, Outcome::Fail);
        }
        bench.order(*order, None, "").unwrap();
        assert_eq!(bench.commands(), [first.clone(), Command::Shutdown]);
        let mut request = restarted(agent(1), 1);
        request.boot_id.clone_from(boot_id);
        bench.claim_again(&request).unwrap();
        let commands = match (order, boot_id) {
            (_, id) if *id != Some(boot(1)) => vec![],
            (OrderKind::Release, _) => vec![Command::Release, Command::Shutdown],
            _ => vec![Command::Shutdown],
        };
        assert_eq!(bench.commands(), commands, "{order:?}, boot id {boot_id:?}");
        assert_eq!(bench.waits_for(), (!commands.is_empty()).then_some(WaitFor::Farewell));
    }
}

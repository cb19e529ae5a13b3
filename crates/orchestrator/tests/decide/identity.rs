//! Whose machine a claim comes from: another than the run's node is refused, one that cannot say is shown and held.

use groundcrew_orchestrator::run::decide::{OrderKind, Refused, unproved};
use groundcrew_orchestrator::run::state::{HeldFor, Machine};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::stage::Stage;

use super::bench::*;

#[test]
fn a_claim_from_another_machine_than_the_node_is_refused_by_both_names() {
    let mut bench = Bench::fresh();
    let node = agent(1);
    bench.run.node_is = Machine { serial: node.serial.clone(), macs: node.macs.clone() };
    let before = bench.run.clone();
    let refused = bench.claim(&agent(2)).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, Refused::WrongMachine { .. }));
    for word in ["node-1".to_owned(), node.serial.clone().unwrap(), agent(2).serial.unwrap()] {
        assert!(text.contains(&word), "{word} is missing in {text}");
    }
    assert_eq!(bench.run, before, "the boot token is not spent by it");
    // The serial decides where both say one; where not, one address in common does.
    let mut request = node.clone();
    request.macs = agent(2).macs;
    let mut other = Bench::fresh();
    other.run.node_is = bench.run.node_is.clone();
    other.claim(&request).unwrap();
    let mut request = agent(2);
    request.serial = None;
    assert!(matches!(bench.claim(&request), Err(Refused::WrongMachine { .. })));
    request.macs.push(node.macs[0].clone());
    bench.claim(&request).unwrap();
    // A machine that can say nothing of itself is taken at its token's word.
    let mut silent = Bench::fresh();
    silent.run.node_is = bench.run.node_is.clone();
    let mut request = agent(2);
    (request.serial, request.macs) = (None, Vec::new());
    silent.claim(&request).unwrap();
}

/// A run of a node with a serial, claimed by a machine that says this one, with its first stage reported as passed.
fn reported(stages: &[&str], serial: Option<&str>) -> (Bench, Vec<(Verdict, String)>) {
    let mut bench = Bench::new(profile(stages, "stay"));
    bench.run.node_is = Machine { serial: Some("serial-1".into()), macs: Vec::new() };
    let mut request = agent(1);
    request.serial = serial.map(str::to_owned);
    bench.claim(&request).unwrap();
    assert_eq!(bench.told("machine_unproved"), serial.is_none());
    assert_eq!(unproved(&bench.run).is_some(), serial.is_none());
    let first = bench.run.stage().spec.name.clone();
    let request = bench.outcome(1, first, 1, Outcome::Pass);
    let judged = bench.result(request).unwrap().1.result.unwrap().judged.unwrap();
    let checks = judged.checks.into_iter().filter(|check| check.name == "identity");
    (bench, checks.map(|check| (check.verdict, check.reason + &check.observed.describe())).collect())
}

#[test]
fn a_machine_that_cannot_say_its_serial_is_no_pass_whatever_comes_first() {
    for first in ["Inventory", "CPUStress"] {
        let (bench, checks) = reported(&[first], None);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].0, Verdict::Inconclusive);
        let HeldFor::Verdict { verdict, what } = bench.why() else { panic!("{:?}", bench.why()) };
        assert_eq!(*verdict, Verdict::Inconclusive);
        assert!(what.contains("identity") && what.contains("serial serial-1"), "{what}");
        let (_, checks) = reported(&[first], Some("SERIAL-1"));
        assert_eq!(checks, [(Verdict::Pass, "serial serial-1".to_owned())]);
    }
}

#[test]
fn an_agent_of_the_protocol_before_is_shown_and_its_word_counts_as_ever() {
    let mut bench = Bench::fresh();
    bench.run.node_is = Machine { serial: Some("serial-1".into()), macs: Vec::new() };
    let mut request = agent(1);
    (request.serial, request.macs) = (None, Vec::new());
    bench.claim_as(&request, 1, &boot_token()).unwrap();
    assert!(bench.told("machine_unproved"));
    let stage = bench.run.stage().spec.name.clone();
    let request = bench.outcome(1, stage, 1, Outcome::Pass);
    let judged = bench.result(request).unwrap().1.result.unwrap().judged.unwrap();
    assert!(judged.checks.iter().all(|check| check.name != "identity"), "{judged:?}");
    assert_eq!(judged.verdict, Verdict::Pass);
}

#[test]
fn a_registered_address_is_found_among_very_many() {
    let mut bench = Bench::fresh();
    let registered: groundcrew_protocol::ids::MacAddress = "fe:ff:ff:ff:ff:ff".parse().unwrap();
    bench.run.node_is = Machine { serial: None, macs: vec![registered.clone()] };
    let mut request = agent(1);
    request.macs = (0..600_u32)
        .map(|n| format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256).parse().unwrap())
        .collect();
    request.macs.push(registered);
    bench.claim(&request).unwrap();
    assert!(!bench.told("machine_unproved"));
}

#[test]
fn an_operator_lets_an_unproved_machine_go_on_once() {
    let (mut bench, _) = reported(&["Inventory", "CPUStress"], None);
    bench.order(OrderKind::Override, None, "looked at its label").unwrap();
    let request = bench.outcome(1, stress(), 1, Outcome::Pass);
    let (_, change) = bench.result(request).unwrap();
    let judged = change.result.unwrap().judged.unwrap();
    assert_eq!(judged.verdict, Verdict::Pass, "{judged:?}");
    assert!(judged.checks.iter().all(|check| check.name != "identity"));
    assert_eq!(bench.verdict_of(&Stage::Inventory), Some(Verdict::Inconclusive));
}

#[test]
fn the_right_machine_is_no_pass_of_a_stage_that_tested_nothing() {
    let mut bench = Bench::fresh();
    bench.run.node_is = Machine { serial: Some("serial-1".into()), macs: Vec::new() };
    bench.claim(&agent(1)).unwrap();
    bench.run.plan.clear();
    let request = bench.outcome(1, inventory(), 1, Outcome::Nothing);
    let judged = bench.result(request).unwrap().1.result.unwrap().judged.unwrap();
    assert_eq!(judged.verdict, Verdict::Inconclusive);
}

#[test]
fn a_serial_alone_takes_the_claim_from_nobody_who_is_alive() {
    // Copies of a virtual machine: one home and one serial, addresses and a boot of their own. Whether the holder has
    // asked for a reboot, and whether the copy then counts as the machine that came back.
    for (awaits_boot, serial, came_back) in [
        (false, agent(1).serial, false),
        (false, Some(" SERIAL-1 ".to_owned()), false),
        (true, agent(1).serial, true),
        (true, Some(" SERIAL-1 ".to_owned()), true),
        (true, agent(2).serial, false),
        (true, None, false),
    ] {
        let what = format!("{serial:?}, a reboot awaited: {awaits_boot}");
        let mut bench = Bench::new(profile(&["Interrupt:reboot", "CPUStress"], "stay"));
        bench.claim(&agent(1)).unwrap();
        if awaits_boot {
            bench.intent(1, "reboot", Some((reboot(), 1)), 1).unwrap();
        }
        bench.heard(1, &[]).unwrap();
        let mut copy = restarted(agent(1), 1);
        (copy.serial, copy.macs, copy.boot_id) = (serial, agent(2).macs, Some(boot(90)));
        bench.now.listened_ms += 30 * SECOND - 1;
        let before = bench.run.clone();
        assert!(matches!(bench.claim_again(&copy), Err(Refused::ClaimedElsewhere { .. })), "{what}");
        assert_eq!(bench.run, before, "{what}");
        // Once the holder is silent somebody has it again.
        bench.now.listened_ms += 1;
        assert_eq!(bench.claim_again(&copy).unwrap().claim, ClaimNumber(2), "{what}");
        assert_eq!(
            (bench.told("reboot_proved"), bench.told("hands_changed")),
            (came_back, !came_back),
            "{what}"
        );
    }
    // The machine itself need not wait, however its firmware and people write its serial.
    for booted in [1, 90] {
        let mut bench = Bench::claimed();
        bench.heard(1, &[]).unwrap();
        let mut back = restarted(agent(1), 1);
        (back.serial, back.boot_id) = (Some(" SERIAL-1 ".to_owned()), Some(boot(booted)));
        assert_eq!(bench.claim_again(&back).unwrap().claim, ClaimNumber(2));
        assert_eq!((bench.told("unexpected_reset"), bench.told("hands_changed")), (booted == 90, false));
    }
}

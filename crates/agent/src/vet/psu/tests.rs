//! What a BMC says, as it was recorded and mangled, and the stage with a stand-in for ipmitool.

use std::collections::BTreeMap;

use groundcrew_protocol::check::{Verdict, judge_stage};
use groundcrew_protocol::plan::{names, planned_checks};
use groundcrew_protocol::profile::{PsuSettings, StageSpec};
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;

use super::*;
use crate::probe::fixture::{self, Machine};

/// Recorded of a BMC of which one supply has failed: `sdr elist` shows its status as `ok`.
const PSUS: &str = include_str!("../../../tests/fixtures/ipmitool/ext-sdr-psu.txt");
const ALL: &str = include_str!("../../../tests/fixtures/ipmitool/ext-sdr-elist.txt");
/// Recorded of a BMC whose supplies say nothing.
const SILENT: &str = include_str!("../../../tests/fixtures/ipmitool/silent-sdr-psu.txt");
const DCMI: &str = include_str!("../../../tests/fixtures/ipmitool/ext-dcmi.txt");
const NO_DCMI: &str = include_str!("../../../tests/fixtures/ipmitool/dcmi-unknown.err");

const FANS: &str =
    "FAN1             | 30h | ok  | 29.1 | 8400 RPM\nFAN2             | 31h | ns  | 29.2 | No Reading\n";

/// The verdicts of what a BMC says, by check and component.
fn verdicts(
    settings: PsuSettings,
    tables: [&str; 3],
    dcmi: (i32, &str, &str),
) -> BTreeMap<(String, String), Verdict> {
    let [psus, all, fans] = tables;
    let ask = |arguments: &[&str]| {
        let (exit, stdout, stderr) = match arguments {
            ["sdr", "type", "Power Supply"] => (0, psus, ""),
            ["sdr", "type", "Fan"] => (0, fans, ""),
            ["sdr", "elist"] => (0, all, ""),
            ["dcmi", ..] => dcmi,
            other => panic!("{other:?}"),
        };
        Ok(Said { exit, stdout: stdout.into(), stderr: stderr.into() })
    };
    judged(settings, bmc::ask(&ask, &mut Vec::new()))
}

fn judged(settings: PsuSettings, findings: Vec<Finding>) -> BTreeMap<(String, String), Verdict> {
    let spec = StageSpec { psu: Some(settings), ..StageSpec::of(Stage::Psu) };
    let plan = planned_checks(&spec);
    let verdict = |finding: Finding| {
        let planned = plan.iter().filter(|planned| planned.name == finding.name).cloned().collect::<Vec<_>>();
        let check =
            Check::of(finding.name, finding.component.as_deref(), finding.observed, Default::default());
        let key = (finding.name.to_owned(), finding.component.unwrap_or_default());
        (key, judge_stage(&planned, &[check]).verdict)
    };
    findings.into_iter().map(verdict).collect()
}

fn of(all: &BTreeMap<(String, String), Verdict>, name: &str, component: &str) -> Verdict {
    *all.get(&(name.to_owned(), component.to_owned()))
        .unwrap_or_else(|| panic!("no {name} of {component}: {all:?}"))
}

#[test]
fn a_failed_supply_fails_though_its_status_is_ok() {
    let all = verdicts(PsuSettings::default(), [PSUS, ALL, FANS], (0, DCMI, ""));
    assert_eq!(of(&all, names::SUPPLY, "PS1 Status"), Verdict::Pass);
    assert_eq!(of(&all, names::SUPPLY, "PS2 Status"), Verdict::Fail);
    assert_eq!(of(&all, names::SUPPLIES, ""), Verdict::Pass, "both are there");
    assert_eq!(of(&all, names::REDUNDANCY, ""), Verdict::Skipped);
    assert_eq!(of(&all, names::INPUT_POWER, "PS1 Input Power"), Verdict::Pass);
    assert_eq!(of(&all, names::FANS, "FAN1"), Verdict::Pass);
    assert!(!all.contains_key(&(names::FANS.to_owned(), "FAN2".to_owned())), "an empty place is no fan");
    assert_eq!(of(&all, names::SYSTEM_POWER, ""), Verdict::Pass);
    let settings =
        PsuSettings { supplies: Some(3), input_watts_min: Some(1.0), redundant: true, ..Default::default() };
    let all = verdicts(settings, [PSUS, ALL, FANS], (0, DCMI, ""));
    assert_eq!(of(&all, names::SUPPLIES, ""), Verdict::Fail);
    assert_eq!(of(&all, names::INPUT_POWER, "PS2 Input Power"), Verdict::Fail);
    assert_eq!(of(&all, names::REDUNDANCY, ""), Verdict::Inconclusive);
}

#[test]
fn a_bmc_that_does_not_say_that_a_supply_is_there_is_no_pass() {
    let all = verdicts(PsuSettings::default(), [SILENT, "", ""], (1, "", NO_DCMI));
    assert_eq!(of(&all, names::SUPPLY, "PS1 Status"), Verdict::Inconclusive);
    assert_eq!(of(&all, names::SUPPLIES, ""), Verdict::Fail, "none is present");
    assert_eq!(of(&all, names::SYSTEM_POWER, ""), Verdict::Skipped);
    assert_eq!(of(&all, names::FANS, ""), Verdict::Skipped);
    let none = verdicts(PsuSettings::default(), ["", "", ""], (1, "", "timeout"));
    assert_eq!(of(&none, names::SUPPLY, ""), Verdict::Skipped);
    assert_eq!(of(&none, names::SYSTEM_POWER, ""), Verdict::Inconclusive);
}

/// Texts of IPMI 2.0, tables 42-2 and 42-3, as ipmitool 1.8.19 writes them; not yet seen on hardware but for the first two.
#[test]
fn events_and_readings_are_judged_by_table() {
    for (status, said, expected) in [
        ("ok", "Presence detected", Verdict::Pass),
        ("ok", "Presence detected, Failure detected, Power Supply AC lost", Verdict::Fail),
        ("ok", "Presence detected, Power Supply Inactive", Verdict::Pass),
        ("ok", "110 Watts, Presence detected", Verdict::Pass),
        ("ok", "Presence detected, Predictive failure", Verdict::Fail),
        ("ok", "Presence detected, AC out-of-range, but present", Verdict::Fail),
        ("ok", "Presence detected, Config Error: Vendor Mismatch", Verdict::Fail),
        ("ok", "Presence detected, something of later", Verdict::Fail),
        ("nr", "Presence detected", Verdict::Fail),
        ("ok", "Failure detected", Verdict::Fail),
        ("ok", "", Verdict::Inconclusive),
        ("ns", "No Reading", Verdict::Inconclusive),
    ] {
        let table = format!("PS1 | 01h | {status} | 10.1 | {said}\n");
        let all = verdicts(PsuSettings::default(), [&table, "", ""], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::SUPPLY, "PS1"), expected, "{status} {said}");
    }
    for (said, expected) in [
        ("Fully Redundant", Verdict::Pass),
        ("Redundancy Lost", Verdict::Fail),
        ("Redundancy Degraded", Verdict::Fail),
        ("Non-Redundant: Sufficient from Redundant", Verdict::Fail),
    ] {
        let table =
            format!("PS1 | 01h | ok | 10.1 | Presence detected\nPS Redundancy | 77h | ok | 7.1 | {said}\n");
        let all = verdicts(PsuSettings::default(), [&table, "", ""], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::REDUNDANCY, "PS Redundancy"), expected, "{said}");
    }
    for (row, expected) in [
        ("F1 | 30h | ok | 29.1 | 8400 RPM", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | 0 RPM", Verdict::Fail),
        ("F1 | 30h | lcr | 29.1 | 300 RPM", Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | Redundancy Lost", Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | Transition to Failed", Verdict::Fail),
    ] {
        let all = verdicts(PsuSettings::default(), ["", "", row], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::FANS, "F1"), expected, "{row}");
    }
}

#[test]
fn without_a_bmc_the_kernels_sensors_count() {
    let machine = Machine::empty();
    let all = judged(PsuSettings::default(), sensors::read(&machine.root));
    assert!(all.values().all(|verdict| *verdict == Verdict::Skipped), "{all:?}");
    let machine = fixture::server();
    machine.write("/sys/class/power_supply/AC/type", "Mains\n");
    machine.write("/sys/class/power_supply/AC/online", "1\n");
    machine.write("/sys/class/power_supply/BAT0/type", "Battery\n");
    machine.write("/sys/class/hwmon/hwmon3/fan2_input", "0\n");
    let all = judged(PsuSettings::default(), sensors::read(&machine.root));
    assert_eq!(of(&all, names::SUPPLY, "AC"), Verdict::Pass);
    assert_eq!(of(&all, names::FANS, "hwmon3 fan1"), Verdict::Pass);
    assert_eq!(all.len(), 6, "neither a battery nor an empty plug: {all:?}");
    machine.write("/sys/class/power_supply/AC/online", "0\n");
    machine.write("/sys/class/hwmon/hwmon3/fan1_alarm", "1\n");
    let all = judged(PsuSettings::default(), sensors::read(&machine.root));
    assert_eq!(of(&all, names::SUPPLY, "AC"), Verdict::Fail);
    assert_eq!(of(&all, names::FANS, "hwmon3 fan1"), Verdict::Fail);
}

proptest! {
    /// However a line is mangled, the supply that has failed does not pass.
    #[test]
    fn nothing_mangled_makes_a_failed_supply_good(at in 60usize..200, text in "[ -~]{0,6}", drop in 0usize..6) {
        let mut bytes = PSUS.as_bytes().to_vec();
        // Only the line of the failed supply, behind its events' first words: those say that it is there.
        let line = PSUS.find("Failure").unwrap();
        let at = line + at % (bytes.len() - line - 1);
        let end = (at + drop).min(bytes.len());
        bytes.splice(at..end, text.bytes());
        let mangled = String::from_utf8(bytes).unwrap();
        let all = verdicts(PsuSettings::default(), [&mangled, "", ""], (1, "", NO_DCMI));
        let passed = all.iter().any(|((name, component), verdict)| {
            name == names::SUPPLY && component.starts_with("PS2") && *verdict == Verdict::Pass
        });
        prop_assert!(!passed, "{mangled}");
    }

    #[test]
    fn no_text_makes_it_panic(one in "[ -~|\n]{0,80}", other in "\\PC{0,40}") {
        let _ = verdicts(PsuSettings::default(), [&one, &other, &one], (0, &other, &one));
    }
}

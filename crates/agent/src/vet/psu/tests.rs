//! What a BMC says, as it was recorded and mangled, and the stage with a stand-in for ipmitool.

use std::collections::BTreeMap;

use groundcrew_protocol::check::{Check, Verdict, judge_stage};
use groundcrew_protocol::plan::{names, planned_checks};
use groundcrew_protocol::profile::{PsuSettings, StageSpec};
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;

use super::*;
use crate::probe::fixture::{self, Machine};

mod mangled;

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
    with_unit(settings, tables, "", dcmi)
}

/// The same of a BMC whose power unit says something, too.
fn with_unit(
    settings: PsuSettings,
    tables: [&str; 3],
    unit: &str,
    dcmi: (i32, &str, &str),
) -> BTreeMap<(String, String), Verdict> {
    let [psus, all, fans] = tables;
    let ask = |arguments: &[&str]| {
        let (exit, stdout, stderr) = match arguments {
            ["sdr", "type", "Power Supply"] => (0, psus, ""),
            ["sdr", "type", "Power Unit"] => (0, unit, ""),
            ["sdr", "type", "Fan"] => (0, fans, ""),
            ["sdr", "elist"] => (0, all, ""),
            ["dcmi", ..] => dcmi,
            other => panic!("{other:?}"),
        };
        Ok(Said { exit, stdout: stdout.into(), stderr: stderr.into() })
    };
    let expected = settings.supplies;
    judged(settings, bmc::ask(&ask, expected, &mut Vec::new()))
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
    assert_eq!(of(&all, names::FAN_COUNT, ""), Verdict::Pass);
    // Recorded beside them: a temperature beyond its critical threshold.
    assert_eq!(of(&all, names::TEMPERATURES, "CPU1 Temp"), Verdict::Fail);
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
    // One that tells of no supply at all was not understood, whatever the profile wants.
    for supplies in [None, Some(2)] {
        let settings = PsuSettings { supplies, ..Default::default() };
        let none = verdicts(settings, ["", "", ""], (1, "", "timeout"));
        assert_eq!(of(&none, names::SUPPLY, ""), Verdict::Inconclusive);
        assert_eq!(of(&none, names::SUPPLIES, ""), Verdict::Inconclusive);
        assert_eq!(of(&none, names::SYSTEM_POWER, ""), Verdict::Inconclusive);
    }
}

/// A fan that is gone reads as little as a place that never had one: the profile knows how many there are.
#[test]
fn fans_that_turn_are_counted() {
    let count = |fans: &str, fans_min: Option<u32>| {
        let settings = PsuSettings { fans_min, ..Default::default() };
        of(&verdicts(settings, ["", "", fans], (1, "", NO_DCMI)), names::FAN_COUNT, "")
    };
    for (fans, fans_min, expected) in [
        (FANS, None, Verdict::Pass),
        (FANS, Some(1), Verdict::Pass),
        (FANS, Some(2), Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | 0 RPM", Some(1), Verdict::Fail),
        // What says that all are enough is no fan, and one that is there is counted once, by its speed.
        (
            "F1 | 30h | ok | 29.1 | 5000 RPM\nF2 | 31h | ns | 29.2 | No Reading\n\
             F1 Presence | 40h | ok | 29.1 | Device Present\nFan Redundancy | 75h | ok | 7.1 | Fully Redundant",
            Some(2),
            Verdict::Fail,
        ),
        (
            "F1 | 40h | ok | 29.1 | Device Present\nFans | 75h | ok | 7.1 | Fully Redundant",
            Some(2),
            Verdict::Fail,
        ),
        (
            "F1 | 40h | ok | 29.1 | Device Present\nFans | 75h | ok | 7.1 | Fully Redundant",
            Some(1),
            Verdict::Pass,
        ),
        ("F1 | 30h | ns | 29.1 | No Reading", Some(1), Verdict::Fail),
        ("", None, Verdict::Skipped),
        ("", Some(1), Verdict::Inconclusive),
        ("no table", Some(1), Verdict::Inconclusive),
    ] {
        assert_eq!(count(fans, fans_min), expected, "{fans:?} {fans_min:?}");
    }
}

#[test]
fn temperatures_are_held_against_the_bmcs_own_thresholds() {
    for (row, component, expected) in [
        ("CPU1 Temp | 05h | ok | 3.1 | 47 degrees C", "", Verdict::Pass),
        ("CPU1 Temp | 05h | unc | 3.1 | 91 degrees C", "CPU1 Temp", Verdict::Warn),
        ("CPU1 Temp | 05h | ucr | 3.1 | 97 degrees C", "CPU1 Temp", Verdict::Fail),
        ("Inlet | 05h | lcr | 7.1 | -9 degrees C", "Inlet", Verdict::Fail),
        ("CPU1 Temp | 05h | us | 3.1 | 47 degrees C", "CPU1 Temp", Verdict::Inconclusive),
        ("CPU2 Temp | 05h | ns | 3.2 | No Reading", "", Verdict::Skipped),
        ("FAN1 | 05h | lcr | 29.1 | 100 RPM", "", Verdict::Skipped),
        ("no table", "", Verdict::Inconclusive),
    ] {
        let all = verdicts(PsuSettings::default(), [PSUS, row, ""], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::TEMPERATURES, component), expected, "{row}");
    }
}

/// Of a supply without its cable some BMCs tell no event.
#[test]
fn a_supply_at_work_that_takes_in_nothing_warns() {
    for (status, watts, expected) in [
        ("Presence detected", 0, Some(Verdict::Warn)),
        ("Presence detected", 12, None),
        ("Presence detected, Power Supply Inactive", 0, None),
        ("Presence detected, Failure detected", 0, None),
    ] {
        let supply = format!("PS1 Status | 01h | ok | 10.1 | {status}\n");
        let power = format!("PS1 Input Power | 03h | ok | 10.1 | {watts} Watts\n");
        let settings = PsuSettings { input_watts_min: Some(10.0), ..Default::default() };
        let all = verdicts(settings, [&supply, &power, ""], (1, "", NO_DCMI));
        let seen = all.get(&(names::SUPPLY.to_owned(), "PS1 Input Power".to_owned())).copied();
        assert_eq!(seen, expected, "{status} {watts}");
        // The number is there for the profile's limit all the same.
        let number = of(&all, names::INPUT_POWER, "PS1 Input Power");
        assert_eq!(number, if watts == 0 { Verdict::Fail } else { Verdict::Pass });
    }
}

#[test]
fn what_the_profile_demands_is_not_skipped_where_nobody_tells_of_it() {
    for (settings, name) in [
        (PsuSettings { supplies: Some(2), ..Default::default() }, names::SUPPLIES),
        (PsuSettings { input_watts_min: Some(1.0), ..Default::default() }, names::INPUT_POWER),
        (PsuSettings { input_watts_max: Some(900.0), ..Default::default() }, names::INPUT_POWER),
        (PsuSettings { redundant: true, ..Default::default() }, names::REDUNDANCY),
    ] {
        let without_bmc = judged(settings.clone(), sensors::read(&Machine::empty().root));
        assert_eq!(of(&without_bmc, name, ""), Verdict::Inconclusive, "{name}");
        if name != names::SUPPLIES {
            let with_bmc = verdicts(settings, [PSUS, "", FANS], (0, DCMI, ""));
            assert_eq!(of(&with_bmc, name, ""), Verdict::Inconclusive, "{name}");
        }
    }
}

#[test]
fn a_bmc_that_the_kernel_has_no_way_to_is_not_none() {
    for path in ["/sys/firmware/dmi/entries/38-0/type", "/sys/bus/acpi/devices/IPI0001:00/hid"] {
        let machine = Machine::empty();
        machine.write("/sys/firmware/dmi/entries/0-0/type", "0");
        machine.write("/sys/bus/acpi/devices/PNP0A08:00/hid", "PNP0A08");
        assert!(matches!(bmc_of(&machine.root), Bmc::None));
        machine.write(path, "");
        match bmc_of(&machine.root) {
            Bmc::Unreachable(why) => assert!(why.contains("ipmi_devintf"), "{why}"),
            Bmc::Reachable | Bmc::None => panic!("{path} tells of a BMC"),
        }
        machine.write("/dev/ipmi0", "");
        assert!(matches!(bmc_of(&machine.root), Bmc::Reachable));
    }
    let all = judged(PsuSettings::default(), bmc::all_unreadable(&CHECKS, "no way"));
    assert!(all.len() == CHECKS.len() && all.values().all(|verdict| *verdict == Verdict::Inconclusive));
}

/// The default deadline has room for every question to a BMC that is slow.
#[test]
fn the_default_deadline_is_longer_than_all_calls() {
    let deadline = Duration::from_millis(StageSpec::of(Stage::Psu).deadline);
    assert!(CALL_TIME * bmc::CALLS < deadline, "{deadline:?}");
}

#[test]
fn an_empty_place_is_none_where_the_profile_wants_no_more() {
    const PLACES: &str =
        "PS1 Status | 01h | ok | 10.1 | Presence detected\nPS2 Status | 02h | ns | 10.2 | No Reading\n";
    const POWER: &str = "PS1 PIN | 03h | ok | 10.1 | 320 Watts\nPS2 PIN | 04h | ns | 10.2 | No Reading\n";
    for (supplies, expected) in
        [(None, Verdict::Inconclusive), (Some(1), Verdict::Skipped), (Some(2), Verdict::Inconclusive)]
    {
        let settings = PsuSettings { supplies, ..Default::default() };
        let all = verdicts(settings, [PLACES, POWER, ""], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::SUPPLY, "PS2 Status"), expected, "{supplies:?}");
        let input = all.get(&(names::INPUT_POWER.to_owned(), "PS2 PIN".to_owned()));
        assert_eq!(input.is_some(), expected != Verdict::Skipped, "{supplies:?}: {all:?}");
        assert!(input.is_none_or(|verdict| *verdict == Verdict::Inconclusive));
    }
}

#[test]
fn input_power_that_passes_the_bmcs_threshold_or_is_not_told_is_no_pass() {
    let of_row = |row: &str| {
        let all = verdicts(PsuSettings::default(), [PSUS, row, ""], (1, "", NO_DCMI));
        let worst = |name: &str| {
            let of_name = all.iter().filter(|((of, component), _)| of == name && component != "PS2 Status");
            Verdict::over(of_name.map(|(_, verdict)| *verdict))
        };
        (worst(names::INPUT_POWER), worst(names::SUPPLY))
    };
    for (row, input, supply) in [
        ("PS1 Input Power | 03h | ok | 10.1 | 320 Watts", Verdict::Pass, Verdict::Pass),
        ("PS1 Input Power | 03h | ucr | 10.1 | 1700 Watts", Verdict::Pass, Verdict::Fail),
        ("PS1 Input Power | 03h | ns | 10.1 | No Reading", Verdict::Inconclusive, Verdict::Pass),
        ("PS1 PIN | 03h | ns | 10.1 | Disabled", Verdict::Inconclusive, Verdict::Pass),
        ("PS1 Input Power | 03h | ok | 10.1 | many Watts", Verdict::Inconclusive, Verdict::Pass),
        ("Power Supply Temp | 03h | ns | 10.1 | No Reading", Verdict::Skipped, Verdict::Pass),
        ("PS1 Output Power | 03h | ns | 10.1 | No Reading", Verdict::Skipped, Verdict::Pass),
    ] {
        assert_eq!(of_row(row), (input, supply), "{row}");
    }
}

#[test]
fn the_power_unit_tells_of_redundancy_and_of_failures() {
    for (row, name, component, expected) in [
        (
            "Pwr Unit Redund | 02h | ok | 21.1 | Redundancy Lost",
            names::REDUNDANCY,
            "Pwr Unit Redund",
            Verdict::Fail,
        ),
        (
            "Pwr Unit Redund | 02h | ok | 21.1 | Fully Redundant",
            names::REDUNDANCY,
            "Pwr Unit Redund",
            Verdict::Pass,
        ),
        (
            "Pwr Unit Redund | 02h | ns | 21.1 | No Reading",
            names::REDUNDANCY,
            "Pwr Unit Redund",
            Verdict::Skipped,
        ),
        (
            "Pwr Unit Redund | 02h | ok | 21.1 | State Asserted",
            names::REDUNDANCY,
            "Pwr Unit Redund",
            Verdict::Inconclusive,
        ),
        (
            "Pwr Unit Status | 01h | ok | 21.1 | Failure detected",
            names::SUPPLY,
            "Pwr Unit Status",
            Verdict::Fail,
        ),
        ("Pwr Unit Status | 01h | ok | 21.1 | AC lost", names::SUPPLY, "Pwr Unit Status", Verdict::Fail),
        (
            "Pwr Unit Status | 01h | ok | 21.1 | Soft-power control failure",
            names::SUPPLY,
            "Pwr Unit Status",
            Verdict::Fail,
        ),
        (
            "Pwr Unit Status | 01h | ok | 21.1 | State Asserted",
            names::SUPPLY,
            "Pwr Unit Status",
            Verdict::Inconclusive,
        ),
    ] {
        let all = with_unit(PsuSettings::default(), [PSUS, "", ""], row, (1, "", NO_DCMI));
        assert_eq!(of(&all, name, component), expected, "{row}");
    }
    for row in ["Pwr Unit Status | 01h | ok | 21.1 | ", "Pwr Unit Status | 01h | ns | 21.1 | No Reading"] {
        let all = with_unit(PsuSettings::default(), [PSUS, "", ""], row, (1, "", NO_DCMI));
        assert!(!all.contains_key(&(names::SUPPLY.to_owned(), "Pwr Unit Status".to_owned())), "{row}");
    }
}

#[test]
fn power_is_measured_only_where_the_bmc_measures_it() {
    for (from, to, expected) in [
        ("", "", Verdict::Pass),
        (" activated", " deactivated", Verdict::Skipped),
        ("412 Watts", "0 Watts", Verdict::Inconclusive),
        ("Power reading state is", "State", Verdict::Inconclusive),
        ("Instantaneous", "Momentary", Verdict::Inconclusive),
    ] {
        let all = verdicts(PsuSettings::default(), [PSUS, "", ""], (0, &DCMI.replace(from, to), ""));
        assert_eq!(of(&all, names::SYSTEM_POWER, ""), expected, "{from} -> {to}");
    }
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
        ("ok", "Presence detected, something of later", Verdict::Inconclusive),
        ("ok", "Device Present", Verdict::Pass),
        ("ok", "Device Absent", Verdict::Inconclusive),
        ("ok", "State Asserted", Verdict::Inconclusive),
        ("ok", "Transition to OK", Verdict::Inconclusive),
        ("us", "Presence detected", Verdict::Inconclusive),
        ("nr", "Presence detected", Verdict::Fail),
        ("ok", "Failure detected", Verdict::Fail),
        ("ok", "", Verdict::Inconclusive),
        ("ns", "No Reading", Verdict::Inconclusive),
    ] {
        let table = format!("PS1 | 01h | {status} | 10.1 | {said}\n");
        let all = verdicts(PsuSettings::default(), [&table, "", ""], (1, "", NO_DCMI));
        assert_eq!(of(&all, names::SUPPLY, "PS1"), expected, "{status} {said}");
    }
    // A sensor of the type counts whatever entity the BMC gives it.
    let other = "PS1 | 01h | ok | 10.1 | Presence detected\nPSU Fault | 02h | ok | 7.1 | Failure detected\n";
    let all = verdicts(PsuSettings::default(), [other, "", ""], (1, "", NO_DCMI));
    assert_eq!(of(&all, names::SUPPLY, "PSU Fault"), Verdict::Fail);
    // A number is no supply, and one past its threshold is a failure of one.
    let reading = "PS1 | 01h | ok | 10.1 | Presence detected\nW1 | 02h | ok | 10.1 | 90 Watts\nW2 | 02h | ucr | 10.1 | 990 Watts\n";
    let all = verdicts(PsuSettings::default(), [reading, "", ""], (1, "", NO_DCMI));
    assert!(!all.contains_key(&(names::SUPPLY.to_owned(), "W1".to_owned())));
    assert_eq!(of(&all, names::SUPPLY, "W2"), Verdict::Fail);
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
        ("F1 | 30h | ok | 29.1 | Transition to Critical from less severe", Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | Predictive Failure Asserted", Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | 0 percent", Verdict::Fail),
        ("F1 | 30h | ok | 29.1 | 41 percent", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | Device Present", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | Transition to OK", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | Transition to Running", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | Fully Redundant", Verdict::Pass),
        ("F1 | 30h | ok | 29.1 | ", Verdict::Inconclusive),
        ("F1 | 30h | ok | 29.1 | garbage", Verdict::Inconclusive),
        ("F1 | 30h | ok | 29.1 | Device Absent", Verdict::Inconclusive),
        ("F1 | 30h | ok | 29.1 | State Asserted", Verdict::Inconclusive),
        ("F1 | 30h | ok | 29.1 | 8400 RPM, State Asserted", Verdict::Inconclusive),
        ("F1 | 30h | na | 29.1 | 8400 RPM", Verdict::Inconclusive),
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
    assert_eq!(of(&all, names::FAN_COUNT, ""), Verdict::Pass);
    assert_eq!(all.len(), CHECKS.len(), "neither a battery nor an empty plug: {all:?}");
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

    /// Only a fan that says that it turns passes: whatever else is mangled into its line, it does not.
    #[test]
    fn nothing_mangled_makes_a_fan_turn(
        said in prop_oneof![
            "[ -{}~]{0,30}",
            "(Fully Redundant|Redundancy Lost|Transition to (OK|Running|Critical)|Device (Present|Absent))?[ -{}~]{0,4}",
            "-?[0-9]{0,5}(\\.[0-9]{1,2})? ?(RPM|percent|Watts)?",
        ],
        status in "(ok|ok|ok|ns|nc|lcr|[a-z]{0,3})",
    ) {
        let row = format!("F1 | 30h | {status} | 29.1 | {said}\n");
        let all = verdicts(PsuSettings::default(), ["", "", &row], (1, "", NO_DCMI));
        let said = said.trim();
        let turns = said.split(", ").all(|part| {
            let speed = part.trim().strip_suffix(" RPM").or(part.trim().strip_suffix(" percent"));
            ["Device Present", "Transition to OK", "Transition to Running", "Fully Redundant"].contains(&part.trim())
                || speed.is_some_and(|speed| speed.parse::<f64>().is_ok_and(|speed| speed > 0.0))
        });
        let passed = all.iter().any(|((name, _), verdict)| name == names::FANS && *verdict == Verdict::Pass);
        prop_assert!(!passed || (turns && status == "ok"), "{row}: {all:?}");
    }

    #[test]
    fn no_text_makes_it_panic(one in "[ -~|\n]{0,80}", other in "\\PC{0,40}") {
        let _ = verdicts(PsuSettings::default(), [&one, &other, &one], (0, &other, &one));
    }
}

//! What a BMC says of the machine's power, mangled, and what is no answer to what was asked.

use super::*;
use crate::probe::hwmon;
use crate::vet::tests::mangled::{mangle, manglings};

/// What `ipmitool -c sdr elist` printed of the BMC of the other recordings: not what the stage asks for.
const CSV: &str = include_str!("../../../../tests/fixtures/ipmitool/ext-sdr-csv.txt");
/// What hwmon showed, `path=value`, of a machine whose NVMe disk warned.
const HWMON: &str = include_str!("../../../../tests/fixtures/hwmon/nvme-warning.txt");

fn system_power(said: &[u8]) -> Verdict {
    let said = String::from_utf8_lossy(said);
    let all = verdicts(PsuSettings::default(), [PSUS, "", ""], (0, &said, ""));
    of(&all, names::SYSTEM_POWER, "")
}

#[test]
fn a_table_in_another_form_passes_nothing() {
    let all = with_unit(PsuSettings::default(), [CSV; 3], CSV, (0, CSV, ""));
    assert!(all.len() >= CHECKS.len(), "{all:?}");
    assert!(all.values().all(|verdict| *verdict == Verdict::Inconclusive), "{all:?}");
}

/// The disk's warning is SMART's to tell: its thermometer shows nothing, and is neither a fan nor a supply.
#[test]
fn a_disks_thermometer_says_nothing_of_supplies_and_fans() {
    let machine = Machine::empty();
    for (path, value) in HWMON.lines().map(|line| line.split_once('=').unwrap()) {
        machine.write(path, format!("{value}\n"));
    }
    let temperatures = hwmon::temperatures(&machine.root);
    let [disk] = temperatures.as_slice() else { panic!("{temperatures:?}") };
    assert_eq!((disk.chip.as_str(), disk.celsius, disk.critical), ("nvme", 49.85, Some(99.85)));
    let all = judged(PsuSettings::default(), sensors::read(&machine.root));
    assert!(all.values().all(|verdict| *verdict == Verdict::Skipped), "{all:?}");
}

proptest! {
    /// A BMC that measures nothing, or nothing of a machine that runs.
    #[test]
    fn nothing_mangled_makes_power_of_none(nothing: bool, manglings in manglings()) {
        let said = match nothing {
            true => DCMI.replace("412 Watts", "0 Watts"),
            false => DCMI.replace(" activated", " deactivated"),
        };
        prop_assert_ne!(&said, DCMI);
        prop_assert_ne!(system_power(&mangle(&said, &manglings)), Verdict::Pass);
    }

    /// A state that cannot be read is not a BMC that measures no power.
    #[test]
    fn nothing_mangled_makes_a_bmc_that_measures_one_that_does_not(manglings in manglings()) {
        let verdict = system_power(&mangle(DCMI, &manglings));
        prop_assert!(matches!(verdict, Verdict::Pass | Verdict::Inconclusive), "{}", verdict);
    }

    #[test]
    fn nothing_mangled_in_a_table_of_another_form_passes(manglings in manglings()) {
        let mangled = mangle(CSV, &manglings);
        let said = String::from_utf8_lossy(&mangled);
        let all = with_unit(PsuSettings::default(), [&said; 3], &said, (0, &said, ""));
        prop_assert!(all.values().all(|verdict| *verdict != Verdict::Pass), "{:?}", all);
    }
}

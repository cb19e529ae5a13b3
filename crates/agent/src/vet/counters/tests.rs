//! Counters of a machine of files: what grew, what stood still, what nobody keeps, what cannot be told.

use groundcrew_protocol::check::{Verdict, judge_stage};
use groundcrew_protocol::plan::planned_checks;
use groundcrew_protocol::profile::StageSpec;
use proptest::prelude::*;

use super::*;
use crate::probe::Root;
use crate::probe::fixture::{self, Machine};

const DIMM: &str = "/sys/devices/system/edac/mc/mc0/dimm0";
const AER: &str = "/sys/bus/pci/devices/0000:65:00.0";
const NIC: &str = "/sys/class/net/eno1";
const CPU: &str = "/sys/devices/system/cpu";

/// A machine that keeps every counter; the tables are as the kernel's documentation shows them.
fn machine() -> Machine {
    let machine = fixture::server();
    for controller in ["mc0", "mc1"] {
        for (file, count) in [("ce_count", "3\n"), ("ue_count", "0\n")] {
            machine.write(&format!("/sys/devices/system/edac/mc/{controller}/{file}"), count);
        }
    }
    machine.write(&format!("{DIMM}/dimm_label"), "CPU_SrcID#0_MC#0_Chan#0_DIMM#0\n");
    machine.write(&format!("{DIMM}/dimm_ce_count"), "2\n");
    machine.write(&format!("{DIMM}/dimm_ue_count"), "0\n");
    machine.write(&format!("{AER}/aer_dev_correctable"), "RxErr 1\nBadTLP 0\nTOTAL_ERR_COR 1\n");
    machine.write(&format!("{AER}/aer_dev_fatal"), "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0\n");
    machine.write(&format!("{AER}/aer_dev_nonfatal"), "Undefined 0\nCmpltTO 0\nTOTAL_ERR_NONFATAL 0\n");
    interrupts(&machine, 0);
    for (file, count) in
        [("rx_errors", "5\n"), ("tx_errors", "0\n"), ("rx_crc_errors", "5\n"), ("tx_carrier_errors", "0\n")]
    {
        machine.write(&format!("{NIC}/statistics/{file}"), count);
    }
    machine.write(&format!("{NIC}/carrier_down_count"), "7\n");
    for cpu in 0..8 {
        for file in ["core_throttle_count", "package_throttle_count"] {
            machine.write(&format!("{CPU}/cpu{cpu}/thermal_throttle/{file}"), "4\n");
        }
    }
    machine
}

fn interrupts(machine: &Machine, of_second: u32) {
    let text = format!(
        "           CPU0       CPU1       \n  8:          1          0   IO-APIC   8-edge      rtc0\n\
         TRM:          0          0   Thermal event interrupts\nMCE:          0 {of_second:>10}   Machine check exceptions\n\
         MCP:        219        219   Machine check polls\n"
    );
    machine.write("/proc/interrupts", text);
}

/// The counters that are files: the BMC's log is read by a tool, and heat is watched.
fn counters() -> impl Iterator<Item = &'static str> {
    let is_file = |name: &&str| ![names::SEL_EVENTS, names::CRITICAL_TEMPERATURE].contains(name);
    names::COUNTER_CHECKS.into_iter().filter(is_file)
}

/// What the counters say of what happened to a machine: each finding that is no plain zero, with its verdict.
fn told(machine: &Machine, happens: impl FnOnce(&Machine)) -> Vec<(String, String, Verdict)> {
    let all = |root: &Root| -> BTreeMap<&'static str, Reading> {
        counters().map(|name| (name, read::read(root, name).unwrap())).collect()
    };
    let before = all(&machine.root);
    happens(machine);
    let after = all(&machine.root);
    let plan = planned_checks(&StageSpec::of("SMART".into()));
    let mut told = Vec::new();
    for name in counters() {
        for finding in compare(name, &before[name], &after[name]) {
            if finding.stood_still() {
                assert_eq!(finding.component, None);
                continue;
            }
            let limit = plan.iter().find(|planned| planned.name == name).unwrap().limit.clone();
            let check = Check::of(name, finding.component.as_deref(), finding.observed, limit);
            let verdict = judge_stage(&[], &[check]).verdict;
            told.push((name.to_owned(), finding.component.unwrap_or_default(), verdict));
        }
    }
    told
}

#[test]
fn what_stands_still_passes_and_each_counter_names_its_component() {
    let row = |name: &str, component: &str, verdict| (name.to_owned(), component.to_owned(), verdict);
    assert_eq!(told(&machine(), |_| {}), []);
    let dimm = "CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (mc0/dimm0)";
    type Event = (&'static str, String, &'static str, &'static str, Verdict);
    let events: [Event; 10] = [
        (names::MEMORY_UNCORRECTED, format!("{DIMM}/dimm_ue_count"), "1", dimm, Verdict::Fail),
        (names::MEMORY_CORRECTED, format!("{DIMM}/dimm_ce_count"), "3", dimm, Verdict::Warn),
        (
            names::PCIE_CORRECTED,
            format!("{AER}/aer_dev_correctable"),
            "RxErr 1\nBadTLP 9\nTOTAL_ERR_COR 10",
            "0000:65:00.0",
            Verdict::Warn,
        ),
        (
            names::PCIE_UNCORRECTED,
            format!("{AER}/aer_dev_fatal"),
            "DLP 1\nTOTAL_ERR_FATAL 1",
            "0000:65:00.0",
            Verdict::Fail,
        ),
        (
            names::PCIE_UNCORRECTED,
            format!("{AER}/aer_dev_nonfatal"),
            "CmpltTO 1\nTOTAL_ERR_NONFATAL 1",
            "0000:65:00.0",
            Verdict::Fail,
        ),
        (names::NIC_ERRORS, format!("{NIC}/statistics/rx_errors"), "6", "eno1", Verdict::Warn),
        (names::NIC_ERRORS, format!("{NIC}/statistics/tx_errors"), "1", "eno1", Verdict::Warn),
        (names::LOST_CARRIERS, format!("{NIC}/carrier_down_count"), "8", "eno1", Verdict::Fail),
        (
            names::THROTTLE_EVENTS,
            format!("{CPU}/cpu3/thermal_throttle/core_throttle_count"),
            "5",
            "cpu3",
            Verdict::Warn,
        ),
        (
            names::THROTTLE_EVENTS,
            format!("{CPU}/cpu0/thermal_throttle/package_throttle_count"),
            "5",
            "package 0",
            Verdict::Warn,
        ),
    ];
    for (name, path, value, component, verdict) in events {
        let found = told(&machine(), |machine| machine.write(&path, value));
        // A module's error is its controller's too, which counts it once.
        assert!(found.contains(&row(name, component, verdict)), "{path}: {found:?}");
    }
    assert_eq!(
        told(&machine(), |machine| interrupts(machine, 2)),
        [row(names::MACHINE_CHECKS, "cpu1", Verdict::Fail)]
    );
    // An error that the controller could not place in a module.
    let placed_nowhere = told(&machine(), |machine| {
        machine.write("/sys/devices/system/edac/mc/mc1/ue_count", "1\n");
    });
    assert_eq!(placed_nowhere, [row(names::MEMORY_UNCORRECTED, "mc1", Verdict::Fail)]);
}

#[test]
fn an_error_of_a_module_is_not_its_controllers_as_well() {
    let found = told(&machine(), |machine| {
        machine.write(&format!("{DIMM}/dimm_ue_count"), "1\n");
        machine.write("/sys/devices/system/edac/mc/mc0/ue_count", "1\n");
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.ends_with("(mc0/dimm0)"), "{found:?}");
}

#[test]
fn the_evidence_says_which_errors_they_were() {
    let machine = machine();
    let before = read::read(&machine.root, names::NIC_ERRORS).unwrap();
    machine.write(&format!("{NIC}/statistics/rx_errors"), "8");
    machine.write(&format!("{NIC}/statistics/rx_crc_errors"), "7");
    let after = read::read(&machine.root, names::NIC_ERRORS).unwrap();
    let findings = compare(names::NIC_ERRORS, &before, &after);
    assert_eq!(findings[0].observed, Observation::measured(3.0, "damaged packets"));
    assert!(
        findings[0].evidence.contains("5 before the stage, 8 after it (rx_crc_errors +2)"),
        "{findings:?}"
    );
}

#[test]
fn a_counter_that_nobody_keeps_is_skipped_and_never_zero() {
    for name in counters() {
        let none = read::read(&Machine::empty().root, name).unwrap();
        let findings = compare(name, &none, &none);
        assert!(matches!(findings[0].observed, Observation::Absent { .. }), "{name}: {findings:?}");
        // One that is kept only later tells nothing of the time before, and one that is no longer kept holds.
        let machine = machine();
        let kept = read::read(&machine.root, name).unwrap();
        assert!(matches!(compare(name, &none, &kept)[0].observed, Observation::Absent { .. }), "{name}");
        assert!(matches!(compare(name, &kept, &none)[0].observed, Observation::Unreadable { .. }), "{name}");
    }
}

#[test]
fn what_went_back_or_away_or_is_no_number_holds() {
    let unreadable = |happens: &dyn Fn(&Machine)| {
        let found = told(&machine(), happens);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].2, Verdict::Inconclusive, "{found:?}");
        found[0].0.clone()
    };
    let written = |path: String, text: &'static str| move |machine: &Machine| machine.write(&path, text);
    for (path, text, name) in [
        (format!("{NIC}/carrier_down_count"), "6", names::LOST_CARRIERS),
        (format!("{NIC}/carrier_down_count"), "many", names::LOST_CARRIERS),
        (format!("{DIMM}/dimm_ue_count"), "-1", names::MEMORY_UNCORRECTED),
        (format!("{AER}/aer_dev_correctable"), "RxErr 1", names::PCIE_CORRECTED),
        (format!("{AER}/aer_dev_correctable"), "RxErr x\nTOTAL_ERR_COR 1", names::PCIE_CORRECTED),
        (
            "/proc/interrupts".to_owned(),
            "  CPU0 CPU1\nMCE: 0 Machine check exceptions",
            names::MACHINE_CHECKS,
        ),
    ] {
        assert_eq!(unreadable(&written(path.clone(), text)), name, "{path} {text}");
    }
    let gone = |machine: &Machine| std::fs::remove_dir_all(machine.root.path(AER)).unwrap();
    let found = told(&machine(), |machine| {
        machine.write("/sys/bus/pci/devices/0000:66:00.0/aer_dev_fatal", "TOTAL_ERR_FATAL 0");
        gone(machine);
    });
    // A device that fell off the bus is no device without errors.
    assert!(
        found.iter().all(|(_, _, verdict)| *verdict == Verdict::Inconclusive) && found.len() == 2,
        "{found:?}"
    );
}

#[test]
fn many_components_are_told_in_short() {
    let machine = Machine::empty();
    let write = |count: &str| {
        for number in 0..40 {
            machine.write(&format!("/sys/class/net/eth{number}/carrier_down_count"), count);
            machine.write(&format!("/sys/class/net/eth{number}/device/vendor"), "x");
        }
        read::read(&machine.root, names::LOST_CARRIERS).unwrap()
    };
    let findings = compare(names::LOST_CARRIERS, &write("0"), &write("1"));
    assert_eq!(findings.len(), COMPONENTS_MAX);
    assert!(findings.last().unwrap().evidence.ends_with("and 8 more components of which this is said"));
}

/// Of 40 interfaces the last by name lost its carrier most often, and one before it went away.
#[test]
fn what_matters_most_is_not_cut() {
    let machine = Machine::empty();
    let write = |count: u32, of_last: u32| {
        for number in 10..50 {
            let count = if number == 49 { of_last } else { count };
            machine.write(&format!("/sys/class/net/eth{number}/carrier_down_count"), count.to_string());
            machine.write(&format!("/sys/class/net/eth{number}/device/vendor"), "x");
        }
    };
    write(0, 0);
    let before = read::read(&machine.root, names::LOST_CARRIERS).unwrap();
    write(1, 9);
    std::fs::remove_dir_all(machine.root.path("/sys/class/net/eth48")).unwrap();
    let after = read::read(&machine.root, names::LOST_CARRIERS).unwrap();
    let findings = compare(names::LOST_CARRIERS, &before, &after);
    let first: Vec<&str> = findings[..3].iter().filter_map(|finding| finding.component.as_deref()).collect();
    assert_eq!(first, ["eth48", "eth49", "eth10"]);
    assert_eq!(findings.len(), COMPONENTS_MAX);
}

#[test]
fn errors_of_pcie_say_whether_they_were_fatal() {
    let machine = machine();
    let before = read::read(&machine.root, names::PCIE_UNCORRECTED).unwrap();
    machine.write(&format!("{AER}/aer_dev_fatal"), "Undefined 0\nDLP 2\nTOTAL_ERR_FATAL 2\n");
    machine.write(&format!("{AER}/aer_dev_nonfatal"), "Undefined 1\nDLP 0\nTOTAL_ERR_NONFATAL 1\n");
    let after = read::read(&machine.root, names::PCIE_UNCORRECTED).unwrap();
    let findings = compare(names::PCIE_UNCORRECTED, &before, &after);
    assert!(findings[0].evidence.contains("(fatal DLP +2, nonfatal Undefined +1)"), "{findings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a file becomes, it never says that nothing was counted, but by the number that it had.
    #[test]
    fn no_mangled_file_hides_an_error(file in 0usize..3, text in "(TOTAL_ERR_FATAL |DLP )?[0-9]{0,3}[ -~\n]{0,12}") {
        let (path, name, from) = [
            (format!("{AER}/aer_dev_fatal"), names::PCIE_UNCORRECTED, "DLP 5\nTOTAL_ERR_FATAL 5"),
            (format!("{DIMM}/dimm_ue_count"), names::MEMORY_UNCORRECTED, "5"),
            (format!("{NIC}/carrier_down_count"), names::LOST_CARRIERS, "5"),
        ][file].clone();
        let machine = Machine::empty();
        machine.write(&format!("{NIC}/device/vendor"), "x");
        machine.write(&path, from);
        let before = read::read(&machine.root, name).unwrap();
        machine.write(&path, &text);
        let findings = compare(name, &before, &read::read(&machine.root, name).unwrap());
        let stood_still = findings.iter().all(Finding::stood_still);
        prop_assert!(!stood_still || text.contains('5'), "{text:?} {findings:?}");
    }
}

/// That one device of forty counted nothing is no word on the other thirty-nine.
#[test]
fn devices_whose_errors_nobody_counts_are_named_beside_those_that_counted_none() {
    let machine = machine();
    for (name, is_named) in
        [(names::PCIE_CORRECTED, true), (names::PCIE_UNCORRECTED, true), (names::NIC_ERRORS, false)]
    {
        let reading = read::read(&machine.root, name).unwrap();
        let silent = read::uncounted(&machine.root, name);
        let evidence = compare(name, &reading, &reading).remove(0).beside(&silent).evidence;
        let (counted, uncounted) =
            evidence.split_once("not counted, having no AER: ").unwrap_or((&evidence, ""));
        assert_eq!(uncounted.contains("0000:17:00.0"), is_named, "{evidence}");
        assert_eq!(counted.contains("0000:65:00.0"), is_named, "{evidence}");
        assert!(!uncounted.contains("0000:65:00.0"), "{evidence}");
    }
}

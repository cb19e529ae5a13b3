//! Counters around a stage that is really done, on a machine of files and on this one.

use super::*;

const DOWN: &str = "/sys/class/net/eno1/carrier_down_count";

#[test]
fn what_was_counted_during_a_stage_is_in_its_verdict_with_the_hottest_sensor() {
    let machine = fixture::server();
    machine.write(DOWN, "1\n");
    let outcome = run_stage(&stage("Inventory", &machine.root).context);
    assert_eq!(verdict(&outcome, "lost_carriers"), Verdict::Pass);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.message);
    // The interface loses its carrier while the stage runs.
    let mut stage = stage("Inventory", &machine.root);
    let path = machine.root.path(DOWN);
    stage.context.progress = Arc::new(move |progress| {
        if progress.activity.starts_with("reading") {
            std::fs::write(&path, "2\n").unwrap();
        }
    });
    let outcome = run_stage(&stage.context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Fail, false));
    let check = outcome.checks.iter().find(|check| check.name == "lost_carriers").unwrap();
    assert_eq!(check.component.as_deref(), Some("eno1"));
    assert!(
        check.evidence.contains("hottest meanwhile: coretemp coretemp.1 Package id 1, 57.0 °C"),
        "{check:?}"
    );
}

#[test]
fn a_counter_that_nobody_keeps_holds_only_where_it_is_required() {
    let machine = fixture::server();
    let mut stage = stage("Inventory", &machine.root);
    let outcome = run_stage(&stage.context);
    assert_eq!((verdict(&outcome, "memory_corrected"), outcome.passed), (Verdict::Skipped, true));
    stage.context.spec.require = vec!["memory_corrected".into()];
    assert_inconclusive(&run_stage(&stage.context), "required by the profile, but no EDAC driver counts");
}

#[test]
fn a_stage_that_had_nothing_to_test_is_not_passed_by_its_counters() {
    let machine = Machine::empty();
    std::fs::create_dir_all(machine.root.path("/sys/block")).unwrap();
    machine.write(DOWN, "1\n");
    machine.write("/sys/class/net/eno1/device/vendor", "x");
    let outcome = run_stage(&stage("SMART", &machine.root).context);
    assert_eq!(outcome.verdict, Verdict::Skipped, "{outcome:?}");
    let counted = outcome.checks.iter().find(|check| check.name == "lost_carriers").unwrap();
    assert_eq!(counted.reason, "the stage had nothing to test");
}

/// A BMC is asked by a script in place of ipmitool, which prints what lies in the work folder.
#[test]
fn what_came_to_the_bmcs_log_is_in_the_stages_verdict_and_the_log_is_kept() {
    let machine = fixture::server();
    machine.write("/dev/ipmi0", "");
    let mut stage = stage("Inventory", &machine.root);
    let log = stage.work.path().join("log");
    let script = format!(
        "case $2 in info) echo 'Entries : 1'; echo 'Free Space : 16000 bytes'; echo 'Overflow : false';; elist) cat {};; esac",
        log.display()
    );
    stage.put_tool("ipmitool", &script);
    let first =
        "1 | 11/20/26 | 19:52:50 UTC | Event Logging Disabled #0x72 | Log area reset/cleared | Asserted\n";
    std::fs::write(&log, first).unwrap();
    assert_eq!(verdict(&run_stage(&stage.context), "sel_events"), Verdict::Pass);
    stage.context.progress = Arc::new({
        let log = log.clone();
        move |progress| {
            if progress.activity.starts_with("reading") {
                let event = "2 | 11/20/26 | 19:53:00 UTC | Memory #0x53 | Uncorrectable ECC | Asserted\n";
                std::fs::write(&log, format!("{first}{event}")).unwrap();
            }
        }
    });
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.verdict, Verdict::Fail, "{}", outcome.message);
    let check = outcome.checks.iter().find(|check| check.name == "sel_events").unwrap();
    assert_eq!(check.component.as_deref(), Some("Memory #0x53"));
    let kept = outcome.artifacts.iter().find(|(name, _)| name == "sel.txt").unwrap();
    assert!(String::from_utf8_lossy(&kept.1).contains("Uncorrectable ECC"));
    // Without the tool nobody can tell.
    stage.context.search_path = stage.work.path().into();
    assert_eq!(verdict(&run_stage(&stage.context), "sel_events"), Verdict::Inconclusive);
}

/// A kernel without the modules reads as no BMC, and its log would be skipped.
#[test]
fn the_log_of_a_bmc_that_nobody_can_ask_holds() {
    let machine = fixture::server();
    let stage = stage("Inventory", &machine.root);
    assert_eq!(verdict(&run_stage(&stage.context), "sel_events"), Verdict::Skipped);
    machine.write("/sys/firmware/dmi/entries/38-0/type", "38\n");
    assert_inconclusive(&run_stage(&stage.context), "load the kernel's modules ipmi_si");
}

/// The sensor is over its limit from the first reading on; the third ends a load that would last for ever.
#[test]
fn a_load_is_stopped_where_a_sensor_passes_its_critical_limit() {
    let machine = fixture::server();
    machine.write("/sys/class/hwmon/hwmon2/temp1_crit", "99850\n");
    machine.write("/sys/class/hwmon/hwmon2/temp1_input", "101000\n");
    let stage = with_fake(&machine.root, "sleep 1000");
    let outcome = run_stage(&stage.context);
    assert_eq!((outcome.verdict, outcome.cancelled), (Verdict::Fail, false), "{}", outcome.message);
    let check = outcome.checks.iter().find(|check| check.name == "critical_temperature").unwrap();
    assert_eq!(check.component.as_deref(), Some("nvme nvme0 Composite"));
    assert_eq!(check.observed.describe(), "101.0 °C in three samples, critical at 99.8 °C");
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Inconclusive);
    let miscompares = outcome.checks.iter().find(|check| check.name == "miscompares").unwrap();
    assert!(miscompares.reason.contains("stopped for the machine's heat"), "{miscompares:?}");
}

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

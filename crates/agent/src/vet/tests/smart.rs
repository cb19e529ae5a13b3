//! The stage SMART with a shell script in place of smartctl, which plays what the real one printed.

use groundcrew_protocol::profile::{ExpectedDisk, SelfTest, SmartSettings};

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/smartctl");

/// A machine with these disks.
fn machine(disks: &[&str]) -> Machine {
    let machine = Machine::empty();
    machine.write("/sys/block/ram0/size", "0\n");
    for disk in disks {
        machine.write(&format!("/sys/block/{disk}/size"), "524288\n");
    }
    machine
}

/// The stage, with a smartctl of which `$device` and `$asked` (`-x`, `-t`, `-c` or `-l`) are known.
fn with_smartctl(machine: &Machine, self_test: SelfTest, script: &str) -> Stage {
    let mut stage = stage("SMART", &machine.root);
    stage.context.spec.smart = Some(SmartSettings { self_test, ..SmartSettings::default() });
    let state = stage.work.path().display();
    let head =
        format!("cd {state}; asked=$2; for device; do :; done; device=${{device#/dev/}}; F={FIXTURES}");
    stage.put_tool("smartctl", &format!("{head}\n{script}"));
    stage
}

fn of<'o>(outcome: &'o StageOutcome, check: &str, component: &str) -> &'o Check {
    let found = outcome
        .checks
        .iter()
        .find(|found| found.name == check && found.component.as_deref() == Some(component));
    found.unwrap_or_else(|| panic!("no {check} of {component} in {outcome:#?}"))
}

#[test]
fn healthy_disks_pass_by_their_own_word_and_are_named_by_smartctls_serials() {
    let machine = machine(&["nvme0n1", "sda"]);
    let play = "case $device in nvme0n1) cat $F/nvme.json;; sda) cat $F/sata.json; exit 4;; esac";
    let outcome = run_stage(&with_smartctl(&machine, SelfTest::None, play).context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Pass, true), "{}", outcome.message);
    for serial in ["NVMESERIAL01", "SATASERIAL01"] {
        assert_eq!(of(&outcome, "health", serial).observed, Observation::Found { text: "passed".into() });
        assert_eq!(of(&outcome, "power_on_hours", serial).verdict, Verdict::Pass);
    }
    assert_eq!(of(&outcome, "spare", "NVMESERIAL01").verdict, Verdict::Pass);
    assert_eq!(of(&outcome, "reallocated_sectors", "SATASERIAL01").verdict, Verdict::Pass);
    // What this disk does not keep is skipped, and what no disk here keeps too.
    assert_eq!(of(&outcome, "pending_sectors", "SATASERIAL01").verdict, Verdict::Skipped);
    let grown = outcome.checks.iter().find(|check| check.name == "grown_defects").unwrap();
    assert_eq!((grown.verdict, grown.component.as_deref()), (Verdict::Skipped, None));
    let names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["smartctl-nvme0n1.json", "smartctl-sda.json"]);
}

#[test]
fn a_critical_warning_fails_and_names_the_disk() {
    let machine = machine(&["nvme0n1", "sda"]);
    let play = "case $device in nvme0n1) cat $F/nvme-warning.json; exit 8;; sda) cat $F/sata.json;; esac";
    let outcome = run_stage(&with_smartctl(&machine, SelfTest::None, play).context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Fail, false));
    assert_eq!(of(&outcome, "health", "NVMESERIAL01").verdict, Verdict::Fail);
    assert_eq!(
        of(&outcome, "critical_warning", "NVMESERIAL01").observed,
        Observation::measured(4.0, "(bits)")
    );
    assert_eq!(of(&outcome, "health", "SATASERIAL01").verdict, Verdict::Pass);
    assert!(outcome.message.contains("NVMESERIAL01"), "{}", outcome.message);
}

#[test]
fn a_disk_that_cannot_be_reached_is_inconclusive_by_name_and_the_tools_own_words() {
    let machine = machine(&["sda", "vda"]);
    let play = "case $device in vda) cat $F/virtio.json; exit 1;; sda) cat $F/sata.json;; esac";
    let outcome = run_stage(&with_smartctl(&machine, SelfTest::None, play).context);
    assert_inconclusive(&outcome, "Unable to detect device type");
    assert_eq!(of(&outcome, "health", "vda").verdict, Verdict::Inconclusive);
}

#[test]
fn a_missing_tool_and_output_that_is_none_are_inconclusive() {
    let machine = machine(&["sda"]);
    let mut without = stage("SMART", &machine.root);
    without.context.search_path = "/nonexistent".into();
    assert_inconclusive(&run_stage(&without.context), "smartctl is not installed");
    for script in ["exit 0", "echo hello", "head -c 700 $F/sata.json", "kill -9 $$", "echo '{}'"] {
        let outcome = run_stage(&with_smartctl(&machine, SelfTest::None, script).context);
        assert_eq!(
            (outcome.verdict, outcome.passed),
            (Verdict::Inconclusive, false),
            "{script}: {outcome:#?}"
        );
    }
}

#[test]
fn a_disk_of_the_profile_that_does_not_answer_is_missing_and_a_machine_without_disks_is_skipped() {
    let machine = machine(&["sda"]);
    let mut stage = with_smartctl(&machine, SelfTest::None, "cat $F/sata.json");
    let disk = |serial: &str| ExpectedDisk { serial: Some(serial.into()), ..ExpectedDisk::default() };
    stage.context.expected_disks = vec![disk("sataserial01"), disk("S2")];
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.message, "the disk S2 is missing");
    let none = self::machine(&[]);
    let outcome = run_stage(&with_smartctl(&none, SelfTest::Short, "exit 1").context);
    assert_eq!(outcome.verdict, Verdict::Skipped, "{outcome:#?}");
}

/// A test of itself: `log` is what the disk's log of tests holds once it was asked for one.
fn self_tested(log: &str, status: u8) -> StageOutcome {
    let machine = machine(&["sda"]);
    let script = format!(
        "case $asked in -x) cat $F/sata.json;; -t) touch asked; cat $F/sata-self-test-asked.json;; \
         -c) log='{{\"count\": 0}}'; [ -e asked ] && log='{log}'; \
         echo '{{\"ata_smart_data\": {{\"self_test\": {{\"status\": {{\"value\": {status}, \"string\": \"as it says\"}}}}}}, \
         \"ata_smart_self_test_log\": '\"$log\"'}}';; esac"
    );
    run_stage(&with_smartctl(&machine, SelfTest::Short, &script).context)
}

#[test]
fn a_self_test_counts_once_the_disks_log_shows_it() {
    let passed = self_tested("{\"count\": 1}", 0);
    assert_eq!(of(&passed, "self_test", "SATASERIAL01").verdict, Verdict::Pass, "{passed:#?}");
    let failed = self_tested("{\"count\": 1}", 7 << 4);
    assert_eq!(of(&failed, "self_test", "SATASERIAL01").verdict, Verdict::Fail);
    assert!(failed.message.contains("as it says (code 7)"), "{}", failed.message);
    // The disk takes the order and does nothing: what stands there is an earlier result.
    let never_ran = self_tested("{\"count\": 0}", 0);
    assert_inconclusive(&never_ran, "nothing shows that the self-test ran");
}

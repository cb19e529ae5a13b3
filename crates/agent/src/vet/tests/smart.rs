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
    let head = format!("cd {state}; asked=$2; for device; do :; done; device=${{device##*/}}; F={FIXTURES}");
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
    assert_eq!(names, ["smartctl.txt"]);
    let printed = String::from_utf8_lossy(&outcome.artifacts[0].1).into_owned();
    assert!(printed.contains("NVMESERIAL01") && printed.contains("SATASERIAL01"), "{printed}");
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
    let machine = machine(&["sda", "cciss!c0d0"]);
    let play = "case $device in c0d0) cat $F/virtio.json; exit 1;; sda) cat $F/sata.json;; esac";
    let outcome = run_stage(&with_smartctl(&machine, SelfTest::None, play).context);
    assert_inconclusive(&outcome, "Unable to detect device type");
    assert_eq!(of(&outcome, "health", "cciss!c0d0").verdict, Verdict::Inconclusive);
    let evidence = &of(&outcome, "health", "cciss!c0d0").evidence;
    assert!(evidence.contains("/dev/cciss/c0d0"), "{evidence}");
}

/// Disks of other machines and what has no SMART once held a healthy machine for ever.
#[test]
fn disks_that_have_nothing_to_say_are_not_asked() {
    let others = ["rbd0", "vda", "mmcblk0", "pmem0"];
    let machine = machine(&[&others[..], &["sda", "nvme0n1", "nvme0n2"]].concat());
    for namespace in ["nvme0n1", "nvme0n2"] {
        machine.write(&format!("/sys/block/{namespace}/serial"), "NVMESERIAL01\n");
    }
    machine.write("/sys/devices/platform/host1/session1/block/sdb/size", "524288\n");
    machine.write("/sys/devices/platform/host1/session1/block/sdb/device/serial", "LUN1\n");
    machine.link("/sys/block/sdb", "../devices/platform/host1/session1/block/sdb");
    machine.write("/sys/devices/pci0000:00/usb1/1-1/host9/block/sdc/size", "524288\n");
    machine.write("/sys/devices/pci0000:00/usb1/1-1/host9/block/sdc/device/serial", "STICK1\n");
    machine.link("/sys/block/sdc", "../devices/pci0000:00/usb1/1-1/host9/block/sdc");
    let play = "echo $device >>asked; case $device in sda) cat $F/sata.json;; nvme*) cat $F/nvme.json;; \
                *) cat $F/virtio.json; exit 1;; esac";
    let mut stage = with_smartctl(&machine, SelfTest::None, play);
    let asked = |stage: &Stage| {
        let path = stage.work.path().join("asked");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.verdict, Verdict::Pass, "{outcome:#?}");
    assert_eq!(asked(&stage), ["nvme0n1", "sda", "sdc"]);
    assert_eq!(of(&outcome, "health", "STICK1").verdict, Verdict::Skipped);
    // What the profile lists is asked, and held against it.
    let disk = |serial: &str| ExpectedDisk { serial: Some(serial.into()), ..ExpectedDisk::default() };
    stage.context.expected_disks = vec![disk("LUN1"), disk("stick1")];
    let outcome = run_stage(&stage.context);
    assert_eq!(asked(&stage), ["nvme0n1", "sda", "sdb", "sdc"]);
    for serial in ["LUN1", "STICK1"] {
        assert_eq!(of(&outcome, "health", serial).verdict, Verdict::Inconclusive, "{outcome:#?}");
    }
    let none = self::machine(&others);
    let outcome = run_stage(&with_smartctl(&none, SelfTest::Short, "exit 1").context);
    assert_eq!(outcome.verdict, Verdict::Skipped, "{outcome:#?}");
    let health = outcome.checks.iter().find(|check| check.name == "health").unwrap();
    assert!(health.reason.contains("mmcblk0: an eMMC or SD card has no SMART"), "{}", health.reason);
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

/// A disk whose self-test stands as the file `status` says, and whose log of tests counts those that it ended.
const TESTED: &str = "case $asked in -x) cat $F/sata.json;; -X) echo 0 >status; echo 2 >count; echo '{}';; \
    -t) echo 0 >status; echo 3 >count; cat $F/sata-self-test-asked.json;; \
    -c) echo '{\"ata_smart_data\": {\"self_test\": {\"status\": {\"value\": '$(cat status)'}}}, \
    \"ata_smart_self_test_log\": '$(cat count)'}';; esac";

/// What an agent that was killed left under way once held the attempt that came after it.
#[test]
fn a_self_test_that_is_under_way_already_is_ended_for_the_stages_own() {
    let machine = machine(&["sda"]);
    let stage = with_smartctl(&machine, SelfTest::Short, TESTED);
    std::fs::write(stage.work.path().join("status"), "249").unwrap();
    std::fs::write(stage.work.path().join("count"), "1").unwrap();
    let outcome = run_stage(&stage.context);
    assert_eq!(of(&outcome, "self_test", "SATASERIAL01").verdict, Verdict::Pass, "{outcome:#?}");
    let said = stage.said.lines.lock().unwrap();
    assert!(said.iter().any(|(_, line)| line.contains("that this stage did not begin")), "{said:?}");
}

#[test]
fn a_self_test_that_the_stage_cannot_wait_for_is_ended() {
    let machine = machine(&["sda"]);
    let never_over = TESTED.replace("-t) echo 0", "-t) echo 249");
    let mut stage = with_smartctl(&machine, SelfTest::Short, &never_over);
    std::fs::write(stage.work.path().join("status"), "0").unwrap();
    std::fs::write(stage.work.path().join("count"), "1").unwrap();
    let cancel = stage.context.cancel.clone();
    stage.context.lines = Arc::new(move |_, line| {
        if line.contains("self-test under way") {
            cancel.ask();
        }
    });
    let outcome = run_stage(&stage.context);
    assert!(outcome.cancelled, "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(stage.work.path().join("status")).unwrap(), "0\n");
}

/// What a self-test brings to light without failing shows in what the disk says next.
#[test]
fn a_disk_is_judged_by_what_it_says_after_its_self_test_too() {
    let machine = machine(&["sda"]);
    let failing = "sed 's/\"passed\": true/\"passed\": false/' $F/sata.json >failing.json";
    let script = TESTED
        .replace(
            "-x) cat $F/sata.json",
            "-x) if [ -e tested ]; then cat failing.json; \
        else cat $F/sata.json; fi",
        )
        .replace("-t) ", "-t) touch tested; ");
    let stage = with_smartctl(&machine, SelfTest::Short, &format!("{failing}\n{script}"));
    std::fs::write(stage.work.path().join("status"), "0").unwrap();
    std::fs::write(stage.work.path().join("count"), "1").unwrap();
    let outcome = run_stage(&stage.context);
    assert_eq!(of(&outcome, "self_test", "SATASERIAL01").verdict, Verdict::Pass, "{outcome:#?}");
    let health = of(&outcome, "health", "SATASERIAL01");
    assert_eq!(health.verdict, Verdict::Fail);
    assert!(health.evidence.contains("(after the self-test)"), "{}", health.evidence);
    let names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["smartctl.txt", "smartctl-after.txt"]);
}

/// smartctl 7.3, as Debian 12 has it, does no self-tests of NVMe disks. `log` is what the disk's first result is after its test.
fn nvme_tested(identity: &str, first: &str) -> StageOutcome {
    let machine = machine(&["nvme0n1"]);
    let mut stage = with_smartctl(&machine, SelfTest::Short, "cat $F/nvme.json");
    let page = format!("printf '\\0\\0\\0\\0'$first; head -c {} /dev/zero", 564 - 5);
    let script = format!(
        "cd {}; case $1 in id-ctrl) head -c 256 /dev/zero; printf '{identity}'; head -c 3839 /dev/zero;; \
         device-self-test) echo \"$@\" >asked;; \
         get-log) first='\\017'; [ -e asked ] && first='{first}'; {page};; esac",
        stage.work.path().display()
    );
    stage.put_tool("nvme", &script);
    let outcome = run_stage(&stage.context);
    if let Ok(asked) = std::fs::read_to_string(stage.work.path().join("asked")) {
        assert!(
            asked.starts_with("device-self-test ") && asked.ends_with(" --self-test-code=0x1\n"),
            "{asked}"
        );
    }
    outcome
}

#[test]
fn an_nvme_disk_tests_itself_by_nvme_cli_where_smartctl_cannot() {
    const HAS: &str = "\\020";
    let of_test = |outcome: &StageOutcome| of(outcome, "self_test", "NVMESERIAL01").verdict;
    // Code 1, the short one, in the high half of the byte, and its result in the low one.
    let passed = nvme_tested(HAS, "\\020");
    assert_eq!(of_test(&passed), Verdict::Pass, "{passed:#?}");
    let failed = nvme_tested(HAS, "\\027");
    assert_eq!(of_test(&failed), Verdict::Fail);
    assert!(failed.message.contains("segments failed (code 7)"), "{}", failed.message);
    assert_eq!(of_test(&nvme_tested(HAS, "\\021")), Verdict::Inconclusive, "aborted");
    assert_eq!(of_test(&nvme_tested(HAS, "\\017")), Verdict::Inconclusive, "it never ran");
    assert_eq!(of_test(&nvme_tested("\\0", "\\020")), Verdict::Skipped, "it has none");
    // A tool that fails says nothing of the disk.
    let machine = machine(&["nvme0n1"]);
    let mut stage = with_smartctl(&machine, SelfTest::Short, "cat $F/nvme.json");
    stage.put_tool("nvme", "echo 'no such command' >&2; exit 1");
    assert_inconclusive(&run_stage(&stage.context), "exited with 1: no such command");
}

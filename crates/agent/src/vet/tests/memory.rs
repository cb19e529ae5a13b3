//! The stage Memory: the real stress-ng on a little memory, and stand-ins for what goes wrong.

use std::os::unix::fs::PermissionsExt;

use groundcrew_protocol::profile::MemorySettings;

use super::*;

/// A machine of 1 GiB, of which 900 MiB are available.
fn machine() -> Machine {
    let machine = Machine::empty();
    machine.write("/proc/meminfo", "MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 921600 kB\n");
    machine.write("/proc/vmstat", "nr_free_pages 1\noom_kill 3\n");
    machine.write("/proc/self/oom_score_adj", "0\n");
    machine
}

fn memory(root: &Root) -> Stage {
    let mut stage = stage("Memory", root);
    let settings =
        MemorySettings { duration: 1_000, workers: 2, size_mib_max: Some(64), ..MemorySettings::default() };
    stage.context.spec.memory = Some(settings);
    stage
}

/// The stage with a shell script in place of stress-ng.
fn with_script(root: &Root, script: &str) -> Stage {
    let mut stage = memory(root);
    let bin = stage.work.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let fake = bin.join("stress-ng");
    let find_yaml = "for word; do [ \"$last\" = --yaml ] && yaml=$word; last=$word; done";
    std::fs::write(&fake, format!("#!/bin/sh\n{find_yaml}\n{script}\n")).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    stage.context.search_path = format!("{}:{PATH}", bin.display()).into();
    stage
}

#[test]
fn the_memory_is_tested_and_the_share_of_it_is_told() {
    let machine = machine();
    let stage = memory(&machine.root);
    let outcome = run_stage(&stage.context);
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Pass, "{}", outcome.message);
    let tested = outcome.checks.iter().find(|check| check.name == "memory_tested").unwrap();
    // Two workers share 64 MiB of 1024; what they need themselves is on top of it.
    let Observation::Measured { value: Some(percent), .. } = tested.observed else { panic!("{tested:?}") };
    assert!((6.0..20.0).contains(&percent), "{percent}");
    assert!(tested.evidence.contains("--vm 2 --vm-bytes 65536k --oomable"), "{tested:?}");
    assert_eq!(machine.root.text("/proc/self/oom_score_adj", 100).unwrap(), "0", "as it was before");
}

#[test]
fn wrong_bits_fail_whatever_else_happened() {
    let said = "echo 'stress-ng: fail:  [7] vm: detected 3 bit errors while stressing memory' >&2";
    for ending in ["exit 2", "exit 0", "kill -KILL $$"] {
        let machine = machine();
        let vmstat = machine.root.path("/proc/vmstat");
        let oom = format!("echo 'oom_kill 9' > {}", vmstat.display());
        let outcome = run_stage(&with_script(&machine.root, &format!("{said}; {oom}; {ending}")).context);
        assert_eq!(outcome.verdict, Verdict::Fail, "{ending}: {}", outcome.message);
        let check = outcome.checks.iter().find(|check| check.name == "miscompares").unwrap();
        assert_eq!(check.observed, Observation::measured(3.0, "wrong bits"));
    }
}

#[test]
fn a_test_that_was_oom_killed_is_no_failed_hardware() {
    let healthy = format!("cp {FIXTURES}/vm.yaml \"$yaml\"");
    for ending in ["exit 0", "exit 2", "exit 5"] {
        let machine = machine();
        let vmstat = machine.root.path("/proc/vmstat");
        let script = format!("{healthy}; echo 'oom_kill 4' > {}; {ending}", vmstat.display());
        let outcome = run_stage(&with_script(&machine.root, &script).context);
        assert_inconclusive(&outcome, "the kernel ran out of memory during the test and ended 1 processes");
        assert!(outcome.checks.iter().all(|check| check.verdict != Verdict::Pass), "{outcome:?}");
    }
    // Where nobody counts them, nobody can tell.
    let machine = machine();
    std::fs::remove_file(machine.root.path("/proc/vmstat")).unwrap();
    assert_inconclusive(&run_stage(&with_script(&machine.root, &healthy).context), "nobody can tell whether");
}

#[test]
fn what_is_not_known_or_not_enough_is_not_tested() {
    let nothing = Machine::empty();
    assert_inconclusive(&run_stage(&memory(&nothing.root).context), "nobody says how much memory there is");
    let full = machine();
    full.write("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 300000 kB\n");
    assert_inconclusive(&run_stage(&memory(&full.root).context), "what is left is no test");
    full.write("/proc/meminfo", "MemTotal: 1048576 kB\n");
    assert_inconclusive(&run_stage(&memory(&full.root).context), "MemAvailable");
    let host = machine();
    let mut without_tool = memory(&host.root);
    without_tool.context.search_path = without_tool.work.path().into();
    assert_inconclusive(&run_stage(&without_tool.context), "stress-ng is not installed");
}

#[test]
fn what_stress_ng_does_not_say_clearly_is_inconclusive() {
    let healthy = format!("cp {FIXTURES}/vm.yaml \"$yaml\"");
    for (script, why) in [
        ("exit 0".to_owned(), "wrote no metrics file"),
        (format!("cp {FIXTURES}/healthy.yaml \"$yaml\""), "0 entries for the stressor vm"),
        (format!("{healthy}; exit 3"), "lacked resources"),
        (format!("sed 's/max-rss.*//' {FIXTURES}/vm.yaml >\"$yaml\""), "max-rss"),
    ] {
        let outcome = run_stage(&with_script(&machine().root, &script).context);
        assert!(outcome.message.contains(why), "{script}: {}", outcome.message);
        assert!(!outcome.passed);
    }
}

//! The stage Memory: the real stress-ng on a little memory, and stand-ins for what goes wrong.

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
        MemorySettings { duration: 2_000, workers: 2, size_mib_max: Some(16), ..MemorySettings::default() };
    stage.context.spec.memory = Some(settings);
    stage
}

/// The stage with a shell script in place of stress-ng.
fn with_script(root: &Root, script: &str) -> Stage {
    let mut stage = memory(root);
    stage.put_tool("stress-ng", &as_stress_ng(script));
    stage
}

#[test]
fn the_memory_is_tested_and_the_share_of_it_is_told() {
    let machine = machine();
    let stage = memory(&machine.root);
    let outcome = run_stage(&stage.context);
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Pass, "{}", outcome.message);
    let tested = outcome.checks.iter().find(|check| check.name == "memory_tested").unwrap();
    // Two workers share 16 MiB of 1024; what they need themselves is none of it.
    assert_eq!(tested.observed, Observation::measured(1.5625, "% of the memory"));
    assert!(tested.evidence.contains("--vm 2 --vm-bytes 16384k --oomable"), "{tested:?}");
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

/// What stress-ng needs beside the tested memory would else have the kernel end it, by default and on every machine.
#[test]
fn the_cgroup_has_room_for_what_the_methods_need() {
    let machine = machine();
    machine.write("/proc/self/cgroup", "0::/system.slice/groundcrew.service\n");
    machine.write("/sys/fs/cgroup/cgroup.controllers", "memory");
    machine.write("/sys/fs/cgroup/system.slice/cgroup.subtree_control", "memory");
    let mut stage = with_script(&machine.root, &format!("cp {FIXTURES}/vm.yaml \"$yaml\""));
    stage.context.spec.memory.as_mut().unwrap().size_mib_max = None;
    let outcome = run_stage(&stage.context);
    let tested = outcome.checks.iter().find(|check| check.name == "memory_tested").unwrap();
    let kib = tested.evidence.split("--vm-bytes ").nth(1).unwrap().split('k').next().unwrap();
    let bytes = kib.parse::<u64>().unwrap() * 1024;
    let slice = machine.root.path("/sys/fs/cgroup/system.slice");
    let mut made = std::fs::read_dir(slice).unwrap().map(|entry| entry.unwrap().path());
    let cgroup = made.find(|path| path.is_dir()).unwrap();
    let most: u64 = std::fs::read_to_string(cgroup.join("memory.max")).unwrap().parse().unwrap();
    let (with_swap, workers) = (bytes + bytes / 8, 2 * (32 << 20));
    assert!(most >= with_swap + with_swap / 512 + workers, "{most} for {bytes}");
    // 900 MiB are available, and 256 are kept.
    assert!(most <= 644 << 20, "{most}");
}

/// Success is what stress-ng says of methods that read or write and look at nothing, and of a load that ended while it filled.
#[test]
fn a_load_that_compared_nothing_is_no_pass() {
    let healthy = format!("cp {FIXTURES}/vm.yaml \"$yaml\"");
    let machine = machine();
    let mut stage = with_script(&machine.root, &healthy);
    assert_eq!(verdict(&run_stage(&stage.context), "miscompares"), Verdict::Pass);
    stage.context.spec.memory.as_mut().unwrap().method = "write64".into();
    assert_inconclusive(&run_stage(&stage.context), "none that compares what it reads");
    // 100 operations are 25 MiB of 64 bytes a count: the 16 MiB were filled once, and perhaps not compared.
    let few = format!(
        "sed -e 's/bogo-ops: .*/bogo-ops: 100/' -e 's/\\(real-time:\\) .*/\\1 19.68/' {FIXTURES}/vm.yaml >\"$yaml\""
    );
    let outcome = run_stage(&with_script(&machine.root, &few).context);
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Inconclusive, "{}", outcome.message);
    assert!(outcome.message.contains("nothing proves"), "{}", outcome.message);
}

/// 2 s of a slow method go through 8 MiB a worker, of 600 that would fit.
#[test]
fn no_more_is_tested_than_can_be_compared_in_time() {
    let machine = machine();
    let mut stage = with_script(&machine.root, &format!("cp {FIXTURES}/vm.yaml \"$yaml\""));
    let settings = stage.context.spec.memory.as_mut().unwrap();
    (settings.method, settings.size_mib_max) = ("modulo-x".into(), None);
    let outcome = run_stage(&stage.context);
    let tested = outcome.checks.iter().find(|check| check.name == "memory_tested").unwrap();
    assert!(tested.evidence.contains("--vm-bytes 16384k"), "{tested:?}");
    let lines = stage.said.lines.lock().unwrap();
    assert!(lines.iter().any(|(_, line)| line.contains("raise memory.duration")), "{lines:?}");
}

/// A method's own message is enough: the stressor's at the end does not come where it was ended before.
#[test]
fn wrong_bits_count_by_the_greater_of_what_was_told() {
    let each =
        |count| format!("echo 'stress-ng: fail:  [7] moving inversion: detected {count} memory errors' >&2");
    let total = |count| {
        format!("echo 'stress-ng: fail:  [7] vm: detected {count} bit errors while stressing memory' >&2")
    };
    for (script, wrong) in [
        (each(3), 3.0),
        (format!("{}; {}", each(3), each(4)), 7.0),
        (format!("{}; {}; {}", each(3), each(4), total(7)), 7.0),
        (format!("{}; {}", each(3), total(9)), 9.0),
    ] {
        let outcome = run_stage(&with_script(&machine().root, &format!("{script}; exit 2")).context);
        let check = outcome.checks.iter().find(|check| check.name == "miscompares").unwrap();
        assert_eq!(check.observed, Observation::measured(wrong, "wrong bits"), "{script}");
    }
}

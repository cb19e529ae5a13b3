//! The stage Soak with stand-ins for stress-ng and ipmitool that wait for each other.

use groundcrew_protocol::profile::SoakSettings;

use super::*;

/// A machine with two CPUs, 1 GiB of memory and a BMC, and without disks and GPUs.
fn machine() -> Machine {
    let machine = Machine::empty();
    machine.write("/proc/meminfo", "MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 921600 kB\n");
    machine.write("/proc/vmstat", "nr_free_pages 1\noom_kill 3\n");
    machine.write("/proc/self/oom_score_adj", "0\n");
    machine.write("/sys/devices/system/cpu/online", "0-1\n");
    machine.write("/dev/ipmi0", "");
    machine.write("/sys/block/ram0/size", "0\n");
    machine
}

/// The stage. Each load runs until the other has begun and the BMC was asked; `cpu` and `vm` are shell that follows then, and
/// `supply` is what the BMC says of the second of two.
fn soak(machine: &Machine, cpu: &str, vm: &str, supply: &str) -> StageOutcome {
    let mut stage = stage("Soak", &machine.root);
    stage.context.spec.soak = Some(SoakSettings { duration: 1_000, ..SoakSettings::default() });
    let state = stage.work.path().display().to_string();
    let wait = |own: &str, other: &str| {
        format!(
            "touch {state}/{own}; until [ -e {state}/{other} ] && [ -e {state}/asked ]; do sleep 0.05; done"
        )
    };
    let load = format!(
        "if [ $1 = --cpu ]; then {}; cat {FIXTURES}/healthy.err >&2; cp {FIXTURES}/healthy.yaml \"$yaml\"\n{cpu}\n\
         else {}; cp {FIXTURES}/vm.yaml \"$yaml\"\n{vm}\nfi; exit 0",
        wait("cpu-runs", "vm-runs"),
        wait("vm-runs", "cpu-runs"),
    );
    stage.put_tool("stress-ng", &as_stress_ng(&load));
    let bmc = format!(
        "case \"$*\" in\n\
         *'Power Supply') echo 'PSU1 | 10h | ok | 10.1 | Presence detected'; echo 'PSU2 | 11h | ok | 10.2 | {supply}';;\n\
         *Fan) echo 'FAN1 | 30h | ok | 29.1 | 8400 RPM'; touch {state}/asked;;\n\
         *) :;; esac"
    );
    stage.put_tool("ipmitool", &bmc);
    run_stage(&stage.context)
}

fn of(outcome: &StageOutcome, name: &str, component: Option<&str>) -> Verdict {
    let found = outcome.checks.iter().find(|of| of.name == name && of.component.as_deref() == component);
    found.unwrap_or_else(|| panic!("no {name} of {component:?} in {outcome:#?}")).verdict
}

#[test]
fn all_bear_their_loads_together_and_are_judged_each_by_its_own_judge() {
    let machine = machine();
    let outcome = soak(&machine, "", "", "Presence detected");
    assert_eq!(of(&outcome, "cpu.miscompares", None), Verdict::Pass, "{}", outcome.message);
    assert_eq!(of(&outcome, "psu.supply", Some("PSU2")), Verdict::Pass);
    assert_eq!(of(&outcome, "psu.fans", Some("FAN1")), Verdict::Pass);
    // What the machine does not have bears no load.
    for name in ["storage.io_errors", "gpu.gpu_driver", "gpu.gpu_diag"] {
        assert_eq!(of(&outcome, name, None), Verdict::Skipped, "{name}");
    }
    let names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["cpu.stress-ng.yaml", "memory.stress-ng.yaml", "psu.ipmitool-sdr-type-fan.txt"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let evidence = |name: &str| {
        let found = outcome.checks.iter().find(|of| of.name == name);
        found.map(|of| of.evidence.clone()).unwrap_or_default()
    };
    assert!(evidence("cpu.miscompares").contains("--cpu 1 "), "{}", evidence("cpu.miscompares"));
    assert!(evidence("memory.miscompares").contains("--vm 1 "), "{}", evidence("memory.miscompares"));
}

#[test]
fn what_fails_in_one_part_fails_under_its_name() {
    let machine = machine();
    let wrong = "echo 'stress-ng: fail:  [7] vm: detected 3 bit errors while stressing memory' >&2; exit 2";
    let outcome = soak(&machine, "", wrong, "Presence detected");
    assert_eq!(of(&outcome, "memory.miscompares", None), Verdict::Fail);
    assert_eq!(of(&outcome, "cpu.miscompares", None), Verdict::Pass);
    let outcome = soak(&machine, "", "", "Presence detected, Failure detected");
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(of(&outcome, "psu.supply", Some("PSU2")), Verdict::Fail);
    assert_eq!(of(&outcome, "psu.supply", Some("PSU1")), Verdict::Pass);
    let outcome = soak(&machine, "exit 3", "", "Presence detected");
    assert_eq!(of(&outcome, "cpu.miscompares", None), Verdict::Inconclusive);
}

#[test]
fn loads_that_end_before_anybody_looked_leave_supplies_inconclusive() {
    let machine = machine();
    let mut stage = stage("Soak", &machine.root);
    stage.context.spec.soak = Some(SoakSettings { duration: 3_600_000, ..SoakSettings::default() });
    stage.put_tool("stress-ng", "exit 3");
    let outcome = run_stage(&stage.context);
    assert_inconclusive(&outcome, "the loads ended before supplies and fans were looked at");
    for name in ["cpu.duration", "memory.miscompares", "psu.supplies"] {
        assert_eq!(of(&outcome, name, None), Verdict::Inconclusive, "{name}");
    }
}

//! Throttling: what the kernel counts for each CPU, before and after the load.

use std::collections::BTreeMap;
use std::time::Duration;

use groundcrew_protocol::check::Observation;

use crate::probe::{Root, cpu};

/// Counters of one CPU. What the kernel does not count is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    core_ms: Option<u64>,
    package_ms: Option<u64>,
    core_count: Option<u64>,
    package_count: Option<u64>,
}

impl Counters {
    /// All of them, with the names of their files.
    fn named(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("core_throttle_total_time_ms", self.core_ms),
            ("package_throttle_total_time_ms", self.package_ms),
            ("core_throttle_count", self.core_count),
            ("package_throttle_count", self.package_count),
        ]
    }
}

/// The counters of all CPUs that have any, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<u32, Counters>);

/// Reads the counters.
///
/// # Errors
/// Where one is there and cannot be read: which, and why.
pub fn snapshot(root: &Root) -> Result<Snapshot, String> {
    let mut counters = BTreeMap::new();
    for cpu in cpu::online(root) {
        let read = |name: &str| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle/{name}");
            let text = root.attribute(&path).map_err(|error| format!("{path}: {error}"))?;
            let number =
                text.map(|text| text.parse::<u64>().map_err(|_| format!("{path}: found \"{text}\"")));
            number.transpose()
        };
        let of_cpu = Counters {
            core_ms: read("core_throttle_total_time_ms")?,
            package_ms: read("package_throttle_total_time_ms")?,
            core_count: read("core_throttle_count")?,
            package_count: read("package_throttle_count")?,
        };
        if of_cpu != Counters::default() {
            counters.insert(cpu, of_cpu);
        }
    }
    Ok(Snapshot(counters))
}

/// The share of the time, in percent, in which the worst CPU was throttled, and how it was found.
pub fn compare(
    before: &Result<Snapshot, String>,
    after: &Result<Snapshot, String>,
    elapsed: Duration,
) -> (Observation, String) {
    let unreadable = |why: String| (Observation::Unreadable { why }, String::new());
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (&before.0, &after.0),
        (Err(why), _) | (_, Err(why)) => return unreadable(why.clone()),
    };
    if before.is_empty() && after.is_empty() {
        let why =
            "the kernel counts no throttling of these CPUs (no thermal_throttle in /sys/devices/system/cpu)";
        return (Observation::Absent { why: why.to_owned() }, String::new());
    }
    let mut worst_ms = 0;
    let mut lines = Vec::new();
    for (cpu, was) in before {
        let Some(is) = after.get(cpu) else { return unreadable(format!("cpu{cpu} went away under load")) };
        let mut grown = [0u64; 4];
        for (at, ((name, was), (_, is))) in was.named().into_iter().zip(is.named()).enumerate() {
            match (was, is) {
                (Some(was), Some(is)) if is >= was => grown[at] = is - was,
                (None, None) => {}
                (was, is) => {
                    return unreadable(format!("{name} of cpu{cpu} went from {was:?} to {is:?}"));
                }
            }
        }
        let [core_ms, package_ms, core_count, package_count] = grown;
        let without_time =
            (is.core_ms.is_none() && core_count > 0) || (is.package_ms.is_none() && package_count > 0);
        if without_time {
            return unreadable(format!("cpu{cpu} was throttled, and the kernel does not count for how long"));
        }
        worst_ms = worst_ms.max(core_ms).max(package_ms);
        if grown != [0; 4] {
            lines.push(format!(
                "cpu{cpu}: core {core_ms} ms ({core_count} times), package {package_ms} ms ({package_count} times)"
            ));
        }
    }
    let percent = worst_ms as f64 / (elapsed.as_millis().max(1) as f64) * 100.0;
    let evidence = if lines.is_empty() {
        format!("thermal_throttle counters of {} CPUs did not grow", before.len())
    } else {
        lines.join("\n")
    };
    (Observation::measured(percent.min(100.0), "%"), evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::Machine;

    const SPAN: Duration = Duration::from_secs(10);

    fn write(machine: &Machine, cpu: u32, name: &str, value: &str) {
        machine.write(&format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle/{name}"), value);
    }

    fn machine() -> Machine {
        let machine = Machine::empty();
        machine.write("/sys/devices/system/cpu/online", "0-1\n");
        for cpu in 0..2 {
            write(&machine, cpu, "core_throttle_total_time_ms", "100\n");
            write(&machine, cpu, "package_throttle_total_time_ms", "200\n");
            write(&machine, cpu, "core_throttle_count", "3\n");
        }
        machine
    }

    #[test]
    fn the_worst_cpu_counts() {
        let machine = machine();
        let before = snapshot(&machine.root);
        assert_eq!(compare(&before, &before, SPAN).0, Observation::measured(0.0, "%"));
        write(&machine, 1, "core_throttle_total_time_ms", "1100\n");
        write(&machine, 0, "package_throttle_total_time_ms", "300\n");
        let (observed, evidence) = compare(&before, &snapshot(&machine.root), SPAN);
        assert_eq!(observed, Observation::measured(10.0, "%"));
        assert!(evidence.contains("cpu1: core 1000 ms"), "{evidence}");
    }

    #[test]
    fn no_counters_are_absent() {
        let none = snapshot(&Machine::empty().root);
        assert!(matches!(compare(&none, &none, SPAN).0, Observation::Absent { .. }));
    }

    #[test]
    fn what_cannot_be_compared_is_unreadable() {
        let machine = machine();
        let before = snapshot(&machine.root);
        let unreadable = |machine: &Machine| {
            let (observed, _) = compare(&before, &snapshot(&machine.root), SPAN);
            matches!(observed, Observation::Unreadable { .. })
        };
        write(&machine, 0, "core_throttle_total_time_ms", "99\n");
        assert!(unreadable(&machine), "a counter went back");
        write(&machine, 0, "core_throttle_total_time_ms", "garbage\n");
        assert!(unreadable(&machine), "a counter is no number");
        write(&machine, 0, "core_throttle_total_time_ms", "100\n");
        machine.write("/sys/devices/system/cpu/online", "0\n");
        assert!(unreadable(&machine), "a CPU went away");
    }

    #[test]
    fn throttled_for_nobody_knows_how_long_is_unreadable() {
        let machine = Machine::empty();
        machine.write("/sys/devices/system/cpu/online", "0\n");
        write(&machine, 0, "core_throttle_count", "3\n");
        let before = snapshot(&machine.root);
        assert_eq!(compare(&before, &before, SPAN).0, Observation::measured(0.0, "%"));
        write(&machine, 0, "core_throttle_count", "4\n");
        assert!(matches!(compare(&before, &snapshot(&machine.root), SPAN).0, Observation::Unreadable { .. }));
    }
}

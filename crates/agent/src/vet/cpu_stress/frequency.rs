//! Frequency: samples of every CPU under load, and the mean of the slowest.

use std::collections::BTreeMap;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::order;

use crate::probe::{Root, cpu};

/// Sums of what cpufreq said of each CPU.
#[derive(Debug, Default)]
pub struct Frequencies {
    /// Sum in MHz and number of samples.
    cpus: BTreeMap<u32, (f64, u32)>,
    /// The first that could not be read, and why.
    unread: Option<String>,
}

impl Frequencies {
    /// Takes a sample of every CPU that is online.
    pub fn sample(&mut self, root: &Root) {
        for cpu in cpu::online(root) {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
            match root.attribute(&path) {
                Ok(None) => {}
                Ok(Some(text)) => match text.parse::<u64>() {
                    Ok(kilohertz) => {
                        let (sum, count) = self.cpus.entry(cpu).or_default();
                        *sum += kilohertz as f64 / 1000.0;
                        *count += 1;
                    }
                    // Some drivers say that they do not know.
                    Err(_) => self.note(format!("{path}: found \"{text}\"")),
                },
                Err(error) => self.note(format!("{path}: {error}")),
            }
        }
    }

    fn note(&mut self, why: String) {
        self.unread.get_or_insert(why);
    }

    /// The mean of the slowest of the CPUs that bore the load, in MHz. With fewer workers than CPUs those are as
    /// many of the fastest.
    pub fn observed(&self, workers: usize) -> (Observation, String) {
        if let Some(why) = &self.unread {
            return (Observation::Unreadable { why: why.clone() }, String::new());
        }
        let mut means: Vec<(u32, f64)> =
            self.cpus.iter().map(|(cpu, (sum, count))| (*cpu, sum / f64::from(*count))).collect();
        order::sort_by(&mut means, |a, b| b.1.total_cmp(&a.1));
        means.truncate(workers.max(1));
        match means.last() {
            Some((cpu, mean)) => {
                let samples = self.cpus[cpu].1;
                let evidence =
                    format!("mean of {samples} samples of cpu{cpu}, the slowest of {}", means.len());
                (Observation::measured(*mean, "MHz"), evidence)
            }
            None => {
                let why = "the machine has no cpufreq, so nobody says how fast its CPUs run";
                (Observation::Absent { why: why.to_owned() }, String::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::Machine;

    fn set(machine: &Machine, cpu: u32, text: &str) {
        machine.write(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"), text);
    }

    #[test]
    fn the_mean_of_the_slowest_loaded_cpu_counts() {
        let machine = Machine::empty();
        machine.write("/sys/devices/system/cpu/online", "0-2\n");
        let mut frequencies = Frequencies::default();
        assert!(matches!(frequencies.observed(3).0, Observation::Absent { .. }));
        for (fast, slow) in [("3000000", "2000000"), ("3200000", "1000000")] {
            set(&machine, 0, fast);
            set(&machine, 1, slow);
            set(&machine, 2, "800000");
            frequencies.sample(&machine.root);
        }
        assert_eq!(frequencies.observed(3).0, Observation::measured(800.0, "MHz"));
        assert_eq!(frequencies.observed(2).0, Observation::measured(1500.0, "MHz"));
        set(&machine, 0, "<unknown>");
        frequencies.sample(&machine.root);
        assert!(matches!(frequencies.observed(3).0, Observation::Unreadable { .. }));
    }
}

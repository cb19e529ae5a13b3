//! What stress-ng says: its metrics file, its exit status, its failure lines. Pure.
//!
//! Checked against stress-ng 0.15.06. A file that is not whole, or whose numbers contradict each other, gives no
//! number at all: nothing here ever turns what nobody understands into a good value.

use serde::Deserialize;

/// What stress-ng is asked to stress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stressor {
    /// CPUs compute.
    Cpu,
    /// Memory is written and read back.
    Vm,
}

impl Stressor {
    /// Its name in options, metrics and messages.
    pub fn word(self) -> &'static str {
        match self {
            Stressor::Cpu => "cpu",
            Stressor::Vm => "vm",
        }
    }

    /// What its wrong results are counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Stressor::Cpu => "miscompares",
            Stressor::Vm => "wrong bits",
        }
    }

    /// The wrong results that a message of its verification tells of; `None` for any other message.
    fn wrong(self, message: &str) -> Option<(Told, u64)> {
        // Versions differ in how a stressor calls itself.
        let word = self.word();
        let names = [format!("{word}: "), format!("stress-ng-{word}: ")];
        let is_its = names.iter().any(|name| message.starts_with(name));
        match self {
            // All that it fails of are the results of its methods, each in words of its own (stress-cpu.c), but for a worker's
            // damaged counter, which versions tell in its name.
            Stressor::Cpu => (is_its && !message.contains("bogo-ops")).then_some((Told::Each, 1)),
            // Each method tells of its own by its own name ("moving inversion: detected 3 memory errors"), and the stressor
            // of all of them at its end ("vm: detected 3 bit errors while stressing memory").
            Stressor::Vm => {
                let (count, rest) = message.split_once(": detected ")?.1.split_once(' ')?;
                let told = match (rest.starts_with("memory error"), rest.starts_with("bit error")) {
                    (true, _) => Told::Each,
                    (false, true) if is_its => Told::Total,
                    (false, _) => return None,
                };
                // A count that cannot be read is one at least.
                Some((told, count.parse().unwrap_or(1).max(1)))
            }
        }
    }
}

/// What a count of wrong results is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Of those that were just found.
    Each,
    /// Of all that an instance found: those were told of before, if it lived to.
    Total,
}

/// How far the rate may be from operations over time: both are rounded, and time is that of the instances' mean.
const CONTRADICTION: f64 = 0.01;

/// The metrics of a stressor, over all its instances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// Operations.
    pub bogo_ops: f64,
    /// Operations per second of real time, summed over the instances.
    pub rate: f64,
    /// Seconds that the load ran, by stress-ng's clock.
    pub seconds: f64,
    /// The greatest resident set of an instance, in KiB, where stress-ng tells it.
    pub rss_kib: Option<f64>,
}

/// Why a metrics file gives no numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMetrics {
    /// It lacks its end mark: stress-ng was ended, or the disk was full.
    #[error("the metrics file of stress-ng is not whole")]
    NotWhole,
    /// It is no metrics file.
    #[error("the metrics file of stress-ng cannot be understood: {0}")]
    Malformed(String),
    /// It has none or several entries for the stressor.
    #[error("the metrics file of stress-ng has {0} entries for the stressor {1}, expected 1")]
    Entries(usize, &'static str),
    /// A number is none that a load can have.
    #[error("the metrics file of stress-ng says {0}")]
    Impossible(String),
}

#[derive(Deserialize)]
struct File {
    metrics: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    stressor: String,
    bogo_ops: Option<f64>,
    bogo_ops_per_second_real_time: Option<f64>,
    wall_clock_time: Option<f64>,
    max_rss: Option<f64>,
}

/// Reads a metrics file (`--yaml FILE`).
///
/// # Errors
/// Where it gives no numbers that can be relied on.
pub fn metrics(stressor: Stressor, text: &str) -> Result<Metrics, BadMetrics> {
    // The document's end mark is the last thing that stress-ng writes.
    let body = text.trim_end().strip_suffix("\n...").ok_or(BadMetrics::NotWhole)?;
    let file: File =
        serde_yaml_ng::from_str(body).map_err(|error| BadMetrics::Malformed(error.to_string()))?;
    let entries: Vec<&Entry> =
        file.metrics.iter().filter(|entry| entry.stressor == stressor.word()).collect();
    let [entry] = entries.as_slice() else { return Err(BadMetrics::Entries(entries.len(), stressor.word())) };
    let number = |name: &str, value: Option<f64>| match value {
        Some(value) if value.is_finite() && value >= 0.0 => Ok(value),
        Some(value) => Err(BadMetrics::Impossible(format!("{name} {value}"))),
        None => Err(BadMetrics::Malformed(format!("the stressor has no {name}"))),
    };
    let metrics = Metrics {
        bogo_ops: number("bogo-ops", entry.bogo_ops)?,
        rate: number("bogo-ops-per-second-real-time", entry.bogo_ops_per_second_real_time)?,
        seconds: number("wall-clock-time", entry.wall_clock_time)?,
        rss_kib: entry.max_rss.filter(|kib| kib.is_finite() && *kib > 0.0),
    };
    contradiction(&metrics).map_or(Ok(metrics), |said| Err(BadMetrics::Impossible(said)))
}

/// What is wrong with numbers that do not belong together.
fn contradiction(metrics: &Metrics) -> Option<String> {
    let Metrics { bogo_ops, rate, seconds, .. } = *metrics;
    let expected = bogo_ops / seconds;
    let fits = if seconds > 0.0 {
        (expected - rate).abs() <= CONTRADICTION * expected.max(rate)
    } else {
        bogo_ops == 0.0 && rate == 0.0
    };
    (!fits).then(|| format!("{bogo_ops} operations in {seconds} s and {rate} operations per second"))
}

/// A failure line of stress-ng.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// `--verify` found wrong results: `cpu: sqrt error detected on sqrt(7)`.
    Miscompare {
        /// How many.
        count: u64,
        /// Of which.
        told: Told,
        /// The message.
        message: String,
    },
    /// Something else failed: a worker was killed, a counter is damaged. No word on the hardware.
    Other(String),
}

/// The failure that a line tells of; `None` for any other line.
///
/// Every message of a stressor's verification begins with its name, or with that of the method. A worker that was killed leaves lines of the same level
/// ("corrupted bogo-ops counter"), which are no wrong results.
pub fn failure(stressor: Stressor, line: &str) -> Option<Failure> {
    let rest = line.trim_start().strip_prefix("stress-ng: fail:")?.trim_start();
    let message = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(rest, |(_, text)| text);
    let message = message.trim();
    let wrong = stressor.wrong(message);
    let message = message.to_owned();
    Some(match wrong {
        Some((told, count)) => Failure::Miscompare { count, told, message },
        None => Failure::Other(message),
    })
}

/// Why an exit status says nothing about the hardware; `None` for 0 (success) and 2 (a stressor failed), which do.
///
/// The numbers are those of the manual page's EXIT STATUS. None of them is taken for a failure of the hardware: a
/// worker that was killed was killed by somebody, and the manual names the out-of-memory killer for 7.
pub fn why_unjudged(status: i32) -> Option<String> {
    let why = match status {
        0 | 2 => return None,
        1 => "it refused its options or could not work at all",
        3 => "a stressor lacked resources",
        4 => "a stressor is not implemented on this machine",
        5 => "a stressor was killed by a signal",
        6 => "a stressor ended in an unexpected way",
        7 => "its metrics are not to be trusted",
        _ => "that is no status that its manual names",
    };
    Some(format!("stress-ng ended with status {status}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEALTHY: &str = include_str!("../../../tests/fixtures/stress-ng/healthy.yaml");
    const FAILED: &str = include_str!("../../../tests/fixtures/stress-ng/verify-failed.yaml");
    const FAILED_LINES: &str = include_str!("../../../tests/fixtures/stress-ng/verify-failed.err");
    const HEALTHY_LINES: &str = include_str!("../../../tests/fixtures/stress-ng/healthy.err");
    const KILLED_LINES: &str = include_str!("../../../tests/fixtures/stress-ng/worker-killed.err");
    const OTHER: &str = include_str!("../../../tests/fixtures/stress-ng/vm.yaml");

    #[test]
    fn recorded_files_are_read() {
        let expected =
            Metrics { bogo_ops: 751.0, rate: 74.712331, seconds: 10.051888, rss_kib: Some(6480.0) };
        assert_eq!(metrics(Stressor::Cpu, HEALTHY), Ok(expected));
        assert_eq!(metrics(Stressor::Cpu, FAILED).map(|metrics| metrics.bogo_ops), Ok(0.0));
        assert_eq!(metrics(Stressor::Cpu, OTHER), Err(BadMetrics::Entries(0, "cpu")));
        let of_memory = metrics(Stressor::Vm, OTHER).unwrap();
        assert_eq!((of_memory.bogo_ops, of_memory.rss_kib), (18944.0, Some(67548.0)));
    }

    #[test]
    fn a_file_that_breaks_off_gives_nothing() {
        for cut in 0..HEALTHY.trim_end().len() {
            assert!(metrics(Stressor::Cpu, &HEALTHY[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_give_nothing() {
        for (from, to) in [
            ("bogo-ops: 751", "bogo-ops: 7510"),
            ("74.712331", "747.12331"),
            ("10.051888", "100.51888"),
            ("10.051888", "0.0"),
            ("74.712331", ".nan"),
            ("74.712331", "-74.712331"),
            ("74.712331", ".inf"),
            ("wall-clock-time", "wall-clock"),
            ("stressor: cpu", "stressor: [cpu]"),
        ] {
            assert!(metrics(Stressor::Cpu, &HEALTHY.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn failures_are_told_from_other_lines() {
        let failures: Vec<Failure> =
            FAILED_LINES.lines().filter_map(|line| failure(Stressor::Cpu, line)).collect();
        assert_eq!(failures.len(), 12);
        assert!(failures.iter().all(|failure| matches!(failure, Failure::Miscompare { count: 1, .. })));
        let message = "cpu: lrand48 error detected, failed sum".to_owned();
        assert!(failures.contains(&Failure::Miscompare { count: 1, told: Told::Each, message }));
        assert_eq!(HEALTHY_LINES.lines().filter_map(|line| failure(Stressor::Cpu, line)).count(), 0);
    }

    /// Strings of stress-ng 0.15.06: not every wrong result is told as an "error detected".
    #[test]
    fn a_wrong_result_counts_in_whichever_words_a_method_tells_it() {
        for (words, is_wrong) in [
            ("calculation of Euler-Mascheroni constant not as accurate as expected", true),
            ("Newton-Raphson sqrt not accurate enough", true),
            ("accuracy of computed pi is not as good as expected", true),
            ("calculation of ln(2) took more iterations than expected", true),
            ("Stirling's approximation of factorial(20) out of range", true),
            ("stats: geometric mean 2.000000 > arithmetic mean 1.000000", true),
            ("number of hanoi moves different from the expected number", true),
            ("corrupted bogo-ops counter, 3 vs 0", false),
        ] {
            let found = failure(Stressor::Cpu, &format!("stress-ng: fail:  [7] cpu: {words}"));
            assert_eq!(matches!(found, Some(Failure::Miscompare { count: 1, .. })), is_wrong, "{words}");
            let of_others = failure(Stressor::Cpu, &format!("stress-ng: fail:  [7] vm: {words}"));
            assert!(matches!(of_others, Some(Failure::Other(_))), "{words}");
        }
    }

    #[test]
    fn a_killed_worker_is_no_wrong_result() {
        let failures: Vec<Failure> =
            KILLED_LINES.lines().filter_map(|line| failure(Stressor::Cpu, line)).collect();
        assert_eq!(failures.len(), 3);
        assert!(failures.iter().all(|failure| matches!(failure, Failure::Other(_))), "{failures:?}");
    }

    #[test]
    fn wrong_bits_of_memory_are_counted_as_they_are_told() {
        for (line, expected) in [
            (
                "stress-ng: fail:  [7] vm: detected 3 bit errors while stressing memory",
                Some((Told::Total, 3)),
            ),
            (
                "stress-ng: fail:  [7] stress-ng-vm: detected 1 memory error, offset 0x40",
                Some((Told::Each, 1)),
            ),
            ("stress-ng: fail:  [7] moving inversion: detected 3 memory errors", Some((Told::Each, 3))),
            ("stress-ng: fail:  [7] walking one (data): detected 1 memory error", Some((Told::Each, 1))),
            (
                "stress-ng: fail:  [7] vm: detected many bit errors while stressing memory",
                Some((Told::Total, 1)),
            ),
            (
                "stress-ng: fail:  [7] vm: detected 0 bit errors while stressing memory",
                Some((Told::Total, 1)),
            ),
            ("stress-ng: fail:  [7] cpu: detected 3 bit errors while stressing memory", None),
            ("stress-ng: fail:  [7] vm: corrupted bogo-ops counter, 3 vs 0", None),
        ] {
            let count = match failure(Stressor::Vm, line) {
                Some(Failure::Miscompare { count, told, .. }) => Some((told, count)),
                Some(Failure::Other(_)) => None,
                None => panic!("{line} is no failure"),
            };
            assert_eq!(count, expected, "{line}");
        }
        assert_eq!(failure(Stressor::Vm, "stress-ng: info:  [7] vm: detected 3 bit errors"), None);
    }

    #[test]
    fn only_success_and_failure_are_judged() {
        for status in 0..20 {
            assert_eq!(why_unjudged(status).is_none(), status == 0 || status == 2, "{status}");
        }
    }

    proptest! {
        /// Whatever happens to a file on its way, it gives what it gave before, or nothing.
        #[test]
        fn a_mangled_file_gives_the_same_or_nothing(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), "[ -~]|\\PC"), 1..4),
            drop in any::<proptest::sample::Index>(),
            drops in 0usize..40,
        ) {
            let mut characters: Vec<char> = HEALTHY.chars().collect();
            for (at, text) in changes {
                let at = at.index(characters.len());
                characters[at] = text.chars().next().unwrap_or(' ');
            }
            let from = drop.index(characters.len());
            let to = (from + drops).min(characters.len());
            characters.drain(from..to);
            let mangled: String = characters.into_iter().collect();
            if let Ok(read) = metrics(Stressor::Cpu, &mangled) {
                // All three numbers follow from two; a change of one digit far behind the point may pass.
                let near = |value: f64, whole: f64| (value - whole).abs() <= 0.02 * whole;
                prop_assert!(near(read.rate, 74.712331) && near(read.seconds, 10.051888), "{mangled}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}", line in "(stress-ng: fail:)?[ -~]{0,40}") {
            let _ = metrics(Stressor::Vm, &format!("{text}\n..."));
            let _ = (failure(Stressor::Cpu, &line), failure(Stressor::Vm, &line));
        }
    }
}

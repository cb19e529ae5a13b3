//! When a load is to be stopped for its heat. Pure.
//!
//! A sensor's critical limit counts where it is plausible, and is passed in three samples in a row: one sample may be a slip. A
//! CPU at its limit slows itself down, which is judged by its own counters, and does not stop the load. Sensors that were there
//! and have all gone silent would let anything burn unseen: that stops it as well.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::probe::hwmon::Temperature;

/// Limits beyond these, in °C, are placeholders of a driver or a chip.
const PLAUSIBLE: RangeInclusive<f64> = 40.0..=130.0;
/// Samples in a row over a limit.
const SAMPLES: u32 = 3;
/// Silence of all sensors, or a reading that lasts.
const SILENCE: Duration = Duration::from_secs(30);
/// Chips that are a CPU's own.
const CPUS: [&str; 5] = ["coretemp", "k10temp", "zenpower", "cpu_thermal", "via_cputemp"];

/// What was seen of temperatures so far.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    silence: Duration,
    /// How often in a row each sensor was over its limit.
    over: BTreeMap<String, u32>,
    /// Sensors with a limit that counts, by the most that were seen at once.
    bounded: usize,
    last_seen: Option<Instant>,
    stop: Option<Stop>,
}

/// Why a load is stopped.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stop {
    /// A sensor passed its critical limit.
    TooHot {
        /// Its name.
        key: String,
        /// What it showed last.
        celsius: f64,
        /// Its limit.
        critical: f64,
    },
    /// All sensors that were there have gone silent, or a reading hangs.
    Silent,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::with_silence(SILENCE)
    }
}

impl Limits {
    /// Nothing seen yet, and this much silence is too much.
    pub fn with_silence(silence: Duration) -> Limits {
        Limits { silence, over: BTreeMap::new(), bounded: 0, last_seen: None, stop: None }
    }

    /// Judges a reading that was begun at a time and has not come back: a driver that hangs keeps all sensors from being seen. True
    /// where the load is to be stopped.
    pub fn wait(&mut self, begun: Instant, now: Instant) -> bool {
        if self.stop.is_none() && now.saturating_duration_since(begun) >= self.silence {
            self.stop = Some(Stop::Silent);
        }
        self.stop.is_some()
    }

    /// Takes a sample of all sensors; true where the load is to be stopped.
    pub fn take(&mut self, temperatures: &[Temperature], now: Instant) -> bool {
        if !temperatures.is_empty() {
            self.last_seen = Some(now);
        }
        if let (None, Some(seen)) = (&self.stop, self.last_seen)
            && now.saturating_duration_since(seen) >= self.silence
        {
            self.stop = Some(Stop::Silent);
        }
        let bounded: Vec<(&Temperature, f64)> = temperatures
            .iter()
            .filter(|temperature| !CPUS.contains(&temperature.chip.as_str()))
            .filter_map(|temperature| {
                Some((temperature, temperature.critical.filter(|limit| PLAUSIBLE.contains(limit))?))
            })
            .collect();
        self.bounded = self.bounded.max(bounded.len());
        let mut over = BTreeMap::new();
        for (temperature, critical) in bounded {
            if temperature.celsius < critical {
                continue;
            }
            let count = self.over.get(&temperature.key).copied().unwrap_or(0) + 1;
            over.insert(temperature.key.clone(), count);
            if count >= SAMPLES && self.stop.is_none() {
                let Temperature { key, celsius, .. } = temperature.clone();
                self.stop = Some(Stop::TooHot { key, celsius, critical });
            }
        }
        self.over = over;
        self.stop.is_some()
    }

    /// Why the load is to be stopped.
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// How many sensors have a limit that counts.
    pub fn bounded(&self) -> usize {
        self.bounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(chip: &str, celsius: f64, critical: Option<f64>) -> Temperature {
        Temperature { chip: chip.into(), key: format!("{chip} sensor"), celsius, critical }
    }

    /// Whether samples five seconds apart stop a load, and by which sample.
    fn stopped_at(samples: &[Vec<Temperature>]) -> (Option<usize>, Limits) {
        let began = Instant::now();
        let mut limits = Limits::default();
        let at = samples.iter().enumerate().position(|(n, sample)| {
            limits.take(sample, began + Duration::from_secs(5) * u32::try_from(n).unwrap())
        });
        (at, limits)
    }

    #[test]
    fn a_plausible_limit_that_is_passed_thrice_stops() {
        let of = |chip: &str, celsius: f64, critical: f64| vec![sensor(chip, celsius, Some(critical))];
        let hot = || of("nvme", 100.0, 99.85);
        let cool = || of("nvme", 60.0, 99.85);
        for (samples, expected) in [
            (vec![hot(), hot(), hot()], Some(2)),
            (vec![hot(), hot(), cool(), hot(), hot()], None),
            (vec![hot(), hot(), cool(), hot(), hot(), hot()], Some(5)),
            (vec![cool(); 20], None),
            // A CPU slows itself down.
            (vec![of("coretemp", 105.0, 100.0); 20], None),
            // No chip means these.
            (vec![of("acpitz", 30.0, 20.0); 20], None),
            (vec![of("acpitz", 300.0, 200.0); 20], None),
            (vec![vec![sensor("acpitz", 300.0, None)]; 20], None),
        ] {
            assert_eq!(stopped_at(&samples).0, expected, "{samples:?}");
        }
        let (_, limits) = stopped_at(&[hot(), hot(), hot()]);
        let expected = Stop::TooHot { key: "nvme sensor".into(), celsius: 100.0, critical: 99.85 };
        assert_eq!((limits.stop(), limits.bounded()), (Some(&expected), 1));
    }

    #[test]
    fn sensors_that_all_went_silent_stop_after_their_time() {
        let there = || vec![sensor("nvme", 60.0, None), sensor("coretemp", 60.0, None)];
        let one = || vec![sensor("nvme", 60.0, None)];
        // The sixth silent sample is half a minute after the last that was not.
        let silent = |count: usize| vec![Vec::new(); count];
        assert_eq!(stopped_at(&[vec![there()], silent(5)].concat()).0, None);
        let (at, limits) = stopped_at(&[vec![there()], silent(7)].concat());
        assert_eq!((at, limits.stop()), (Some(6), Some(&Stop::Silent)));
        assert_eq!(stopped_at(&[vec![there()], vec![one(); 20]].concat()).0, None, "one is left");
        assert_eq!(stopped_at(&silent(20)).0, None, "none were there");
    }
    #[test]
    fn a_reading_that_hangs_stops_after_the_same_time() {
        let begun = Instant::now();
        for (seconds, stops) in [(0, false), (29, false), (30, true), (3000, true)] {
            let mut limits = Limits::default();
            assert_eq!(limits.wait(begun, begun + Duration::from_secs(seconds)), stops, "{seconds}");
            assert_eq!(limits.stop().is_some(), stops);
        }
        // What came before it stays the reason.
        let mut limits = stopped_at(&[
            vec![sensor("nvme", 100.0, Some(90.0))],
            vec![sensor("nvme", 100.0, Some(90.0))],
            vec![sensor("nvme", 100.0, Some(90.0))],
        ])
        .1;
        assert!(limits.wait(begun, begun + SILENCE));
        assert!(matches!(limits.stop(), Some(Stop::TooHot { .. })));
    }
}

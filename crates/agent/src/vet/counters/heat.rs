//! The heat while a stage runs: the hottest sensor, and whether a load is to be stopped.
//!
//! A thread of its own reads the sensors, because a reading can hang in a driver: the stage asks for the last one and waits for
//! it a bounded time.

use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use groundcrew_protocol::limits::SENSOR_INTERVAL_MS;
use groundcrew_protocol::wire::SensorSample;

use super::limits::Limits;
use crate::probe::{Root, hwmon};
use crate::process::Cancel;
use crate::stamp::wall;

/// A reading that takes longer hangs.
const LAST_READING_PATIENCE: Duration = Duration::from_secs(2);
/// What hwmon calls a temperature.
const TEMPERATURE: &str = "temperature";

/// Why a load that got too hot was stopped.
const STOPPED: &str = "stopped for the machine's heat: see the check critical_temperature";

/// What was seen while a stage ran.
type Seen = (Option<SensorSample>, Limits);

/// The thread that reads. It ends with this, once its driver lets it go.
pub(super) struct Heat(Option<Sender<SyncSender<Seen>>>);

/// What came of it.
pub(super) struct Ended {
    /// Which sensor was the hottest, or why nobody knows.
    pub hottest: String,
    /// Whether a limit was passed; nothing where nobody knows.
    pub limits: Option<Limits>,
}

impl Heat {
    /// Reads the sensors now and from now on, and ends what it is told to guard when a limit is passed.
    pub fn start(root: &Root, guards: Option<Cancel>) -> Heat {
        let (asks, asked) = channel::<SyncSender<Seen>>();
        let root = root.clone();
        let watch = move || {
            let (mut hottest, mut limits) = (None, Limits::default());
            let mut look = || {
                hottest = hotter(hottest.take(), hwmon::read(&root, wall()));
                let is_over = limits.take(&hwmon::temperatures(&root), Instant::now());
                if let (true, Some(load)) = (is_over, &guards) {
                    load.ask_because(STOPPED);
                }
                (hottest.clone(), limits.clone())
            };
            loop {
                look();
                match asked.recv_timeout(Duration::from_millis(SENSOR_INTERVAL_MS)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(answer) => {
                        // Whoever asked and no longer waits has said that it hung.
                        let _ = answer.send(look());
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("heat".into()).stack_size(256 * 1024).spawn(watch);
        // Without a thread nobody looks; the evidence says so.
        Heat(thread.is_ok().then_some(asks))
    }

    /// Says what was seen.
    pub fn end(self) -> Ended {
        let unknown = |why: &str| Ended { hottest: why.to_owned(), limits: None };
        let Some(asks) = self.0 else { return unknown("no thread could be started to read temperatures") };
        let (answer, answers) = sync_channel(1);
        if asks.send(answer).is_err() {
            return unknown("temperatures were not read: their thread ended");
        }
        match answers.recv_timeout(LAST_READING_PATIENCE) {
            Ok((Some(sample), limits)) => {
                let SensorSample { key, value, unit, .. } = sample;
                Ended {
                    hottest: format!("hottest meanwhile: {key}, {value:.1} {unit}"),
                    limits: Some(limits),
                }
            }
            Ok((None, limits)) => {
                Ended { hottest: "the machine shows no temperature".to_owned(), limits: Some(limits) }
            }
            Err(_) => unknown("temperatures could not be read in time"),
        }
    }
}

/// The hottest of the samples and the one so far.
fn hotter(so_far: Option<SensorSample>, samples: Vec<SensorSample>) -> Option<SensorSample> {
    let temperatures = samples.into_iter().filter(|sample| sample.kind == TEMPERATURE);
    so_far.into_iter().chain(temperatures).max_by(|one, other| one.value.total_cmp(&other.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::{self, Machine};

    #[test]
    fn the_hottest_sensor_is_named() {
        assert_eq!(
            Heat::start(&fixture::server().root, None).end().hottest,
            "hottest meanwhile: coretemp coretemp.1 Package id 1, 57.0 °C"
        );
        assert_eq!(
            Heat::start(&Machine::empty().root, None).end().hottest,
            "the machine shows no temperature"
        );
    }

    #[test]
    fn the_hottest_of_all_readings_stays() {
        let machine = fixture::server();
        let first = hotter(None, hwmon::read(&machine.root, wall()));
        machine.write("/sys/class/hwmon/hwmon1/temp1_input", "30000\n");
        let then = hotter(first.clone(), hwmon::read(&machine.root, wall()));
        assert_eq!(then.as_ref().map(|sample| sample.value), Some(57.0));
        assert_eq!(then, first);
    }
}

//! The hottest sensor while a stage ran.
//!
//! A thread of its own reads the sensors, because a reading can hang in a driver: the stage asks for the last one and waits for
//! it a bounded time.

use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use groundcrew_protocol::limits::SENSOR_INTERVAL_MS;
use groundcrew_protocol::wire::SensorSample;

use crate::probe::{Root, hwmon};
use crate::stamp::wall;

/// A reading that takes longer hangs.
const LAST_READING_PATIENCE: Duration = Duration::from_secs(2);
/// What hwmon calls a temperature.
const TEMPERATURE: &str = "temperature";

/// The thread that reads. It ends with this, once its driver lets it go.
pub(super) struct Heat(Option<Sender<SyncSender<Option<SensorSample>>>>);

impl Heat {
    /// Reads the sensors now and from now on.
    pub fn start(root: &Root) -> Heat {
        let (asks, asked) = channel::<SyncSender<Option<SensorSample>>>();
        let root = root.clone();
        let watch = move || {
            let mut hottest = None;
            loop {
                hottest = hotter(hottest, hwmon::read(&root, wall()));
                match asked.recv_timeout(Duration::from_millis(SENSOR_INTERVAL_MS)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(answer) => {
                        // Whoever asked and no longer waits has said that it hung.
                        let _ = answer.send(hotter(hottest, hwmon::read(&root, wall())));
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("heat".into()).stack_size(256 * 1024).spawn(watch);
        // Without a thread nobody looks; the evidence says so.
        Heat(thread.is_ok().then_some(asks))
    }

    /// Says which sensor was the hottest.
    pub fn end(self) -> String {
        let Some(asks) = self.0 else { return "no thread could be started to read temperatures".to_owned() };
        let (answer, answers) = sync_channel(1);
        if asks.send(answer).is_err() {
            return "temperatures were not read: their thread ended".to_owned();
        }
        match answers.recv_timeout(LAST_READING_PATIENCE) {
            Ok(Some(sample)) => {
                let SensorSample { key, value, unit, .. } = sample;
                format!("hottest meanwhile: {key}, {value:.1} {unit}")
            }
            Ok(None) => "the machine shows no temperature".to_owned(),
            Err(_) => "temperatures could not be read in time".to_owned(),
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
            Heat::start(&fixture::server().root).end(),
            "hottest meanwhile: coretemp coretemp.1 Package id 1, 57.0 °C"
        );
        assert_eq!(Heat::start(&Machine::empty().root).end(), "the machine shows no temperature");
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

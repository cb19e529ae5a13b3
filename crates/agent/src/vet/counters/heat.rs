//! The heat while a stage runs: the hottest sensor, and whether a load is to be stopped.
//!
//! A thread of its own reads the sensors, because a reading can hang in a driver: the stage asks for the last one and waits for
//! it a bounded time. Another stops a load of which that driver would keep the heat unseen.

use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
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

/// Time between two looks at whether a reading hangs.
const HANG_INTERVAL: Duration = Duration::from_millis(250);

/// What was seen while a stage ran.
#[derive(Default)]
struct Seen {
    hottest: Option<SensorSample>,
    limits: Limits,
    /// Since when a reading is under way.
    reading: Option<Instant>,
}

/// The thread that reads, which ends with this once its driver lets it go, and the one that stops the load where it does not.
pub(super) struct Heat {
    seen: Arc<Mutex<Seen>>,
    asks: Option<Sender<SyncSender<()>>>,
    _ends: Option<Sender<()>>,
}

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
        Heat::with_limits(root, guards, Limits::default())
    }

    fn with_limits(root: &Root, guards: Option<Cancel>, limits: Limits) -> Heat {
        let seen = Arc::new(Mutex::new(Seen { limits, ..Seen::default() }));
        let (asks, asked) = channel::<SyncSender<()>>();
        let (root, reads, load) = (root.clone(), Arc::clone(&seen), guards.clone());
        let watch = move || {
            loop {
                look(&root, &reads, load.as_ref());
                match asked.recv_timeout(Duration::from_millis(SENSOR_INTERVAL_MS)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(answer) => {
                        look(&root, &reads, load.as_ref());
                        // Whoever asked and no longer waits has said that it hung.
                        let _ = answer.send(());
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("heat".into()).stack_size(256 * 1024).spawn(watch);
        // Without a thread nobody looks; the evidence says so.
        let asks = thread.is_ok().then_some(asks);
        let ends = guards.and_then(|load| stop_where_it_hangs(&seen, load));
        Heat { seen, asks, _ends: ends }
    }

    /// Says what was seen.
    pub fn end(self) -> Ended {
        let unknown = |why: &str| Ended { hottest: why.to_owned(), limits: None };
        let Some(asks) = self.asks else { return unknown("no thread could be started to read temperatures") };
        let (answer, answers) = sync_channel(1);
        let is_stopped = || lock(&self.seen).limits.stop().is_some();
        let hangs = is_stopped() && lock(&self.seen).reading.is_some();
        if asks.send(answer).is_err() {
            return unknown("temperatures were not read: their thread ended");
        }
        if hangs || answers.recv_timeout(LAST_READING_PATIENCE).is_err() {
            // What stopped the load stands, whatever cannot be read after it.
            let limits = is_stopped().then(|| lock(&self.seen).limits.clone());
            return Ended { hottest: "temperatures could not be read in time".to_owned(), limits };
        }
        let seen = lock(&self.seen);
        let hottest = match &seen.hottest {
            Some(SensorSample { key, value, unit, .. }) => {
                format!("hottest meanwhile: {key}, {value:.1} {unit}")
            }
            None => "the machine shows no temperature".to_owned(),
        };
        Ended { hottest, limits: Some(seen.limits.clone()) }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("nobody panics with the lock")
}

/// Reads all sensors. The lock is not held meanwhile: a driver may never come back.
fn look(root: &Root, seen: &Mutex<Seen>, load: Option<&Cancel>) {
    lock(seen).reading = Some(Instant::now());
    let (samples, temperatures) = (hwmon::read(root, wall()), hwmon::temperatures(root));
    let mut seen = lock(seen);
    seen.reading = None;
    seen.hottest = hotter(seen.hottest.take(), samples);
    if let (true, Some(load)) = (seen.limits.take(&temperatures, Instant::now()), load) {
        load.ask_because(STOPPED);
    }
}

/// Ends a load where a reading hangs, as long as what it gives is kept. Nothing where no thread can be started.
fn stop_where_it_hangs(seen: &Arc<Mutex<Seen>>, load: Cancel) -> Option<Sender<()>> {
    let (ends, ended) = channel::<()>();
    let seen = Arc::clone(seen);
    let watch = move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(HANG_INTERVAL) {
            let mut seen = lock(&seen);
            if let Some(begun) = seen.reading
                && seen.limits.wait(begun, Instant::now())
            {
                load.ask_because(STOPPED);
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("heat-hangs".into()).stack_size(128 * 1024).spawn(watch);
    thread.is_ok().then_some(ends)
}

/// The hottest of the samples and the one so far.
fn hotter(so_far: Option<SensorSample>, samples: Vec<SensorSample>) -> Option<SensorSample> {
    let temperatures = samples.into_iter().filter(|sample| sample.kind == TEMPERATURE);
    so_far.into_iter().chain(temperatures).max_by(|one, other| one.value.total_cmp(&other.value))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::super::limits::Stop;
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

    /// The thread that reads would have had to say so itself, and never came back.
    #[test]
    fn a_load_is_stopped_where_a_reading_hangs_in_a_driver() {
        let machine = fixture::server();
        let sensor = machine.root.path("/sys/class/hwmon/hwmon2/temp1_input");
        std::fs::remove_file(&sensor).unwrap();
        mkfifoat(CWD, &sensor, Mode::RUSR | Mode::WUSR).unwrap();
        let load = Cancel::new().unwrap();
        let limits = Limits::with_silence(Duration::from_millis(1));
        let heat = Heat::with_limits(&machine.root, Some(load.clone()), limits);
        assert!(load.wait(Duration::from_secs(600)));
        assert_eq!(load.why(), Some(STOPPED));
        let ended = heat.end();
        assert_eq!(ended.hottest, "temperatures could not be read in time");
        assert_eq!(ended.limits.unwrap().stop(), Some(&Stop::Silent));
        // Lets the thread go.
        std::fs::OpenOptions::new().write(true).open(&sensor).unwrap();
    }
}

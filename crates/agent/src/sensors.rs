//! The thermal sidecar: reads hwmon every five seconds into the spool of readings.
//!
//! On a thread of its own, because a reading of sysfs can hang in a driver. A sensor that is gone drops out of the
//! next batch; a machine without any is no error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use groundcrew_protocol::limits::SENSOR_INTERVAL_MS;

use crate::io_thread::HomeHealth;
use crate::probe::{Root, hwmon};
use crate::spool::{Spool, SpoolError};
use crate::stamp::wall;

/// The sidecar's thread.
#[derive(Debug)]
pub struct Sensors {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sensors {
    /// Starts reading the sensors below `root` into `spool`. A disk that will not take them goes into `health`. Nothing is read
    /// while `is_over` says that the run is: its report must not change any more.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(
        spool: Spool,
        root: Root,
        health: HomeHealth,
        is_over: Arc<AtomicBool>,
    ) -> std::io::Result<Sensors> {
        Sensors::start_every(Duration::from_millis(SENSOR_INTERVAL_MS), spool, root, health, is_over)
    }

    fn start_every(
        pause: Duration,
        spool: Spool,
        root: Root,
        health: HomeHealth,
        is_over: Arc<AtomicBool>,
    ) -> std::io::Result<Sensors> {
        let (stop, stopped) = channel();
        let read = move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                read(&spool, &root, &health, &is_over);
            }
            spool.finish();
        };
        let thread =
            std::thread::Builder::new().name("sensors".to_owned()).stack_size(256 * 1024).spawn(read)?;
        Ok(Sensors { stop, thread })
    }

    /// Ends the thread, unless a driver holds it; then it is left behind.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.is_finished() {
            // It cannot have panicked without having been seen: nothing in it does.
            let _ended = self.thread.join();
        }
    }
}

/// One reading.
fn read(spool: &Spool, root: &Root, health: &HomeHealth, is_over: &AtomicBool) {
    if is_over.load(Ordering::Relaxed) {
        return;
    }
    let samples = hwmon::read(root, wall());
    // What the spool cannot take is counted there, and the next batch says so.
    if let Err(error @ SpoolError::Disk { .. }) = spool.append_samples(&samples) {
        health.fail(crate::errors::chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::limits::SPOOL_BYTES_MAX;

    use super::*;
    use crate::probe::fixture;
    use crate::spool::{Answer, Kind};
    use groundcrew_protocol::ids::ClaimNumber;
    use groundcrew_protocol::wire::SensorRequest;
    use std::time::Instant;

    /// A reading takes microseconds. Nothing is wrong with a machine that is slower; something is with one this slow.
    const STUCK: Duration = Duration::from_secs(120);

    #[test]
    fn it_reads_again_and_again_and_closes_its_stream_at_its_end() {
        let (machine, folder) = (fixture::server(), tempfile::tempdir().unwrap());
        let run = "r-1".parse().unwrap();
        let (spool, _) = Spool::open_in(folder.path(), &run, Kind::Sensor, SPOOL_BYTES_MAX).unwrap();
        let (health, is_over) = (HomeHealth::default(), Arc::new(AtomicBool::new(false)));
        let pause = Duration::from_millis(1);
        let sensors =
            Sensors::start_every(pause, spool.clone(), machine.root.clone(), health.clone(), is_over)
                .unwrap();
        let begun = Instant::now();
        while spool.status().unsent_chunks < 3 {
            assert!(begun.elapsed() < STUCK, "it reads no more: {:?}", spool.status());
            std::thread::yield_now();
        }
        let Sensors { stop, thread } = sensors;
        drop(stop);
        thread.join().unwrap();
        let mut messages = Vec::new();
        while let Some(message) = spool.next_message(Instant::now()).unwrap() {
            let request: SensorRequest = serde_json::from_slice(&message.body(ClaimNumber(1))).unwrap();
            messages.push((request.samples.len(), request.closes));
            spool.answered(&message, Answer::Taken).unwrap();
        }
        let (closing, readings) = messages.split_last().unwrap();
        assert_eq!(*closing, (0, true));
        assert!(readings.len() >= 3 && readings.iter().all(|(count, closes)| *count > 0 && !closes));
        assert_eq!(health.failure(), None);
    }

    #[test]
    fn no_reading_is_taken_once_the_run_is_over() {
        let (machine, folder) = (fixture::server(), tempfile::tempdir().unwrap());
        let run = "r-1".parse().unwrap();
        let (spool, _) = Spool::open_in(folder.path(), &run, Kind::Sensor, SPOOL_BYTES_MAX).unwrap();
        let (health, is_over) = (HomeHealth::default(), AtomicBool::new(true));
        read(&spool, &machine.root, &health, &is_over);
        assert_eq!(spool.status().unsent_chunks, 0);
        // An orchestrator that was restored may know the run as it went on.
        is_over.store(false, Ordering::Relaxed);
        read(&spool, &machine.root, &health, &is_over);
        assert_eq!(spool.status().unsent_chunks, 1);
        assert_eq!(health.failure(), None);
    }
}

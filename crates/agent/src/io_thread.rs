//! The one thread on which the control loop's durable writes happen, and what is known of the home's health.
//!
//! A disk that hangs keeps this thread, and whoever waits for it for [`STALL_MS`], but never the loop's
//! heartbeats. Work is done in the order in which it was given, also by a thread that was slow: a write that
//! was given up is still done before the next.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A write that takes longer counts as stalled: the home is volatile from then on ("Where durability lives").
pub const STALL_MS: u64 = 5_000;
/// Pieces of work that wait. Each holds at most one message of the wire.
const WAITING_MAX: usize = 128;
/// Of these, work that may be refused leaves this many to work that may not.
const RESERVED: usize = 32;

type Work = Box<dyn FnOnce() + Send>;

/// Why work has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum IoError<E: std::error::Error + 'static> {
    /// It was done and failed.
    #[error("{what}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: E,
    },
    /// It is not done yet and may still be.
    #[error("{what}: the disk has not answered for {after_ms} ms")]
    Stalled {
        /// What was being done.
        what: &'static str,
        /// How long it was waited for, in milliseconds.
        after_ms: u64,
    },
    /// So much waits already that it was not taken, or the thread has ended.
    #[error("{what}: the disk is too far behind")]
    Behind {
        /// What was to be done.
        what: &'static str,
    },
}

/// Whether the home can be relied on. Clones share it. Once it has failed it stays so until the agent is
/// started again: outcomes may live in memory only.
#[derive(Debug, Clone, Default)]
pub struct HomeHealth {
    failed: Arc<Mutex<Option<String>>>,
}

impl HomeHealth {
    /// Says that a durable write failed or stalled. The first reason stays.
    pub fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Why the home cannot be relied on; `None` while it can.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handle on the thread; it ends with the last one, after the work that waits.
#[derive(Debug, Clone)]
pub struct IoThread {
    work: mpsc::Sender<Work>,
    health: HomeHealth,
    stall: Duration,
}

impl IoThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(health: HomeHealth) -> std::io::Result<IoThread> {
        Self::start_with(health, Duration::from_millis(STALL_MS))
    }

    fn start_with(health: HomeHealth, stall: Duration) -> std::io::Result<IoThread> {
        let (work, mut waiting) = mpsc::channel::<Work>(WAITING_MAX);
        let run = move || {
            while let Some(work) = waiting.blocking_recv() {
                work();
            }
        };
        // The frames are shallow; the default of 2 MiB is only address space, but counts where memory is locked.
        std::thread::Builder::new().name("io".to_owned()).stack_size(256 * 1024).spawn(run)?;
        Ok(IoThread { work, health, stall })
    }

    /// The home's health, as far as this thread's work shows it.
    pub fn health(&self) -> &HomeHealth {
        &self.health
    }

    /// Has `work` done and waits for it, at most [`STALL_MS`]. A failure and a stall go into the health.
    ///
    /// # Errors
    /// Those of the work, and where it did not end in time.
    pub async fn run<T, E>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, IoError<E>>
    where
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Nobody waits any more for an answer that came too late.
            let _given_up = answer.send(work());
        });
        let error = match self.work.try_send(work) {
            Err(_) => IoError::Behind { what },
            Ok(()) => match timeout(self.stall, answered).await {
                Ok(Ok(Ok(value))) => return Ok(value),
                Ok(Ok(Err(source))) => IoError::Failed { what, source },
                Ok(Err(_)) => IoError::Behind { what },
                Err(_) => IoError::Stalled { what, after_ms: self.stall.as_millis() as u64 },
            },
        };
        self.health.fail(crate::errors::chain(&error));
        Err(error)
    }

    /// Has `work` done some time, without waiting. False where too much waits, and it will not be done: the
    /// caller counts what is lost by that.
    #[must_use]
    pub fn post(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.work.capacity() > RESERVED && self.work.try_send(Box::new(work)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::channel;

    use super::*;

    fn io_thread(stall_ms: u64) -> IoThread {
        IoThread::start_with(HomeHealth::default(), Duration::from_millis(stall_ms)).unwrap()
    }

    #[tokio::test]
    async fn work_is_done_in_order_and_its_failure_is_remembered() {
        let thread = io_thread(60_000);
        let (done, order) = channel();
        for number in 0..3 {
            let done = done.clone();
            assert!(thread.post(move || done.send(number).unwrap()));
        }
        let last = thread.run("counting", move || done.send(3).map_err(io::Error::other)).await;
        last.unwrap();
        assert_eq!(order.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(thread.health().failure(), None);
        let failed =
            thread.run("writing", || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))).await;
        assert!(matches!(failed, Err(IoError::Failed { .. })));
        thread.run("reading", || Ok::<_, io::Error>(())).await.unwrap();
        assert!(thread.health().failure().unwrap().starts_with("writing: "));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_stalls_nobody_for_ever_and_its_work_is_done_later() {
        let thread = io_thread(10);
        let (release, released) = channel::<()>();
        let stalled = thread.run("writing", move || released.recv().map_err(io::Error::other)).await;
        assert!(matches!(stalled, Err(IoError::Stalled { after_ms: 10, .. })));
        assert!(thread.health().failure().unwrap().contains("10 ms"));
        let (done, order) = channel();
        while thread.post({
            let done = done.clone();
            move || done.send(()).unwrap()
        }) {}
        // What must be done still finds room.
        let must = thread.run("writing", move || done.send(()).map_err(io::Error::other)).await;
        assert!(matches!(must, Err(IoError::Stalled { .. })));
        release.send(()).unwrap();
        assert_eq!(order.iter().count(), WAITING_MAX - RESERVED + 1);
    }
}

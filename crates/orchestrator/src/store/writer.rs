//! The one writer: a thread with the only connection that writes.
//!
//! It takes as many jobs as wait, at most [`BATCH_MAX`], lands them in one transaction with multi-row statements,
//! commits once, and only then answers all of them. Decisions on runs are made before the transaction begins,
//! from documents read in one statement, and land by compare-and-set. Where a statement for many fails, every
//! part is landed on its own, so that only the one at fault is told so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use groundcrew_durable::lock::HomeLock;
use groundcrew_protocol::operator::EventView;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::logs::index::LogRowsJob;
use super::sensors::SensorJob;
use super::unit::{self, RunJob, Unit};
use super::{StoreError, Taken};

/// Jobs of one commit. More would save nothing: the cost of the commit is spread thin already, and the first
/// of them waits for the last.
const BATCH_MAX: usize = 256;
/// Jobs that may wait; whoever hands in one more waits with it.
const JOBS_MAX: usize = 1_024;
/// The clock of listening is stored with commits, at most this often.
const LISTENED_EVERY: Duration = Duration::from_secs(1);
/// It is stored by itself after this, where nothing else is.
const LISTENED_IDLE: Duration = Duration::from_secs(10);

/// What the writer is asked for.
pub(super) enum Job {
    /// A change of a run.
    Run(RunJob),
    /// Rows of log chunks whose data is on the disk.
    LogRows(LogRowsJob),
    /// A batch of sensor readings.
    Sensors(SensorJob),
    /// Anything else: it runs inside the transaction, and alone fails where it fails.
    Small(SmallJob),
    /// End after what was handed in before.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Runs inside the transaction and says what to do once it is committed, or is not.
pub(super) type SmallJob =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, SmallDone> + Send>;

/// A small job that has run.
pub(super) struct SmallDone {
    /// Where not, its statements are undone.
    pub good: bool,
    /// Answers its caller.
    pub reply: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// The writer's end of the store.
#[derive(Clone)]
pub(super) struct WriterHandle {
    jobs: mpsc::Sender<Job>,
    listened_ms: Arc<AtomicU64>,
}

impl WriterHandle {
    /// Hands in a job; waits where too many wait already.
    pub async fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_closed| StoreError::Closed)
    }

    /// Runs `work` inside the transaction and answers after the commit.
    pub async fn small<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: SmallJob = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = work(connection).await;
                let good = outcome.is_ok();
                let reply = move |committed: Result<(), StoreError>| {
                    // A caller that has gone does not want to know.
                    let _gone = answer.send(outcome.and_then(|value| committed.map(|()| value)));
                };
                SmallDone { good, reply: Box::new(reply) }
            })
        });
        self.send(Job::Small(job)).await?;
        answered.await.map_err(|_dropped| self.dropped())?
    }

    /// Why an answer never came.
    fn dropped(&self) -> StoreError {
        if self.jobs.is_closed() { StoreError::Closed } else { StoreError::NotBegun }
    }

    /// Sets the clock of listening, which never goes back.
    pub fn note_listened(&self, listened_ms: u64) {
        self.listened_ms.fetch_max(listened_ms, Ordering::Relaxed);
    }

    /// Comes back once the writer has ended, in order or not.
    pub async fn ended(&self) {
        self.jobs.closed().await;
    }
}

/// Starts the writer's thread. The lock of the folder is given back when the thread ends.
pub(super) fn start(
    connection: SqliteConnection,
    lock: HomeLock,
    last_event: u64,
    listened_ms: u64,
) -> std::io::Result<WriterHandle> {
    let (jobs, handed_in) = mpsc::channel(JOBS_MAX);
    let handle = WriterHandle { jobs, listened_ms: Arc::new(AtomicU64::new(listened_ms)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let writer = Writer {
        connection,
        last_event,
        listened_ms: handle.listened_ms.clone(),
        listened_stored_ms: listened_ms,
        listened_stored_at: Instant::now(),
    };
    std::thread::Builder::new().name("store-writer".into()).spawn(move || {
        let closing = runtime.block_on(writer.run_writer(handed_in));
        drop(lock);
        if let Some((answer, outcome)) = closing {
            let _gone = answer.send(outcome);
        }
    })?;
    Ok(handle)
}

type Closing = (oneshot::Sender<Result<(), StoreError>>, Result<(), StoreError>);

struct Writer {
    connection: SqliteConnection,
    last_event: u64,
    listened_ms: Arc<AtomicU64>,
    listened_stored_ms: u64,
    listened_stored_at: Instant,
}

/// The jobs of one commit, by kind.
#[derive(Default)]
struct Batch {
    runs: Vec<RunJob>,
    log_rows: Vec<LogRowsJob>,
    sensors: Vec<SensorJob>,
    small: Vec<SmallJob>,
}

/// What a commit gave to its jobs.
struct Committed {
    /// Events by unit and, within it, by job.
    events: Vec<Vec<Vec<EventView>>>,
    sensors: Vec<Taken>,
    small: Vec<SmallDone>,
}

impl Writer {
    async fn run_writer(mut self, mut jobs: mpsc::Receiver<Job>) -> Option<Closing> {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        let mut closing = None;
        loop {
            let taken = tokio::select! {
                biased;
                taken = jobs.recv_many(&mut waiting, BATCH_MAX) => taken,
                () = tokio::time::sleep(LISTENED_IDLE) => {
                    self.land(Batch::default()).await;
                    continue;
                }
            };
            if taken == 0 {
                break;
            }
            let mut batch = Batch::default();
            for job in waiting.drain(..) {
                match job {
                    Job::Run(job) => batch.runs.push(job),
                    Job::LogRows(job) => batch.log_rows.push(job),
                    Job::Sensors(job) => batch.sensors.push(job),
                    Job::Small(job) => batch.small.push(job),
                    Job::Close(answer) => {
                        // What waits behind is still landed; nothing more comes in.
                        jobs.close();
                        closing = Some(answer);
                    }
                }
            }
            self.land(batch).await;
        }
        self.listened_stored_at = Instant::now() - LISTENED_EVERY;
        self.land(Batch::default()).await;
        let outcome = self.end().await;
        closing.map(|answer| (answer, outcome))
    }

    /// Moves the write-ahead log into the database and closes it.
    async fn end(mut self) -> Result<(), StoreError> {
        let moved = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
        let closed = self.connection.close().await;
        moved.map(|_done| ()).and(closed).map_err(StoreError::database("closing the database"))
    }

    /// Lands a batch and answers every job in it.
    async fn land(&mut self, batch: Batch) {
        let mut units = unit::decide_all(&mut self.connection, batch.runs).await;
        let Batch { mut log_rows, mut sensors, mut small, runs: _ } = Batch { runs: Vec::new(), ..batch };
        if units.is_empty()
            && log_rows.is_empty()
            && sensors.is_empty()
            && small.is_empty()
            && !self.listened_due()
        {
            return;
        }
        let failed = match self.commit(&units, &log_rows, &sensors, &mut small).await {
            Ok(committed) => return reply(Ok(committed), units, log_rows, sensors),
            Err(failed) => failed,
        };
        let parts = units.len() + log_rows.len() + sensors.len();
        if parts <= 1 {
            reply(Err(failed), units, log_rows, sensors);
            return self.land_small(small).await;
        }
        warn!(error = %failed, parts, "a commit of many failed, landing each on its own");
        for unit in units.drain(..) {
            let outcome = self.commit(std::slice::from_ref(&unit), &[], &[], &mut Vec::new()).await;
            reply(outcome, vec![unit], Vec::new(), Vec::new());
        }
        for rows in log_rows.drain(..) {
            let outcome = self.commit(&[], std::slice::from_ref(&rows), &[], &mut Vec::new()).await;
            reply(outcome, Vec::new(), vec![rows], Vec::new());
        }
        for batch in sensors.drain(..) {
            let outcome = self.commit(&[], &[], std::slice::from_ref(&batch), &mut Vec::new()).await;
            reply(outcome, Vec::new(), Vec::new(), vec![batch]);
        }
        self.land_small(small).await;
    }

    /// Lands small jobs that were not reached before.
    async fn land_small(&mut self, mut small: Vec<SmallJob>) {
        if small.is_empty() {
            return;
        }
        let outcome = self.commit(&[], &[], &[], &mut small).await;
        if let Err(failed) = &outcome {
            // Jobs that are still here never ran; dropping them answers their callers.
            error!(error = %failed, unreached = small.len(), "a commit failed");
        }
        reply(outcome, Vec::new(), Vec::new(), Vec::new());
    }

    /// One transaction. Small jobs are taken out of `small` only once everything before them has succeeded.
    async fn commit(
        &mut self,
        units: &[Unit],
        log_rows: &[LogRowsJob],
        sensors: &[SensorJob],
        small: &mut Vec<SmallJob>,
    ) -> Result<Committed, StoreError> {
        self.begin().await?;
        let mut last_event = self.last_event;
        let written = self.write(units, log_rows, sensors, &mut last_event).await;
        let (events, sensors) = match written {
            Ok(written) => written,
            Err(failed) => {
                self.roll_back().await;
                return Err(failed);
            }
        };
        let mut done = Vec::with_capacity(small.len());
        for job in small.drain(..) {
            done.push(self.run_small(job).await);
        }
        let listened_ms = self.listened_due().then(|| self.listened_ms.load(Ordering::Relaxed));
        let ended = match self.store_listened(listened_ms).await {
            Ok(()) => self.connection.execute("COMMIT").await.map(|_done| ()),
            Err(failed) => Err(failed),
        };
        if let Err(failed) = ended {
            self.roll_back().await;
            let failed = StoreError::database("committing")(failed);
            for done in done {
                (done.reply)(Err(failed.clone()));
            }
            return Err(failed);
        }
        self.last_event = last_event;
        if let Some(listened_ms) = listened_ms {
            self.listened_stored_ms = listened_ms;
            self.listened_stored_at = Instant::now();
        }
        Ok(Committed { events, sensors, small: done })
    }

    async fn write(
        &mut self,
        units: &[Unit],
        log_rows: &[LogRowsJob],
        sensors: &[SensorJob],
        last_event: &mut u64,
    ) -> Result<(Vec<Vec<Vec<EventView>>>, Vec<Taken>), StoreError> {
        let events = unit::write_all(&mut self.connection, units, last_event).await?;
        super::logs::index::insert_all(&mut self.connection, log_rows).await?;
        let sensors = super::sensors::insert_all(&mut self.connection, sensors).await?;
        Ok((events, sensors))
    }

    async fn run_small(&mut self, job: SmallJob) -> SmallDone {
        if let Err(failed) = self.connection.execute("SAVEPOINT small").await {
            // Without it the job could not be undone alone, so it does not run; its caller sees its answer dropped.
            warn!(error = %failed, "a small job could not begin");
            return SmallDone { good: false, reply: Box::new(|_committed| ()) };
        }
        let done = job(&mut self.connection).await;
        let end = if done.good { "RELEASE small" } else { "ROLLBACK TO small; RELEASE small" };
        match self.connection.execute(end).await {
            Ok(_done) => done,
            Err(failed) => {
                let failed = StoreError::database("ending a part of a transaction")(failed);
                let reply = done.reply;
                SmallDone { good: false, reply: Box::new(move |_committed| reply(Err(failed))) }
            }
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.connection.execute("BEGIN IMMEDIATE").await.is_ok() {
            return Ok(());
        }
        // A transaction that could not be undone may still be open; nothing of it was acknowledged.
        self.roll_back().await;
        self.connection
            .execute("BEGIN IMMEDIATE")
            .await
            .map(|_done| ())
            .map_err(StoreError::database("beginning a transaction"))
    }

    /// Undoes the transaction. After some errors SQLite has done so itself, and then says that there is none.
    async fn roll_back(&mut self) {
        if let Err(failed) = self.connection.execute("ROLLBACK").await {
            warn!(error = %failed, "a transaction was not rolled back, or had been already");
        }
    }

    fn listened_due(&self) -> bool {
        self.listened_ms.load(Ordering::Relaxed) > self.listened_stored_ms
            && self.listened_stored_at.elapsed() >= LISTENED_EVERY
    }

    async fn store_listened(&mut self, listened_ms: Option<u64>) -> Result<(), sqlx::Error> {
        let Some(listened_ms) = listened_ms else {
            return Ok(());
        };
        sqlx::query("UPDATE meta SET value = ? WHERE key = 'listened_ms'")
            .bind(listened_ms.to_string())
            .execute(&mut self.connection)
            .await
            .map(|_done| ())
    }
}

/// Answers the jobs of one commit.
fn reply(
    outcome: Result<Committed, StoreError>,
    units: Vec<Unit>,
    log_rows: Vec<LogRowsJob>,
    sensors: Vec<SensorJob>,
) {
    match outcome {
        Ok(committed) => {
            for (unit, events) in units.into_iter().zip(committed.events) {
                unit.reply(Ok(events));
            }
            for rows in log_rows {
                let _gone = rows.reply.send(Ok(()));
            }
            for (batch, taken) in sensors.into_iter().zip(committed.sensors) {
                let _gone = batch.reply.send(Ok(taken));
            }
            for done in committed.small {
                (done.reply)(Ok(()));
            }
        }
        Err(failed) => {
            for unit in units {
                unit.reply(Err(failed.clone()));
            }
            for rows in log_rows {
                let _gone = rows.reply.send(Err(failed.clone()));
            }
            for batch in sensors {
                let _gone = batch.reply.send(Err(failed.clone()));
            }
        }
    }
}

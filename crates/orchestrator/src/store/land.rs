//! Lands what the writer has gathered: one transaction with multi-row statements, one commit, then all answers.
//!
//! Where a statement for many fails, every part is landed on its own, so that only the one at fault is told so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groundcrew_protocol::operator::EventView;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};
use tracing::{error, warn};

use super::logs::index::LogRowsJob;
use super::sensors::SensorJob;
use super::unit::{self, InFlight, Stand, Unit};
use super::writer::{SmallDone, SmallJob};
use super::{StoreError, Taken};

/// The clock of listening is stored with commits, at most this often.
const LISTENED_EVERY: Duration = Duration::from_secs(1);

/// The jobs of one commit, by kind.
#[derive(Default)]
pub(super) struct Batch {
    /// Changes of runs, decided.
    pub units: Vec<Unit>,
    /// Rows of log chunks.
    pub log_rows: Vec<LogRowsJob>,
    /// Batches of sensor readings.
    pub sensors: Vec<SensorJob>,
    /// Anything else.
    pub small: Vec<SmallJob>,
    /// Some of the small ones write rows of runs.
    pub touches_runs: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        let Batch { units, log_rows, sensors, small, touches_runs: _ } = self;
        units.is_empty() && log_rows.is_empty() && sensors.is_empty() && small.is_empty()
    }

    /// The runs on which nothing can be decided until this has landed.
    pub fn in_flight(&self) -> InFlight {
        InFlight {
            runs: self.units.iter().map(|unit| unit.run.clone()).collect(),
            touches_runs: self.touches_runs,
        }
    }
}

/// What a commit gave to its jobs.
struct Committed {
    /// Events by unit and, within it, by job.
    events: Vec<Vec<Vec<EventView>>>,
    sensors: Vec<Taken>,
    small: Vec<SmallDone>,
}

/// Owns the connection that writes.
pub(super) struct Lander {
    /// Between two batches the writer reads with it.
    pub connection: SqliteConnection,
    /// How the runs of the batch that lands stand now.
    stands: Vec<Stand>,
    last_event: u64,
    listened_ms: Arc<AtomicU64>,
    listened_stored_ms: u64,
    listened_stored_at: Instant,
}

impl Lander {
    /// With the number of the newest event, and the clock of listening as it is stored.
    pub fn new(connection: SqliteConnection, last_event: u64, listened_ms: Arc<AtomicU64>) -> Lander {
        Lander {
            connection,
            stands: Vec::new(),
            last_event,
            listened_stored_ms: listened_ms.load(Ordering::Relaxed),
            listened_ms,
            listened_stored_at: Instant::now(),
        }
    }

    /// Stores the clock of listening, moves the write-ahead log into the database and closes it.
    pub async fn end(mut self) -> Result<(), StoreError> {
        self.listened_stored_at = Instant::now() - LISTENED_EVERY;
        self.land(Batch::default()).await;
        let moved = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
        let closed = self.connection.close().await;
        moved.map(|_done| ()).and(closed).map_err(StoreError::database("closing the database"))
    }

    /// Lands a batch, answers every job in it, and says how its runs stand now.
    pub async fn land(&mut self, batch: Batch) -> Vec<Stand> {
        if !batch.is_empty() || self.listened_due() {
            self.land_all(batch).await;
        }
        std::mem::take(&mut self.stands)
    }

    async fn land_all(&mut self, batch: Batch) {
        let Batch { mut units, mut log_rows, mut sensors, mut small, touches_runs: _ } = batch;
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

    /// One transaction, after which it is known how its runs stand.
    async fn commit(
        &mut self,
        units: &[Unit],
        log_rows: &[LogRowsJob],
        sensors: &[SensorJob],
        small: &mut Vec<SmallJob>,
    ) -> Result<Committed, StoreError> {
        let outcome = self.transact(units, log_rows, sensors, small).await;
        let landed = outcome.is_ok();
        self.stands.extend(units.iter().map(|unit| unit.stand(landed)));
        outcome
    }

    /// One transaction. Small jobs are taken out of `small` only once everything before them has succeeded.
    async fn transact(
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

//! The one writer: a thread with the only connection that writes.
//!
//! It takes as many jobs as wait, at most [`BATCH_MAX`], lands them in one transaction, commits once, and only then
//! answers all of them ([`super::land`]). Decisions on runs are made before their transaction begins, and land by
//! compare-and-set. While one batch lands, the next is gathered: decisions on runs that no part of the first concerns
//! are made while the database works and the disk syncs.
//!
//! ```text
//!   gathered ──settle──▶ batch ──land──▶ answered
//!      ▲        loads what is     │
//!      └── jobs ── not known      └─ meanwhile: decide what is known and not in flight, hold back the rest
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use groundcrew_durable::lock::HomeLock;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::cache::RunCache;
use super::land::{Batch, Lander};
use super::logs::index::LogRowsJob;
use super::sensors::SensorJob;
use super::unit::{InFlight, RunJob, Units};

/// Jobs of one commit. More would save nothing: the cost of the commit is spread thin already, and the first
/// of them waits for the last.
const BATCH_MAX: usize = 256;
/// Jobs that may wait; whoever hands in one more waits with it.
const JOBS_MAX: usize = 1_024;
/// The clock of listening is stored by itself after this, where nothing else is.
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
    /// The same for what writes rows of runs.
    SmallOnRuns(SmallJob),
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

    /// Runs `work` inside the transaction and answers after the commit. It must not write rows of runs.
    pub async fn small<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.small_as(Job::Small, work).await
    }

    /// The same for `work` that writes rows of runs: what the writer knows of them is read anew afterwards.
    pub async fn small_on_runs<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.small_as(Job::SmallOnRuns, work).await
    }

    async fn small_as<T, F>(&self, job_of: fn(SmallJob) -> Job, work: F) -> Result<T, StoreError>
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
        self.send(job_of(job)).await?;
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
    let lander = Lander::new(connection, last_event, handle.listened_ms.clone());
    let writer = Writer { lander, runs: RunCache::default() };
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

/// Jobs as they come in.
struct Inbox {
    jobs: mpsc::Receiver<Job>,
    /// False once there will be no more.
    is_open: bool,
    /// Waits for the end.
    closing: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// The next batch, while it is gathered.
#[derive(Default)]
struct Gathered {
    units: Units,
    rest: Batch,
    jobs: usize,
}

impl Gathered {
    fn take(&mut self, job: Job, inbox: &mut Inbox, runs: &mut RunCache, in_flight: &InFlight) {
        self.jobs += 1;
        match job {
            Job::Run(job) => self.units.take(job, runs, in_flight),
            Job::LogRows(job) => self.rest.log_rows.push(job),
            Job::Sensors(job) => self.rest.sensors.push(job),
            Job::Small(job) => self.rest.small.push(job),
            Job::SmallOnRuns(job) => {
                self.rest.small.push(job);
                self.rest.touches_runs = true;
            }
            Job::Close(answer) => {
                // What waits behind is still landed; nothing more comes in.
                inbox.jobs.close();
                inbox.closing = Some(answer);
            }
        }
    }
}

struct Writer {
    lander: Lander,
    runs: RunCache,
}

impl Writer {
    async fn run_writer(mut self, jobs: mpsc::Receiver<Job>) -> Option<Closing> {
        let mut inbox = Inbox { jobs, is_open: true, closing: None };
        let mut gathered = Gathered::default();
        while self.fill(&mut gathered, &mut inbox).await {
            let Gathered { units, rest, jobs: _ } = gathered;
            let units = units.settle(&mut self.lander.connection, &mut self.runs).await;
            gathered = self.land(Batch { units, ..rest }, &mut inbox).await;
        }
        let outcome = self.lander.end().await;
        inbox.closing.map(|answer| (answer, outcome))
    }

    /// Takes what waits, or waits for something to take. False once there will be nothing more.
    async fn fill(&mut self, gathered: &mut Gathered, inbox: &mut Inbox) -> bool {
        let nothing = InFlight::default();
        while gathered.jobs == 0 {
            tokio::select! {
                biased;
                job = inbox.jobs.recv() => match job {
                    Some(job) => gathered.take(job, inbox, &mut self.runs, &nothing),
                    None => return false,
                },
                () = tokio::time::sleep(LISTENED_IDLE) => drop(self.lander.land(Batch::default()).await),
            }
        }
        while gathered.jobs < BATCH_MAX
            && let Ok(job) = inbox.jobs.try_recv()
        {
            gathered.take(job, inbox, &mut self.runs, &nothing);
        }
        true
    }

    /// Lands a batch, and gathers the next one meanwhile.
    async fn land(&mut self, batch: Batch, inbox: &mut Inbox) -> Gathered {
        let Writer { lander, runs } = self;
        let in_flight = batch.in_flight();
        let mut next = Gathered::default();
        let stands = {
            let mut landing = std::pin::pin!(lander.land(batch));
            loop {
                tokio::select! {
                    // What lands goes first: the database is to have its next statement without delay.
                    biased;
                    stands = &mut landing => break stands,
                    job = inbox.jobs.recv(), if inbox.is_open && next.jobs < BATCH_MAX => match job {
                        Some(job) => next.take(job, inbox, runs, &in_flight),
                        None => inbox.is_open = false,
                    },
                }
            }
        };
        if in_flight.touches_runs {
            runs.clear();
        } else {
            for (run, known) in stands {
                runs.learn(&run, known);
            }
        }
        next
    }
}

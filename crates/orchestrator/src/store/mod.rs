//! The only door to what the orchestrator keeps: one SQLite database, log segments and artifacts in one folder.
//!
//! Writes go to one writer, which takes many at a time, commits once for all of them and answers only then
//! ([`writer`]). Reads come from a small pool of read-only connections. Run documents are text here: what they
//! mean is the business of `crate::run`, which hands in closures ([`Store::change_run`]) and may leave what it read in
//! the document ([`RunDoc`]). Nothing in here
//! decides anything about a run, and no transaction is open while anything but SQL happens.
//!
//! SQL is written in this module alone, so that another database fits beside SQLite.

pub mod artifacts;
pub mod backup;
mod cache;
pub mod disk;
mod doc;
pub mod drains;
pub mod error;
pub mod events;
pub mod facts;
mod land;
pub mod logs;
mod manifest;
pub mod nodes;
pub mod open;
pub mod packages;
pub mod registry;
pub mod restore;
pub mod results;
pub mod run_packages;
pub mod runs;
pub mod sensors;
pub mod sweep;
mod text;
mod unit;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use groundcrew_protocol::ids::Generation;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use artifacts::{ArtifactRow, NewArtifact};
pub use backup::{BackedUp, BackupError, backup};
pub use disk::{DiskProbe, DiskSpace, DiskState};
pub use doc::RunDoc;
pub use error::{OpenError, StoreError};
pub use events::{AuditRow, NewAudit, NewEventRow};
pub use facts::{AgentFact, AgentKey};
pub use logs::{LogChunk, LogCursor, LogPage, Logs};
pub use nodes::ProfileRow;
pub use packages::Upload;
pub use registry::{AgentSeen, TokenRow};
pub use restore::{RestoreError, Restored, restore};
pub use results::{NewResultRow, ResultKind, StoredResult};
pub use run_packages::{PackageKey, PackageUsers};
pub use runs::{RunColumns, RunLookup, RunWrite, RunsPage, StoredRun, TokenKind, TokenOwner};
pub use sensors::{SensorBatch, Wanted};
pub use sweep::{ENDED_AGENTS_MS, Retention, Swept};

/// Name of the database in the data folder.
pub const DATABASE_FILE: &str = "groundcrew.db";

/// How a store is opened. The default keeps no room free, which is the server's to say.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Share of the disk, in percent, under which the disk counts as full (rule 6 of the design); at 0 it never does.
    pub free_percent_min: f64,
    /// Asks how much room there is; `None` asks the file system of the data folder.
    pub disk_probe: Option<DiskProbe>,
    /// How long things are kept.
    pub retention: Retention,
}

/// The store. Cheap to clone; the last one that goes ends the writer, [`Store::close`] does so in order.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    generation: Generation,
    listened_at_open_ms: u64,
    retention: Retention,
    disk: disk::Disk,
    readers: SqlitePool,
    writer: writer::WriterHandle,
    log_writer: mpsc::Sender<logs::segment::LogJob>,
    log_room: Arc<Semaphore>,
    /// Held while artifacts are written or swept: a file and its row come and go together.
    artifacts: tokio::sync::Mutex<()>,
    /// The same for packages.
    packages: tokio::sync::Mutex<()>,
    sensor_turns: Semaphore,
}

/// Whether something was new to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored now.
    First,
    /// The same was stored before.
    Repeated,
    /// Something else is stored under the same name: nothing was changed. Answered with 409.
    OtherContent,
}

impl Store {
    /// Opens the store in the folder `data`, which is made if it is missing, and locks the folder until the
    /// store is closed.
    ///
    /// # Errors
    /// [`OpenError`]. What is there is left byte for byte as it was.
    pub async fn open(data: &Path, options: StoreOptions) -> Result<Store, OpenError> {
        let opened = open::open(data).await?;
        packages::remove_broken_uploads(data).map_err(OpenError::Store)?;
        let started = |what: &'static str| {
            let path = data.to_owned();
            move |source| OpenError::File { what, path, source }
        };
        let writer = writer::start(opened.writer, opened.lock, opened.last_event, opened.listened_ms)
            .map_err(started("starting the writer of"))?;
        let log_writer =
            logs::segment::start(data.join(logs::LOGS_FOLDER), opened.log_reader, writer.clone())
                .map_err(OpenError::Store)?;
        let inner = Inner {
            data: data.to_owned(),
            generation: opened.generation,
            listened_at_open_ms: opened.listened_ms,
            retention: options.retention,
            disk: disk::Disk::new(data, options.disk_probe, options.free_percent_min),
            readers: opened.readers,
            writer,
            log_writer,
            log_room: Arc::new(Semaphore::new(logs::IN_FLIGHT_KIB_MAX)),
            artifacts: tokio::sync::Mutex::new(()),
            packages: tokio::sync::Mutex::new(()),
            sensor_turns: Semaphore::new(sensors::SENSOR_TURNS),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Ends the writer after everything that was handed in, and moves the write-ahead log into the database.
    /// Later calls on clones answer [`StoreError::Closed`]. The folder's lock is given back.
    ///
    /// # Errors
    /// Where the database could not be closed in order. Nothing acknowledged is lost by that.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (reply, ended) = oneshot::channel();
        if self.inner.log_writer.send(logs::segment::LogJob::Close(reply)).await.is_ok() {
            ended.await.map_err(|_dropped| StoreError::Closed)?;
        }
        self.inner.readers.close().await;
        let (reply, ended) = oneshot::channel();
        self.inner.writer.send(writer::Job::Close(reply)).await?;
        ended.await.map_err(|_dropped| StoreError::Closed)?
    }

    /// Comes back once the writer has ended: after [`Store::close`], or through a defect, after which the process
    /// should end.
    pub async fn ended(&self) {
        self.inner.writer.ended().await;
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.inner.data
    }

    /// Which life of the store this is: one higher after each restore.
    pub fn generation(&self) -> Generation {
        self.inner.generation
    }

    /// The clock of listening as it was last stored, read once when the store was opened. The caller goes on
    /// counting from here.
    pub fn listened_at_open_ms(&self) -> u64 {
        self.inner.listened_at_open_ms
    }

    /// Says how far the clock of listening has come. Costs nothing; it is stored with the next commit that is at
    /// least a second after the last time, and by itself every ten seconds.
    pub fn note_listened(&self, listened_ms: u64) {
        self.inner.writer.note_listened(listened_ms);
    }

    /// Room on the disk, asked at most once a second.
    pub fn disk_state(&self) -> DiskState {
        self.inner.disk.state()
    }

    /// The logs.
    pub fn logs(&self) -> Logs<'_> {
        Logs { store: self }
    }
}

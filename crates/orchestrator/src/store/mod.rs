//! The only door to what the orchestrator keeps: one SQLite database, log segments and artifacts in one folder.
//!
//! Writes go to one writer, which takes many at a time, commits once for all of them and answers only then
//! ([`writer`]). Reads come from a small pool of read-only connections. Run documents are text here: what they
//! mean is the business of `crate::run`, which hands in closures ([`Store::change_run`]). Nothing in here
//! decides anything about a run, and no transaction is open while anything but SQL happens.
//!
//! SQL is written in this module alone, so that another database fits beside SQLite.

pub mod artifacts;
pub mod backup;
pub mod disk;
pub mod error;
pub mod events;
pub mod logs;
pub mod nodes;
pub mod open;
pub mod registry;
pub mod results;
pub mod runs;
pub mod sensors;
pub mod sweep;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use groundcrew_protocol::ids::Generation;

pub use artifacts::{ArtifactRow, NewArtifact};
pub use backup::{BackupError, RestoreError, backup, restore};
pub use disk::{DiskProbe, DiskSpace, DiskState};
pub use error::{OpenError, StoreError};
pub use events::{AuditRow, NewAudit, NewEventRow};
pub use logs::{LogChunk, LogCursor, LogPage, Logs};
pub use nodes::ProfileRow;
pub use registry::{AgentSeen, TokenRow};
pub use results::{NewResultRow, ResultKind, StoredResult};
pub use runs::{RunColumns, RunLookup, RunWrite, RunsPage, StoredRun, TokenKind, TokenOwner};
pub use sensors::SensorBatch;
pub use sweep::{Retention, Swept};

/// Name of the database in the data folder.
pub const DATABASE_FILE: &str = "groundcrew.db";

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Share of the disk, in percent, under which the disk counts as full (rule 6 of the design).
    pub free_percent_min: f64,
    /// Asks how much room there is; `None` asks the file system of the data folder.
    pub disk_probe: Option<DiskProbe>,
    /// How long things are kept.
    pub retention: Retention,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { free_percent_min: 5.0, disk_probe: None, retention: Retention::default() }
    }
}

/// The store. Cheap to clone; the last one that goes ends the writer, [`Store::close`] does so in order.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
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
    pub async fn open(_data: &Path, _options: StoreOptions) -> Result<Store, OpenError> {
        unreachable!("being written")
    }

    /// Ends the writer after everything that was handed in, and moves the write-ahead log into the database.
    /// Later calls on clones answer [`StoreError::Closed`].
    ///
    /// # Errors
    /// Where the database could not be closed in order. Nothing acknowledged is lost by that.
    pub async fn close(&self) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.inner.data
    }

    /// Which life of the store this is: one higher after each restore.
    pub fn generation(&self) -> Generation {
        unreachable!("being written")
    }

    /// The clock of listening as it was last stored, read once when the store was opened. The caller goes on
    /// counting from here.
    pub fn listened_at_open_ms(&self) -> u64 {
        unreachable!("being written")
    }

    /// Says how far the clock of listening has come. Costs nothing; it is stored with the next commit that is at
    /// least a second after the last time, and by itself every ten seconds.
    pub fn note_listened(&self, _listened_ms: u64) {
        unreachable!("being written")
    }

    /// Room on the disk, asked at most once a second.
    pub fn disk_state(&self) -> DiskState {
        unreachable!("being written")
    }

    /// The logs.
    pub fn logs(&self) -> Logs<'_> {
        unreachable!("being written")
    }
}

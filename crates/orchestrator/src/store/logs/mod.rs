//! Logs: chunks of lines in compressed segment files, with a row each in the database.
//!
//! A thread of its own appends ([`segment`]): the data of many chunks is written and synced once, then their rows
//! are committed ([`index`]), then the callers are answered. A crash in between leaves bytes that no row names.
//! Segments are only ever appended to, by one process, and go as a whole when no row names them any more.

pub mod admit;
mod frame;
mod gaps;
pub(super) mod index;
mod read;
pub(super) mod segment;

use groundcrew_protocol::ids::{ClaimNumber, RandomId, RunId};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogGap, LogLine};

use tokio::sync::oneshot;

use self::segment::{Appending, LogJob};
use super::{Store, StoreError, Taken};

/// Name of the folder of segments in the data folder.
pub(super) const LOGS_FOLDER: &str = "logs";
/// What a line weighs beside its text.
const LINE_FRAME_BYTES: usize = 96;
/// What all chunks on their way to the disk may hold together; more wait at the door.
pub(super) const IN_FLIGHT_KIB_MAX: usize = 64 * 1024;

/// A chunk of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The run.
    pub run: RunId,
    /// The spool's random id; an agent of protocol 1 has none, and its repetitions cannot be told.
    pub stream: Option<RandomId>,
    /// Counted from 0 within the stream.
    pub seq: u64,
    /// The sender's claim.
    pub claim: ClaimNumber,
    /// When it came.
    pub at: WallMs,
    /// The lines.
    pub lines: Vec<LogLine>,
    /// What the spool had to let go just before this chunk.
    pub gap: Option<LogGap>,
    /// The closing mark.
    pub closes: bool,
}

/// A place in a run's log: after this many lines of this chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogCursor {
    /// Number of the chunk, over all runs; 0 is before the first.
    pub chunk: u64,
    /// Lines of it that are behind the cursor, counted without the filter.
    pub line: u32,
}

impl LogChunk {
    /// What tells its content from another's: SHA-256 of its lines, gap and closing mark.
    ///
    /// # Errors
    /// A line or gap that cannot be written as JSON.
    pub fn content_hash(&self) -> Result<admit::Hash, StoreError> {
        frame::hash_of(self)
    }
}

/// A part of a run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The lines, in order of arrival.
    pub lines: Vec<LogLine>,
    /// Where the next part begins. It may bring nothing, where nothing has come yet.
    pub next: LogCursor,
    /// True where nothing more was there when this was read.
    pub at_end: bool,
}

/// The logs of a store.
pub struct Logs<'s> {
    pub(super) store: &'s Store,
}

impl Logs<'_> {
    /// Stores a chunk: its data first, durably, then its row, then the answer.
    ///
    /// # Errors
    /// Those of files and of the database. Nothing was acknowledged then.
    pub async fn append(&self, chunk: LogChunk) -> Result<Taken, StoreError> {
        let text_bytes: usize = chunk.lines.iter().map(|line| line.text.len() + LINE_FRAME_BYTES).sum();
        let kib = u32::try_from((text_bytes / 1024).clamp(1, IN_FLIGHT_KIB_MAX)).unwrap_or(u32::MAX);
        let room = self.store.inner.log_room.clone();
        let room = room.acquire_many_owned(kib).await.map_err(|_closed| StoreError::Closed)?;
        let packed = tokio::task::spawn_blocking(move || frame::pack(chunk)).await;
        let packed = packed.map_err(|error| StoreError::Unreadable {
            what: "a chunk of log".into(),
            why: error.to_string(),
        })??;
        let (reply, answered) = oneshot::channel();
        let job = LogJob::Append(Box::new(Appending { packed, reply }));
        self.store.inner.log_writer.send(job).await.map_err(|_closed| StoreError::Closed)?;
        let taken = answered.await.map_err(|_dropped| StoreError::Closed)?;
        drop(room);
        taken
    }

    /// Lines of a run after a cursor, at most `limit` (1 to 10,000), of one stage or of all. A page may hold fewer
    /// lines than `limit`, also none, without being at the end: the filter may have left them out.
    ///
    /// # Errors
    /// Those of files and of the database, and [`StoreError::Unreadable`] for data that does not hash to its row.
    pub async fn read(
        &self,
        run: &RunId,
        stage: Option<&Stage>,
        after: LogCursor,
        limit: usize,
    ) -> Result<LogPage, StoreError> {
        read::page(self.store, run, stage, after, limit).await
    }

    /// The last `count` lines of a run, of one stage or of all, oldest first, and where those that follow begin.
    ///
    /// # Errors
    /// As [`Logs::read`].
    pub async fn tail(
        &self,
        run: &RunId,
        stage: Option<&Stage>,
        count: usize,
    ) -> Result<LogPage, StoreError> {
        read::tail(self.store, run, stage, count).await
    }

    /// What is not there, a sentence each: numbers missing in a stream, what a spool said that it let go, streams
    /// without a closing mark that a later claim's stream has followed, or whose run has ended while no agent speaks
    /// (`agent_speaks`) that could still close them, and data that
    /// retention took away. Of logs and of sensors. At most 64 sentences, then their number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn gaps(&self, run: &RunId, agent_speaks: bool) -> Result<Vec<String>, StoreError> {
        gaps::gaps(self.store, run, agent_speaks).await
    }
}

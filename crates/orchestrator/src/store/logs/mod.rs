//! Logs: chunks of lines in compressed segment files, with a row each in the database.

use groundcrew_protocol::ids::{ClaimNumber, RandomId, RunId};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogGap, LogLine};

use super::{Store, StoreError, Taken};

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
    #[expect(dead_code, reason = "the bodies come next")]
    store: &'s Store,
}

impl Logs<'_> {
    /// Stores a chunk: its data first, durably, then its row, then the answer.
    ///
    /// # Errors
    /// Those of files and of the database. Nothing was acknowledged then.
    pub async fn append(&self, _chunk: LogChunk) -> Result<Taken, StoreError> {
        unreachable!("being written")
    }

    /// Lines of a run after a cursor, at most `limit` (1 to 10,000), of one stage or of all. A page may hold fewer
    /// lines than `limit`, also none, without being at the end: the filter may have left them out.
    ///
    /// # Errors
    /// Those of files and of the database, and [`StoreError::Unreadable`] for data that does not hash to its row.
    pub async fn read(
        &self,
        _run: &RunId,
        _stage: Option<&Stage>,
        _after: LogCursor,
        _limit: usize,
    ) -> Result<LogPage, StoreError> {
        unreachable!("being written")
    }

    /// The last `count` lines of a run, of one stage or of all, oldest first.
    ///
    /// # Errors
    /// As [`Logs::read`].
    pub async fn tail(
        &self,
        _run: &RunId,
        _stage: Option<&Stage>,
        _count: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        unreachable!("being written")
    }

    /// What is not there, a sentence each: numbers missing in a stream, what a spool said that it let go, streams
    /// without a closing mark whose run has ended or that a later claim's stream has followed, and data that
    /// retention took away. Of logs and of sensors. At most 64 sentences, then their number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn gaps(&self, _run: &RunId) -> Result<Vec<String>, StoreError> {
        unreachable!("being written")
    }
}

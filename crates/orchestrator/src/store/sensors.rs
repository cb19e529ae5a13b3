//! Batches of sensor readings, stored once per (run, stream, seq).

use groundcrew_protocol::ids::{ClaimNumber, RandomId, RunId};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::SensorSample;

use super::{Store, StoreError, Taken};

/// A batch of readings.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorBatch {
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
    /// The readings.
    pub samples: Vec<SensorSample>,
    /// The closing mark.
    pub closes: bool,
}

impl Store {
    /// Stores a batch.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn append_sensors(&self, _batch: SensorBatch) -> Result<Taken, StoreError> {
        unreachable!("being written")
    }

    /// All readings of a run, in order of arrival.
    ///
    /// # Errors
    /// Those of the database, and [`StoreError::Unreadable`].
    pub async fn sensors(&self, _run: &RunId) -> Result<Vec<SensorSample>, StoreError> {
        unreachable!("being written")
    }
}

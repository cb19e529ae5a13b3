//! Retention: by age and by size, and never anything of a run that has not ended.

use groundcrew_protocol::time::WallMs;

use super::{Store, StoreError};

/// How long things are kept. Ages count from the end of the run; whatever belongs to a run that has not ended stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Logs, in milliseconds.
    pub logs_age_ms: u64,
    /// Log segments in all, in bytes; past it the logs of the runs that ended first go.
    pub logs_bytes_max: u64,
    /// Sensor readings, in milliseconds.
    pub sensors_age_ms: u64,
    /// Sensor readings in all, in bytes.
    pub sensors_bytes_max: u64,
    /// Events, in milliseconds.
    pub events_age_ms: u64,
    /// Evidence and artifacts, in milliseconds.
    pub evidence_age_ms: u64,
    /// Artifacts in all, in bytes.
    pub artifacts_bytes_max: u64,
    /// Ended runs with everything of them, in milliseconds.
    pub runs_age_ms: u64,
    /// Rows of the audit trail, in milliseconds.
    pub audit_age_ms: u64,
}

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

impl Default for Retention {
    fn default() -> Self {
        Retention {
            logs_age_ms: 90 * DAY_MS,
            logs_bytes_max: 64 * GIB,
            sensors_age_ms: 90 * DAY_MS,
            sensors_bytes_max: 4 * GIB,
            events_age_ms: 365 * DAY_MS,
            evidence_age_ms: 180 * DAY_MS,
            artifacts_bytes_max: 16 * GIB,
            runs_age_ms: 5 * 365 * DAY_MS,
            audit_age_ms: 5 * 365 * DAY_MS,
        }
    }
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Runs.
    pub runs: u64,
    /// Chunks of log.
    pub log_chunks: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of segment files.
    pub segment_bytes: u64,
    /// Sensor batches.
    pub sensor_batches: u64,
    /// Events.
    pub events: u64,
    /// Evidence rows.
    pub evidence: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Rows of the audit trail.
    pub audit: u64,
}

impl Store {
    /// Takes away what is past its time or over its size. Each step is a write of its own among the others, and a
    /// sweep that was cut short is finished by the next.
    ///
    /// # Errors
    /// Those of files and of the database.
    pub async fn sweep(&self, _now: WallMs) -> Result<Swept, StoreError> {
        unreachable!("being written")
    }
}

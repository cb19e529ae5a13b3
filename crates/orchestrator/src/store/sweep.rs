//! Retention: by age and by size, and never anything of a run that has not ended.

use groundcrew_protocol::time::WallMs;

use groundcrew_protocol::ids::RunId;
use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;

use super::logs::segment::LogJob;
use super::{Store, StoreError, runs, text};

/// Rows that one write takes away, so that no result waits long behind a sweep.
const ROWS_AT_ONCE: u64 = 1_000;
/// Runs that one sweep looks at for each kind of thing; the next sweep goes on.
const RUNS_AT_ONCE: i64 = 500;
/// Artifact files that one sweep removes.
const FILES_AT_ONCE: usize = 5_000;
/// Pages that one sweep gives back to the file system.
const PAGES_AT_ONCE: u32 = 2_000;
/// An agent that a runtime has seen end is shown for so long.
pub const ENDED_AGENTS_MS: u64 = 7 * DAY_MS;
/// Homes of agents that were not heard for so many days are forgotten: many times what a rotation of the certificate waits.
const AGENTS_SEEN_DAYS: i64 = 90;
/// For this long after a run was deleted, what its agent was just sending may still arrive.
const LATE_ARRIVALS_MS: u64 = 86_400_000;

/// How long things are kept. Ages count from the end of the run; whatever belongs to a run that has not ended stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Logs, in milliseconds.
    pub logs_age_ms: u64,
    /// Logs in all, in bytes as they are stored; past it the logs of the runs that ended first go. Files shrink by
    /// whole segments, so a segment that holds a line of a run that has not ended stays.
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
    /// Agents whose end a runtime has told.
    pub agents: u64,
}

impl Store {
    /// Takes away what is past its time or over its size. Each step is a write of its own among the others, and a
    /// sweep that was cut short is finished by the next.
    ///
    /// # Errors
    /// Those of files and of the database.
    pub async fn sweep(&self, now: WallMs) -> Result<Swept, StoreError> {
        let keep = self.inner.retention.clone();
        let mut swept = Swept::default();
        let before = |age_ms: u64| now.0.saturating_sub(text::signed(age_ms));
        swept.runs = self.sweep_runs(before(keep.runs_age_ms), now).await?;
        for kind in &KINDS {
            let age_ms = match kind.what {
                What::Log => keep.logs_age_ms,
                What::Sensors => keep.sensors_age_ms,
                What::Events => keep.events_age_ms,
                What::Evidence | What::Artifacts => keep.evidence_age_ms,
            };
            let bytes_max = match kind.what {
                What::Log => Some(keep.logs_bytes_max),
                What::Sensors => Some(keep.sensors_bytes_max),
                What::Artifacts => Some(keep.artifacts_bytes_max),
                What::Events | What::Evidence => None,
            };
            let mut rows = 0;
            for run in self.runs_past(kind, before(age_ms)).await? {
                rows += self.take_away(kind, &run, now).await?;
            }
            for run in self.runs_over(kind, bytes_max).await? {
                rows += self.take_away(kind, &run, now).await?;
            }
            match kind.what {
                What::Log => swept.log_chunks = rows,
                What::Sensors => swept.sensor_batches = rows,
                What::Events => swept.events = rows,
                What::Evidence => swept.evidence = rows,
                What::Artifacts => swept.artifacts = rows,
            }
        }
        swept.audit = self.sweep_audit(before(keep.audit_age_ms)).await?;
        swept.agents = self.sweep_facts(before(ENDED_AGENTS_MS)).await?;
        self.sweep_agents_seen(now.0.div_euclid(text::signed(DAY_MS)) - AGENTS_SEEN_DAYS).await?;
        self.sweep_late_arrivals(before(LATE_ARRIVALS_MS)).await?;
        self.sweep_artifact_files(FILES_AT_ONCE).await?;
        self.sweep_package_files().await?;
        let (reply, reclaimed) = oneshot::channel();
        self.inner.log_writer.send(LogJob::Reclaim(reply)).await.map_err(|_closed| StoreError::Closed)?;
        let reclaimed = reclaimed.await.map_err(|_dropped| StoreError::Closed)??;
        swept.segments = reclaimed.segments;
        swept.segment_bytes = reclaimed.bytes;
        self.give_pages_back().await?;
        Ok(swept)
    }

    /// Deletes runs that ended before `before`.
    async fn sweep_runs(&self, before: i64, now: WallMs) -> Result<u64, StoreError> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM runs WHERE ended < ? ORDER BY ended LIMIT ?")
                .bind(before)
                .bind(RUNS_AT_ONCE)
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("looking for runs past their time"))?;
        for id in &ids {
            let run: RunId = text::parse("the id of a run", id)?;
            // In small parts first, so that the last step is short.
            for kind in &KINDS {
                self.take_away(kind, &run, now).await?;
            }
            self.inner
                .writer
                .small_on_runs(move |connection| {
                    Box::pin(async move { runs::delete(connection, &run, now).await })
                })
                .await?;
        }
        Ok(ids.len() as u64)
    }

    /// Runs that ended before `before` and still have rows of this kind.
    async fn runs_past(&self, kind: &'static Kind, before: i64) -> Result<Vec<RunId>, StoreError> {
        let query = format!(
            "SELECT id FROM runs WHERE ended < ? AND EXISTS (SELECT 1 FROM {} WHERE run = runs.id AND {}) \
             ORDER BY ended LIMIT ?",
            kind.table, kind.which
        );
        let ids: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(before)
            .bind(RUNS_AT_ONCE)
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("looking for what is past its time"))?;
        ids.iter().map(|id| text::parse("the id of a run", id)).collect()
    }

    /// The runs that ended first, as many as it takes to come under the size.
    async fn runs_over(&self, kind: &'static Kind, bytes_max: Option<u64>) -> Result<Vec<RunId>, StoreError> {
        let failed = StoreError::database("looking for what is over its size");
        let Some(bytes_max) = bytes_max else {
            return Ok(Vec::new());
        };
        let query = format!("SELECT coalesce(sum({}), 0) FROM {}", kind.bytes, kind.table);
        let all: i64 =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&self.inner.readers).await.map_err(&failed)?;
        let mut over = all.saturating_sub(text::signed(bytes_max));
        if over <= 0 {
            return Ok(Vec::new());
        }
        let query = format!(
            "SELECT r.id, (SELECT coalesce(sum({}), 0) FROM {} WHERE run = r.id) AS bytes FROM runs r \
             WHERE r.ended IS NOT NULL AND bytes > 0 ORDER BY r.ended LIMIT ?",
            kind.bytes, kind.table
        );
        let candidates: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(query))
            .bind(RUNS_AT_ONCE)
            .fetch_all(&self.inner.readers)
            .await
            .map_err(&failed)?;
        let mut runs = Vec::new();
        for (id, bytes) in candidates {
            if over <= 0 {
                break;
            }
            over -= bytes;
            runs.push(text::parse("the id of a run", &id)?);
        }
        Ok(runs)
    }

    /// Takes away all rows of one kind of one run, and notes that it was done.
    async fn take_away(&self, kind: &'static Kind, run: &RunId, now: WallMs) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let run = run.clone();
            let rows = self
                .inner
                .writer
                .small(move |connection| {
                    Box::pin(async move {
                        let failed = StoreError::database("taking away what is past its time");
                        let delete = format!(
                            "DELETE FROM {0} WHERE id IN (SELECT id FROM {0} WHERE run = ? AND {1} LIMIT {ROWS_AT_ONCE})",
                            kind.table, kind.which
                        );
                        let done = sqlx::query(AssertSqlSafe(delete))
                            .bind(run.as_str())
                            .execute(&mut *connection)
                            .await
                            .map_err(&failed)?;
                        let rows = done.rows_affected();
                        if rows > 0 {
                            let note = "INSERT INTO swept (run, what, at, rows) VALUES (?, ?, ?, ?) \
                                        ON CONFLICT (run, what) DO UPDATE SET rows = rows + excluded.rows";
                            sqlx::query(note)
                                .bind(run.as_str())
                                .bind(kind.what.word())
                                .bind(now.0)
                                .bind(text::signed(rows))
                                .execute(connection)
                                .await
                                .map_err(&failed)?;
                        }
                        Ok(rows)
                    })
                })
                .await?;
            all += rows;
            if rows < ROWS_AT_ONCE {
                return Ok(all);
            }
        }
    }

    async fn sweep_audit(&self, before: i64) -> Result<u64, StoreError> {
        let delete =
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY id LIMIT 10000)";
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query(delete)
                        .bind(before)
                        .execute(connection)
                        .await
                        .map(|done| done.rows_affected())
                        .map_err(StoreError::database("shortening the audit trail"))
                })
            })
            .await
    }

    /// Forgets homes that were last heard before that day. But not those of runs that have not ended, and none as long as
    /// nobody was heard that much later: a clock that is far ahead for a while must not forget an agent that is away.
    async fn sweep_agents_seen(&self, day: i64) -> Result<(), StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let put = "DELETE FROM agents WHERE seen_day < ? \
                               AND seen_day < (SELECT max(seen_day) FROM agents) - ? \
                               AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = agents.run AND runs.ended IS NULL)";
                    sqlx::query(put)
                        .bind(day)
                        .bind(AGENTS_SEEN_DAYS)
                        .execute(connection)
                        .await
                        .map(|_done| ())
                        .map_err(StoreError::database("forgetting homes of agents"))
                })
            })
            .await
    }

    /// What still came for runs that were deleted since.
    async fn sweep_late_arrivals(&self, since: i64) -> Result<(), StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    for kind in &KINDS {
                        let delete = format!(
                            "DELETE FROM {} WHERE run IN (SELECT id FROM runs_gone WHERE at >= ?)",
                            kind.table
                        );
                        sqlx::query(AssertSqlSafe(delete))
                            .bind(since)
                            .execute(&mut *connection)
                            .await
                            .map_err(StoreError::database("taking away what deleted runs left"))?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn give_pages_back(&self) -> Result<(), StoreError> {
        let pragma = format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})");
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query(AssertSqlSafe(pragma))
                        .execute(connection)
                        .await
                        .map(|_done| ())
                        .map_err(StoreError::database("giving pages back"))
                })
            })
            .await
    }
}

/// A kind of thing that is kept for a while.
struct Kind {
    what: What,
    table: &'static str,
    /// Which rows of the table.
    which: &'static str,
    /// How large a row is.
    bytes: &'static str,
}

#[derive(Clone, Copy)]
enum What {
    Log,
    Sensors,
    Events,
    Evidence,
    Artifacts,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            What::Log => "log",
            What::Sensors => "sensors",
            What::Events => "events",
            What::Evidence => "evidence",
            What::Artifacts => "artifacts",
        }
    }
}

static KINDS: [Kind; 5] = [
    Kind { what: What::Log, table: "log_chunks", which: "1", bytes: "length" },
    Kind { what: What::Sensors, table: "sensor_batches", which: "1", bytes: "length(data)" },
    Kind { what: What::Events, table: "events", which: "1", bytes: "0" },
    Kind { what: What::Evidence, table: "results", which: "kind IN ('repeated', 'late')", bytes: "0" },
    Kind { what: What::Artifacts, table: "artifacts", which: "1", bytes: "bytes" },
];

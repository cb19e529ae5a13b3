//! What is not there, said in sentences.

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use sqlx::AssertSqlSafe;

use super::frame;
use crate::store::{Store, StoreError, text};

/// Sentences about one run; the rest is counted.
const SENTENCES_MAX: usize = 64;
/// Rows that are looked at for each kind of gap.
const ROWS_MAX: usize = 1_000;

/// See [`super::Logs::gaps`].
pub(super) async fn gaps(store: &Store, run: &RunId, agent_speaks: bool) -> Result<Vec<String>, StoreError> {
    let ended: Option<Option<i64>> = sqlx::query_scalar("SELECT ended FROM runs WHERE id = ?")
        .bind(run.as_str())
        .fetch_optional(&store.inner.readers)
        .await
        .map_err(StoreError::database("reading the end of a run"))?;
    // While the agent still speaks its streams are open, not cut off: the end of the run does not end the agent.
    let is_over = ended.flatten().is_some() && !agent_speaks;
    let mut all = Vec::new();
    for table in
        [Table { name: "log_chunks", what: "log" }, Table { name: "sensor_batches", what: "sensors" }]
    {
        match swept(store, run, table.what).await? {
            Some(sentence) => all.push(sentence),
            None => {
                missing(store, run, &table, &mut all).await?;
                unclosed(store, run, &table, is_over, &mut all).await?;
            }
        }
    }
    if all.len() > SENTENCES_MAX {
        let more = all.len() - SENTENCES_MAX;
        all.truncate(SENTENCES_MAX);
        all.push(format!("and {more} more gaps"));
    }
    Ok(all)
}

struct Table {
    name: &'static str,
    what: &'static str,
}

async fn swept(store: &Store, run: &RunId, what: &str) -> Result<Option<String>, StoreError> {
    let row: Option<(i64, i64)> = sqlx::query_as("SELECT at, rows FROM swept WHERE run = ? AND what = ?")
        .bind(run.as_str())
        .bind(what)
        .fetch_optional(&store.inner.readers)
        .await
        .map_err(StoreError::database("reading what retention took"))?;
    Ok(row.map(|(at, rows)| format!("{what}: {rows} chunks were removed by retention on {}", WallMs(at))))
}

/// Numbers that are not there, and what a spool said that it let go.
async fn missing(store: &Store, run: &RunId, table: &Table, all: &mut Vec<String>) -> Result<(), StoreError> {
    let query = format!(
        "SELECT stream, seq, before, gap FROM (SELECT stream, seq, gap, \
         lag(seq, 1, -1) OVER (PARTITION BY stream ORDER BY seq) AS before FROM {} \
         WHERE run = ? AND stream IS NOT NULL) WHERE seq <> before + 1 OR gap IS NOT NULL LIMIT {ROWS_MAX}",
        table.name
    );
    let rows: Vec<(String, i64, i64, Option<String>)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(run.as_str())
        .fetch_all(&store.inner.readers)
        .await
        .map_err(StoreError::database("looking for gaps"))?;
    for (stream, seq, before, gap) in rows {
        let lost = text::unsigned(seq - before - 1);
        let said = gap.as_deref().map(frame::gap_of).transpose()?;
        if let Some(said) = &said {
            all.push(format!(
                "{} stream {stream}: {} chunks ({} bytes) were let go before chunk {seq}: {}",
                table.what, said.chunks, said.bytes, said.why
            ));
        }
        // What the spool let go may have had numbers; only what it did not speak of is told again.
        if lost > said.map_or(0, |said| said.chunks) {
            let (from, to) = (before + 1, seq - 1);
            all.push(format!("{} stream {stream}: chunks {from} to {to} are missing", table.what));
        }
    }
    Ok(())
}

/// Streams that end without their closing mark, once nothing more can come of them.
async fn unclosed(
    store: &Store,
    run: &RunId,
    table: &Table,
    is_over: bool,
    all: &mut Vec<String>,
) -> Result<(), StoreError> {
    let query = format!(
        "SELECT stream, max(closes), min(claim), max(claim), max(seq), max(at) FROM {} \
         WHERE run = ? AND stream IS NOT NULL GROUP BY stream ORDER BY max(id) LIMIT {ROWS_MAX}",
        table.name
    );
    let streams: Vec<(String, bool, i64, i64, i64, i64)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(run.as_str())
        .fetch_all(&store.inner.readers)
        .await
        .map_err(StoreError::database("looking for unclosed streams"))?;
    let latest_begin = streams.iter().map(|stream| stream.2).max().unwrap_or(0);
    for (stream, closes, _first_claim, last_claim, seq, at) in streams {
        let followed = latest_begin > last_claim;
        if !closes && (is_over || followed) {
            all.push(format!(
                "{} stream {stream}: ends after chunk {seq} at {} without its closing mark",
                table.what,
                WallMs(at)
            ));
        }
    }
    Ok(())
}

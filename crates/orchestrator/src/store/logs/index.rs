//! Rows of log chunks.

use std::collections::HashMap;

use groundcrew_protocol::ids::RandomId;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use tokio::sync::oneshot;

use super::admit::{Hash, Key};
use super::frame::Packed;
use super::segment::Place;
use crate::store::{StoreError, text};

/// Rows whose data is on the disk, on their way into the database. Not more than a group of the log writer's.
pub(in crate::store) struct LogRowsJob {
    /// The chunks and where their data is.
    pub rows: Vec<(Packed, Place)>,
    /// Answers the log writer.
    pub reply: oneshot::Sender<Result<(), StoreError>>,
}

/// Stores the rows of all jobs.
pub(in crate::store) async fn insert_all(
    connection: &mut SqliteConnection,
    jobs: &[LogRowsJob],
) -> Result<(), StoreError> {
    for job in jobs {
        insert(connection, &job.rows).await?;
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, rows: &[(Packed, Place)]) -> Result<(), StoreError> {
    let failed = StoreError::database("storing rows of logs");
    let mut last_segment = None;
    for (packed, place) in rows {
        if last_segment.replace(place.segment) != Some(place.segment) {
            sqlx::query("INSERT OR IGNORE INTO segments (id, began) VALUES (?, ?)")
                .bind(text::signed(place.segment))
                .bind(packed.chunk.at.0)
                .execute(&mut *connection)
                .await
                .map_err(&failed)?;
        }
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO log_chunks (run, stream, seq, claim, at, sha256, lines, bytes, first_ts, last_ts, stages, \
         closes, gap, segment, offset, length) ",
    );
    query.push_values(rows, |mut row, (packed, place)| {
        let chunk = &packed.chunk;
        row.push_bind(chunk.run.as_str()).push_bind(chunk.stream.as_ref().map(RandomId::as_str));
        row.push_bind(text::signed(chunk.seq)).push_bind(text::signed(chunk.claim.0)).push_bind(chunk.at.0);
        row.push_bind(&packed.sha256[..]).push_bind(packed.lines as i64).push_bind(packed.json_bytes as i64);
        row.push_bind(&packed.ts[0]).push_bind(&packed.ts[1]).push_bind(&packed.stages);
        row.push_bind(chunk.closes).push_bind(&packed.gap);
        row.push_bind(text::signed(place.segment)).push_bind(text::signed(place.offset));
        row.push_bind(text::signed(place.length));
    });
    query.build().execute(connection).await.map(|_done| ()).map_err(failed)
}

/// Hashes of those of the chunks that are stored already.
pub(super) async fn stored(
    connection: &mut SqliteConnection,
    keys: &[Key],
) -> Result<HashMap<Key, Hash>, StoreError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new("WITH asked (run, stream, seq) AS (");
    query.push_values(keys, |mut row, (run, stream, seq)| {
        row.push_bind(run).push_bind(stream).push_bind(seq);
    });
    query.push(
        ") SELECT c.run, c.stream, c.seq, c.sha256 FROM asked CROSS JOIN log_chunks c \
         ON c.run = asked.run AND c.stream = asked.stream AND c.seq = asked.seq",
    );
    let rows: Vec<(String, String, i64, Vec<u8>)> = query
        .build_query_as()
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("looking for chunks of log that are stored"))?;
    let hash = |bytes: Vec<u8>| Hash::try_from(bytes).unwrap_or_default();
    Ok(rows.into_iter().map(|(run, stream, seq, sha256)| ((run, stream, seq), hash(sha256))).collect())
}

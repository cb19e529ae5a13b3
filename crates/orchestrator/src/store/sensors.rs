//! Batches of sensor readings, stored once per (run, stream, seq).

use groundcrew_protocol::ids::{ClaimNumber, RandomId, RunId};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogGap, SensorSample};

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use tokio::sync::oneshot;

use super::writer::Job;
use super::{Store, StoreError, Taken, text};

/// zstd's fastest level: readings are short numbers under long names, and shrink to a tenth with it.
const ZSTD_LEVEL: i32 = 1;
/// A batch that claims to be larger when unpacked is not ours.
const UNPACKED_BYTES_MAX: usize = 4 * groundcrew_protocol::limits::BODY_BYTES_MAX;

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
    /// What the spool had to let go before these readings.
    pub gap: Option<LogGap>,
    /// The closing mark.
    pub closes: bool,
}

impl Store {
    /// Stores a batch.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn append_sensors(&self, batch: SensorBatch) -> Result<Taken, StoreError> {
        let (reply, answered) = oneshot::channel();
        let job = pack(batch, reply)?;
        self.inner.writer.send(Job::Sensors(job)).await?;
        answered.await.map_err(|_dropped| StoreError::Closed)?
    }

    /// All readings of a run, in order of arrival.
    ///
    /// # Errors
    /// Those of the database, and [`StoreError::Unreadable`].
    pub async fn sensors(&self, run: &RunId) -> Result<Vec<SensorSample>, StoreError> {
        let rows: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT data FROM sensor_batches WHERE run = ? ORDER BY id")
                .bind(run.as_str())
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading sensors"))?;
        let mut samples = Vec::new();
        for data in rows {
            samples.append(&mut unpack(&data)?);
        }
        Ok(samples)
    }
}

/// A batch on its way into the database.
pub(super) struct SensorJob {
    run: RunId,
    stream: Option<RandomId>,
    seq: i64,
    claim: i64,
    at: i64,
    sha256: [u8; 32],
    samples: i64,
    gap: Option<String>,
    closes: bool,
    data: Vec<u8>,
    /// Answers its caller.
    pub reply: oneshot::Sender<Result<Taken, StoreError>>,
}

fn pack(
    batch: SensorBatch,
    reply: oneshot::Sender<Result<Taken, StoreError>>,
) -> Result<SensorJob, StoreError> {
    let json = text::to_json("readings", &batch.samples)?;
    let gap = batch.gap.as_ref().map(|gap| text::to_json("a gap", gap)).transpose()?;
    let mut hash = Sha256::new();
    hash.update(json.as_bytes());
    // A batch without a gap has the hash that it had when there was no word for one.
    hash.update(gap.as_deref().unwrap_or_default());
    hash.update([u8::from(batch.closes)]);
    let data = zstd::bulk::compress(json.as_bytes(), ZSTD_LEVEL)
        .map_err(|error| StoreError::Unreadable { what: "readings".into(), why: error.to_string() })?;
    Ok(SensorJob {
        run: batch.run,
        stream: batch.stream,
        seq: text::signed(batch.seq),
        claim: text::signed(batch.claim.0),
        at: batch.at.0,
        sha256: hash.finalize().into(),
        samples: batch.samples.len() as i64,
        gap,
        closes: batch.closes,
        data,
        reply,
    })
}

fn unpack(data: &[u8]) -> Result<Vec<SensorSample>, StoreError> {
    let unreadable = |why: String| StoreError::Unreadable { what: "a batch of readings".into(), why };
    let json =
        zstd::bulk::decompress(data, UNPACKED_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))
}

type Key<'a> = (&'a str, &'a str, i64);

/// Stores batches that are new and says what became of each.
pub(super) async fn insert_all(
    connection: &mut SqliteConnection,
    jobs: &[SensorJob],
) -> Result<Vec<Taken>, StoreError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let stored = stored(connection, jobs).await?;
    let mut known: HashMap<Key<'_>, [u8; 32]> = HashMap::new();
    for (run, stream, seq, sha256) in &stored {
        let sha256 = <[u8; 32]>::try_from(sha256.as_slice()).unwrap_or_default();
        known.insert((run, stream, *seq), sha256);
    }
    let mut taken = Vec::with_capacity(jobs.len());
    let mut new = Vec::new();
    for job in jobs {
        let Some(stream) = &job.stream else {
            new.push(job);
            taken.push(Taken::First);
            continue;
        };
        let key = (job.run.as_str(), stream.as_str(), job.seq);
        taken.push(match known.get(&key) {
            Some(sha256) if *sha256 == job.sha256 => Taken::Repeated,
            Some(_other) => Taken::OtherContent,
            None => {
                known.insert(key, job.sha256);
                new.push(job);
                Taken::First
            }
        });
    }
    if new.is_empty() {
        return Ok(taken);
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO sensor_batches (run, stream, seq, claim, at, sha256, samples, gap, closes, data) ",
    );
    query.push_values(new, |mut row, job| {
        row.push_bind(job.run.as_str()).push_bind(job.stream.as_ref().map(RandomId::as_str));
        row.push_bind(job.seq).push_bind(job.claim).push_bind(job.at).push_bind(&job.sha256[..]);
        row.push_bind(job.samples).push_bind(&job.gap).push_bind(job.closes).push_bind(&job.data[..]);
    });
    query.build().execute(connection).await.map_err(StoreError::database("storing readings"))?;
    Ok(taken)
}

async fn stored(
    connection: &mut SqliteConnection,
    jobs: &[SensorJob],
) -> Result<Vec<(String, String, i64, Vec<u8>)>, StoreError> {
    let named: Vec<_> = jobs.iter().filter_map(|job| Some((job, job.stream.as_ref()?))).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new("WITH asked (run, stream, seq) AS (");
    query.push_values(named, |mut row, (job, stream)| {
        row.push_bind(job.run.as_str()).push_bind(stream.as_str()).push_bind(job.seq);
    });
    query.push(
        ") SELECT s.run, s.stream, s.seq, s.sha256 FROM asked CROSS JOIN sensor_batches s \
         ON s.run = asked.run AND s.stream = asked.stream AND s.seq = asked.seq",
    );
    query
        .build_query_as()
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("looking for readings that are stored"))
}

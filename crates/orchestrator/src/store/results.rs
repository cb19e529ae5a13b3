//! Results of attempts: the one that stands, and evidence beside it.

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, RunId, Sha256Hex};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::ResultRequest;

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};

use super::{Store, StoreError, text};

/// Rows of one statement: nine values each, well under SQLite's 32,766.
const ROWS_MAX: usize = 500;

/// Rows of evidence that are kept of one attempt; more are counted.
pub const EVIDENCE_PER_ATTEMPT_MAX: u32 = 16;
/// Rows of evidence that are kept of one run; more are counted.
pub const EVIDENCE_PER_RUN_MAX: u32 = 512;

/// What a stored result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// The first of its attempt: it stands.
    First,
    /// A stage that the orchestrator resolved itself: it stands.
    Own,
    /// Its attempt had one already.
    Repeated,
    /// Its attempt was replaced, or its run had ended.
    Late,
}

/// A result that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewResultRow {
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// What it is.
    pub kind: ResultKind,
    /// When it came.
    pub at: WallMs,
    /// What the agent sent; absent for the orchestrator's own.
    pub request: Option<Box<ResultRequest>>,
    /// How the orchestrator judged it.
    pub judged: Option<Judged>,
}

/// A stored result.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResult {
    /// Its number, in order of arrival.
    pub id: u64,
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// What it is.
    pub kind: ResultKind,
    /// The sender's claim; 0 for the orchestrator's own.
    pub claim: ClaimNumber,
    /// When it came.
    pub at: WallMs,
    /// What the agent sent; absent for the orchestrator's own.
    pub request: Option<Box<ResultRequest>>,
    /// How the orchestrator judged it.
    pub judged: Option<Judged>,
}

impl ResultKind {
    fn as_str(self) -> &'static str {
        match self {
            ResultKind::First => "first",
            ResultKind::Own => "own",
            ResultKind::Repeated => "repeated",
            ResultKind::Late => "late",
        }
    }

    fn parse(word: &str) -> Result<ResultKind, StoreError> {
        let kinds = [ResultKind::First, ResultKind::Own, ResultKind::Repeated, ResultKind::Late];
        kinds.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| StoreError::Unreadable {
            what: "the kind of a result".into(),
            why: format!("found {word:?}, expected first, own, repeated or late"),
        })
    }
}

impl Store {
    /// The results that stand, of all attempts of a run, in order of arrival.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn results(&self, run: &RunId) -> Result<Vec<StoredResult>, StoreError> {
        self.results_where(run, "kind IN ('first', 'own')").await
    }

    /// Evidence of a run: repeated and late results, in order of arrival, and how many more came than are kept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn evidence(&self, run: &RunId) -> Result<(Vec<StoredResult>, u64), StoreError> {
        let kept = self.results_where(run, "kind IN ('repeated', 'late')").await?;
        let dropped: Option<i64> = sqlx::query_scalar("SELECT dropped FROM evidence_dropped WHERE run = ?")
            .bind(run.as_str())
            .fetch_optional(&self.inner.readers)
            .await
            .map_err(StoreError::database("counting evidence"))?;
        Ok((kept, text::unsigned(dropped.unwrap_or(0))))
    }

    async fn results_where(&self, run: &RunId, which: &'static str) -> Result<Vec<StoredResult>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT id, stage, attempt, kind, claim, at, packed, request, judged FROM results WHERE run = ",
        );
        query.push_bind(run.as_str()).push(" AND ").push(which).push(" ORDER BY id");
        let rows: Vec<Row> = query
            .build_query_as()
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading results"))?;
        rows.into_iter().map(stored_result).collect()
    }
}

type Row = (i64, String, i64, String, i64, i64, Option<Vec<u8>>, Option<String>, Option<String>);

/// What the agent sent, and how it was judged.
type Texts = (Option<Box<ResultRequest>>, Option<Judged>);

fn stored_result(row: Row) -> Result<StoredResult, StoreError> {
    let (id, stage, attempt, kind, claim, at, packed, request, judged) = row;
    let claim = ClaimNumber(text::unsigned(claim));
    let (mut request, judged) = match packed {
        Some(packed) => text::from_json("a result", &text::unpack("a result", &packed)?)?,
        None => before_packing(request, judged)?,
    };
    if let Some(request) = &mut request {
        request.claim = claim;
    }
    Ok(StoredResult {
        id: text::unsigned(id),
        stage: Stage::from(stage),
        attempt: Attempt(text::small(attempt)),
        kind: ResultKind::parse(&kind)?,
        claim,
        at: WallMs(at),
        request,
        judged,
    })
}

/// The texts of a row from before results were packed.
fn before_packing(request: Option<String>, judged: Option<String>) -> Result<Texts, StoreError> {
    let request = request.map(|doc| text::from_json("a result", &doc)).transpose()?;
    let judged = judged.map(|doc| text::from_json("a judged result", &doc)).transpose()?;
    Ok((request, judged))
}

/// A result as it is written.
pub(super) struct ResultBind {
    stage: String,
    attempt: i64,
    kind: ResultKind,
    claim: i64,
    made_under: i64,
    at: i64,
    sha256: Sha256Hex,
    /// [`Texts`] as JSON, packed: one says most of the other again.
    packed: Vec<u8>,
}

/// Writes results as text, outside of any transaction.
pub(super) fn bind_all(rows: Vec<NewResultRow>) -> Result<Vec<ResultBind>, StoreError> {
    rows.into_iter().map(bind).collect()
}

fn bind(row: NewResultRow) -> Result<ResultBind, StoreError> {
    let (mut claim, mut made_under) = (ClaimNumber(0), ClaimNumber(0));
    let request = match row.request {
        None => None,
        Some(mut request) => {
            // The same outcome may be sent again under a later claim: the sender is no part of its identity.
            claim = std::mem::take(&mut request.claim);
            made_under = request.made_under;
            Some(text::to_json("a result", &request)?)
        }
    };
    let judged = row.judged.map(|judged| text::to_json("a judged result", &judged)).transpose()?;
    let (sent, said) = (request.as_deref().unwrap_or("null"), judged.as_deref().unwrap_or("null"));
    let packed = text::pack(&format!("[{sent},{said}]"));
    Ok(ResultBind {
        stage: row.stage.to_string(),
        attempt: i64::from(row.attempt.0),
        kind: row.kind,
        claim: text::signed(claim.0),
        made_under: text::signed(made_under.0),
        at: row.at.0,
        sha256: Sha256Hex::of(request.as_deref().unwrap_or_default().as_bytes()),
        packed,
    })
}

const INSERT: &str =
    "INSERT INTO results (run, stage, attempt, kind, claim, made_under, at, sha256, packed) ";

/// Stores results: those that stand in few statements, evidence one by one because it is counted.
pub(super) async fn insert_all(
    connection: &mut SqliteConnection,
    results: &[(&RunId, &ResultBind)],
) -> Result<(), StoreError> {
    let of_kind = |kind: ResultKind| results.iter().filter(move |(_, row)| row.kind == kind);
    let first: Vec<_> = of_kind(ResultKind::First).collect();
    for part in first.chunks(ROWS_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(INSERT);
        query.push_values(part, |row, (run, result)| push(row, run, result));
        query.build().execute(&mut *connection).await.map_err(StoreError::database("storing results"))?;
    }
    let own: Vec<_> = of_kind(ResultKind::Own).collect();
    for part in own.chunks(ROWS_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new(INSERT);
        query.push_values(part, |row, (run, result)| push(row, run, result));
        // A stage of the orchestrator's own may be resolved again within one attempt; its latest verdict stands.
        query.push(
            " ON CONFLICT (run, stage, attempt) WHERE kind IN ('first', 'own') \
             DO UPDATE SET packed = excluded.packed, judged = NULL, at = excluded.at WHERE kind = 'own'",
        );
        query.build().execute(&mut *connection).await.map_err(StoreError::database("storing own results"))?;
    }
    for kind in [ResultKind::Repeated, ResultKind::Late] {
        for (run, result) in of_kind(kind) {
            keep_evidence(connection, run, result).await?;
        }
    }
    Ok(())
}

fn push(mut row: sqlx::query_builder::Separated<'_, Sqlite, &str>, run: &RunId, result: &ResultBind) {
    row.push_bind(run.as_str()).push_bind(&result.stage).push_bind(result.attempt);
    row.push_bind(result.kind.as_str()).push_bind(result.claim).push_bind(result.made_under);
    row.push_bind(result.at).push_bind(result.sha256.as_str());
    row.push_bind(&result.packed);
}

/// Keeps evidence unless the same is kept already; past the limits it is only counted.
async fn keep_evidence(
    connection: &mut SqliteConnection,
    run: &RunId,
    result: &ResultBind,
) -> Result<(), StoreError> {
    let failed = StoreError::database("storing evidence");
    let (same, of_attempt, of_run): (i64, i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(stage = ?2 AND attempt = ?3 AND sha256 = ?4), 0), \
         coalesce(sum(stage = ?2 AND attempt = ?3 AND kind IN ('repeated', 'late')), 0), \
         coalesce(sum(kind IN ('repeated', 'late')), 0) FROM ( \
         SELECT stage, attempt, sha256, kind FROM results WHERE run = ?1 AND kind IN ('first', 'own') UNION ALL \
         SELECT stage, attempt, sha256, kind FROM results WHERE run = ?1 AND kind IN ('repeated', 'late'))",
    )
    .bind(run.as_str())
    .bind(&result.stage)
    .bind(result.attempt)
    .bind(result.sha256.as_str())
    .fetch_one(&mut *connection)
    .await
    .map_err(&failed)?;
    if same > 0 {
        return Ok(());
    }
    if of_attempt >= i64::from(EVIDENCE_PER_ATTEMPT_MAX) || of_run >= i64::from(EVIDENCE_PER_RUN_MAX) {
        let count = "INSERT INTO evidence_dropped (run, dropped) VALUES (?, 1) \
                     ON CONFLICT (run) DO UPDATE SET dropped = dropped + 1";
        sqlx::query(count).bind(run.as_str()).execute(connection).await.map_err(failed)?;
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new(INSERT);
    query.push_values([(run, result)], |row, (run, result)| push(row, run, result));
    query.build().execute(connection).await.map(|_done| ()).map_err(failed)
}

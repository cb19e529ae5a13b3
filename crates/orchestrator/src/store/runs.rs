//! Run documents: changed by closures inside the writer, read by anyone.

use groundcrew_protocol::ids::{NodeName, ProfileName, RunId, Sha256Hex};
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;

use tokio::sync::oneshot;

use super::unit::{Decided, RunJob};
use super::writer::Job;
use super::{NewAudit, NewEventRow, NewResultRow, PackageKey, RunDoc, Store, StoreError, events, text};

/// Runs of one part of the list.
const RUNS_PAGE_MAX: u32 = 500;
/// A run's columns that make a [`StoredRun`]: id, version, document, restored.
pub(super) type RunRow = (String, i64, Vec<u8>, bool);

/// A run as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its id.
    pub id: RunId,
    /// Raised by one with each change.
    pub version: u64,
    /// The document.
    pub doc: RunDoc,
    /// True where the store was restored from a backup and the run was not told yet.
    pub restored: bool,
}

/// What of a run is kept in columns of its own, to be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunColumns {
    /// Its node.
    pub node: NodeName,
    /// Its profile.
    pub profile: ProfileName,
    /// Where it stands.
    pub state: State,
    /// When it was made.
    pub created: WallMs,
    /// When it was last changed.
    pub updated: WallMs,
    /// When it ended.
    pub ended: Option<WallMs>,
    /// True where it has ended, and somebody is still to be told of a shutdown.
    pub owes_notices: bool,
    /// SHA-256 of its boot token.
    pub boot_token: Sha256Hex,
    /// SHA-256 of the current claim's run token.
    pub run_token: Option<Sha256Hex>,
    /// The packages of the store that it uses; the same for as long as it is there.
    pub packages: Vec<PackageKey>,
}

/// Everything that is to land together for one change of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunWrite {
    /// The document afterwards; `None` where the run itself stays as it is.
    pub doc: Option<(RunDoc, RunColumns)>,
    /// Events, in order.
    pub events: Vec<NewEventRow>,
    /// An operator's part in it.
    pub audit: Option<NewAudit>,
    /// Results to keep.
    pub results: Vec<NewResultRow>,
    /// True where the run has now been told that the store was restored.
    pub tells_restored: bool,
}

/// Whether there is such a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunLookup {
    /// Here it is.
    Found(StoredRun),
    /// It ended and was deleted. Answered with 410.
    Gone,
    /// There never was one. Answered with 404.
    Never,
}

/// A part of the list of runs, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsPage {
    /// The runs.
    pub runs: Vec<StoredRun>,
    /// Hand this in for the next part; `None` at the end.
    pub next: Option<RunId>,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Claiming.
    Boot,
    /// Every call of an agent's.
    Run,
}

/// A run whose token was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOwner {
    /// The run.
    pub run: RunId,
    /// Which of its tokens it is.
    pub kind: TokenKind,
}

impl Store {
    /// Changes a run: `decide` is given the run as it stands (`None`: there is none) and says what is to land,
    /// with a value for the caller. It is called on the writer's thread, must not block and may read a clock.
    ///
    /// The answer comes after the commit that holds the change, or, where `decide` refused or wanted nothing
    /// written, after the commit of everything that it was shown. Events come back with their numbers.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where another process changed the run meanwhile, [`StoreError::Exists`] where a new
    /// run's id is taken by a deleted run, [`StoreError::Panicked`], and errors of the database. The inner error is
    /// `decide`'s own.
    pub async fn change_run<T, E, F>(
        &self,
        run: RunId,
        decide: F,
    ) -> Result<Result<(T, Vec<EventView>), E>, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(Option<&StoredRun>) -> Result<(RunWrite, T), E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let decide = move |shown: Result<Option<&StoredRun>, StoreError>| {
            // Whoever no longer waits for an answer does not get one; the change lands all the same.
            let shown = match shown {
                Ok(shown) => shown,
                Err(failed) => {
                    let _gone = answer.send(Err(failed));
                    return None;
                }
            };
            Some(match decide(shown) {
                Ok((write, value)) => Decided {
                    write: Some(write),
                    reply: Box::new(move |landed| {
                        let _gone = answer.send(landed.map(|events| Ok((value, events))));
                    }),
                },
                Err(refused) => Decided {
                    write: None,
                    reply: Box::new(move |landed| {
                        let _gone = answer.send(landed.map(|_events| Err(refused)));
                    }),
                },
            })
        };
        self.inner.writer.send(Job::Run(RunJob { run: run.clone(), decide: Box::new(decide) })).await?;
        answered.await.map_err(|_dropped| StoreError::Panicked { run })?
    }

    /// A run.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run(&self, run: &RunId) -> Result<RunLookup, StoreError> {
        let found: Option<RunRow> =
            sqlx::query_as("SELECT id, version, doc, restored FROM runs WHERE id = ?")
                .bind(run.as_str())
                .fetch_optional(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading a run"))?;
        if let Some(row) = found {
            return Ok(RunLookup::Found(stored_run(row)?));
        }
        let gone: Option<i64> = sqlx::query_scalar("SELECT at FROM runs_gone WHERE id = ?")
            .bind(run.as_str())
            .fetch_optional(&self.inner.readers)
            .await
            .map_err(StoreError::database("looking for a deleted run"))?;
        Ok(if gone.is_some() { RunLookup::Gone } else { RunLookup::Never })
    }

    /// Runs, newest first, at most `limit` (1 to 500), of one node or of all; `after` is [`RunsPage::next`] of the
    /// part before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs(
        &self,
        node: Option<&NodeName>,
        after: Option<&RunId>,
        limit: u32,
    ) -> Result<RunsPage, StoreError> {
        let limit = text::limit(limit, RUNS_PAGE_MAX);
        // A run that was deleted since the part before ends the list: its place is not known any more.
        let before = match after {
            None => (i64::MAX, String::new()),
            Some(after) => {
                let found: Option<i64> = sqlx::query_scalar("SELECT created FROM runs WHERE id = ?")
                    .bind(after.as_str())
                    .fetch_optional(&self.inner.readers)
                    .await
                    .map_err(StoreError::database("listing runs"))?;
                let Some(created) = found else {
                    return Ok(RunsPage { runs: Vec::new(), next: None });
                };
                (created, after.as_str().to_owned())
            }
        };
        let mut query =
            sqlx::QueryBuilder::<sqlx::Sqlite>::new("SELECT id, version, doc, restored FROM runs WHERE ");
        if let Some(node) = node {
            query.push("node = ").push_bind(node.as_str()).push(" AND ");
        }
        query.push("(created, id) < (").push_bind(before.0).push(", ").push_bind(before.1);
        query.push(") ORDER BY created DESC, id DESC LIMIT ").push_bind(limit);
        let rows: Vec<RunRow> = query
            .build_query_as()
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("listing runs"))?;
        let full = rows.len() as i64 == limit;
        let runs = rows.into_iter().map(stored_run).collect::<Result<Vec<_>, _>>()?;
        let next = runs.last().filter(|_run| full).map(|run| run.id.clone());
        Ok(RunsPage { runs, next })
    }

    /// Runs that have not ended, in order of their ids, at most `limit` after `after`; for the start of the server.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_going(&self, after: Option<&RunId>, limit: u32) -> Result<Vec<StoredRun>, StoreError> {
        let query =
            "SELECT id, version, doc, restored FROM runs WHERE ended IS NULL AND id > ? ORDER BY id LIMIT ?";
        self.runs_after(query, after, limit, "listing runs that have not ended").await
    }

    /// Runs that have ended, with somebody still to be told of a shutdown; as [`runs_going`](Self::runs_going).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_owing(&self, after: Option<&RunId>, limit: u32) -> Result<Vec<StoredRun>, StoreError> {
        let query = "SELECT id, version, doc, restored FROM runs WHERE owes_notices = 1 AND id > ? ORDER BY id LIMIT ?";
        self.runs_after(query, after, limit, "listing ended runs with notices to send").await
    }

    async fn runs_after(
        &self,
        query: &'static str,
        after: Option<&RunId>,
        limit: u32,
        doing: &'static str,
    ) -> Result<Vec<StoredRun>, StoreError> {
        let rows: Vec<RunRow> = sqlx::query_as(query)
            .bind(after.map_or("", |id| id.as_str()))
            .bind(text::limit(limit, RUNS_PAGE_MAX))
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database(doing))?;
        rows.into_iter().map(stored_run).collect()
    }

    /// Runs that have not been told that the store was restored. `run::advance` with `Input::Restored` tells them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_restored(&self) -> Result<Vec<RunId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM runs WHERE restored = 1 ORDER BY id")
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("listing restored runs"))?;
        ids.iter().map(|id| text::parse("the id of a run", id)).collect()
    }

    /// Whose token has this hash. Several only if an agent chose another's; the caller compares with the run of
    /// the path.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn token_owners(&self, token: &Sha256Hex) -> Result<Vec<TokenOwner>, StoreError> {
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT id, 1 FROM runs WHERE run_token = ?1 UNION ALL SELECT id, 0 FROM runs WHERE boot_token = ?1 LIMIT 16",
        )
        .bind(token.as_str())
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("looking for a token"))?;
        rows.into_iter()
            .map(|(id, is_run)| {
                let kind = if is_run { TokenKind::Run } else { TokenKind::Boot };
                Ok(TokenOwner { run: text::parse("the id of a run", &id)?, kind })
            })
            .collect()
    }

    /// Deletes a run that has ended, with all that is kept of it. False where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where it has not ended, and those of the database.
    pub async fn delete_run(&self, run: &RunId, audit: NewAudit) -> Result<bool, StoreError> {
        let run = run.clone();
        self.inner
            .writer
            .small_on_runs(move |connection| {
                Box::pin(async move {
                    let ended: Option<Option<i64>> =
                        sqlx::query_scalar("SELECT ended FROM runs WHERE id = ?")
                            .bind(run.as_str())
                            .fetch_optional(&mut *connection)
                            .await
                            .map_err(StoreError::database("reading a run"))?;
                    match ended {
                        None => return Ok(false),
                        Some(None) => {
                            return Err(StoreError::InUse(format!(
                                "run {run} has not ended; cancel it first"
                            )));
                        }
                        Some(Some(_at)) => {}
                    }
                    delete(connection, &run, audit.at).await?;
                    events::insert_audits(connection, [&audit].into_iter()).await?;
                    Ok(true)
                })
            })
            .await
    }
}

/// Deletes a run and every row of it; files follow with the next sweep.
pub(super) async fn delete(
    connection: &mut sqlx::SqliteConnection,
    run: &RunId,
    at: WallMs,
) -> Result<(), StoreError> {
    let failed = StoreError::database("deleting a run");
    for statement in [
        "DELETE FROM log_chunks WHERE run = ?",
        "DELETE FROM sensor_batches WHERE run = ?",
        "DELETE FROM artifacts WHERE run = ?",
        // Each by the index that holds its kinds.
        "DELETE FROM results WHERE run = ? AND kind IN ('first', 'own')",
        "DELETE FROM results WHERE run = ? AND kind IN ('repeated', 'late')",
        "DELETE FROM evidence_dropped WHERE run = ?",
        "DELETE FROM swept WHERE run = ?",
        "DELETE FROM events WHERE run = ?",
        "DELETE FROM runs WHERE id = ?",
    ] {
        sqlx::query(statement).bind(run.as_str()).execute(&mut *connection).await.map_err(&failed)?;
    }
    sqlx::query("INSERT OR REPLACE INTO runs_gone (id, at) VALUES (?, ?)")
        .bind(run.as_str())
        .bind(at.0)
        .execute(connection)
        .await
        .map(|_done| ())
        .map_err(failed)
}

pub(super) fn stored_run((id, version, doc, restored): RunRow) -> Result<StoredRun, StoreError> {
    let id = text::parse("the id of a run", &id)?;
    let doc = text::unpack("a run", &doc)?;
    Ok(StoredRun { id, version: text::unsigned(version), doc: RunDoc::of(doc), restored })
}

//! Events of runs and the audit trail of operators.

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};

use super::{Store, StoreError, text};

/// Rows of one statement: eight values each, well under SQLite's 32,766.
const ROWS_MAX: usize = 1_000;
/// Rows of one part of a list.
const PAGE_MAX: u32 = 1_000;

/// An event that is to be stored; it gets its number in the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEventRow {
    /// When.
    pub at: WallMs,
    /// A word for programs.
    pub kind: String,
    /// Who caused it.
    pub actor: String,
    /// One sentence for people.
    pub text: String,
    /// The stage that it is about.
    pub stage: Option<Stage>,
    /// Where the run stood after it.
    pub state: State,
}

/// What an operator did, to be stored with its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAudit {
    /// When.
    pub at: WallMs,
    /// The operator's name.
    pub actor: String,
    /// A word: `retry`, `put_profile`, …
    pub action: String,
    /// The run that it is about.
    pub run: Option<RunId>,
    /// To what, and why; never a secret.
    pub text: String,
}

/// A row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number.
    pub id: u64,
    /// What was done.
    pub audit: NewAudit,
}

impl Store {
    /// Events of one run, or of all, with a number above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events(
        &self,
        run: Option<&RunId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventView>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT id, run, at, kind, actor, text, stage, state FROM events WHERE ",
        );
        if let Some(run) = run {
            query.push("run = ").push_bind(run.as_str()).push(" AND ");
        }
        query.push("id > ").push_bind(text::signed(after));
        query.push(" ORDER BY id LIMIT ").push_bind(text::limit(limit, PAGE_MAX));
        let rows: Vec<EventRow> = query
            .build_query_as()
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading events"))?;
        rows.into_iter().map(event_view).collect()
    }

    /// The number of the newest event; 0 where there was never one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn last_event(&self) -> Result<u64, StoreError> {
        let number: i64 =
            sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")
                .fetch_one(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading the number of the last event"))?;
        Ok(text::unsigned(number))
    }

    /// The number of the oldest event that is kept of a run, where there is one: what lies before it was swept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn first_event(&self, run: &RunId) -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = sqlx::query_scalar("SELECT min(id) FROM events WHERE run = ?")
            .bind(run.as_str())
            .fetch_one(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading the number of the first event"))?;
        Ok(number.map(text::unsigned))
    }

    /// Writes a row of the audit trail that belongs to no other change.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn audit(&self, audit: NewAudit) -> Result<(), StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move { insert_audits(connection, [&audit].into_iter()).await })
            })
            .await
    }

    /// The audit trail with numbers below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn audit_rows(&self, before: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        type Row = (i64, i64, String, String, Option<String>, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, at, actor, action, run, text FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
        )
        .bind(i64::try_from(before).unwrap_or(i64::MAX))
        .bind(text::limit(limit, PAGE_MAX))
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("reading the audit trail"))?;
        rows.into_iter()
            .map(|(id, at, actor, action, run, words)| {
                let run = run.map(|run| text::parse("the run of an audit row", &run)).transpose()?;
                let audit = NewAudit { at: WallMs(at), actor, action, run, text: words };
                Ok(AuditRow { id: text::unsigned(id), audit })
            })
            .collect()
    }
}

type EventRow = (i64, String, i64, String, String, String, Option<String>, String);

fn event_view((id, run, at, kind, actor, words, stage, state): EventRow) -> Result<EventView, StoreError> {
    Ok(EventView {
        id: text::unsigned(id),
        run: text::parse("the run of an event", &run)?,
        at: WallMs(at),
        kind,
        actor,
        text: words,
        stage: stage.map(Stage::from),
        state: State::from(state),
    })
}

/// Gives events their numbers.
pub(super) fn number(run: &RunId, events: &[NewEventRow], last_event: &mut u64) -> Vec<EventView> {
    let numbered = events.iter().map(|event| {
        *last_event += 1;
        EventView {
            id: *last_event,
            run: run.clone(),
            at: event.at,
            kind: event.kind.clone(),
            actor: event.actor.clone(),
            text: event.text.clone(),
            stage: event.stage.clone(),
            state: event.state.clone(),
        }
    });
    numbered.collect()
}

/// Stores numbered events.
pub(super) async fn insert_all(
    connection: &mut SqliteConnection,
    events: impl Iterator<Item = &EventView>,
) -> Result<(), StoreError> {
    let events: Vec<&EventView> = events.collect();
    for part in events.chunks(ROWS_MAX) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO events (id, run, at, kind, actor, text, stage, state) ");
        query.push_values(part, |mut row, event| {
            row.push_bind(text::signed(event.id)).push_bind(event.run.as_str()).push_bind(event.at.0);
            row.push_bind(&event.kind).push_bind(&event.actor).push_bind(&event.text);
            row.push_bind(event.stage.as_ref().map(Stage::to_string)).push_bind(event.state.to_string());
        });
        query.build().execute(&mut *connection).await.map_err(StoreError::database("storing events"))?;
    }
    Ok(())
}

/// Stores rows of the audit trail.
pub(super) async fn insert_audits(
    connection: &mut SqliteConnection,
    audits: impl Iterator<Item = &NewAudit>,
) -> Result<(), StoreError> {
    let audits: Vec<&NewAudit> = audits.collect();
    for part in audits.chunks(ROWS_MAX) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO audit (at, actor, action, run, text) ");
        query.push_values(part, |mut row, audit| {
            row.push_bind(audit.at.0).push_bind(&audit.actor).push_bind(&audit.action);
            row.push_bind(audit.run.as_ref().map(RunId::as_str)).push_bind(&audit.text);
        });
        query.build().execute(&mut *connection).await.map_err(StoreError::database("storing audit rows"))?;
    }
    Ok(())
}

//! Changes of runs inside the writer: load, decide, write.
//!
//! All jobs of one run in a commit form a [`Unit`]: each sees what the one before it made of the run, and they
//! land or fail together.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::EventView;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};

use super::cache::{KnownRun, RunCache};
use super::results::{self, ResultBind};
use super::{NewAudit, NewEventRow, RunColumns, RunWrite, StoreError, StoredRun, events, run_packages, text};

/// Answers one caller, with its events or with why nothing landed.
pub(super) type Reply = Box<dyn FnOnce(Result<Vec<EventView>, StoreError>) + Send>;

/// A change of a run, waiting for its turn.
pub(super) struct RunJob {
    /// The run.
    pub run: RunId,
    /// Decides. Given an error it answers its caller with it, and returns nothing.
    #[expect(clippy::type_complexity, reason = "it stands here alone")]
    pub decide: Box<dyn FnOnce(Result<Option<&StoredRun>, StoreError>) -> Option<Decided> + Send>,
}

/// What a job wants to land, if anything, and how it is answered.
pub(super) struct Decided {
    /// What is to land; nothing where it was refused.
    pub write: Option<RunWrite>,
    /// Answers its caller.
    pub reply: Reply,
}

/// All jobs of one run in a commit.
pub(super) struct Unit {
    /// What the database has; `None`: no such run.
    base: Option<Base>,
    /// The run after the jobs so far.
    current: Option<StoredRun>,
    /// Its columns, once a job has changed it.
    columns: Option<RunColumns>,
    /// Its document as it is stored, likewise.
    packed: Vec<u8>,
    tells_restored: bool,
    /// The run that all of it is about.
    pub run: RunId,
    jobs: Vec<Landing>,
}

/// A run's row as the database has it, but for the document.
struct Base {
    version: u64,
    keys: Arc<Keys>,
}

/// The columns of a run that indexes are made of. They seldom change.
#[derive(Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Keys {
    node: String,
    ended: Option<i64>,
    owes_notices: bool,
    boot_token: String,
    run_token: Option<String>,
}

/// A run as it is loaded for a decision.
#[derive(sqlx::FromRow)]
struct LoadedRow {
    id: String,
    version: i64,
    doc: Vec<u8>,
    restored: bool,
    #[sqlx(flatten)]
    keys: Keys,
}

/// How a run stands after a commit; nothing where the database must be asked.
pub(super) type Stand = (RunId, Option<KnownRun>);

/// One job's part of a unit.
struct Landing {
    events: Vec<NewEventRow>,
    audit: Option<NewAudit>,
    results: Vec<ResultBind>,
    reply: Reply,
}

impl Unit {
    fn of(run: RunId, known: Option<KnownRun>) -> Unit {
        let base = known.as_ref().map(|known| Base { version: known.run.version, keys: known.keys.clone() });
        let current = known.map(|known| known.run);
        Unit {
            base,
            current,
            columns: None,
            packed: Vec::new(),
            tells_restored: false,
            run,
            jobs: Vec::new(),
        }
    }

    /// How the run stands after a commit of this unit, which landed or did not.
    pub fn stand(&self, landed: bool) -> Stand {
        (self.run.clone(), landed.then(|| self.known()).flatten())
    }

    fn known(&self) -> Option<KnownRun> {
        let run = self.current.clone()?;
        if self.tells_restored {
            // It seldom is: the database may be asked.
            return None;
        }
        match (&self.columns, &self.base) {
            (None, None) => None,
            (None, Some(base)) => Some(KnownRun { run, keys: base.keys.clone() }),
            (Some(columns), Some(base)) if base.keys.are_of(columns) => {
                Some(KnownRun { run, keys: base.keys.clone() })
            }
            (Some(columns), _) => Some(KnownRun { run, keys: Arc::new(Keys::of(columns)) }),
        }
    }

    /// Answers all jobs of the unit.
    pub fn reply(self, outcome: Result<Vec<Vec<EventView>>, StoreError>) {
        match outcome {
            Ok(events) => {
                for (job, events) in self.jobs.into_iter().zip(events) {
                    (job.reply)(Ok(events));
                }
            }
            Err(failed) => {
                for job in self.jobs {
                    (job.reply)(Err(failed.clone()));
                }
            }
        }
    }

    fn decide(&mut self, job: RunJob) {
        let shown = self.current.as_ref();
        // A defect in one decision must not end the writer, nor harm the others of its commit. The closure owns
        // what it touches, and its caller learns of the panic by the answer that never comes.
        let Ok(Some(decided)) = catch_unwind(AssertUnwindSafe(|| (job.decide)(Ok(shown)))) else {
            return;
        };
        let mut landing =
            Landing { events: Vec::new(), audit: None, results: Vec::new(), reply: decided.reply };
        if let Some(write) = decided.write {
            match results::bind_all(write.results) {
                Ok(results) => landing.results = results,
                Err(failed) => return (landing.reply)(Err(failed)),
            }
            landing.events = write.events;
            landing.audit = write.audit;
            self.tells_restored |= write.tells_restored;
            if let Some((doc, columns)) = write.doc {
                let version = self.current.as_ref().map_or(1, |run| run.version + 1);
                let restored = !self.tells_restored && self.current.as_ref().is_some_and(|run| run.restored);
                self.packed = text::pack(doc.json());
                self.current = Some(StoredRun { id: self.run.clone(), version, doc, restored });
                self.columns = Some(columns);
            }
        }
        self.jobs.push(landing);
    }
}

/// Runs that a batch on its way to the disk concerns: what they will be is known once it has landed.
#[derive(Default)]
pub(super) struct InFlight {
    /// Runs that the batch changes.
    pub runs: HashSet<RunId>,
    /// It may change any other.
    pub touches_runs: bool,
}

/// The units of a commit while its jobs are gathered.
#[derive(Default)]
pub(super) struct Units {
    units: Vec<Unit>,
    at: HashMap<RunId, usize>,
    /// Jobs of runs that are to be loaded first, in order.
    held_back: Vec<RunJob>,
    runs_held_back: HashSet<RunId>,
}

impl Units {
    /// Lets a job decide where its run is known, and holds it back otherwise. Jobs of one run stay in order.
    pub fn take(&mut self, job: RunJob, cache: &mut RunCache, in_flight: &InFlight) {
        if let Some(at) = self.at.get(&job.run) {
            return self.units[*at].decide(job);
        }
        let must_wait = in_flight.touches_runs
            || in_flight.runs.contains(&job.run)
            || self.runs_held_back.contains(&job.run);
        match (must_wait, cache.get(&job.run)) {
            (false, Some(known)) => self.add(Unit::of(job.run.clone(), Some(known))).decide(job),
            (true, _) | (false, None) => {
                self.runs_held_back.insert(job.run.clone());
                self.held_back.push(job);
            }
        }
    }

    /// Lets the jobs decide that were held back; nothing is in flight now. Runs that are not known are loaded in one
    /// statement. Those of which nothing is to land and nobody waits for an answer are left out.
    pub async fn settle(mut self, connection: &mut SqliteConnection, cache: &mut RunCache) -> Vec<Unit> {
        let mut loading = Vec::new();
        for run in std::mem::take(&mut self.runs_held_back) {
            match cache.get(&run) {
                Some(known) => self.settled(known),
                None => loading.push(run),
            }
        }
        match load(connection, &loading).await {
            Ok(found) => found.into_iter().for_each(|known| self.settled(known)),
            Err(failed) => {
                let (lost, rest) =
                    self.held_back.into_iter().partition(|job: &RunJob| !self.at.contains_key(&job.run));
                self.held_back = rest;
                for job in lost {
                    (job.decide)(Err(failed.clone()));
                }
            }
        }
        for job in std::mem::take(&mut self.held_back) {
            match self.at.get(&job.run) {
                Some(at) => self.units[*at].decide(job),
                // There is no such run.
                None => self.add(Unit::of(job.run.clone(), None)).decide(job),
            }
        }
        self.units.retain(|unit| !unit.jobs.is_empty());
        self.units
    }

    fn settled(&mut self, known: KnownRun) {
        self.add(Unit::of(known.run.id.clone(), Some(known)));
    }

    fn add(&mut self, unit: Unit) -> &mut Unit {
        self.at.insert(unit.run.clone(), self.units.len());
        self.units.push(unit);
        self.units.last_mut().expect("it was pushed just now")
    }
}

async fn load(connection: &mut SqliteConnection, runs: &[RunId]) -> Result<Vec<KnownRun>, StoreError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT id, version, doc, restored, node, ended, owes_notices, boot_token, run_token FROM runs WHERE id IN (",
    );
    let mut ids = query.separated(", ");
    for run in runs {
        ids.push_bind(run.as_str());
    }
    query.push(")");
    let rows: Vec<LoadedRow> =
        query.build_query_as().fetch_all(connection).await.map_err(StoreError::database("reading runs"))?;
    let loaded = |LoadedRow { id, version, doc, restored, keys }| {
        let run = super::runs::stored_run((id, version, doc, restored))?;
        Ok(KnownRun { run, keys: Arc::new(keys) })
    };
    rows.into_iter().map(loaded).collect()
}

/// Writes all units inside the transaction. Events get the numbers after `last_event`.
pub(super) async fn write_all(
    connection: &mut SqliteConnection,
    units: &[Unit],
    last_event: &mut u64,
) -> Result<Vec<Vec<Vec<EventView>>>, StoreError> {
    let changed = |unit: &&Unit| unit.columns.is_some();
    let new: Vec<&Unit> = units.iter().filter(changed).filter(|unit| unit.base.is_none()).collect();
    let old: Vec<&Unit> = units.iter().filter(changed).filter(|unit| unit.base.is_some()).collect();
    insert(connection, &new).await?;
    update(connection, &old).await?;
    for unit in units.iter().filter(|unit| unit.tells_restored) {
        sqlx::query("UPDATE runs SET restored = 0 WHERE id = ?")
            .bind(unit.run.as_str())
            .execute(&mut *connection)
            .await
            .map_err(StoreError::database("noting that a run knows of the restore"))?;
    }
    let mut numbered = Vec::with_capacity(units.len());
    for unit in units {
        let jobs = unit.jobs.iter().map(|job| events::number(&unit.run, &job.events, last_event));
        numbered.push(jobs.collect::<Vec<_>>());
    }
    events::insert_all(connection, numbered.iter().flatten().flatten()).await?;
    let audits = units.iter().flat_map(|unit| &unit.jobs).filter_map(|job| job.audit.as_ref());
    events::insert_audits(connection, audits).await?;
    let results: Vec<(&RunId, &ResultBind)> = units
        .iter()
        .flat_map(|unit| unit.jobs.iter().flat_map(|job| &job.results).map(|result| (&unit.run, result)))
        .collect();
    results::insert_all(connection, &results).await?;
    Ok(numbered)
}

fn now(unit: &Unit) -> (&StoredRun, &RunColumns) {
    let run = unit.current.as_ref().expect("a changed unit has a run");
    (run, unit.columns.as_ref().expect("a changed unit has columns"))
}

async fn insert(connection: &mut SqliteConnection, units: &[&Unit]) -> Result<(), StoreError> {
    if units.is_empty() {
        return Ok(());
    }
    let mut gone = QueryBuilder::<Sqlite>::new("SELECT id FROM runs_gone WHERE id IN (");
    let mut ids = gone.separated(", ");
    for unit in units {
        ids.push_bind(unit.run.as_str());
    }
    gone.push(") LIMIT 1");
    let gone: Option<String> = gone
        .build_query_scalar()
        .fetch_optional(&mut *connection)
        .await
        .map_err(StoreError::database("looking for deleted runs"))?;
    if let Some(run) = gone {
        return Err(StoreError::Exists(format!("there was a run {run}, which was deleted")));
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO runs (id, version, node, profile, state, created, updated, ended, boot_token, run_token, doc) ",
    );
    query.push_values(units, |mut row, unit| {
        let (run, columns) = now(unit);
        row.push_bind(run.id.as_str()).push_bind(text::signed(run.version));
        row.push_bind(columns.node.as_str()).push_bind(columns.profile.as_str());
        row.push_bind(columns.state.to_string()).push_bind(columns.created.0).push_bind(columns.updated.0);
        row.push_bind(columns.ended.map(|at| at.0)).push_bind(columns.boot_token.as_str());
        row.push_bind(columns.run_token.as_ref().map(|token| token.as_str()))
            .push_bind(unit.packed.as_slice());
    });
    let stored = query.build().execute(&mut *connection).await;
    stored.map_err(StoreError::database("storing new runs"))?;
    for unit in units {
        let (run, columns) = now(unit);
        run_packages::insert(connection, &run.id, columns).await?;
    }
    Ok(())
}

/// Stores changed runs. SQLite writes every index anew that has a column in the statement, also where its value stays:
/// four pages beside the run's own. So those runs of which only the document changed go by a statement of their own.
async fn update(connection: &mut SqliteConnection, units: &[&Unit]) -> Result<(), StoreError> {
    let (same, moved): (Vec<&Unit>, Vec<&Unit>) = units.iter().copied().partition(|unit| {
        let (_run, columns) = now(unit);
        unit.base.as_ref().is_some_and(|base| base.keys.are_of(columns))
    });
    update_documents(connection, &same).await?;
    update_whole(connection, &moved).await
}

impl Keys {
    fn of(columns: &RunColumns) -> Keys {
        Keys {
            node: columns.node.to_string(),
            ended: columns.ended.map(|at| at.0),
            owes_notices: columns.owes_notices,
            boot_token: columns.boot_token.to_string(),
            run_token: columns.run_token.as_ref().map(|token| token.to_string()),
        }
    }

    fn are_of(&self, columns: &RunColumns) -> bool {
        self.node == columns.node.as_str()
            && self.ended == columns.ended.map(|at| at.0)
            && self.owes_notices == columns.owes_notices
            && self.boot_token == columns.boot_token.as_str()
            && self.run_token.as_deref() == columns.run_token.as_ref().map(|token| token.as_str())
    }
}

fn base_version(unit: &Unit) -> i64 {
    text::signed(unit.base.as_ref().expect("an old unit has a version").version)
}

/// One compare-and-set for all of them: as many rows as there are units, or nothing counts.
async fn update_documents(connection: &mut SqliteConnection, units: &[&Unit]) -> Result<(), StoreError> {
    let Some(first) = units.first() else {
        return Ok(());
    };
    let mut query = QueryBuilder::<Sqlite>::new("WITH new (id, base, version, state, updated, doc) AS (");
    query.push_values(units, |mut row, unit| {
        let (run, columns) = now(unit);
        row.push_bind(run.id.as_str()).push_bind(base_version(unit)).push_bind(text::signed(run.version));
        row.push_bind(columns.state.to_string())
            .push_bind(columns.updated.0)
            .push_bind(unit.packed.as_slice());
    });
    query.push(
        ") UPDATE runs SET version = new.version, state = new.state, updated = new.updated, doc = new.doc \
         FROM new WHERE runs.id = new.id AND runs.version = new.base",
    );
    expect_all(query, connection, units.len(), first).await
}

/// The same with every column that can change.
async fn update_whole(connection: &mut SqliteConnection, units: &[&Unit]) -> Result<(), StoreError> {
    let Some(first) = units.first() else {
        return Ok(());
    };
    let mut query = QueryBuilder::<Sqlite>::new(
        "WITH new (id, base, version, node, profile, state, updated, ended, owes_notices, boot_token, run_token, doc) AS (",
    );
    query.push_values(units, |mut row, unit| {
        let (run, columns) = now(unit);
        row.push_bind(run.id.as_str()).push_bind(base_version(unit)).push_bind(text::signed(run.version));
        row.push_bind(columns.node.as_str()).push_bind(columns.profile.as_str());
        row.push_bind(columns.state.to_string()).push_bind(columns.updated.0);
        row.push_bind(columns.ended.map(|at| at.0)).push_bind(columns.owes_notices);
        row.push_bind(columns.boot_token.as_str());
        row.push_bind(columns.run_token.as_ref().map(|token| token.as_str()))
            .push_bind(unit.packed.as_slice());
    });
    query.push(
        ") UPDATE runs SET version = new.version, node = new.node, profile = new.profile, state = new.state, \
         updated = new.updated, ended = new.ended, owes_notices = new.owes_notices, boot_token = new.boot_token, run_token = new.run_token, \
         doc = new.doc FROM new WHERE runs.id = new.id AND runs.version = new.base",
    );
    expect_all(query, connection, units.len(), first).await?;
    for unit in units {
        let (run, columns) = now(unit);
        if columns.ended.is_some() && !columns.packages.is_empty() {
            run_packages::remove(connection, &run.id).await?;
        }
    }
    Ok(())
}

async fn expect_all(
    mut query: QueryBuilder<Sqlite>,
    connection: &mut SqliteConnection,
    count: usize,
    first: &Unit,
) -> Result<(), StoreError> {
    let done =
        query.build().execute(connection).await.map_err(StoreError::database("storing changed runs"))?;
    if done.rows_affected() == count as u64 {
        Ok(())
    } else {
        // With several units the caller lands each on its own, and so finds out which one it is.
        Err(StoreError::Conflict { run: first.run.clone() })
    }
}

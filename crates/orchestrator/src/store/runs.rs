//! Run documents: changed by closures inside the writer, read by anyone.

use std::sync::Arc;

use groundcrew_protocol::ids::{NodeName, ProfileName, RunId, Sha256Hex};
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;

use super::{NewAudit, NewEventRow, NewResultRow, Store, StoreError};

/// A run as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its id.
    pub id: RunId,
    /// Raised by one with each change.
    pub version: u64,
    /// The document, JSON.
    pub doc: Arc<str>,
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
    /// SHA-256 of its boot token.
    pub boot_token: Sha256Hex,
    /// SHA-256 of the current claim's run token.
    pub run_token: Option<Sha256Hex>,
}

/// Everything that is to land together for one change of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunWrite {
    /// The document afterwards, JSON; `None` where the run itself stays as it is.
    pub doc: Option<(String, RunColumns)>,
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
        _run: RunId,
        _decide: F,
    ) -> Result<Result<(T, Vec<EventView>), E>, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(Option<&StoredRun>) -> Result<(RunWrite, T), E> + Send + 'static,
    {
        unreachable!("being written")
    }

    /// A run.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run(&self, _run: &RunId) -> Result<RunLookup, StoreError> {
        unreachable!("being written")
    }

    /// Runs, newest first, at most `limit` (1 to 500), of one node or of all; `after` is [`RunsPage::next`] of the
    /// part before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs(
        &self,
        _node: Option<&NodeName>,
        _after: Option<&RunId>,
        _limit: u32,
    ) -> Result<RunsPage, StoreError> {
        unreachable!("being written")
    }

    /// Runs that have not ended, in order of their ids, at most `limit` after `after`; for the start of the server.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_going(
        &self,
        _after: Option<&RunId>,
        _limit: u32,
    ) -> Result<Vec<StoredRun>, StoreError> {
        unreachable!("being written")
    }

    /// Runs that have not been told that the store was restored. `run::advance` with `Input::Restored` tells them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn runs_restored(&self) -> Result<Vec<RunId>, StoreError> {
        unreachable!("being written")
    }

    /// Whose token has this hash. Several only if an agent chose another's; the caller compares with the run of
    /// the path.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn token_owners(&self, _token: &Sha256Hex) -> Result<Vec<TokenOwner>, StoreError> {
        unreachable!("being written")
    }

    /// Deletes a run that has ended, with all that is kept of it. False where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where it has not ended, and those of the database.
    pub async fn delete_run(&self, _run: &RunId, _audit: NewAudit) -> Result<bool, StoreError> {
        unreachable!("being written")
    }
}

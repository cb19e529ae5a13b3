//! Results of attempts: the one that stands, and evidence beside it.

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, RunId};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::ResultRequest;

use super::{Store, StoreError};

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

impl Store {
    /// The results that stand, of all attempts of a run, in order of arrival.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn results(&self, _run: &RunId) -> Result<Vec<StoredResult>, StoreError> {
        unreachable!("being written")
    }

    /// Evidence of a run: repeated and late results, in order of arrival, and how many more came than are kept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn evidence(&self, _run: &RunId) -> Result<(Vec<StoredResult>, u64), StoreError> {
        unreachable!("being written")
    }
}

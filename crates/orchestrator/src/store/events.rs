//! Events of runs and the audit trail of operators.

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;

use super::{Store, StoreError};

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
        _run: Option<&RunId>,
        _after: u64,
        _limit: u32,
    ) -> Result<Vec<EventView>, StoreError> {
        unreachable!("being written")
    }

    /// The number of the newest event; 0 where there was never one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn last_event(&self) -> Result<u64, StoreError> {
        unreachable!("being written")
    }

    /// The number of the oldest event that is kept of a run, where there is one: what lies before it was swept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn first_event(&self, _run: &RunId) -> Result<Option<u64>, StoreError> {
        unreachable!("being written")
    }

    /// Writes a row of the audit trail that belongs to no other change.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn audit(&self, _audit: NewAudit) -> Result<(), StoreError> {
        unreachable!("being written")
    }

    /// The audit trail with numbers above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn audit_rows(&self, _after: u64, _limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        unreachable!("being written")
    }
}

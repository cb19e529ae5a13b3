//! Lands a decision: loads the run, decides, and stores run, events, audit row and results in one transaction.
//!
//! Every change of a run goes through here; handlers, deadlines and operators are only callers.

use std::sync::Arc;

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::EventView;

use super::decide::{Answer, Input, NewRun, Refused};
use super::state::{Now, Run};
use crate::store::{Store, StoreError};

/// Tells the moment for a decision about a run. Called when the decision is made, on the store's writer thread: it
/// must not block.
pub type Clock = Arc<dyn Fn(&RunId) -> Now + Send + Sync>;

/// A decision that has landed.
#[derive(Debug, Clone)]
pub struct Landed {
    /// The run afterwards.
    pub run: Arc<Run>,
    /// Version of the run afterwards: of two of these the higher is the later.
    pub version: u64,
    /// True where the run differs from before.
    pub changed: bool,
    /// What to answer.
    pub answer: Answer,
    /// Its events, as they are stored.
    pub events: Vec<EventView>,
}

/// Why a decision did not land.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// It was refused; nothing changed.
    #[error(transparent)]
    Refused(Refused),
    /// There is no such run. [`Store::run`] tells whether there was one.
    #[error("there is no run {0}")]
    NoRun(RunId),
    /// A new run's id is taken.
    #[error("there is a run {0} already")]
    Taken(RunId),
    /// The stored run cannot be read or written as JSON.
    #[error("the stored run {run} cannot be read")]
    Unreadable {
        /// The run.
        run: RunId,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The store failed; whether it landed is known only after a restart where the commit itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a run.
///
/// # Errors
/// [`AdvanceError::Taken`], and those of the store.
pub async fn create(_store: &Store, _clock: &Clock, _new: NewRun) -> Result<Landed, AdvanceError> {
    unreachable!("being written")
}

/// Decides what `input` changes of a run, and lands it.
///
/// # Errors
/// [`AdvanceError`].
pub async fn advance(
    _store: &Store,
    _clock: &Clock,
    _run: &RunId,
    _input: Input,
) -> Result<Landed, AdvanceError> {
    unreachable!("being written")
}

/// Reads a stored run.
///
/// # Errors
/// [`AdvanceError::Unreadable`].
pub fn parse(stored: &crate::store::StoredRun) -> Result<Run, AdvanceError> {
    serde_json::from_str(&stored.doc)
        .map_err(|source| AdvanceError::Unreadable { run: stored.id.clone(), source })
}

//! What is to be changed in an agent's file, given what its runtime knows: a pure function.
//!
//! ```text
//!   runtime says         file says                            becomes
//!   ended                anything of the same life            stopped or error, no activity
//!   running              stopped                              running
//!   halted               running                              stopped, no activity
//!   halted               cloning, starting, provisioning      error, no activity
//!   anything else        anything                             as it is
//! ```
//!
//! A file that a newer life of the agent has written is never touched: another pod's end is no news of this one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AgentInfo, InfoPhase, RuntimeFact, RuntimeSource, RuntimeState, cut, put_detail, set};
use crate::ids::ClaimNumber;
use crate::time::WallMs;

/// An agent's word of its own end stands for this long against a container that still runs, in milliseconds: its
/// process has things to close, and its container goes after it.
pub const SETTLE_MS: u64 = 5_000;

/// A cluster tells in whole seconds when a container ended, in milliseconds: it may have lived for so long after that.
const END_ROUNDED_MS: u64 = 1_000;

/// By what one life of an agent is told from another. What is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct AgentLife {
    /// What the runtime calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<WallMs>,
    /// Its claim, as far as it was known when the fact was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimNumber>,
    /// The boot of its machine or container, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

impl AgentLife {
    /// The life that a file speaks of.
    pub fn of(file: &AgentInfo) -> AgentLife {
        AgentLife {
            runtime_id: file.runtime_id.clone(),
            started_at: file.started_at,
            claim: file.claim,
            epoch: file.epoch.clone(),
        }
    }

    /// This, and what `other` knows besides.
    pub fn or(self, other: AgentLife) -> AgentLife {
        AgentLife {
            runtime_id: self.runtime_id.or(other.runtime_id),
            started_at: self.started_at.or(other.started_at),
            claim: self.claim.or(other.claim),
            epoch: self.epoch.or(other.epoch),
        }
    }

    /// Whether what is said of this life is also about `file`. Names of the runtime decide where both have one, the
    /// later start between two names; without them a newer claim or another epoch in the file is a newer life.
    pub fn covers(&self, file: &AgentLife) -> bool {
        if let (Some(ours), Some(theirs)) = (&self.runtime_id, &file.runtime_id) {
            return ours == theirs
                || matches!((self.started_at, file.started_at), (Some(ours), Some(theirs)) if theirs < ours);
        }
        let newer_claim = matches!((self.claim, file.claim), (Some(ours), Some(theirs)) if theirs > ours);
        let other_epoch = matches!((&self.epoch, &file.epoch), (Some(ours), Some(theirs)) if theirs != ours);
        !newer_claim && !other_epoch
    }
}

/// What is to be changed in a file. Whatever it does not name stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The new phase.
    pub phase: InfoPhase,
    /// Whether the activity is cleared: what has ended does nothing.
    pub clears_activity: bool,
    /// The new detail, where the end has a reason to tell.
    pub detail: Option<String>,
}

impl Change {
    /// Makes the change in a file's fields.
    pub fn apply(&self, fields: &mut Map<String, Value>) {
        set(fields, "phase", Some(Value::String(self.phase.as_str().to_owned())));
        if self.clears_activity && fields.contains_key("activity") {
            set(fields, "activity", Some(Value::String(String::new())));
        }
        if let Some(detail) = &self.detail {
            put_detail(fields, Some(detail));
        }
    }

    /// Makes the change in what is known of a file.
    pub fn apply_to(&self, info: &mut AgentInfo) {
        info.phase = Some(self.phase.clone());
        if self.clears_activity {
            info.activity = None;
        }
        if self.detail.is_some() {
            info.detail.clone_from(&self.detail);
        }
    }
}

/// Whether a pod's container ended before the one began that wrote the file: a pod outlives its containers, and both
/// moments are of its node's clock.
fn is_of_container_before(file: &AgentInfo, fact: &RuntimeFact) -> bool {
    let is_end = match &fact.state {
        RuntimeState::Ended { .. } => fact.source == RuntimeSource::Kubernetes,
        RuntimeState::Deferring
        | RuntimeState::Waiting { .. }
        | RuntimeState::Running
        | RuntimeState::Halted => false,
    };
    let is_same_pod = fact.life.runtime_id.is_some() && fact.life.runtime_id == file.runtime_id;
    let began_later = file.started_at.is_some_and(|began| began >= fact.at.plus(END_ROUNDED_MS));
    is_end && is_same_pod && began_later
}

/// What `fact` changes in a file that says `file`; `None` where nothing.
pub fn reconcile(file: &AgentInfo, fact: &RuntimeFact) -> Option<Change> {
    if !fact.life.covers(&AgentLife::of(file)) {
        return None;
    }
    if is_of_container_before(file, fact) {
        return None;
    }
    let phase = file.phase.as_ref();
    let change = match &fact.state {
        RuntimeState::Deferring | RuntimeState::Waiting { .. } => return None,
        RuntimeState::Ended { ending, detail, .. } => Change {
            phase: ending.phase(),
            clears_activity: true,
            // As it is read again: what is longer would be news for ever.
            detail: (!detail.is_empty()).then(|| cut(detail).to_owned()),
        },
        RuntimeState::Running => {
            let settles = file.last_seen.is_some_and(|seen| seen.plus(SETTLE_MS) > fact.at);
            if phase != Some(&InfoPhase::Stopped) || settles {
                return None;
            }
            Change { phase: InfoPhase::Running, clears_activity: false, detail: None }
        }
        RuntimeState::Halted => {
            let phase = match phase? {
                InfoPhase::Running => InfoPhase::Stopped,
                InfoPhase::Cloning | InfoPhase::Starting | InfoPhase::Provisioning => InfoPhase::Error,
                InfoPhase::Created
                | InfoPhase::Stopping
                | InfoPhase::Stopped
                | InfoPhase::Error
                | InfoPhase::Ended
                | InfoPhase::Unknown(_) => return None,
            };
            Change { phase, clears_activity: true, detail: None }
        }
    };
    let mut changed = file.clone();
    change.apply_to(&mut changed);
    (changed != *file).then_some(change)
}

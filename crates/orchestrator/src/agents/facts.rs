//! What follows from what a runtime is known to say of an agent: pure functions of facts.

use groundcrew_protocol::agent_info::{AgentInfo, RuntimeFact, RuntimeState, reconcile};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::time::WallMs;

use crate::run::runtime::RuntimeEnded;
use crate::store::AgentFact;

/// An agent that ended is shown for so long, as the store keeps it.
const ENDED_SHOWN_MS: u64 = crate::store::ENDED_AGENTS_MS;

pub(super) fn is_recent(fact: &RuntimeFact, now: WallMs) -> bool {
    fact.at.plus(ENDED_SHOWN_MS) > now
}

/// What is known after `fact` was seen: an end is final for its life, with what was known of it when it was first seen.
pub(super) fn settled(before: Option<&RuntimeFact>, fact: RuntimeFact) -> RuntimeFact {
    match before {
        Some(before) if has_ended(before) && before.life.runtime_id == fact.life.runtime_id => {
            RuntimeFact { life: fact.life.or(before.life.clone()), ..before.clone() }
        }
        Some(_) | None => fact,
    }
}

/// What a file would say, if it could be written.
pub(super) fn corrected(mut said: AgentInfo, fact: &RuntimeFact) -> AgentInfo {
    if let Some(change) = reconcile(&said, fact) {
        change.apply_to(&mut said);
    }
    said
}

/// Whether what is stored says all that `fact` does but when it was seen.
pub(super) fn is_stored(stored: &AgentFact, fact: &AgentFact) -> bool {
    let timeless =
        AgentFact { fact: RuntimeFact { at: stored.fact.at, ..fact.fact.clone() }, ..fact.clone() };
    *stored == timeless
}

pub(super) fn has_ended(fact: &RuntimeFact) -> bool {
    match fact.state {
        RuntimeState::Ended { .. } => true,
        RuntimeState::Deferring
        | RuntimeState::Waiting { .. }
        | RuntimeState::Running
        | RuntimeState::Halted => false,
    }
}

/// What a run is told of an end; `None` where there is none. The same end always has the same id.
pub(super) fn end_of(fact: &RuntimeFact, end: &str) -> Option<RuntimeEnded> {
    let id = fact.life.runtime_id.clone()?;
    match &fact.state {
        RuntimeState::Ended { ending, exit, reason, .. } => Some(RuntimeEnded {
            runtime: AgentRuntime { source: fact.source.clone(), id },
            end: end.to_owned(),
            ending: *ending,
            reason: reason.clone(),
            exit: *exit,
            at: fact.at,
        }),
        RuntimeState::Deferring
        | RuntimeState::Waiting { .. }
        | RuntimeState::Running
        | RuntimeState::Halted => None,
    }
}
